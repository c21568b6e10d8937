"""THE table: from a card's name to a system, its parts, and what a user ought to know before using it.

A system's fields are its parts, so a card needs no factory: it says which class, and where each part comes from.
Nothing here imports torch; `Card.system` is a `"module:Class"` name that the engine resolves when it is wanted, and a
contract test resolves for every card.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.releases import EARLY, WRITERS, PartFile, Release
from mindseye.errors import UnknownName, UsageError
from mindseye.request import DEFAULT, Scalar

if TYPE_CHECKING:
    from mindseye.checkpoints.kinds import Kind

__all__ = [
    "DEFAULT", "MANNERS", "ZOO", "Card", "File", "Foreign", "Manner", "Pocket", "Source", "Vocabulary", "card_of",
    "drawn_with", "find", "retrained", "trained",
]  # fmt: skip

POCKET = Path(__file__).parent / "pocket"
"""Where the shipped miniature parts lie."""


@dataclass(frozen=True)
class Pocket:
    """A part that is shipped inside the package.

    Args:
        name: The part's name without "-pocket": "unet", "vae", "clip", "bpe".
        length: Of a tokenizer: how many ids a text becomes. Networks have none.
        plain: Of a tokenizer: whether texts are neither opened nor closed (`mindseye.text.plain_tokenizer`).
    """

    name: str
    length: int | None = None
    plain: bool = False

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
        plain: Of a tokenizer: whether texts are neither opened nor closed (`mindseye.text.plain_tokenizer`).
    """

    path: Path
    length: int | None = None
    plain: bool = False

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
        folder: Where the release keeps it, or its first file; None = the packaged one of CLIP.
        kind: "clip", "bert", "bart", "char-bpe", or "plain": CLIP's without its special ids, or a file of the
            `tokenizers` library.
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
        defaults: Request fields (steps, guidance, sampler, candidates) where the user has no wish.
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

    @property
    def ready(self) -> bool:
        """Whether every file of its is there: a row may stand in the table before its parts are trained."""
        return all(path.exists() for source in self.parts.values() for path in source.files)


_CORPUS = (
    "nine openly licensed icon sets and plain shapes, composed into scenes with exact captions; on two processor cores"
)
_LISTENS: Mapping[str, Source] = {"clip": Pocket("clip"), "tokenizer": Pocket("bpe", length=48)}
"""The packaged critic."""

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
        training=_CORPUS,
        defaults={"steps": 40, "guidance": 4.0, "sampler": "euler-ancestral"},
        options={"shift": 3.0},
        facts={"prediction": "flow"},
    ),
    Card(
        name="deep-daze-pocket",
        system="mindseye.systems.deep_daze:DeepDaze",
        parts=_LISTENS,
        native=(128, 128),
        multiple=1,
        licence="Apache-2.0",
        paper="https://github.com/lucidrains/deep-daze",
        training="the canvas is made anew for every picture; its critic on nine openly licensed icon sets",
        defaults={"steps": 200},
        options={
            "hidden": 64,
            "layers": 4,
            "theta_initial": 8.0,
            "theta_hidden": 15.0,
            "cuts": 16,
            "decay": 0.1,
            "augment": "yes",
            "lower": 0.5,
            "prime_lr": 3e-3,
        },
        facts={"rate": 2e-3},
    ),
    Card(
        name="big-sleep-pocket",
        system="mindseye.systems.big_sleep:BigSleep",
        parts={"generator": Pocket("biggan"), **_LISTENS},
        native=(64, 64),
        multiple=1,
        licence="Apache-2.0",
        paper="https://github.com/lucidrains/big-sleep",
        training=_CORPUS,
        defaults={"steps": 200},
        options={
            "lr": 0.07,
            "cuts": 16,
            "ema": 0.9,
            "class_weight": 0.1,
        },
    ),
    Card(
        name="vqgan-clip-pocket",
        system="mindseye.systems.vqgan_clip:VQGANCLIP",
        parts={"codec": Pocket("vqgan"), **_LISTENS},
        native=(128, 128),
        multiple=8,
        licence="Apache-2.0",
        paper="arXiv:2204.08583",
        training=_CORPUS,
        defaults={"steps": 200},
        options={"lr": 0.1, "cuts": 16, "augment": "yes", "decay": 0.2, "pull": 10.0},
    ),
    Card(
        name="clip-guided-pocket",
        system="mindseye.systems.clip_guided:CLIPGuided",
        parts={"unet": Pocket("adm"), **_LISTENS},
        native=(64, 64),
        multiple=8,
        licence="Apache-2.0",
        paper="arXiv:2105.05233",
        training=_CORPUS,
        defaults={"steps": 60, "guidance": 5.0, "sampler": "ddim"},
        options={
            "cuts": 8,
            "family": "disco",
            "augment": "yes",
            "clamp": 0.3,
            "smooth": 20.0,
            "guidance_high": 0.95,
        },
        facts={"prediction": "v", "schedule": "cosine"},
    ),
    Card(
        name="disco-pocket",
        system="mindseye.systems.disco:Disco",
        parts={"unet": Pocket("adm"), **_LISTENS},
        native=(64, 64),
        multiple=8,
        licence="Apache-2.0",
        paper="https://github.com/alembics/disco-diffusion",
        training=_CORPUS,
        defaults={"steps": 60, "guidance": 5.0, "sampler": "ddim"},
        options={
            "overview": "[6]*400+[2]*600",
            "inner": "[2]*400+[6]*600",
            "batches": 1,
            "spacing": "trailing",
            "clamp": 0.2,
            "guidance_high": 0.95,
        },
        facts={"prediction": "v", "schedule": "cosine"},
    ),
    Card(
        name="gan-pocket",
        system="mindseye.systems.gan:GAN",
        parts={"generator": Pocket("dcgan"), **_LISTENS},
        native=(64, 64),
        multiple=1,
        licence="Apache-2.0",
        paper="arXiv:1511.06434",
        training=_CORPUS,
        defaults={"steps": 60, "candidates": 64},
    ),
    Card(
        name="biggan-pocket",
        system="mindseye.systems.gan:ClassGAN",
        parts={"generator": Pocket("biggan"), **_LISTENS},
        native=(64, 64),
        multiple=1,
        licence="Apache-2.0",
        paper="arXiv:1809.11096",
        training=_CORPUS,
        defaults={"steps": 60},
    ),
    Card(
        name="textgan-pocket",
        system="mindseye.systems.gan:TextGAN",
        parts={
            "generator": Pocket("textgan"),
            "text": Pocket("clip"),
            "words": Pocket("bpe", length=32),
            **_LISTENS,
        },  # fmt: skip
        native=(64, 64),
        multiple=1,
        licence="Apache-2.0",
        paper="arXiv:1605.05396",
        training=_CORPUS,
        defaults={"steps": 60},
    ),
    Card(
        name="dvae-pocket",
        system="mindseye.systems.vqgan_clip:VQGANCLIP",
        parts={"codec": Pocket("dvae"), **_LISTENS},
        native=(128, 128),
        multiple=8,
        licence="Apache-2.0",
        paper="arXiv:2102.12092",
        training=_CORPUS,
        defaults={"steps": 200},
        options={"lr": 0.1, "cuts": 16, "augment": "yes"},
    ),
    Card(
        name="dalle-pocket",
        system="mindseye.systems.dalle:DALLE",
        parts={"network": Pocket("dalle"), "codec": Pocket("vqgan"), "tokenizer": Pocket("bpe", length=32, plain=True)},
        native=(128, 128),
        multiple=1,
        licence="Apache-2.0",
        paper="arXiv:2102.12092",
        training=_CORPUS,
        defaults={"guidance": 3.0},
        options={"top_p": 0.95},
    ),
    Card(
        name="dalle-mini-pocket",
        system="mindseye.systems.dalle_mini:DalleMini",
        parts={"network": Pocket("dalle-mini"), "codec": Pocket("vqgan"), "tokenizer": Pocket("bpe", length=32)},
        native=(128, 128),
        multiple=1,
        licence="Apache-2.0",
        paper="https://github.com/borisdayma/dalle-mini",
        training=_CORPUS,
        defaults={"guidance": 4.0},
        options={"top_k": 64},
    ),
    Card(
        name="parti-pocket",
        system="mindseye.systems.parti:Parti",
        parts={
            "network": Pocket("parti"),
            "codec": Pocket("vqgan"),
            "tokenizer": Pocket("bpe", length=32),
            "upsampler": Pocket("wdsr"),
        },
        native=(128, 128),
        multiple=1,
        licence="Apache-2.0",
        paper="arXiv:2206.10789",
        training=_CORPUS,
        defaults={"guidance": 3.0},
        options={"top_k": 128},
    ),
    Card(
        name="nuwa-pocket",
        system="mindseye.systems.nuwa:NUWAInfinity",
        parts={"network": Pocket("nuwa"), "codec": Pocket("vqgan"), "tokenizer": Pocket("bpe", length=32)},
        native=(128, 128),
        multiple=64,
        licence="Apache-2.0",
        paper="arXiv:2207.09814",
        training=_CORPUS,
        defaults={"guidance": 3.0},
        options={"top_k": 128},
    ),
    Card(
        name="nuwa-clip-pocket",
        system="mindseye.systems.nuwa:NUWA",
        parts={"network": Pocket("nuwa-clip"), "codec": Pocket("vqgan"), "tokenizer": Pocket("bpe", length=32)},
        native=(64, 64),
        multiple=1,
        licence="Apache-2.0",
        paper="arXiv:2111.12417",
        training=_CORPUS,
        defaults={"guidance": 3.0},
        options={"top_k": 128},
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


@dataclass(frozen=True, kw_only=True)
class Manner:
    """A way of painting with a network that somebody published on its own.

    Attributes:
        system: "module:Class".
        part: Which part of the system the network is.
        paper: Where the method comes from.
        defaults: Request fields where the user has no wish.
        critic: What the packaged CLIP does there, said when it draws.
    """

    system: str
    part: str
    paper: str
    defaults: Mapping[str, Any] = field(default_factory=dict)
    critic: str = "guided by the small CLIP that comes with mindseye; --set critics=NAME takes one of yours"


_CHOOSES = "the small CLIP that comes with mindseye chooses among what it draws"


_BY_CODES = {
    "vqgan-clip": Manner(
        system="mindseye.systems.vqgan_clip:VQGANCLIP",
        part="codec",
        paper="arXiv:2204.08583",
        defaults={"steps": 300},
    )
}

MANNERS: Mapping[str, Mapping[str, Manner]] = {
    "vqgan": _BY_CODES,
    "vit-vqgan": _BY_CODES,
    "dvae": _BY_CODES,
    "biggan": {
        "gan": Manner(
            system="mindseye.systems.gan:ClassGAN",
            part="generator",
            paper="arXiv:1809.11096",
            defaults={"steps": 60, "candidates": 8},
            critic=_CHOOSES,
        ),
        "big-sleep": Manner(
            system="mindseye.systems.big_sleep:BigSleep",
            part="generator",
            paper="https://github.com/lucidrains/big-sleep",
            defaults={"steps": 300},
        ),
    },
    "gan": {
        "gan": Manner(
            system="mindseye.systems.gan:GAN",
            part="generator",
            paper="arXiv:1511.06434",
            defaults={"steps": 60, "candidates": 8},
            critic=_CHOOSES,
        )
    },
    "adm": {
        "clip-guided": Manner(
            system="mindseye.systems.clip_guided:CLIPGuided",
            part="unet",
            paper="arXiv:2105.05233",
            defaults={"steps": 100, "guidance": 1.0, "sampler": "ddim"},
        ),
        "disco": Manner(
            system="mindseye.systems.disco:Disco",
            part="unet",
            paper="https://github.com/alembics/disco-diffusion",
            defaults={"steps": 250, "guidance": 5.0, "sampler": "ddim"},
        ),
    },
    "clip": {
        "deep-daze": Manner(
            system="mindseye.systems.deep_daze:DeepDaze",
            part="clip",
            paper="https://github.com/lucidrains/deep-daze",
            defaults={"steps": 1000},
        )
    },
}
"""How networks of the early families are painted with, by family and manner; the first one is meant when none is named.
``-m big-sleep:NAME`` names one."""


def _early(release: Release, name: str, manner: str, licence: str) -> Card:
    """A card for a network on its own: the manner's system around it, and the packaged CLIP to listen to."""
    if release.family == "secondary":
        raise UsageError(
            f"{name} is the second model of Disco Diffusion, which paints nothing by itself",
            hint=f"use it beside a first one: -m disco:MODEL --set secondary={name}",
        )
    manners = MANNERS[release.family]
    if manner and manner not in manners:
        raise UnknownName(f"manner of painting with {name}", manner, manners)
    chosen = manners[manner or next(iter(manners))]
    parts: dict[str, Source] = {chosen.part: Foreign(next(iter(release.parts.values())))}
    notes = release.notes
    if "length" in release.facts:
        parts["tokenizer"] = Vocabulary(None, "clip", int(release.facts["length"]), pad=0)
    else:
        parts |= {"clip": Pocket("clip"), "tokenizer": Pocket("bpe", length=48)}
        notes = (*notes, chosen.critic)
    native = release.native if release.family != "clip" else (2 * release.native[0], 2 * release.native[1])
    return Card(
        name=f"{manner}:{name}" if manner else name,
        system=chosen.system,
        parts=parts,
        native=native,
        multiple=release.multiple,
        licence=licence or release.licence,
        paper=chosen.paper,
        training="see its publisher",
        defaults={**chosen.defaults, **release.defaults},
        notes=notes,
    )


WRITING: Mapping[str, Card] = {
    "dalle": Card(
        name="dalle",
        system="mindseye.systems.dalle:DALLE",
        parts={"tokenizer": Vocabulary(None, "plain")},
        native=(256, 256),
        multiple=1,
        licence="MIT",
        paper="arXiv:2102.12092",
        training="see its publisher",
        options={"filter_thres": 0.9},
        facts={"always_told": True},
    ),
    "mindalle": Card(
        name="mindalle",
        system="mindseye.systems.dalle:DALLE",
        parts={"tokenizer": Vocabulary(None, "char-bpe")},
        native=(256, 256),
        multiple=1,
        licence="CC-BY-NC-SA-4.0",
        paper="https://github.com/kakaobrain/minDALL-E",
        training="14 million pictures of CC3M and CC12M",
        options={"top_k": 256},
        facts={"always_told": True},
    ),
    "dalle-mini": Card(
        name="dalle-mini",
        system="mindseye.systems.dalle_mini:DalleMini",
        parts={"tokenizer": Vocabulary(None, "bart")},
        native=(256, 256),
        multiple=1,
        licence="Apache-2.0",
        paper="https://github.com/borisdayma/dalle-mini",
        training="see its publisher",
        defaults={"guidance": 10.0},
    ),
}
"""How released models that write tokens are used, by family: what their cards have in common."""


def _writer(release: Release, name: str, licence: str) -> Card:
    """A card for a model that writes tokens: its network, its codec, its tokenizer."""
    usual = WRITING[release.family]
    length = int(release.facts["length"])
    words: dict[str, Source] = {
        field: Vocabulary(folder, getattr(usual.parts[field], "kind", "plain"), length)
        for field, folder in release.tokenizers.items()
    }
    return replace(
        usual,
        name=name,
        parts={**{field: Foreign(part) for field, part in release.parts.items()}, **words},
        native=release.native,
        multiple=release.multiple,
        licence=licence or release.licence or usual.licence,
        notes=release.notes,
    )


def card_of(release: Release, name: str, *, licence: str = "", manner: str = "") -> Card:
    """A card for a release that the user has.

    Args:
        release: What was found in the file or folder.
        name: What the user calls it.
        licence: Of the weights, where it is known better than by the family.
        manner: How to paint with it, a key of its family in `MANNERS`; the usual one when empty.

    Raises:
        UnknownName: It cannot be painted with in that manner.
        UsageError: Nothing can be painted with it alone.
    """
    if release.family in EARLY:
        return _early(release, name, manner, licence)
    if manner:
        raise UnknownName(f"manner of painting with {name}", manner, ["(none)"])
    if release.family in WRITERS:
        return _writer(release, name, licence)
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


_CODECS = ("vqgan:VQGAN", "vit_vqgan:ViTVQGAN", "dvae:DVAE", "discrete_vae:DiscreteVAE")
"""Networks that turn pictures into tokens and back; whichever it is, VQGAN-CLIP paints with it."""


def retrained(card: Card, folder: Path) -> Card:
    """The card with parts of the user's own training in place of those that are shipped.

    Runs that lie beside that of a part are taken, too, as they are in training: what it was trained over belongs to it.

    Args:
        card: One of the table.
        folder: What `mindseye train` wrote: the folder of a run, that of several runs, or the file of a part.

    Raises:
        UsageError: No part of the card's lies there.
    """
    here = folder.expanduser()
    here = here.parent if here.is_file() else here
    shipped = {part: source for part, source in card.parts.items() if isinstance(source, Pocket)}
    names = {part: source.path.name for part, source in shipped.items()}
    found = {part: here / name for part, name in names.items() if (here / name).is_file()}
    if card.system.endswith(":VQGANCLIP") and "codec" not in found:
        codec = next((path for path in sorted(here.glob("*.safetensors")) if _network(path) in _CODECS), None)
        found |= {} if codec is None else {"codec": codec}
    runs = here.parent if found else here
    beside = {part: runs / Path(name).stem / name for part, name in names.items()}
    found = {part: path for part, path in beside.items() if path.is_file()} | found
    if not found:
        raise UsageError(
            f"{folder} holds no part of {card.name}",
            hint=f"it has {', '.join(names.values())}; mindseye train writes a part when its run ends",
        )
    own = {part: File(path, shipped[part].length, shipped[part].plain) for part, path in found.items()}
    mine = ", ".join(path.stem for path in found.values())
    theirs = ", ".join(Path(name).stem for part, name in names.items() if part not in found) or "nothing"
    return replace(
        card,
        name=f"{card.name}:{folder}",
        parts={**card.parts, **own},
        licence="",
        training=f"yours, in {folder}",
        notes=(*card.notes, f"of your training: {mine}; as shipped: {theirs}"),
    )


def drawn_with(name: str) -> str | None:
    """The first card that has a shipped part of that name; for a tokenizer of pictures that none has, VQGAN-CLIP's."""
    cards = (card.name for card in ZOO for source in card.parts.values() if isinstance(source, Pocket)
             if source.path.stem == name)  # fmt: skip
    return next(cards, {"vit-vqgan-pocket": "vqgan-clip-pocket", "discrete-vae-pocket": "dvae-pocket"}.get(name))


def _network(path: Path) -> str:
    """Which of our networks a file holds, as "module:Class"; empty where it is none that we wrote."""
    from mindseye.checkpoints.manifest import read_manifest

    home, _, network = read_manifest(path).metadata.get("network", "").rpartition(".")
    return network if home == "mindseye.networks" else ""


def _own(path: Path, manner: str) -> Card | None:
    """The card that a part of the user's own training belongs to; None where the path is no such part."""
    run = (path / "recipe.json").is_file()
    files = sorted(path.glob("*.safetensors")) if run else [path] if path.suffix == ".safetensors" else []
    file, network = next(((file, found) for file in files if file.is_file() and (found := _network(file))), (path, ""))
    if not network:
        if run:
            raise UsageError(
                f"the run in {path} has not finished a part",
                hint=f"mindseye train RECIPE --run {path} --resume goes on with it",
            )
        return None
    name = f"{manner}-pocket" if manner else drawn_with(file.stem)
    if name is None:
        raise UsageError(
            f"{file.name} is one part of a model ({network.rpartition(':')[2]}), and no card has one of that name",
            hint="-m CARD:FOLDER draws with a card and what lies in the folder, by the names that training gives",
        )
    return retrained(next(card for card in ZOO if card.name == name), path)


def find(name: str) -> Card:
    """The card of that name: one of the table, one of the user's, or the path of a checkpoint itself.

    A manner may stand before the name, as in ``big-sleep:NAME`` (see `MANNERS`). What the user has trained is named by
    its path, ``runs/adm-pocket``, or by a card of the table and its path, ``disco-pocket:runs`` (see `retrained`).

    Raises:
        UnknownName: With the nearest one that exists.
        WeightsMissing: It is a public release that is not on this machine.
        WeightsError: It is a file or folder, and no checkpoint that can be read.
        UsageError: Nothing can be painted with it alone.
    """
    from mindseye.checkpoints.library import Library
    from mindseye.checkpoints.releases import identify

    for card in ZOO:
        if card.name == name:
            return card
        if name.startswith(f"{card.name}:"):
            return retrained(card, Path(name.removeprefix(f"{card.name}:")))
    manner, _, rest = name.partition(":")
    manner, name = (manner, rest) if rest and any(manner in each for each in MANNERS.values()) else ("", name)
    library = Library()
    if name.startswith(("hub:", "hf:")):
        entry = library.usable(name)
        return card_of(identify(entry.path), entry.name, licence=entry.licence, manner=manner)
    if os.sep in name or name.startswith("~") or Path(name).suffix in (".safetensors", ".ckpt"):
        path = Path(name).expanduser()
        # Two files of one name in a watched folder are told apart by theirs: that looks like a path, too.
        if path.exists() or name not in {entry.name for entry in library.entries()}:
            return _own(path, manner) or card_of(identify(path), Path(name).stem, manner=manner)
    # A CLIP is a critic first, but can be painted with; what a second model is for, its error says.
    kinds: tuple[Kind, ...] = ("model", "clip", "secondary")
    for kind in ("clip", "model") if manner in MANNERS["clip"] else kinds:
        try:
            entry = library.usable(name, kind)
        except UnknownName:
            continue
        return card_of(identify(entry.path), entry.name, licence=entry.licence, manner=manner)
    names = [card.name for card in ZOO if card.ready] + [each.name for each in library.entries("model")]
    raise UnknownName("model", name, names)
