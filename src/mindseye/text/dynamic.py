r"""Dynamic prompts: one text that stands for many.

The template language of the extension of that name for AUTOMATIC1111's web interface:

    {red|green}                 one of them; {3::red|green} red three times as often
    {2$$a|b|c}                  two different ones, joined by a comma; {1-2$$ and $$a|b|c} one or two, joined by " and "
    __colours__, __dir/*__      a line of colours.txt, of any file in dir (`mindseye.text.wildcards`)
    ${x={a|b}} ${x} and ${x}    a variable, drawn anew each time; ${x=!{a|b}} drawn once; ${x:otherwise} with a default
    __scene(x=red)__            a wildcard with variables of its own
    {~a|b}, __@colours__        always at random; in turn, picture by picture
    # words                     a comment up to the end of the line

What is no syntax is text, a backslash before one of `{ } | $ # _` makes it text, and a text without any syntax comes
back as it is. What comes out is a prompt (`mindseye.text.prompt`).

The same seed always gives the same text, on any machine; picture i of a request takes seed + i. "In turn" means the
seed's place: consecutive seeds walk through the options one by one.

Where we deviate: `#` begins a comment at the beginning of a line or between blanks only, so that "#1" stays; a bar
directly in a variable's value separates options, as in braces; a value given to a wildcard holds no round brackets.
Templates are untrusted: nesting, work and length have limits, and each has its sentence.
"""

import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias, final

from mindseye.errors import PromptError, UnknownName
from mindseye.text.wildcards import Wildcards, weighed

DEEPEST: Final = 32
"""How many braces may be open at once in one template."""
FORMS: Final = 10_000
"""How many braces, bars, wildcards and variables one template may hold; what only looks like one counts, too."""
WORK: Final = 20_000
"""How many of them may be looked at for one text."""
LONGEST: Final = 2**20
"""Characters of a text."""
_STACK = 80

_SYNTAX = re.compile(r"[{#]|__")
_HASH = r"(?<=\S)#|(?<=[^\S\n])#(?=\S)"
_OUTSIDE = re.compile(rf"(?:[^\\${{_#]+|\\(?:.|\Z)|\$(?!\{{)|_(?!_)|{_HASH})+", re.DOTALL)
_INSIDE = re.compile(rf"(?:[^\\${{}}|_#]+|\\(?:.|\Z)|\$(?!\{{)|_(?!_)|{_HASH})+", re.DOTALL)
_ESCAPED_OUTSIDE = re.compile(r"(\\\\)|\\([{}$#_])")
_ESCAPED_INSIDE = re.compile(r"(\\\\)|\\([{}|$#_])")
_BRACE = re.compile(r"\{([~@]?)(?:([0-9]{0,4})(-?)([0-9]{0,4})\$\$(?:([^{}|$]*)\$\$)?)?")
_VARIABLE = re.compile(r"\$\{\s*(\w+)\s*(=!?|:|\})")
_WILDCARD = re.compile(r"__([~@]?)((?:[^\W_]|[.\-/*?\[\]!]|_(?!_))+)(?:\(([^()]*)\))?__")
_ARGUMENT = re.compile(r"\s*(\w+)\s*=([^,]*)(?:,|\Z)")
_COMMENT = re.compile(r"#[^\n]*")


@final
@dataclass(frozen=True, slots=True)
class _Pick:
    """`{...}`."""

    options: "tuple[tuple[float, _Template], ...]"
    low: int = 1
    high: int = 1
    separator: str = ","
    sampler: str = ""


@final
@dataclass(frozen=True, slots=True)
class _Wildcard:
    """`__...__`."""

    name: str
    sampler: str
    arguments: "tuple[tuple[str, _Template], ...]"


@final
@dataclass(frozen=True, slots=True)
class _Assign:
    """`${x=...}`."""

    name: str
    value: "_Template"
    now: bool


@final
@dataclass(frozen=True, slots=True)
class _Use:
    """`${x}`."""

    name: str
    otherwise: "_Template | None"


_Node: TypeAlias = str | _Pick | _Wildcard | _Assign | _Use
_Template: TypeAlias = tuple[_Node, ...]


def is_dynamic(text: str) -> bool:
    """Whether there may be anything to expand."""
    return _SYNTAX.search(text) is not None


def expand(
    text: str, *, seed: int, wildcards: Path | Wildcards | None = None, variables: Mapping[str, str] | None = None
) -> str:
    """One of the texts that a template stands for.

    Args:
        text: The template. Without syntax it comes back as it is.
        seed: Which one.
        wildcards: Folder of the lists, or the lists.
        variables: Templates by name, as if `${name=...}` stood in front of the text.

    Raises:
        PromptError: A brace that is never closed; a wildcard or variable that contains itself; more work than any
            honest template makes.
        UnknownName: No such wildcard or variable.
        OptionError: No such folder.
        DataError: A file of wildcards cannot be read.
    """
    if not is_dynamic(text):
        return text
    template = _parse(text)
    if template == (text,):
        return text
    return _Expansion(_Random(seed), _opened(wildcards), variables or {}).run(template)


def combinations(
    text: str,
    limit: int = 1000,
    *,
    seed: int = 0,
    wildcards: Path | Wildcards | None = None,
    variables: Mapping[str, str] | None = None,
) -> tuple[str, ...]:
    """All the different texts that a template stands for, in the order of its options.

    Options of weight 0 are left out. What is marked `~` is not multiplied but drawn at random each time, what is marked
    `@` taken in turn.

    Args:
        text: The template.
        limit: How many there may be.
        seed: For what is marked `~`.
        wildcards: Folder of the lists, or the lists.
        variables: Templates by name.

    Raises:
        PromptError: There are more than `limit`, or what `expand` raises.
        UnknownName: As `expand`.
        OptionError: As `expand`.
        DataError: As `expand`.
    """
    if not is_dynamic(text):
        return (text,)
    template, lists = _parse(text), _opened(wildcards)
    every = _Every(seed)
    found: dict[str, None] = {}
    while True:
        if every.number >= limit:
            raise PromptError(
                f"this prompt stands for more than {limit:,} texts", hint="ask for fewer options or raise the limit"
            )
        found[_Expansion(every, lists, variables or {}).run(template)] = None
        if not every.advance():
            return tuple(found)


def _opened(wildcards: Path | Wildcards | None) -> Wildcards | None:
    return Wildcards(wildcards) if isinstance(wildcards, Path) else wildcards


class _Random:
    """Decides by lot.

    Attributes:
        number: Which text of a series this is; what is taken in turn goes by it.
    """

    def __init__(self, seed: int) -> None:
        self.number = seed
        self._random = random.Random(seed)

    def choose(self, weights: list[float], at_random: bool = False) -> int:
        """Index of one of them, in proportion; if all are 0, all are equal."""
        # Of Python's generator, only random() is promised to give the same numbers in every version.
        total = sum(weights)
        if not total:
            return min(int(self._random.random() * len(weights)), len(weights) - 1)
        rest = self._random.random() * total
        for index, weight in enumerate(weights):
            rest -= weight
            if rest < 0:
                return index
        return max(index for index, weight in enumerate(weights) if weight)


class _Every:
    """Decides in all ways, one text after the other, like an odometer whose last wheel turns first.

    Attributes:
        number: Which text of the series this is.
    """

    def __init__(self, seed: int) -> None:
        self.number = 0
        self._seed, self._random = seed, _Random(seed)
        self._wheels: list[tuple[int, int]] = []  # (place, places)
        self._asked = 0

    def choose(self, weights: list[float], at_random: bool = False) -> int:
        """What the wheel that is next says."""
        if at_random:
            return self._random.choose(weights)
        possible = [index for index, weight in enumerate(weights) if weight] or list(range(len(weights)))
        if self._asked == len(self._wheels):
            self._wheels.append((0, len(possible)))
        self._asked += 1
        return possible[self._wheels[self._asked - 1][0]]

    def advance(self) -> bool:
        """Sets the wheels for the next text; False when they have been everywhere."""
        self.number += 1
        self._asked = 0
        self._random = _Random(self._seed + self.number)
        while self._wheels:
            place, places = self._wheels.pop()
            if place + 1 < places:
                self._wheels.append((place + 1, places))
                return True
        return False


class _Expansion:
    """One text in the making."""

    def __init__(self, chooser: _Random | _Every, wildcards: Wildcards | None, variables: Mapping[str, str]) -> None:
        self.chooser, self.wildcards = chooser, wildcards
        self.variables: dict[str, _Template] = {name: _parse(text) for name, text in variables.items()}
        self._work = 0
        self._active: list[str] = []
        self._depth = 0

    def run(self, template: _Template) -> str:
        """What the whole becomes."""
        return self.text(template).strip()

    def text(self, template: _Template) -> str:
        """What a template becomes this time."""
        if self._depth >= _STACK:
            raise PromptError(f"this prompt goes {_STACK} levels deep: braces, wildcards and variables in one another")
        self._depth += 1
        pieces = [node if isinstance(node, str) else self._node(node) for node in template]
        self._depth -= 1
        if sum(map(len, pieces)) > LONGEST:
            raise PromptError(f"this prompt grows beyond {LONGEST:,} characters")
        return "".join(pieces)

    def _node(self, node: _Pick | _Wildcard | _Assign | _Use) -> str:
        self._work += 1
        if self._work > WORK:
            raise PromptError(f"this prompt takes more than {WORK:,} choices: a wildcard or variable that multiplies")
        if isinstance(node, _Pick):
            return self._pick(node)
        if isinstance(node, _Wildcard):
            options = self._values(node.name)
            with self._inside(f"__{node.name}__", node.arguments):
                return self.text(_parse(options[self._one([weight for weight, _ in options], node.sampler)][1]))
        if isinstance(node, _Assign):
            self.variables[node.name] = (self.text(node.value),) if node.now else node.value
            return ""
        value = self.variables.get(node.name, node.otherwise)
        if value is None:
            raise UnknownName("variable", node.name, self.variables, hint=f"${{{node.name}=...}} sets it")
        with self._inside(f"${{{node.name}}}"):
            return self.text(value)

    def _pick(self, node: _Pick) -> str:
        options: list[tuple[float, _Template | str]] = list(node.options)
        around = ""
        if node.high > 1 and len(options) == 1:
            alone = [each for each in node.options[0][1] if not isinstance(each, str) or each.strip()]
            if len(alone) == 1 and isinstance(alone[0], _Wildcard) and not alone[0].arguments:
                # {2$$__colours__} means two colours.
                options = list(self._values(alone[0].name))
                around = f"__{alone[0].name}__"
        high = min(node.high, len(options))
        low = min(node.low, high)
        count = low if low == high else low + self.chooser.choose([1.0] * (high - low + 1), node.sampler == "~")
        texts = []
        left = list(range(len(options)))
        for _ in range(count):
            index = left.pop(self._one([options[index][0] for index in left], node.sampler))
            self._work += len(left) // 64
            template = options[index][1]
            with self._inside(around):
                texts.append(self.text(_parse(template) if isinstance(template, str) else template))
        return node.separator.join(texts)

    def _one(self, weights: list[float], sampler: str) -> int:
        if sampler == "@":
            possible = [index for index, weight in enumerate(weights) if weight] or list(range(len(weights)))
            return possible[self.chooser.number % len(possible)]
        return self.chooser.choose(weights, sampler == "~")

    def _values(self, name: str) -> list[tuple[float, str]]:
        if self.wildcards is None:
            raise PromptError(
                f"the prompt asks for the wildcard __{name}__, but no folder of wildcards is given",
                hint=rf"name a folder, or write \__{name}__ for the characters themselves",
            )
        values = self.wildcards.values(name)
        self._work += len(values) // 64  # a long list is work, too
        return list(values)

    @contextmanager
    def _inside(self, name: str = "", arguments: tuple[tuple[str, _Template], ...] = ()) -> Iterator[None]:
        """While something named is expanded: it may not contain itself, and has variables of its own."""
        if name and name in self._active:
            chain = " -> ".join([*self._active[self._active.index(name) :], name])
            raise PromptError(f"{name} contains itself: {chain:.300}")
        hidden = {variable: self.variables.get(variable) for variable, _ in arguments}
        self.variables.update(arguments)
        if name:
            self._active.append(name)
        yield
        if name:
            self._active.pop()
        for variable, value in hidden.items():
            if value is None:
                self.variables.pop(variable, None)
            else:
                self.variables[variable] = value


class _Open:
    """A brace or variable that is not closed yet; also the whole template."""

    def __init__(self, position: int, head: re.Match[str] | None) -> None:
        self.position, self.head = position, head
        self.options: list[tuple[float, _Template]] = []
        self.nodes: list[_Node] = []
        self.weight = 1.0

    def next_option(self) -> None:
        self.options.append((self.weight, tuple(self.nodes)))
        self.nodes, self.weight = [], 1.0

    def close(self) -> _Node:
        self.next_option()
        options, head = tuple(self.options), self.head
        if head is None:
            return _Pick(options)
        if head.re is _VARIABLE:
            value = options[0][1] if len(options) == 1 else (_Pick(options),)
            return _Use(head[1], value) if head[2] == ":" else _Assign(head[1], value, now=head[2] == "=!")
        sampler, first, dash, second, separator = head.groups()
        if first is None:
            return _Pick(options, sampler=sampler)
        most = len(options) if len(options) > 1 else 9999
        if dash:
            low, high = int(first or 1), int(second or most)
        else:
            low = high = int(first + second or 1)
        return _Pick(options, min(low, high), max(low, high), "," if separator is None else separator, sampler)


def _parse(text: str) -> _Template:
    """Reads a template.

    Raises:
        PromptError: A brace that is never closed, or too many.
    """
    if not is_dynamic(text):
        return (text,)
    stack = [_Open(0, None)]
    position = forms = 0
    while position < len(text):
        top = stack[-1]
        inside = len(stack) > 1
        found = (_INSIDE if inside else _OUTSIDE).match(text, position)
        if found:
            escaped = _ESCAPED_INSIDE if inside else _ESCAPED_OUTSIDE
            piece = found[0]
            top.nodes.append(escaped.sub(r"\1\2", piece) if "\\" in piece else piece)
            position = found.end()
            continue
        sign = text[position]
        found = None
        if sign == "#":
            found = _COMMENT.match(text, position)
        elif sign == "_":
            found = _WILDCARD.match(text, position)
            if found:
                top.nodes.append(_wildcard(found))
        elif sign == "$":
            found = _VARIABLE.match(text, position)
            if found and found[2] == "}":
                top.nodes.append(_Use(found[1], None))
            elif found:
                stack.append(_Open(position, found))
        elif sign == "{":
            found = _BRACE.match(text, position)
            stack.append(_Open(position, found))
        elif sign == "|":
            top.next_option()
        else:
            stack.pop()
            stack[-1].nodes.append(top.close())
        if found is None and sign in "_$":
            top.nodes.append("__" if sign == "_" else "$")
        position = found.end() if found else position + (2 if sign == "_" else 1)
        if sign == "|" or (sign == "{" and found):
            value = weighed(text[position : position + 24])
            stack[-1].weight, position = value.weight, position + (min(24, len(text) - position) - len(value.text))
        forms += sign != "}"
        if forms > FORMS or len(stack) > DEEPEST:
            many = f"more than {FORMS:,} braces, bars and wildcards" if forms > FORMS else f"over {DEEPEST} open braces"
            raise PromptError(f"the prompt has {many}; no honest template is like that")
    if len(stack) > 1:
        at = stack[-1].position
        raise PromptError(
            f"the brace at character {at + 1} is never closed: {text[at : at + 30]!r}",
            hint=r"close it, or write \{ for the character itself",
        )
    return tuple(stack[0].nodes)


def _wildcard(found: re.Match[str]) -> _Wildcard:
    sampler, name, given = found.groups()
    arguments = []
    position = 0
    while given and position < len(given):
        argument = _ARGUMENT.match(given, position)
        if argument is None:
            raise PromptError(f"the values given to __{name}__ are not of the form x=red, y=blue: {given!r:.80}")
        arguments.append((argument[1], _parse(argument[2].strip())))
        position = argument.end()
    return _Wildcard(name, sampler, tuple(arguments))
