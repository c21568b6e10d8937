"""A1111's infotext: the plain text that nearly every gallery reads.

The prompt, then `Negative prompt: ...` if there is one, then a last line `key: value, key: value`; a value that holds a
comma, colon or newline is a JSON string. Whether the last line is such a line is decided by how many pairs it parses
to: three at least. The usual reader is a regular expression whose time grows with the square of the text, so a crafted
file can hold it up for minutes; `pairs_of` scans by hand in linear time to the same result.

One addition: an extension for dynamic prompts puts its templates after that line, which hides it from the usual reader.
Such lines are passed over.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

LONGEST_TEXT = 1 << 20
"""Characters of a text that are looked at."""

_FEWEST_PAIRS = 3
_TEMPLATES = ("Template:", "Negative Template:")


@dataclass(frozen=True, kw_only=True)
class Infotext:
    """The plain-text account of a picture."""

    prompt: str
    negative: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


def format_infotext(info: Infotext) -> str:
    """The text itself."""
    lines = [info.prompt]
    if info.negative:
        lines.append(f"Negative prompt: {info.negative}")
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in info.fields.items()))
    return "\n".join(lines)


def parse_infotext(text: str) -> Infotext:
    """The inverse of `format_infotext`, for anybody's text. Never raises; a text without fields is all prompt."""
    lines = text[:LONGEST_TEXT].strip().split("\n")
    pairs = pairs_of(lines[-1])
    if len(pairs) >= _FEWEST_PAIRS:
        lines.pop()
    else:
        pairs, lines = _above_templates(lines)
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in lines:
        line = line.strip()
        if line.startswith("Negative prompt:"):
            into, line = negative, line.removeprefix("Negative prompt:").strip()
        into.append(line)
    return Infotext(prompt="\n".join(prompt).strip(), negative="\n".join(negative).strip(), fields=dict(pairs))


def _above_templates(lines: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """The pairs of the last `Steps: ` line if templates follow it, and the lines before; else no pairs, all lines."""
    for number in range(len(lines) - 2, -1, -1):
        if lines[number].startswith("Steps: "):
            pairs = pairs_of(lines[number])
            if len(pairs) >= _FEWEST_PAIRS and lines[number + 1].startswith(_TEMPLATES):
                return pairs, lines[:number]
            break
    return [], lines


def pairs_of(line: str) -> list[tuple[str, str]]:
    """The `key: value` pairs of a line.

    A key is two or more of word characters, spaces, dashes and slashes, the first a word character. A value is a
    quoted string with backslash escapes that a comma or the end follows, or else whatever comes before the next comma.
    Text that is neither is passed over.

    A key never holds a colon, so each colon is looked at once, backwards to the last comma or colon; a quoted value
    ends at the first bare quote, and an opening quote would have been such a one, so no stretch is scanned twice.
    """
    found: list[tuple[str, str]] = []
    at, end = 0, len(line)
    while (colon := line.find(":", at)) != -1:
        start = colon
        while start > at and (_is_word(line[start - 1]) or line[start - 1] in " -/"):
            start -= 1
        while start < colon and not _is_word(line[start]):
            start += 1
        at = colon + 1
        if colon - start < 2:
            continue
        value_at = at
        while value_at < end and line[value_at].isspace():
            value_at += 1
        stop = _closing_quote(line, value_at)
        if stop is None:
            comma = line.find(",", value_at)
            stop = end if comma == -1 else comma
        found.append((line[start:colon], _unquote(line[value_at:stop])))
        at = stop + 1
    return found


def _closing_quote(line: str, at: int) -> int | None:
    """The end of a quoted value that starts here and is followed by a comma or nothing; None if there is none."""
    if at >= len(line) or line[at] != '"':
        return None
    position = at + 1
    while position < len(line) and line[position] != '"':
        position += 2 if line[position] == "\\" else 1
    after = position + 1
    if position >= len(line) or position == at + 1 or (after < len(line) and line[after] != ","):
        return None
    return after


def _is_word(character: str) -> bool:
    """A regular expression's idea of a word character."""
    return character.isalnum() or character == "_"


def _quote(value: str) -> str:
    """A value that would not survive bare, as a JSON string."""
    bare = not any(mark in value for mark in ',:\n"') and value == value.strip()
    return value if bare else json.dumps(value, ensure_ascii=False)


def _unquote(value: str) -> str:
    """The inverse of `_quote`; what only looks quoted stays as it is."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        try:
            return str(json.loads(value))
        except (ValueError, RecursionError):
            return value
    return value
