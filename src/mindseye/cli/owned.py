"""What the user has of what another program's picture was drawn with: models, autoencoders, LoRAs, learned words.

Pictures call all of these by names, and say by fingerprints which files they mean. Fingerprints of models and of LoRAs
by other names are compared as far as they were taken before: nobody waits for gigabytes to be read for a hint.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mindseye.checkpoints.hashes import early
from mindseye.checkpoints.library import Library
from mindseye.metadata.found import stem

if TYPE_CHECKING:
    from mindseye.checkpoints.index import Entry
    from mindseye.metadata import Drawer, Found
    from mindseye.request import Request

__all__ = ["drawers", "named_as_here", "vaes", "weights"]


def drawers(library: Library) -> "list[Drawer]":
    """Every card as far as a translation must know it. This wakes torch, which has to draw in a moment anyway."""
    from mindseye import zoo
    from mindseye.engine.engine import system_class
    from mindseye.engine.options import knobs
    from mindseye.metadata import Drawer

    entries = [entry for entry in library.entries("model") if not entry.problem]
    found = [(card, None) for card in zoo.ZOO if card.ready] + [(zoo.find(entry.name), entry) for entry in entries]
    made = []
    for card, entry in found:
        kind = system_class(card)
        made.append(
            Drawer(
                name=card.name,
                native=card.native,
                hashes=() if entry is None else _hashes(library, entry.path),
                samplers=tuple(getattr(kind, "samplers", ())) or None,
                options=tuple(knob.name for knob in knobs(kind.Options)),
                flow=card.facts.get("prediction") == "flow",
                skips=entry is None or not entry.family.startswith(("sd2", "sdxl")),
            )
        )
    return made


def vaes(library: Library) -> tuple[str, ...]:
    """Names of the user's autoencoders."""
    return tuple(entry.name for entry in library.entries("vae") if not entry.problem)


def named_as_here(request: "Request", found: "Found", library: Library) -> "tuple[Request, list[str]]":
    """The request with LoRAs called as the user calls them, and a sentence for each that is another file, or not there.

    Args:
        request: With the picture's own prompt.
        found: What the picture says.
        library: What the user has.
    """
    prompt, notices = request.prompt, []
    loras = {entry.name.lower(): entry for entry in library.entries("lora") if not entry.problem}
    for each in found.fields.get("loras", ()):
        name, digest = each.get("name", ""), each.get("hash", "").lower()
        if len(digest) < 8 or f"<lora:{name}".lower() not in prompt.lower():
            continue
        own = loras.get(name.lower())
        if own is None:
            own = next((entry for entry in loras.values() if _known(library, entry, digest)), None)
            if own is not None:
                for end in ":>":
                    prompt = prompt.replace(f"<lora:{name}{end}", f"<lora:{own.name}{end}")
                notices.append(f"its LoRA {name} is called {own.name} here")
        elif not _is(library, own, digest):
            notices.append(
                f"its LoRA {name} was another file ({digest[:12]}) than the one here: the picture will differ"
            )
    words = {entry.name.lower(): entry for entry in library.entries("embedding") if not entry.problem}
    for part in found.fields.get("extra", {}).get("TI hashes", "").split(",")[:100]:
        name, _, digest = (piece.strip() for piece in part.rpartition(":"))
        if not name:
            continue
        own = words.get(name.lower())
        if own is None:
            notices.append(f"its learned word {name[:60]} is not among yours: it is read as plain text")
        elif len(digest) >= 8 and not _is(library, own, digest.lower()):
            notices.append(f"its learned word {name} was another file ({digest[:12]}) than the one here")
    return replace(request, prompt=prompt), list(dict.fromkeys(notices))


def weights(request: "Request", found: "Found", library: Library) -> dict[str, str]:
    """The fingerprint of the model of that name, to be compared with the one here once that was taken."""
    digest = found.fields.get("model_hash", "").lower()
    named = stem(found.fields.get("model", "")).lower()
    for entry in library.entries("model"):
        if entry.name == request.model and entry.name.lower() == named and entry.path.is_file():
            return {"unet": digest} if len(digest) in (10, 64) else {}
    return {}


def _hashes(library: Library, path: Path) -> tuple[str, ...]:
    """By what "Model hash" a picture may call a file."""
    if not path.is_file():
        return ()
    taken = library.known(path)
    return (early(path), *(() if taken is None else (taken.sha256,)))


def _is(library: Library, entry: "Entry", digest: str) -> bool:
    """Whether a file is the one that is meant; a folder is taken for it."""
    if not entry.path.is_file():
        return True
    taken = library.hashes(entry.path)
    return taken.sha256.startswith(digest) or taken.tensors.startswith(digest)


def _known(library: Library, entry: "Entry", digest: str) -> bool:
    """Whether a file is known to be the one that is meant."""
    taken = library.known(entry.path) if entry.path.is_file() else None
    return taken is not None and (taken.sha256.startswith(digest) or taken.tensors.startswith(digest))
