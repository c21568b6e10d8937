"""The releases at their real sizes: counted, and read from files as large as theirs.

The slow ones read and write gigabytes, and only when asked to: `MINDSEYE_FULL_SIZE=1 pytest
tests/parity/test_full_size.py`, a minute or two and 2.5 GB of disk for Stable Diffusion 1.5. XL's file is sparse: its
table of contents is real, its numbers are a hole full of zeros.
"""

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


def wrong(network: torch.nn.Module, theirs: dict[str, torch.Tensor], layout: str) -> list[str]:
    """Keys of theirs that are not ours to the bit."""
    found = layouts.find(layout)
    back = restore(network.state_dict(), found.rules(network.config), given=found.given)
    assert back.keys() == theirs.keys()
    return [key for key, value in theirs.items() if not torch.equal(back[key], value)]


@asked
@pytest.mark.slow
@torch.no_grad()
def test_stable_diffusion_15_written_by_diffusers(tmp_path: Path, material: Path, capsys) -> None:
    """From the release's own configs, random weights in half precision: every tensor where it belongs."""
    diffusers = pytest.importorskip("diffusers")
    library = pytest.importorskip("transformers")
    source = material / "sd15_layout"
    for name in ("model_index.json", "scheduler/scheduler_config.json", "tokenizer/vocab.json", "tokenizer/merges.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes((source / name).read_bytes())
    kinds = {"unet": diffusers.UNet2DConditionModel, "vae": diffusers.AutoencoderKL}
    for name in ("unet", "vae", "text_encoder"):
        with torch.device("meta"):
            if name in kinds:
                module = kinds[name].from_config(json.loads((source / name / "config.json").read_text()))
            else:
                module = library.CLIPTextModel(library.CLIPTextConfig.from_pretrained(source / name))
        module = module.half().to_empty(device="cpu")
        for value in module.parameters():
            value.normal_(std=0.02)
        for value in module.buffers():
            value.zero_()
        module.save_pretrained(tmp_path / name)
        del module

    from safetensors.torch import load_file

    started = time.perf_counter()
    release = identify(tmp_path)
    found = time.perf_counter() - started
    assert release.family == "sd1" and release.native == (512, 512) and release.multiple == 8
    stems = {
        "unet": "unet/diffusion_pytorch_model",
        "codec": "vae/diffusion_pytorch_model",
        "text": "text_encoder/model",
    }
    seconds = {}
    for dtype in (torch.float16, torch.bfloat16):
        for name, stem in stems.items():
            started = time.perf_counter()
            network = load_foreign(release.parts[name], dtype)
            seconds[name, dtype] = time.perf_counter() - started
            theirs = load_file(tmp_path / f"{stem}.safetensors")
            if name == "text":
                theirs = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in theirs.items()}
            if dtype == torch.float16:
                assert wrong(network, theirs, release.parts[name].layout) == []
            else:
                some = dict(list(theirs.items())[::37])
                back = restore(
                    network.state_dict(),
                    layouts.find(release.parts[name].layout).rules(network.config),
                    given=("latents_mean", "latents_std", "logit_scale"),
                )
                assert all(torch.equal(back[key], value.bfloat16()) for key, value in some.items())
            del network, theirs
    with capsys.disabled():
        told = {f"{name} {dtype}": round(value, 2) for (name, dtype), value in seconds.items()}
        print(f"\nidentified in {found:.3f} s; loaded in {told} s with {torch.get_num_threads()} threads")


@asked
@pytest.mark.slow
@pytest.mark.parametrize("release", ["sdxl", "sdxl-refiner"])
def test_xl_from_a_file_of_its_real_size(tmp_path: Path, release: str) -> None:
    """The original single file: 6.9 GB in half precision, none of it on the disk."""
    table, at = {}, 0
    prefixes = {
        "unet": ("model.diffusion_model.", "compvis-unet"),
        "vae": ("first_stage_model.", "compvis-vae"),
        "text_encoder": ("conditioner.embedders.0.transformer.", "transformers-clip-text"),
        "text_encoder_2": (f"conditioner.embedders.{int(release == 'sdxl')}.model.", "open-clip-text"),
    }
    for name, _, network in networks(release):
        prefix, layout = prefixes[name]
        found = layouts.find(layout)
        given = found.given if layout != "open-clip-text" else ()
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
    text = load_foreign(found.parts["text_2"], torch.float16)
    assert sum(value.numel() for value in text.parameters()) == COUNTS["sdxl", "text_encoder_2"][0] + 1
