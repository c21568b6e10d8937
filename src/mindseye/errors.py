"""Everything mindseye says when it cannot do what was asked.

One tree, so that every door (command line, library, server) translates one type and nobody ever reads a traceback::

    MindseyeError               exit 1    http 500
    ├── UsageError              exit 2    http 400   the request cannot be met as it was asked
    │   ├── UnknownName                   http 404   no card, sampler, recipe ... of that name; carries the nearest
    │   ├── OptionError                   http 400   an option of the wrong type or out of its range
    │   ├── SizeError                     http 400   a picture size that cannot be drawn
    │   ├── PromptError                   http 400   an empty, unreadable or endless prompt
    │   ├── LimitError                    http 422   more pixels, steps or pictures than this engine allows
    │   └── ImageError                    http 415   a picture that cannot be read
    ├── WeightsError            exit 1    http 500   a weights file that is corrupt, foreign or holds NaN
    │   └── WeightsMissing      exit 3    http 503   a weights file that is not there
    ├── DataError               exit 1    http 500   a data set that is missing or cannot be read
    ├── OutputError             exit 1    http 507   a result that cannot be written
    ├── MemoryShort             exit 1    http 503   the device ran out of memory
    ├── Missing                 exit 1    http 501   an optional dependency that is not installed
    └── Interrupted             exit 130  http 499   the user stopped it

A message says what was asked and what is possible; `hint` says what to do next.
"""

import difflib
from collections.abc import Iterable
from typing import ClassVar


class MindseyeError(Exception):
    """Root of the tree: catch this and nothing else.

    Args:
        message: One or two sentences: what was asked, what is possible.
        hint: What to do next, without a full stop where it is a command.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def message(self) -> str:
        """The sentence, without the hint."""
        return str(self)


class UsageError(MindseyeError):
    """What was asked cannot be done as it was asked; the asker can mend it."""

    exit_code = 2
    http_status = 400


_MOST = 100
"""Names that a message lists; of more than that, half as many."""


class UnknownName(UsageError):
    """A name that is in no table.

    Args:
        kind: What the name should have been: "card", "sampler", "option of stable-diffusion-pocket".
        asked: The name as it was given.
        possible: The names that exist.
        hint: Overrides the nearest match as the hint.
    """

    http_status = 404

    def __init__(self, kind: str, asked: str, possible: Iterable[str], *, hint: str = "") -> None:
        self.kind, self.asked, self.possible = kind, asked, tuple(possible)
        self.nearest = nearest(asked, self.possible)
        known = ", ".join(self.possible if len(self.possible) <= _MOST else self.possible[: _MOST // 2]) or "none"
        known += f" and {len(self.possible) - _MOST // 2} more" if len(self.possible) > _MOST else ""
        super().__init__(
            f"there is no {kind} named {asked!r}; known: {known}",
            hint=hint or (f"did you mean {self.nearest!r}?" if self.nearest else ""),
        )


class OptionError(UsageError):
    """An option of the wrong type or out of its range."""


class SizeError(UsageError):
    """A picture size that cannot be drawn."""


class PromptError(UsageError):
    """A prompt that is empty, not text, or longer than any tokenizer should be asked to read."""


class LimitError(UsageError):
    """More pixels, steps or pictures than this engine allows."""

    http_status = 422


class ImageError(UsageError):
    """A picture that cannot be read: not a picture, cut short, or too large to be honest."""

    http_status = 415


class WeightsError(MindseyeError):
    """A weights file that is corrupt, in a foreign layout, or holds numbers that are not finite."""


class WeightsMissing(WeightsError):
    """A weights file that is not where the card says."""

    exit_code = 3
    http_status = 503


class DataError(MindseyeError):
    """A data set that is missing or cannot be read."""


class OutputError(MindseyeError):
    """A result that cannot be written: no such folder, no permission, no space."""

    http_status = 507


class MemoryShort(MindseyeError):
    """The device ran out of memory."""

    http_status = 503


class Missing(MindseyeError):
    """An optional dependency that is not installed.

    Args:
        extra: The extra of this package that brings it: "train", "parity".
        what: What needs it, as the subject of the sentence.
    """

    http_status = 501

    def __init__(self, extra: str, what: str = "this") -> None:
        self.extra = extra
        super().__init__(f"{what} needs packages that are not installed", hint=f'pip install "mindseye[{extra}]"')


class Interrupted(MindseyeError):
    """The user stopped it. Nothing half-made is left behind."""

    exit_code = 130
    http_status = 499


def nearest(asked: str, possible: Iterable[str]) -> str | None:
    """The name most like the one asked for, or None when none is like it."""
    by_lower = {name.lower(): name for name in possible}
    found = difflib.get_close_matches(asked.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None
