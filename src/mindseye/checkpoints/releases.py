"""What a path holds: which model, which parts of it lie where, and what no shape can tell.

`identify` reads tables of contents and small JSON files, never weights, and needs no torch for safetensors. Families
are told apart by keys and shapes; heads, groups and noise tables come from the folder's JSON where there is one.
Whether a network predicts noise or velocities is in no shape at all: it comes from what stands beside the weights, and
where nothing does, what was assumed is said in ``notes``, never in silence.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, final

from mindseye.errors import WeightsError, WeightsMissing

__all__ = [
    "EARLY",
    "FAMILIES",
    "PREDICTIONS",
    "SCHEDULE_NAMES",
    "Family",
    "PartFile",
    "Release",
    "identify",
    "identify_codec",
]

RAIL = "CreativeML Open RAIL-M"
RAIL_PLUS = "CreativeML Open RAIL++-M"
PREDICTIONS = {
    "epsilon": "eps", "eps": "eps", "v_prediction": "v", "v": "v", "v-prediction": "v", "velocity": "v",
    "sample": "x0", "x0": "x0",
}  # fmt: skip
"""What others call what a network predicts -> what we call it."""
SCHEDULE_NAMES = {
    ("scaled_linear", 0.00085, 0.012): "scaled-linear",
    ("linear", 0.0001, 0.02): "linear",
}
"""diffusers' noise tables -> keys of `mindseye.diffusion.schedule.SCHEDULES`."""


@final
@dataclass(frozen=True)
class Family:
    """What all weights of one architecture share unless they say otherwise.

    Attributes:
        native: Width and height of the training pictures.
        guidance: How strongly the text pulls by default.
        scale: What latents are multiplied by.
        licence: Of the original release; weights derived from it may have another.
        pads: For each tokenizer, the id that fills short texts; None = the end id.
    """

    native: int
    guidance: float
    scale: float
    licence: str
    pads: Mapping[str, int | None]


EARLY = ("vqgan", "biggan", "gan", "adm", "secondary", "clip", "dalle-mini")
"""Families of networks on their own: what they listen to, and how they are painted with, is the card's business."""

FAMILIES: Mapping[str, Family] = {
    "sd1": Family(512, 7.5, 0.18215, RAIL, {"tokenizer": None}),
    "sd1-inpaint": Family(512, 7.5, 0.18215, RAIL, {"tokenizer": None}),
    "sd2": Family(768, 7.5, 0.18215, RAIL_PLUS, {"tokenizer": 0}),
    "sd2-inpaint": Family(512, 7.5, 0.18215, RAIL_PLUS, {"tokenizer": 0}),
    "sdxl": Family(1024, 5.0, 0.13025, RAIL_PLUS, {"tokenizer": None, "tokenizer_2": 0}),
    "sdxl-inpaint": Family(1024, 7.5, 0.13025, RAIL_PLUS, {"tokenizer": None, "tokenizer_2": 0}),
    "sdxl-refiner": Family(1024, 5.0, 0.13025, RAIL_PLUS, {"tokenizer_2": 0}),
    "ldm-text2img": Family(256, 5.0, 0.18215, "MIT", {"tokenizer": 0}),
    **{family: Family(256, 1.0, 1.0, "MIT", {}) for family in EARLY},
}
"""Everything that `identify` can find."""


@final
@dataclass(frozen=True)
class PartFile:
    """One network's weights in somebody's files.

    Attributes:
        files: Where they lie.
        layout: A name in `mindseye.checkpoints.layouts.LAYOUTS`, or "mindseye" for our own format.
        prefix: What comes before all its keys in the files.
        config: JSON of our network's Config.
        values: Our tensors that the files do not hold, each as its numbers, one standing for all.
        under: What is put before the keys of each file, where several files have the same ones; () = nothing.
    """

    files: tuple[Path, ...]
    layout: str
    prefix: str = ""
    config: str = "{}"
    values: tuple[tuple[str, tuple[float, ...]], ...] = ()
    under: tuple[str, ...] = ()


@final
@dataclass(frozen=True, kw_only=True)
class Release:
    """A model, as found at a path.

    Attributes:
        family: A key of `FAMILIES`.
        parts: "unet", "codec", "text", "text_2", those that are there.
        tokenizers: "tokenizer", "tokenizer_2"; the folder of each, or None for the vocabulary that CLIP was published
            with.
        facts: ``prediction`` ("eps", "v", "x0"), ``schedule`` (a key of `mindseye.diffusion.schedule.SCHEDULES`),
            ``pad`` and ``pad_2`` (id that fills short texts, None = the end id); for XL, ``zeros_for_empty`` (whether
            no negative prompt means zeros); for 2.x, ``skip`` = 0, because its text tower is kept without the last
            block, which its U-Net never read: the tower's own end is what "the last but one" means elsewhere.
        native: Width and height it was trained at.
        multiple: Sides are multiples of this.
        defaults: Request fields where the user has no wish.
        notes: What was assumed, left out or missing, a sentence each.
        licence: Of the weights as far as known.
    """

    family: str
    parts: Mapping[str, PartFile]
    tokenizers: Mapping[str, Path | None]
    facts: Mapping[str, Any]
    native: tuple[int, int]
    multiple: int = 8
    defaults: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    licence: str = ""

    def override(self, prediction: str = "", schedule: str = "") -> "Release":
        """The same with another reading of what the U-Net predicts, or another noise table: the user knows better."""
        changes = {"prediction": prediction, "schedule": schedule}
        return replace(self, facts={**self.facts, **{name: value for name, value in changes.items() if value}})


def identify(path: Path) -> Release:
    """What model is at ``path``.

    Args:
        path: A diffusers folder, a folder that mindseye wrote, a single ``.safetensors`` or ``.ckpt``, or a folder
            with exactly one of these in it.

    Raises:
        WeightsMissing: Nothing is there, or a file that belongs to it is not.
        WeightsError: Something else is there: the sentence says what it is.
    """
    from mindseye.checkpoints import folders, single_files

    if path.is_dir():
        if (path / folders.CARD).is_file():
            return folders.native(path)
        if (path / "model_index.json").is_file() or (path / "unet" / "config.json").is_file():
            return folders.diffusers(path)
        from mindseye.checkpoints.early import identify_early

        if (early := identify_early(path)) is not None:
            return early
        found = sorted(each for each in path.iterdir() if each.suffix.lower() in {".safetensors", ".ckpt"})
        if len(found) == 1:
            return single_files.identify(found[0])
        told = f"{len(found)} single files, and it is not clear which is meant" if found else "neither of these"
        raise WeightsMissing(
            f"{path} is no model: a diffusers folder has model_index.json, one of mindseye's {folders.CARD}; "
            f"it holds {told}",
            hint="give the path of one file" if found else "",
        )
    if not path.exists():
        raise WeightsMissing(f"{path} is not there")
    if path.name in ("model_index.json", folders.CARD):
        return identify(path.parent)
    if path.suffix.lower() == ".gguf":
        raise WeightsError(f"{path} is a GGUF file; safetensors and pickles are read")
    return single_files.identify(path)


def identify_codec(path: Path, scale: float | None = None) -> PartFile:
    """An autoencoder on its own: ``vae/`` of a diffusers folder, or a file in the original names or diffusers'.

    Args:
        path: Folder or file.
        scale: What latents are multiplied by where nothing at the path says it; 0.18215 when None.

    Raises:
        WeightsMissing: Nothing is there.
        WeightsError: It is no autoencoder of Stable Diffusion's kind.
    """
    from mindseye.checkpoints import folders, single_files

    if path.is_dir():
        return folders.codec(path / "vae" if (path / "vae").is_dir() else path, scale)
    return single_files.codec(path, scale or 0.18215)
