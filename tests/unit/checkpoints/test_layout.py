"""Rules and their operations: views of ours in the shape of theirs, in both directions, with nothing left over."""

import gzip
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mindseye.checkpoints import layouts
from mindseye.checkpoints.layout import (
    SAME,
    SQUEEZE,
    TRANSPOSE,
    UNSQUEEZE,
    Ignore,
    KeysMismatch,
    Rule,
    convert,
    fuse,
    match,
    restore,
)
from mindseye.checkpoints.layouts import diffusers_json, transformers
from mindseye.checkpoints.load import network_of
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile
from mindseye.errors import UnknownName
from mindseye.networks import clip, unet, vae

MANIFESTS = Path(__file__).parents[2] / "manifests"


@pytest.mark.parametrize(
    ("op", "ours", "theirs"),
    [
        (SAME, (2, 3, 4), (2, 3, 4)),
        (TRANSPOSE, (2, 3), (3, 2)),
        (TRANSPOSE, (2, 3, 4), None),
        (SQUEEZE, (2, 3), (2, 3, 1, 1)),
        (SQUEEZE, (2,), None),
        (UNSQUEEZE, (2, 3, 1, 1), (2, 3)),
        (UNSQUEEZE, (2, 3, 3, 3), None),
        (fuse(3)[1], (6, 4), (2, 4)),
        (fuse(3)[1], (7, 4), None),
        (fuse(2)[0], (), None),
    ],
)
def test_shapes(op, ours, theirs) -> None:
    assert op.shape(ours) == theirs
    if theirs is not None:
        assert tuple(op.view(torch.zeros(ours)).shape) == theirs


def test_what_is_written_to_a_view_is_in_ours() -> None:
    ours = torch.zeros(6, 2)
    for number, op in enumerate(fuse(3)):
        op.view(ours).fill_(number)
    assert ours[:, 0].tolist() == [0, 0, 1, 1, 2, 2]
    TRANSPOSE.view(ours)[1, 0] = 9
    SQUEEZE.view(ours)[0, 0, 0, 0] = 8
    assert ours[0].tolist() == [8, 9]


RULES = [
    Rule("q", "qkv", fuse(3)[0]),
    Rule("k", "qkv", fuse(3)[1]),
    Rule("v", "qkv", fuse(3)[2]),
    Rule("proj", "projection", TRANSPOSE),
    Rule("new", "conv", SQUEEZE, also=("old",)),
]
OURS = {"qkv": (6, 2), "projection": (3, 4), "conv": (2, 2)}


@given(st.integers(0, 2**31))
def test_round_trip(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    theirs = {key: torch.randn(2, 2, generator=generator) for key in "qkv"}
    theirs |= {"proj": torch.randn(4, 3, generator=generator), "old": torch.randn(2, 2, 1, 1, generator=generator)}
    ours = convert(theirs, RULES)
    assert {key: tuple(value.shape) for key, value in ours.items()} == OURS
    assert torch.equal(ours["qkv"], torch.cat([theirs[key] for key in "qkv"]))
    back = restore(ours, RULES)
    theirs["new"] = theirs.pop("old")  # the old name is read, the new one written
    assert back.keys() == theirs.keys() and all(torch.equal(back[key], theirs[key]) for key in back)


THEIRS = {"q": (2, 2), "k": (2, 2), "v": (2, 2), "proj": (4, 3), "new": (2, 2, 1, 1)}


def test_match() -> None:
    found = match(THEIRS, OURS, RULES)
    assert {key: rule.ours for key, rule in found.items()} == {
        "q": "qkv", "k": "qkv", "v": "qkv", "proj": "projection", "new": "conv",
    }  # fmt: skip
    assert set(match({**THEIRS, "junk.1": (9,)}, OURS, RULES, ignore=[Ignore(r"junk\.\d", "junk")])) == set(THEIRS)


def test_mismatches_are_named() -> None:
    theirs = {**THEIRS, "proj": (3, 4), "junk.1": (9,)}
    del theirs["k"]
    with pytest.raises(KeysMismatch) as caught:
        match(theirs, OURS, RULES, ignore=[Ignore("junk", "junk")], what="x does not fit")
    assert str(caught.value) == (
        "x does not fit: 1 missing (k); 1 not known (junk.1); 1 of another shape (proj [3, 4] instead of [4, 3])"
    )
    with pytest.raises(KeysMismatch, match="missing"):
        match(THEIRS, {**OURS, "more": (1,)}, RULES)
    assert match(THEIRS, {**OURS, "more": (1,)}, RULES, given=["more"])
    with pytest.raises(KeysMismatch, match=r"7 not known \(x0, x1, x2, x3, x4, \.\.\.\)"):
        match({**THEIRS, **{f"x{n}": () for n in range(7)}}, OURS, RULES)


def test_convert_and_restore_are_strict() -> None:
    tensors = {key: torch.zeros(shape) for key, shape in THEIRS.items()}
    with pytest.raises(KeysMismatch, match=r"1 not known \(extra\)"):
        convert({**tensors, "extra": torch.zeros(1)}, RULES)
    del tensors["q"]
    with pytest.raises(KeysMismatch, match=r"1 missing \(q\)"):
        convert(tensors, RULES)
    ours = {key: torch.zeros(shape) for key, shape in OURS.items()}
    with pytest.raises(KeysMismatch, match=r"1 not known \(mean\)"):
        restore({**ours, "mean": torch.zeros(1)}, RULES)
    assert len(restore({**ours, "mean": torch.zeros(1)}, RULES, given=["mean"])) == 5
    with pytest.raises(KeysMismatch, match=r"1 missing \(conv\)"):
        restore({key: ours[key] for key in ("qkv", "projection")}, RULES)


def test_layouts_have_names_of_their_own() -> None:
    names = [layout.name for layout in layouts.LAYOUTS]
    assert len(set(names)) == len(names)
    with pytest.raises(UnknownName, match="compvis-unet"):
        layouts.find("compvis")


VIT = clip.Config(text=clip.Text(width=64, layers=2, heads=1), image=clip.ViT(width=64, layers=2, heads=1), embed=32)
RESNET = clip.Config(text=VIT.text, image=clip.ResNet(width=16, layers=(1, 2, 1, 1), heads=8), embed=32)
BOTH = [
    ("openai-clip", clip.CLIP, VIT),
    ("openai-clip", clip.CLIP, RESNET),
    ("transformers-clip", clip.CLIP, VIT),
    *((layout, unet.UNet, config) for layout in ("compvis-unet", "diffusers-unet") for config in (unet.SD1, unet.SDXL)),
    *((layout, vae.AutoencoderKL, vae.KL_F8) for layout in ("compvis-vae", "diffusers-vae")),
]


@pytest.mark.parametrize(("name", "kind", "config"), BOTH)
def test_every_layout_there_and_back(name: str, kind: type, config: object) -> None:
    with torch.device("meta"):
        network = kind(config)
    layout = layouts.find(name)
    ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    theirs = restore(network.state_dict(), layout.rules(config), given=layout.given)
    shapes = {key: tuple(value.shape) for key, value in theirs.items()}
    assert len(match(shapes, ours, layout.rules(config), given=layout.given)) == len(theirs)


@pytest.mark.parametrize("name", ["sd1", "sd1-inpaint", "sd2", "sdxl", "sdxl-refiner", "sdxl-inpaint"])
def test_public_manifests(name: str) -> None:
    """Names and shapes of the releases: detected, loaded strictly on meta, and restored to the same manifest."""
    told = json.loads(gzip.decompress((MANIFESTS / f"{name}.json.gz").read_bytes()))
    for part, item in told.items():
        shapes = {key: tuple(shape) for key, shape in item["shapes"].items()}
        if part == "unet":
            layout, config = "diffusers-unet", diffusers_json.unet_config(item["config"])
        elif part == "vae":
            layout, config = "diffusers-vae", diffusers_json.vae_config(item["config"])
        else:
            layout, config = "transformers-clip-text", transformers.text_config(item["config"], shapes)
        network, found = network_of(PartFile((Path(part),), layout, "", json.dumps(config)), Manifest({}, ()))
        ours = {key: tuple(value.shape) for key, value in network.state_dict().items()}
        assert match(shapes, ours, found.rules(network.config), given=found.given)
        back = restore(network.state_dict(), found.rules(network.config), given=found.given)
        assert {key: tuple(value.shape) for key, value in back.items()} == shapes
