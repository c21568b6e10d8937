"""Prompts that change while the picture is drawn: `[from:to:when]` and `[one|other]`.

Prompt editing and alternating words, as AUTOMATIC1111's web interface defined them:

    [from:to:when]  `from` until step `when`, `to` afterwards
    [to:when]       nothing, then `to`
    [from::when]    `from`, then nothing
    [a|b|c]         a, b, c, a, ... a new one every step; an option may be empty

`when` with a point in it is a fraction of the steps, without one it is a step. In the second pass of a high-resolution
drawing, 1.5 is half of that pass, and whole numbers go on counting after the first pass. They nest, also inside the
brackets of attention, which are text here.

A bracket that is part of no such form is text. A bar outside of `[...]`, or a backslash with nothing behind it, makes
the whole prompt text: the reference's grammar fails there, and it then takes the prompt as it stands.

Where we deviate: the reference parses with Earley's algorithm, cubic in the worst case and bound by the recursion
limit. The grammar is one of brackets, so one scan with a stack decides it: a bracket that turns out to be text makes
text of every bracket open around it, for it can only stand at the top. Among stray brackets the reference now and then
takes a well-formed schedule for text; here it always counts. Neighbouring steps with the same text are one entry. A
number beyond a billion is a billion.
"""

import math
import re
from typing import NamedTuple, final

_SEPARATORS = re.compile(r"([\[\]():|])")
_ESCAPES = re.compile(r"\\[^\n]")
_NUMBER = re.compile(r"\s*([+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)\s*")
_FAR = 1e9
_OPENING = {")": "(", "]": "["}


class Entry(NamedTuple):
    """A stretch of steps that draw the same text.

    Attributes:
        until: The last step of it, counted from 1.
        text: What to draw.
    """

    until: int
    text: str


@final
class Schedule:
    """A prompt and how it changes.

    Attributes:
        text: The prompt as written.
    """

    # The prompt, cut at its n separators, stays as it is in `_parts`: text 0, separator 0, text 1, ..., text n. "The
    # field (a, b)" is what lies between separators a and b. Every form is a row in `_edges`: how many fields it has,
    # its opening separator, those between its fields, its closing one. `_forms` says where the row of the form is that
    # a separator opens, -1 if it opens none, and `_next` which separator is the first to open one, here or further on.
    # All of it is flat: a million objects would keep the garbage collector busier than the scan.

    def __init__(self, text: str) -> None:
        """Reads a prompt; never fails."""
        self.text = text
        self._edges: list[int] = []
        self._numbers: dict[str, float | None] = {}
        self._counts: set[int] = set()
        if "[" not in text or (":" not in text and "|" not in text) or not self._read():
            self._edges.clear()
        if not self._edges:
            return
        self._next = [len(self._forms)] * (len(self._forms) + 1)
        following = len(self._forms)
        for index in range(len(self._forms) - 1, -1, -1):
            if self._forms[index] >= 0:
                following = index
            self._next[index] = following

    @property
    def varies(self) -> bool:
        """Whether any step can differ from any other."""
        return bool(self._edges)

    def at(self, step: int, steps: int, *, after: int = 0) -> str:
        """The text of one step.

        Args:
            step: Counted from 1; what lies outside is the nearest step.
            steps: How many there are in this pass.
            after: Steps of the pass before, if this is the second one; 0 if this is the first.
        """
        return self._at(max(1, min(step, steps)), self._ends(steps, after)) if self.varies else self.text

    def entries(self, steps: int, *, after: int = 0) -> tuple[Entry, ...]:
        """All texts of a pass, in order; the last one reaches to its end.

        Args:
            steps: How many there are in this pass; at least 1.
            after: Steps of the pass before, if this is the second one.
        """
        steps = max(1, steps)
        if not self.varies:
            return (Entry(steps, self.text),)
        ends = self._ends(steps, after)
        switches = {end for end in ends.values() if 1 <= end < steps} | {steps}
        # Steps that agree in every alternative and lie between the same switches have the same text.
        period = math.lcm(*self._counts) if self._counts else 1
        known: dict[int, str] = {}
        found: list[Entry] = []
        for step in range(1, steps + 1) if self._counts else sorted(switches):
            text = known.get(step % period)
            if text is None:
                text = known[step % period] = self._at(step, ends)
            if found and found[-1].text == text:
                found.pop()
            found.append(Entry(step, text))
            if step in switches:
                known.clear()
        return tuple(found)

    def _ends(self, steps: int, after: int) -> dict[str, int]:
        """The last step before each switch, by its number as written."""
        ends = {}
        for text, number in self._numbers.items():
            if number is not None:
                fraction = "." in text
                ends[text] = min(steps, int((number - (after > 0)) * steps) if fraction else int(number) - after)
        return ends

    def _at(self, step: int, ends: dict[str, int]) -> str:
        parts, edges, forms, following = self._parts, self._edges, self._forms, self._next
        pieces: list[str] = []
        left, right = -1, len(forms)
        rest: list[int] = []  # pairs: the field to go on with once this one is done
        while True:
            form = following[left + 1]
            if form >= right:
                pieces += parts[2 * left + 2 : 2 * right + 1]
                if not rest:
                    return "".join(pieces)
                right, left = rest.pop(), rest.pop()
                continue
            pieces += parts[2 * left + 2 : 2 * form + 1]
            row = forms[form]
            fields = edges[row]
            close = edges[row + 1 + fields]
            if parts[2 * edges[row + 2] + 1] == "|":
                chosen = row + 1 + (step - 1) % fields
            elif step > ends[parts[2 * close]]:
                chosen = row + fields - 1  # the field before the number
            elif fields == 3:
                chosen = row + 1
            else:
                left = close
                continue
            rest += (close, right)
            left, right = edges[chosen], edges[chosen + 1]

    def _read(self) -> bool:
        """The scan; False where the whole prompt is text."""
        parts = _SEPARATORS.split(self.text)
        if "\\" in self.text:
            masked = _ESCAPES.sub("__", self.text)
            if "\\" in masked:
                return False
            parts, end = _SEPARATORS.split(masked), 0
            for index, part in enumerate(parts):
                start, end = end, end + len(part)
                parts[index] = self.text[start:end]
        self._parts = parts
        separators = parts[1::2]
        self._forms = [-1] * len(separators)
        before = [-1] * len(separators)  # the separator before this one in the same bracket
        opens: list[int] = []
        lasts: list[int] = []  # of every open bracket, the last separator of its own
        bars = 0
        for index, separator in enumerate(separators):
            if separator == "[" or separator == "(":
                opens.append(index)
                lasts.append(-1)
            elif separator == ":" or separator == "|":
                if separator == "|":
                    if not opens or separators[opens[-1]] == "(":
                        return False
                    bars += 1
                if opens:
                    before[index] = lasts[-1]
                    lasts[-1] = index
            else:
                if opens and separators[opens[-1]] == _OPENING[separator]:
                    last = lasts.pop()
                    start = opens.pop()
                    if last < 0 or (separator == ")" and before[last] < 0):
                        continue
                    if separator == "]":
                        edges = [index, last]
                        while (last := before[last]) >= 0:
                            edges.append(last)
                        edges.append(start)
                        edges.reverse()
                        if self._is_form(edges):
                            self._forms[start] = len(self._edges)
                            self._edges += (len(edges) - 1, *edges)
                            if separators[edges[1]] == "|":
                                bars -= len(edges) - 2
                            continue
                if bars:
                    return False
                opens.clear()
                lasts.clear()
        return not bars

    def _is_form(self, edges: list[int]) -> bool:
        """Whether these separators, which belong together, are those of a switch or of alternatives."""
        parts = self._parts
        first = parts[2 * edges[1] + 1]
        if len(edges) > 3 and {parts[2 * edge + 1] for edge in edges[2:-1]} != {first}:
            return False
        if first == "|":
            self._counts.add(len(edges) - 1)
            return True
        if len(edges) > 4 or edges[-2] != edges[-1] - 1:
            return False
        text = parts[2 * edges[-1]]
        if text not in self._numbers:
            number = _NUMBER.fullmatch(text)
            self._numbers[text] = None if number is None else max(-_FAR, min(_FAR, float(number[1])))
        return self._numbers[text] is not None
