"""Parts that options call by name: other CLIPs to listen to, and the second model of Disco Diffusion.

A card brings one critic. `critics=NAME, NAME` puts CLIPs of the user's library in its place, up to as many as the
system has seats for; "pocket" is the one that comes with mindseye, so that it may sit beside others.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, final

from mindseye.checkpoints.library import Library
from mindseye.checkpoints.releases import Release, identify
from mindseye.engine.parts import Parts
from mindseye.errors import OptionError, WeightsError
from mindseye.request import Request
from mindseye.zoo import Foreign, Pocket, Source, Vocabulary

__all__ = ["Calling"]

SEATS = (("clip", "tokenizer"), ("clip_2", "tokenizer_2"), ("clip_3", "tokenizer_3"))
OURS = "pocket"


@final
class Calling:
    """Finds what options name and puts it into a system.

    Args:
        library: Where names lead.
        parts: Loads and keeps networks.
    """

    def __init__(self, library: Library, parts: Parts) -> None:
        self._library, self._parts = library, parts

    def fit(self, system: Any, request: Request) -> tuple[Any, list[str]]:
        """The system with what the request's options name, and a sentence on each liberty taken.

        Raises:
            UnknownName: Nothing of that name; with the nearest.
            OptionError: More critics than seats, or none.
            WeightsError: What is named cannot be used.
        """
        critics, secondary = (str(request.options.get(name, "")) for name in ("critics", "secondary"))
        if not (critics or secondary):
            return system, []
        changes: dict[str, Any] = {}
        said: list[str] = []
        if critics:
            changes, said = self._critics(critics, system)
        if secondary:
            changes["secondary"] = self._parts.get(Foreign(self._found(secondary, "secondary").parts["secondary"]))
        return replace(system, **changes), said

    def _critics(self, text: str, system: Any) -> tuple[dict[str, Any], list[str]]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        own = type(system).__dataclass_fields__
        seats = [seat for seat in SEATS if seat[0] in own]
        if not names:
            raise OptionError(f"critics={text!r:.80} names none", hint="--set critics=pocket is the one that is there")
        if len(names) > len(seats):
            raise OptionError(f"critics={text!r:.80} names {len(names)}; this system listens to {len(seats)} at most")
        changes: dict[str, Any] = {name: None for seat in seats[len(names) :] for name in seat}
        said: list[str] = []
        for (clip, tokenizer), name in zip(seats, names, strict=False):
            network: Source = Pocket("clip")
            words: Source = Pocket("bpe", length=48)
            if name != OURS:
                found = self._found(name, "clip")
                network = Foreign(found.parts["clip"])
                words = Vocabulary(None, "clip", int(found.facts["length"]), pad=0)
                said += found.notes
            changes |= {clip: self._parts.get(network), tokenizer: self._parts.get(words)}
        return changes, said

    def _found(self, name: str, kind: Literal["clip", "secondary"]) -> Release:
        """What is at a path, or the library's entry of that kind."""
        given = Path(name).expanduser()
        path = given if given.exists() and "/" in name else self._library.usable(name, kind).path
        found = identify(path)
        if found.family != kind:
            wanted = {"clip": "a CLIP", "secondary": "a second model of Disco Diffusion"}[kind]
            raise WeightsError(f"{path} is of the family {found.family}, and {wanted} is needed")
        return found
