"""THE table: from a card's name to a system, its parts, and what a user ought to know before using it.

A system's fields are its parts, so a card needs no factory: it says which class, and where each part comes from.
Nothing here imports torch; `Card.system` is a `"module:Class"` name that the engine resolves when it is wanted, and a
contract test resolves for every card.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mindseye.errors import UnknownName
from mindseye.request import DEFAULT, Scalar

__all__ = ["DEFAULT", "ZOO", "Card", "File", "Pocket", "Source", "find", "trained"]

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


@dataclass(frozen=True)
class File:
    """A part that lies in a folder of the user's, in our own format.

    Args:
        path: The `.safetensors` file of a network, or the file of a tokenizer.
        length: Of a tokenizer: how many ids a text becomes. Networks have none.
    """

    path: Path
    length: int | None = None


Source = Pocket | File


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
        record = source.path.with_suffix(".json" if source.length is None else ".provenance.json")
        if record.is_file():
            made = json.loads(record.read_text(encoding="utf-8"))
            found[made["name"]] = made
    return found


def find(name: str) -> Card:
    """The card of that name.

    Raises:
        UnknownName: With the nearest one that exists.
    """
    for card in ZOO:
        if card.name == name:
            return card
    raise UnknownName("model", name, [card.name for card in ZOO])
