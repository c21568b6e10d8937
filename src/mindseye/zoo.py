"""THE table: from a card's name to a system, its parts, and what a user ought to know before using it.

A system's fields are its parts, so a card needs no factory: it says which class, and where each part comes from.
Nothing here imports torch; `Card.system` is a `"module:Class"` name that the engine resolves when it is wanted, and a
contract test resolves for every card.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import UnknownName
from mindseye.request import DEFAULT, Scalar

__all__ = ["DEFAULT", "ZOO", "Card", "File", "Foreign", "Pocket", "Source", "Vocabulary", "card_of", "find", "trained"]

POCKET = Path(__file__).parent / "pocket"
"""Where the shipped miniature parts lie."""


@dataclass(frozen=True)
class Pocket:
    """A part that is shipped inside the package.

    Args:
        name: The part's name without "-pocket": "unet", "vae", "clip", "bpe".
        length: Of a tokenizer: how many ids a text becomes. Networks have none.
    """

    name: str
    length: int | None = None

    @property
    def path(self) -> Path:
        """The file itself, which may not be there in a source tree that has not been trained yet."""
        return POCKET / f"{self.name}-pocket{'.safetensors' if self.length is None else '.json'}"

    @property
    def files(self) -> tuple[Path, ...]:
        """What must be there."""
        return (self.path,)


@dataclass(frozen=True)
class File:
    """A part that lies in a folder of the user's, in our own format.

    Args:
        path: The `.safetensors` file of a network, or the file of a tokenizer.
        length: Of a tokenizer: how many ids a text becomes. Networks have none.
    """

    path: Path
    length: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What must be there."""
        return (self.path,)


@dataclass(frozen=True)
class Foreign:
    """A network inside somebody else's file or folder.

    Args:
        part: What it is and where it lies, as `mindseye.checkpoints.releases.identify` found it.
    """

    part: PartFile

    @property
    def files(self) -> tuple[Path, ...]:
        """What must be there."""
        return self.part.files


@dataclass(frozen=True)
class Vocabulary:
    """The published vocabulary of a text encoder.

    Args:
        folder: Where the release keeps it; None = the packaged one of CLIP.
        kind: "clip" or "bert".
        length: How many ids a text becomes.
        pad: The id that fills the rest; None = as the folder says.
    """

    folder: Path | None
    kind: str = "clip"
    length: int = 77
    pad: int | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """What must be there."""
        return () if self.folder is None else (self.folder,)


Source = Pocket | File | Foreign | Vocabulary


@dataclass(frozen=True, kw_only=True)
class Card:
    """A named system with its weights.

    Attributes:
        name: What the user types.
        system: "module:Class".
        parts: Field of the system -> where it comes from. One file may serve several fields.
        native: Width and height it was trained at.
        multiple: Sides are multiples of this.
        defaults: Request fields (steps, guidance, sampler) where the user has no wish.
        options: Values for the system's own options where they differ from the system's defaults.
        facts: Fields of the system that are no parts and that no file's shapes can tell.
        licence: Of the weights.
        paper: Where the method comes from.
        notes: What was assumed about it, a sentence each; said when it draws.
        training: What it was trained on, and on what machine; how long is in the parts' provenance (see `trained`).
    """

    name: str
    system: str
    parts: Mapping[str, Source]
    native: tuple[int, int]
    multiple: int
    licence: str
    paper: str
    training: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Scalar] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


ZOO: tuple[Card, ...] = (
    Card(
        name="stable-diffusion-pocket",
        system="mindseye.systems.stable_diffusion:StableDiffusion",
        parts={
            "unet": Pocket("unet"),
            "codec": Pocket("vae"),
            "text": Pocket("clip"),
            "tokenizer": Pocket("bpe", length=32),
        },
        native=(128, 128),
        multiple=32,
        licence="Apache-2.0",
        paper="arXiv:2112.10752",
        training="nine openly licensed icon sets and plain shapes, composed into scenes with exact captions; on two "
        "processor cores",
        defaults={"steps": 25, "guidance": 4.0, "sampler": "euler"},
        facts={"prediction": "flow"},
    ),
)


def trained(card: Card) -> dict[str, dict[str, Any]]:
    """How each shipped part of a card came to be: recipe, steps, hours, held-out scores, licences, by part name.

    Parts without a record of it are left out.
    """
    found: dict[str, dict[str, Any]] = {}
    for source in card.parts.values():
        if not isinstance(source, (Pocket, File)):
            continue
        record = source.path.with_suffix(".json" if source.length is None else ".provenance.json")
        if record.is_file():
            made = json.loads(record.read_text(encoding="utf-8"))
            found[made["name"]] = made
    return found


_TELLING: Mapping[str, Mapping[str, Any]] = {
    "sd1": {},
    "sd1-inpaint": {},
    "sd2": {},
    "sd2-inpaint": {},
    "sdxl": {"skip": 1, "final_norm": False, "vector": "sizes"},
    "sdxl-inpaint": {"skip": 1, "final_norm": False, "vector": "sizes"},
    "sdxl-refiner": {"skip": 1, "final_norm": False, "vector": "aesthetic"},
    "ldm-text2img": {},
}
"""How each family's text encoders are read: `mindseye.systems.towers` has the table in words."""


def card_of(release: Release, name: str, *, licence: str = "") -> Card:
    """A card for a release that the user has.

    Args:
        release: What was found in the file or folder.
        name: What the user calls it.
        licence: Of the weights, where it is known better than by the family.
    """
    told = dict(release.facts)
    pads = {"tokenizer": told.pop("pad", None), "tokenizer_2": told.pop("pad_2", None)}
    silent = bool(told.pop("zeros_for_empty", False))
    kind = "bert" if release.family == "ldm-text2img" else "clip"
    parts: dict[str, Source] = {field: Foreign(part) for field, part in release.parts.items()}
    parts |= {field: Vocabulary(folder, kind, pad=pads[field]) for field, folder in release.tokenizers.items()}
    if "text" not in parts:  # the refiner has the second encoder only
        parts |= {"text": parts.pop("text_2"), "tokenizer": parts.pop("tokenizer_2")}
    return Card(
        name=name,
        system="mindseye.systems.stable_diffusion:StableDiffusion",
        parts=parts,
        native=release.native,
        multiple=release.multiple,
        licence=licence or release.licence,
        paper="arXiv:2307.01952" if release.family.startswith("sdxl") else "arXiv:2112.10752",
        training="see its publisher",
        defaults={"steps": 30, "guidance": 7.5, "sampler": "dpm++-2m", **release.defaults},
        options={"spacing": "karras"},
        facts={**_TELLING[release.family], **told, **({"silent": True} if silent else {})},
        notes=release.notes,
    )


def find(name: str) -> Card:
    """The card of that name: one of the table, one of the user's, or the path of a checkpoint itself.

    Raises:
        UnknownName: With the nearest one that exists.
        WeightsMissing: It is a public release that is not on this machine.
        WeightsError: It is a file or folder, and no checkpoint that can be read.
    """
    from mindseye.checkpoints.library import Library
    from mindseye.checkpoints.releases import identify

    for card in ZOO:
        if card.name == name:
            return card
    if os.sep in name or name.startswith("~") or Path(name).suffix in (".safetensors", ".ckpt"):
        return card_of(identify(Path(name).expanduser()), Path(name).stem)
    library = Library()
    if name.startswith("hub:"):
        entry = library.usable(name, "model")
        return card_of(identify(entry.path), entry.name, licence=entry.licence)
    try:
        entry = library.usable(name, "model")
    except UnknownName:
        names = [card.name for card in ZOO] + [each.name for each in library.entries("model")]
        raise UnknownName("model", name, names) from None
    return card_of(identify(entry.path), entry.name, licence=entry.licence)
