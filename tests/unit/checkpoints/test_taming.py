"""taming's files: what they hold, what stands beside them, and what they may not do."""

import json
import os
import pickle
import sys
import types
from dataclasses import asdict, replace

import pytest
import torch

from mindseye.checkpoints.layout import KeysMismatch, Layout, convert, match, restore
from mindseye.checkpoints.layouts import taming
from mindseye.checkpoints.manifest import open_pickle, read_manifest
from mindseye.checkpoints.save import from_json
from mindseye.errors import WeightsError
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN, Config

TINY = Config(
    encoder=Tower(channels=(32, 64), blocks=(2, 2)),
    decoder=Tower(channels=(32, 64), blocks=(3, 3)),
    codes=24,
    code_channels=8,
    z_channels=8,
    attention=(1,),
)
KINDS = {"VQModel": TINY, "GumbelVQ": replace(TINY, quantizer="gumbel")}
YAML = """
model:
  base_learning_rate: 4.5e-06
  target: taming.models.vqgan.{target}
  params:
    embed_dim: 8
    n_embed: {codes}
    ddconfig:
      double_z: false
      z_channels: 8
      resolution: 64
      in_channels: 3
      out_ch: 3
      ch: 32
      ch_mult: [1, 2]
      num_res_blocks: 2
      attn_resolutions: [{places}]
      dropout: 0.0
    lossconfig:
      target: taming.modules.losses.vqperceptual.VQLPIPSWithDiscriminator
      params: {{disc_start: 0, disc_weight: 0.75}}
"""


def weights(config, prefix=""):
    """A random network, and its weights in their names with what else such files hold."""
    torch.manual_seed(0)
    network = VQGAN(config).eval().requires_grad_(False)
    theirs = restore(network.state_dict(), taming.vqgan_rules(config))
    extra = {f"{prefix}loss.perceptual_loss.net.slice1.0.weight": torch.zeros(4, 3, 3, 3)}
    return network, {f"{prefix}{key}": value.contiguous() for key, value in theirs.items()} | extra


def write(path, theirs, **beside):
    torch.save({"state_dict": theirs, "epoch": 3, "global_step": 12, **beside}, path)
    return path


def filled(path, found):
    """What the loader does, from rules and config alone."""
    part = found.parts["codec"]
    config = from_json(Config, json.loads(part.config))
    network = VQGAN(config).eval().requires_grad_(False)
    theirs = {key: entry.shape for key, entry in read_manifest(path).under(part.prefix).items()}
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    rules = list(taming.vqgan_rules(config))
    match(theirs, ours, rules, ignore=taming.IGNORE)
    tensors, _ = open_pickle(path)
    own = {key.removeprefix(part.prefix): value for key, value in tensors.items() if key.startswith(part.prefix)}
    network.load_state_dict(convert(own, rules, ignore=taming.IGNORE), strict=True)
    return network


@pytest.mark.parametrize("target", KINDS)
@pytest.mark.parametrize("prefix", taming.PREFIXES)
def test_from_shapes_alone(target, prefix, tmp_path) -> None:
    network, theirs = weights(KINDS[target], prefix)
    if prefix:  # a transformer with its own things
        theirs |= {"transformer.tok_emb.weight": torch.zeros(4, 4), "cond_stage_model.quantize.used": torch.zeros(2)}
    path = write(tmp_path / "last.ckpt", theirs)
    found = taming.release(path, read_manifest(path))
    assert found is not None
    assert (found.family, found.native, found.multiple, found.notes) == ("vqgan", (256, 256), 2, ())
    assert found.parts["codec"].prefix == prefix
    assert from_json(Config, json.loads(found.parts["codec"].config)) == KINDS[target]
    pixels = torch.rand(1, 3, 32, 48) * 2 - 1
    assert torch.equal(filled(path, found).to_ids(pixels), network.to_ids(pixels))


@pytest.mark.parametrize("target", KINDS)
def test_with_its_yaml(target, tmp_path) -> None:
    _, theirs = weights(KINDS[target])
    path = write(tmp_path / "vqgan.ckpt", theirs)
    path.with_suffix(".yaml").write_text(YAML.format(target=target, codes=24, places=32))
    found = taming.release(path, read_manifest(path))
    assert found is not None
    assert found.native == (64, 64)


def test_the_yaml_of_a_transformer(tmp_path) -> None:
    _, theirs = weights(TINY, "first_stage_model.")
    path = write(tmp_path / "coco.ckpt", theirs)
    stage = "\n".join("    " + line for line in YAML.format(target="VQModel", codes=24, places=32).splitlines()[4:])
    path.with_suffix(".yaml").write_text(
        f"model:\n  target: {taming.TRANSFORMER}\n  params:\n    cond_stage_key: label\n    first_stage_config:\n"
        f"      target: taming.models.vqgan.VQModel\n{stage}\n"
    )
    found = taming.release(path, read_manifest(path))
    assert found is not None
    assert found.native == (64, 64)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"codes": 25}, "says n_embed 25, and the file holds 24"),
        ({"places": 64}, r"says attn_resolutions \[64\], and the file holds \[32\]"),
        ({"target": "GumbelVQ"}, "says target taming.models.vqgan.GumbelVQ"),
    ],
)
def test_the_yaml_of_another_file_is_refused(settings, said, tmp_path) -> None:
    _, theirs = weights(TINY)
    path = write(tmp_path / "vqgan.ckpt", theirs)
    path.with_suffix(".yaml").write_text(YAML.format(**{"target": "VQModel", "codes": 24, "places": 32, **settings}))
    with pytest.raises(WeightsError, match=f"vqgan.yaml is not about vqgan.ckpt: it {said}") as caught:
        taming.release(path, read_manifest(path))
    assert "remove vqgan.yaml" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "- 1",
        "[" * 5000,
        "!!python/object/apply:os.system ['exit 1']",
        "a: &a [*a]",
        "model: 3",
        "model: {params: []}",
    ],
)
def test_a_yaml_that_is_none_does_no_harm(text, tmp_path) -> None:
    _, theirs = weights(TINY)
    path = write(tmp_path / "vqgan.ckpt", theirs)
    path.with_suffix(".yaml").write_text(text)
    found = taming.release(path, read_manifest(path))
    assert found is not None
    assert found.native == (256, 256)


def test_lightnings_objects_are_not_run(tmp_path, monkeypatch) -> None:
    """Classes as keys of a dict, as Lightning 1.0 wrote its callbacks, and objects with a state."""
    module = types.ModuleType("pytorch_lightning.callbacks.model_checkpoint")
    kind = type("ModelCheckpoint", (), {"__module__": module.__name__})
    module.ModelCheckpoint = kind  # pyright: ignore[reportAttributeAccessIssue]
    made = kind()
    made.best = 3.0  # pyright: ignore[reportAttributeAccessIssue]
    for name in ("pytorch_lightning", "pytorch_lightning.callbacks"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    _, theirs = weights(TINY)
    path = write(tmp_path / "vqgan.ckpt", theirs, callbacks={kind: {"best": 1.0}}, kept=made)
    for name in list(sys.modules):
        if name.startswith("pytorch_lightning"):
            monkeypatch.delitem(sys.modules, name)
    manifest = read_manifest(path)
    assert taming.release(path, manifest) is not None
    assert manifest.metadata["global_step"] == "12"
    assert not any(name.startswith("pytorch_lightning") for name in sys.modules)


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("how", ["beside", "whole"])
def test_code_is_refused_and_not_run(how, tmp_path) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "vqgan.ckpt"
    if how == "beside":
        _, theirs = weights(TINY)
        write(path, theirs, callbacks=Hostile(mark))
    else:
        path.write_bytes(pickle.dumps(Hostile(mark)))
    with pytest.raises(WeightsError, match="code in it|no whole file"):
        read_manifest(path)
    assert not mark.exists()


def test_a_key_that_nothing_explains_is_named(tmp_path) -> None:
    _, theirs = weights(TINY)
    config = from_json(Config, taming.vqgan_config({key: tuple(value.shape) for key, value in theirs.items()}))
    shapes = {key: tuple(value.shape) for key, value in theirs.items()} | {"encoder.extra.weight": (3,)}
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in VQGAN(config).state_dict().items()}
    with pytest.raises(KeysMismatch, match="encoder.extra.weight"):
        match(shapes, ours, taming.vqgan_rules(config), ignore=taming.IGNORE)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"encoder.conv_out.weight": (16, 64, 3, 3)}, "a mean and a variance"),
        ({"encoder.conv_in.weight": (32, 183, 3, 3)}, "segmentations or depth"),
        ({"decoder.up.1.attn.0.q.weight": None}, "different levels"),
        ({"quant_conv.weight": None}, "no convolutions around the codebook"),
        ({"encoder.conv_in.weight": None}, "encoder.conv_in.weight.* is missing"),
    ],
)
def test_what_is_not_supported_is_said(change, said, tmp_path) -> None:
    _, theirs = weights(TINY)
    for key, shape in change.items():
        theirs.pop(key)
        if shape is not None:
            theirs[key] = torch.zeros(shape)
    path = write(tmp_path / "vqgan.ckpt", theirs)
    with pytest.raises(WeightsError, match=f"not supported.*{said}"):
        taming.release(path, read_manifest(path))


def test_other_models_are_not_taken_for_one() -> None:
    marks = {"quantize.embedding.weight": (24, 8), "decoder.conv_in.weight": (64, 8, 3, 3)}
    assert taming.prefix_of(marks) == ""
    assert taming.prefix_of({f"first_stage_model.{key}": shape for key, shape in marks.items()}) == "first_stage_model."
    assert taming.prefix_of({"decoder.conv_in.weight": (64, 8, 3, 3)}) is None
    assert taming.prefix_of({}) is None
    # Latent diffusion over VQ latents.
    unet = {"model.diffusion_model.input_blocks.0.0.weight": (64, 3, 3, 3)}
    assert taming.prefix_of(unet | {f"first_stage_model.{key}": shape for key, shape in marks.items()}) is None


def test_a_layout_in_both_directions() -> None:
    layout = Layout("taming-vqgan", "mindseye.networks.vqgan:VQGAN", taming.vqgan_rules, lambda _: taming.IGNORE)
    for config in KINDS.values():
        network, theirs = weights(config)
        state = convert(theirs, layout.rules(config), ignore=layout.ignore(config))
        assert all(torch.equal(state[key], value) for key, value in network.state_dict().items())
        assert from_json(Config, json.loads(json.dumps(asdict(config)))) == config
