"""The releases at their real sizes: counted, and read from files as large as theirs.

The slow ones read and write gigabytes, and only when asked to: `MINDSEYE_FULL_SIZE=1 pytest
tests/parity/test_full_size.py`, some minutes, 8 GB of memory and 7 GB of disk for XL. The original single files are
sparse: their tables of contents are real, their numbers a hole full of zeros.
"""

import dataclasses
import gzip
import json
import os
import time
from pathlib import Path

import pytest
import torch

from mindseye.checkpoints import layouts
from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import diffusers_json, transformers
from mindseye.checkpoints.load import load_foreign, network_of
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile, identify
from mindseye.networks.unet import SD1, UNet

pytestmark = pytest.mark.parity

asked = pytest.mark.skipif(not os.environ.get("MINDSEYE_FULL_SIZE"), reason="gigabytes: set MINDSEYE_FULL_SIZE=1")

MANIFESTS = Path(__file__).parents[1] / "manifests"
COUNTS = {
    ("sd1", "unet"): (859_520_964, 686),
    ("sd1", "vae"): (83_653_863, 248),
    ("sd1", "text_encoder"): (123_060_480, 196),
    ("sd1-inpaint", "unet"): (859_535_364, 686),
    ("sd2", "unet"): (865_910_724, 686),
    ("sd2", "text_encoder"): (340_387_840, 372),
    ("sdxl", "unet"): (2_567_463_684, 1680),
    ("sdxl", "text_encoder_2"): (694_659_840, 517),
    ("sdxl-refiner", "unet"): (2_259_526_660, 1220),
}


def networks(release: str):
    """Every network of a release on meta, with its part's name, layout and shapes in the release."""
    told = json.loads(gzip.decompress((MANIFESTS / f"{release}.json.gz").read_bytes()))
    for name, item in told.items():
        shapes = {key: tuple(shape) for key, shape in item["shapes"].items()}
        if name == "unet":
            layout, config = "diffusers-unet", diffusers_json.unet_config(item["config"])
        elif name == "vae":
            layout, config = "diffusers-vae", diffusers_json.vae_config(item["config"])
        else:
            layout, config = "transformers-clip-text", transformers.text_config(item["config"], shapes)
        part = PartFile((Path(name),), layout, "", json.dumps(config))
        yield name, shapes, network_of(part, Manifest({}, ()))[0]


@pytest.mark.parametrize("release", sorted({release for release, _ in COUNTS}))
def test_counts(release: str) -> None:
    for name, shapes, network in networks(release):
        same = COUNTS["sdxl" if name == "text_encoder_2" else "sd1", name]  # as in the release that had it first
        parameters, tensors = COUNTS.get((release, name), same)
        ours = [value for key, value in network.named_parameters() if key != "logit_scale"]
        assert sum(value.numel() for value in ours) == parameters
        assert len(shapes) == tensors
        assert sum(torch.Size(shape).numel() for shape in shapes.values()) == parameters


def test_latent_diffusions_network_counts_too() -> None:
    """text2img-large, whose U-Net is the first generation's over a wider text."""
    config = dataclasses.replace(SD1, transformers=dataclasses.replace(SD1.transformers, context=1280))
    with torch.device("meta"):
        unet = UNet(config)
    theirs = restore(unet.state_dict(), layouts.find("compvis-unet").rules(config))
    assert (sum(value.numel() for value in theirs.values()), len(theirs)) == (872_300_484, 686)


def described(release: str) -> dict[str, dict]:
    """Configs of a release's networks; the second generation has the first one's autoencoder."""
    told = json.loads(gzip.decompress((MANIFESTS / f"{release}.json.gz").read_bytes()))
    first = json.loads(gzip.decompress((MANIFESTS / "sd1.json.gz").read_bytes()))
    return {name: item["config"] for name, item in ({"vae": first["vae"]} | told).items()}


@asked
@pytest.mark.slow
@pytest.mark.parametrize(("release", "predicts"), [("sd1", "eps"), ("sd2", "v"), ("sdxl", "eps")])
@torch.no_grad()
def test_written_by_diffusers(tmp_path: Path, capsys, release: str, predicts: str) -> None:
    """From the release's own configs, random weights in half precision: every tensor where it belongs."""
    from safetensors.torch import load_file

    diffusers = pytest.importorskip("diffusers")
    library = pytest.importorskip("transformers")
    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    towers = {"text_encoder": library.CLIPTextModel, "text_encoder_2": library.CLIPTextModelWithProjection}
    for name, config in described(release).items():
        with torch.device("meta"):
            if name in kinds:
                module = kinds[name].from_config(config)
            else:
                module = towers[name](library.CLIPTextConfig(**config))
        module = module.half().to_empty(device="cpu")
        for value in module.parameters():
            value.normal_(std=0.02)
        for value in module.buffers():
            value.zero_()
        module.save_pretrained(tmp_path / name, max_shard_size="20GB")
        del module
    settings = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": predicts}
    index = "StableDiffusionXLPipeline" if release == "sdxl" else "StableDiffusionPipeline"
    for name, content in (("model_index.json", {"_class_name": index}), ("scheduler/scheduler_config.json", settings)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))

    started = time.perf_counter()
    found = identify(tmp_path)
    seconds: dict[object, float] = {"identified": time.perf_counter() - started}
    assert (found.family, found.facts["prediction"], found.multiple) == (release, predicts, 8)
    assert found.native[0] == {"sd1": 512, "sd2": 768, "sdxl": 1024}[release]
    stems = {"unet": "unet/diffusion_pytorch_model", "codec": "vae/diffusion_pytorch_model"}
    stems |= {"text": "text_encoder/model", "text_2": "text_encoder_2/model"}
    for name, part in found.parts.items():
        theirs = load_file(tmp_path / f"{stems[name]}.safetensors")
        if name.startswith("text"):
            keys = [key if key.startswith("text_") else f"text_model.{key}" for key in theirs]
            theirs = dict(zip(keys, theirs.values(), strict=True))
        for dtype in (torch.float16, torch.bfloat16):
            started = time.perf_counter()
            network = load_foreign(part, dtype)
            seconds[name, dtype] = time.perf_counter() - started
            # All of them as they are; some of them rounded.
            some = theirs if dtype == torch.float16 else {key: theirs[key].bfloat16() for key in list(theirs)[::37]}
            rules = layouts.find(part.layout).rules(network.config)
            back = restore(network.state_dict(), rules, given=("latents_mean", "latents_std", "logit_scale"))
            assert dtype == torch.bfloat16 or back.keys() == theirs.keys()
            assert [key for key, value in some.items() if not torch.equal(back[key], value)] == []
            del network, back
    with capsys.disabled():
        told = {str(name): round(value, 2) for name, value in seconds.items()}
        print(f"\n{release}: seconds with {torch.get_num_threads()} threads: {told}")


@asked
@pytest.mark.slow
@pytest.mark.parametrize("release", ["sd2", "sdxl", "sdxl-refiner"])
def test_a_file_of_its_real_size(tmp_path: Path, release: str) -> None:
    """The original single file: of XL 6.9 GB in half precision, none of it on the disk."""
    table, at = {}, 0
    prefixes = {
        "unet": ("model.diffusion_model.", "compvis-unet"),
        "vae": ("first_stage_model.", "compvis-vae"),
        "text_encoder": (
            ("cond_stage_model.model.", "open-clip-text")
            if release == "sd2"
            else ("conditioner.embedders.0.transformer.", "transformers-clip-text")
        ),
        "text_encoder_2": (f"conditioner.embedders.{int(release == 'sdxl')}.model.", "open-clip-text"),
    }
    for name, _, network in networks(release):
        prefix, layout = prefixes[name]
        found = layouts.find(layout)
        given = found.given if layout != "open-clip-text" or release == "sd2" else ()
        for key, value in restore(network.state_dict(), found.rules(network.config), given=given).items():
            size = 2 * value.numel()
            table[prefix + key] = {"dtype": "F16", "shape": list(value.shape), "data_offsets": [at, at + size]}
            at += size
    header = json.dumps(table).encode()
    header += b" " * (-len(header) % 8)
    path = tmp_path / "xl.safetensors"
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + at)
    found = identify(path)
    assert found.family == release
    unet = load_foreign(found.parts["unet"], torch.float16)
    assert sum(value.numel() for value in unet.parameters()) == COUNTS[release, "unet"][0]
    assert found.facts["prediction"] == ("v" if release == "sd2" else "eps")
    part, counted = ("text", ("sd2", "text_encoder")) if release == "sd2" else ("text_2", ("sdxl", "text_encoder_2"))
    text = load_foreign(found.parts[part], torch.float16)
    assert sum(value.numel() for value in text.parameters()) == COUNTS[counted][0] + 1
