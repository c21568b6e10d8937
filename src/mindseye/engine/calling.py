"""Parts that options call by name: other CLIPs to listen to, and the second model of Disco Diffusion.

A card brings one critic. `critics=NAME, NAME` puts CLIPs of the user's library in its place, up to as many as the
system has seats for; "pocket" is the one that comes with mindseye, so that it may sit beside others.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple, final

from mindseye.checkpoints.library import Library
from mindseye.checkpoints.releases import Release, identify
from mindseye.engine.parts import Parts
from mindseye.errors import OptionError, WeightsError
from mindseye.request import Request
from mindseye.zoo import Foreign, Pocket, Source, Vocabulary

__all__ = ["Called", "Calling"]

SEATS = (("clip", "tokenizer"), ("clip_2", "tokenizer_2"), ("clip_3", "tokenizer_3"))
OURS = "pocket"


class Called(NamedTuple):
    """A system with what options name.

    Attributes:
        system: With those parts.
        said: A sentence on each liberty taken.
        sources: Where the parts came from that were called.
    """

    system: Any
    said: list[str]
    sources: dict[str, Source]


@final
class Calling:
    """Finds what options name and puts it into a system.

    Args:
        library: Where names lead.
        parts: Loads and keeps networks.
    """

    def __init__(self, library: Library, parts: Parts) -> None:
        self._library, self._parts = library, parts

    def fit(self, system: Any, request: Request) -> "Called":
        """The system with what the request's options name.

        Raises:
            UnknownName: Nothing of that name; with the nearest.
            OptionError: More critics than seats, or none.
            WeightsError: What is named cannot be used.
        """
        critics, secondary = (str(request.options.get(name, "")) for name in ("critics", "secondary"))
        if not (critics or secondary):
            return Called(system, [], {})
        sources: dict[str, Source | None] = {}
        said: list[str] = []
        if critics:
            sources, said = self._critics(critics, system)
        if secondary:
            sources["secondary"] = Foreign(self._found(secondary, "secondary").parts["secondary"])
        changes = {part: None if source is None else self._parts.get(source) for part, source in sources.items()}
        return Called(replace(system, **changes), said, {part: each for part, each in sources.items() if each})

    def _critics(self, text: str, system: Any) -> tuple[dict[str, Source | None], list[str]]:
        names = [name.strip() for name in text.split(",") if name.strip()]
        own = type(system).__dataclass_fields__
        seats = [seat for seat in SEATS if seat[0] in own]
        if not names:
            raise OptionError(f"critics={text!r:.80} names none", hint="--set critics=pocket is the one that is there")
        if len(names) > len(seats):
            raise OptionError(f"critics={text!r:.80} names {len(names)}; this system listens to {len(seats)} at most")
        sources: dict[str, Source | None] = {name: None for seat in seats[len(names) :] for name in seat}
        said: list[str] = []
        for (clip, tokenizer), name in zip(seats, names, strict=False):
            network: Source = Pocket("clip")
            words: Source = Pocket("bpe", length=48)
            if name != OURS:
                found = self._found(name, "clip")
                network = Foreign(found.parts["clip"])
                words = Vocabulary(None, "clip", int(found.facts["length"]), pad=0)
                said += found.notes
            sources |= {clip: network, tokenizer: words}
        return sources, said

    def _found(self, name: str, kind: Literal["clip", "secondary"]) -> Release:
        """What is at a path, or the library's entry of that kind."""
        given = Path(name).expanduser()
        path = given if given.exists() and "/" in name else self._library.usable(name, kind).path
        found = identify(path)
        if found.family != kind:
            wanted = {"clip": "a CLIP", "secondary": "a second model of Disco Diffusion"}[kind]
            raise WeightsError(f"{path} is of the family {found.family}, and {wanted} is needed")
        return found
