r"""The language of prompts: what to draw, how strongly, when, and with which adapters.

AUTOMATIC1111's grammar, which most prompts that people share are written in, read in its order:

    <lora:name:0.8>            an adapter and its weight, taken out of the text
    a cat AND a dog :1.2       several texts, each guiding on its own, weighted (Liu et al. 2022, arXiv:2206.01714)
    [from:to:when], [a|b]      texts that change with the step (`mindseye.text.schedule`)
    (more), [less], (x:1.3)    weights (`mindseye.text.attention_syntax`), and `BREAK`

Nothing in a prompt is an error: what is no syntax is text. Every function is linear in the length of the prompt and
recurses nowhere, for prompts come out of other people's files.

Where we deviate: the weight behind a colon at the end is one only where there are several texts. The reference reads
"a clock at 10:30" as "a clock at 10" guided thirty times as strongly.
"""

import math
import re
from dataclasses import dataclass, field
from typing import NamedTuple, final

from mindseye.errors import PromptError
from mindseye.text.attention_syntax import BREAK, Break, Span, Spans, attention
from mindseye.text.schedule import Entry, Schedule

__all__ = [
    "BREAK",
    "Branch",
    "Break",
    "Entry",
    "NetworkUse",
    "Prompt",
    "Schedule",
    "Span",
    "Spans",
    "attention",
    "parse",
    "split_networks",
]

_NETWORK = re.compile(r"<(\w+):")
_AND = re.compile(r"\bAND\b")
_WEIGHT = re.compile(r"\s*([+-]?(?:[0-9]+\.?|[0-9]*\.[0-9]+))\s*")


class NetworkUse(NamedTuple):
    """`<kind:name:...>`: an adapter asked for in the prompt.

    Attributes:
        kind: "lora", "lyco", "hypernet", or whatever stood there.
        name: Which one; "" if only named arguments were given.
        args: What followed the name, in order, `key=value` among it.
    """

    kind: str
    name: str
    args: tuple[str, ...] = ()

    @property
    def named(self) -> dict[str, str]:
        """The arguments of the form `key=value`."""
        return dict(arg.split("=", 1) for arg in self.args if "=" in arg)

    @property
    def positional(self) -> tuple[str, ...]:
        """The other arguments."""
        return tuple(arg for arg in self.args if "=" not in arg)

    @property
    def text_weight(self) -> float:
        """For the text encoder: `te=`, else the first number, else 1.

        Raises:
            PromptError: It is no number.
        """
        return self._number(self.named.get("te", self.positional[0] if self.positional else "1"))

    @property
    def unet_weight(self) -> float:
        """For the network that draws: `unet=`, else the second number, else what the text encoder has.

        Raises:
            PromptError: It is no number.
        """
        text = self.named.get("unet", self.positional[1] if len(self.positional) > 1 else None)
        return self.text_weight if text is None else self._number(text)

    @property
    def partial(self) -> bool:
        """Whether it is wanted even where most of it does not fit: `partial=yes`."""
        return self.named.get("partial", "").lower() in ("yes", "true", "1")

    def _number(self, text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise PromptError(
                f"<{self.kind}:{self.name}:...> has the weight {text!r:.40}, which is no number",
                hint=f"<{self.kind}:{self.name}:0.8>, or with two weights for text encoder and network :0.8:1",
            )
        return number


@final
@dataclass(slots=True)
class Branch:
    """One of the texts that AND joins. Nothing of it is meant to be changed.

    Attributes:
        weight: How strongly it guides; 1 is plain.
        text: As written, without its weight.
        steps: Of the first pass.
        hires_steps: Of the second pass; 0 if there is none.
    """

    weight: float
    text: str
    steps: int
    hires_steps: int = 0
    # Found when first asked for.
    _schedule: Schedule | None = field(default=None, init=False, repr=False, compare=False)
    _entries: tuple[Entry, ...] | None = field(default=None, init=False, repr=False, compare=False)
    _hires_entries: tuple[Entry, ...] | None = field(default=None, init=False, repr=False, compare=False)

    @property
    def schedule(self) -> Schedule:
        """The text and how it changes with the step."""
        if self._schedule is None:
            self._schedule = Schedule(self.text)
        return self._schedule

    @property
    def entries(self) -> tuple[Entry, ...]:
        """(last step, text) of the first pass, in order."""
        if self._entries is None:
            self._entries = self.schedule.entries(self.steps)
        return self._entries

    @property
    def hires_entries(self) -> tuple[Entry, ...]:
        """The same of the second pass, its steps counted from 1; empty if there is none."""
        if self._hires_entries is None:
            second = self.hires_steps
            self._hires_entries = self.schedule.entries(second, after=self.steps) if second else ()
        return self._hires_entries

    @property
    def texts(self) -> tuple[str, ...]:
        """All different texts of both passes, in order: what has to be encoded, once each."""
        return tuple(dict.fromkeys(entry.text for entry in (*self.entries, *self.hires_entries)))

    def at(self, step: int, steps: int | None = None) -> str:
        """The text of one step of the first pass.

        Args:
            step: Counted from 1. (The reference's own loop counts from 0 and looks up its count, so that it draws the
                first entry one step longer; give it that count, and 0 is taken as 1, to draw what it draws.)
            steps: How many steps there are, if not those of the prompt.
        """
        return self.schedule.at(step, self.steps if steps is None else steps)


@final
@dataclass(frozen=True)
class Prompt:
    """A prompt, read.

    Attributes:
        text: As written.
        branches: What to draw; at least one.
        networks: The adapters asked for, in order.
    """

    text: str
    branches: tuple[Branch, ...]
    networks: tuple[NetworkUse, ...] = ()


def parse(text: str, *, steps: int, hires_steps: int = 0, negative: bool = False) -> Prompt:
    """Reads a prompt.

    Args:
        text: Any text.
        steps: Of the drawing.
        hires_steps: Of the second pass of a high-resolution drawing, if there is one.
        negative: It says what to keep away from: then `AND` and `<lora:...>` mean nothing and are text.
    """
    if negative:
        return Prompt(text, (Branch(1.0, text, steps, hires_steps),))
    plain, networks = split_networks(text)
    branches = tuple(Branch(weight, part, steps, hires_steps) for weight, part in _branches(plain))
    return Prompt(text, branches, networks)


def split_networks(text: str) -> tuple[str, tuple[NetworkUse, ...]]:
    """The text without its `<kind:name:...>`, and those."""
    if "<" not in text:
        return text, ()
    kept: list[str] = []
    networks: list[NetworkUse] = []
    done = 0
    for found in _NETWORK.finditer(text):
        if found.start() < done:
            continue  # inside the one before
        end = text.find(">", found.end())
        if end < 0:
            break
        if end == found.end():
            continue
        kept.append(text[done : found.start()])
        done = end + 1
        items = text[found.end() : end].split(":")
        name = "" if "=" in items[0] else items.pop(0)
        networks.append(NetworkUse(found[1], name.strip(), tuple(item.strip() for item in items)))
    kept.append(text[done:])
    return "".join(kept), tuple(networks)


def _branches(text: str) -> list[tuple[float, str]]:
    parts = _AND.split(text)
    if len(parts) == 1:
        return [(1.0, text)]
    branches = []
    for part in parts:
        before, colon, tail = part.rpartition(":")
        weight = _WEIGHT.fullmatch(tail) if colon else None
        if weight is None or len(weight[1]) > 32:
            branches.append((1.0, part.rstrip()))  # a number of more digits is no weight
        else:
            branches.append((float(weight[1]), before.rstrip()))
    return branches
