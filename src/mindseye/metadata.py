"""How a picture was made, written into the picture.

Two PNG text chunks: `parameters`, the plain text that AUTOMATIC1111's web UI writes and nearly every gallery reads,
and `mindseye`, JSON with the whole resolved request, which is what `--like` draws from.

The plain text is the prompt, then `Negative prompt: ...` if there is one, then a last line `key: value, key: value`;
a value that holds a comma, colon or newline is a JSON string. Whether the last line is such a line is decided by how
many pairs it parses to: three at least. The usual reader is a regular expression whose time grows with the square of
the text, so a crafted file can hold it up for minutes; `_pairs` scans by hand in linear time to the same result.
"""

import contextlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mindseye import __version__
from mindseye.errors import ImageError
from mindseye.request import Result, to_json

SCHEMA = 1
"""Of the JSON chunk; a reader refuses a higher one instead of guessing."""

LONGEST_TEXT = 1 << 20
"""Characters of a text chunk that are looked at."""

_FEWEST_PAIRS = 3


@dataclass(frozen=True, kw_only=True)
class Infotext:
    """The plain-text account of a picture."""

    prompt: str
    negative: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Account:
    """The full account of a picture, as in its `mindseye` chunk.

    Attributes:
        request: Fully resolved, as JSON values, for the whole batch the picture was drawn in.
        index: Which picture of that batch it is.
        version: Of mindseye.
        weights: sha256 of each part.
        seconds: For the whole batch.
    """

    request: Mapping[str, Any]
    index: int = 0
    version: str = __version__
    weights: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def texts(result: Result, index: int) -> dict[str, str]:
    """Both chunks for one picture of a result."""
    account = {
        "schema": SCHEMA,
        "request": to_json(result.request),
        "index": index,
        "seed": result.seeds[index],
        "version": __version__,
        "weights": dict(result.weights),
        "seconds": round(result.seconds, 3),
    }
    return {"parameters": format_infotext(infotext(result, index)), "mindseye": json.dumps(account, ensure_ascii=False)}


def infotext(result: Result, index: int) -> Infotext:
    """The plain-text account of one picture of a result, keys in the order the format's readers expect."""
    request = result.request
    image = result.images[index]
    values: dict[str, object] = {"Steps": request.steps, "Sampler": request.sampler or None}
    values |= {"CFG scale": _number(request.guidance), "Seed": result.seeds[index]}
    values |= {"Size": f"{image.width}x{image.height}"}
    if digest := next(iter(result.weights.values()), None):
        values["Model hash"] = digest[:10]
    values["Model"] = request.model
    if request.image is not None:
        values["Denoising strength"] = _number(request.strength)
    values |= {name.replace("_", " ").capitalize(): value for name, value in request.options.items() if name and value}
    values["Version"] = f"mindseye {__version__}"
    return Infotext(
        prompt=request.prompt,
        negative=request.negative,
        fields={key: str(value) for key, value in values.items() if value is not None},
    )


def format_infotext(info: Infotext) -> str:
    """The text itself."""
    lines = [info.prompt]
    if info.negative:
        lines.append(f"Negative prompt: {info.negative}")
    lines.append(", ".join(f"{key}: {_quote(value)}" for key, value in info.fields.items()))
    return "\n".join(lines)


def parse_infotext(text: str) -> Infotext:
    """The inverse of `format_infotext`, for anybody's text. Never raises; a text without fields is all prompt."""
    *lines, last = text[:LONGEST_TEXT].strip().split("\n")
    pairs = _pairs(last)
    if len(pairs) < _FEWEST_PAIRS:
        lines, pairs = [*lines, last], []
    prompt: list[str] = []
    negative: list[str] = []
    into = prompt
    for line in lines:
        line = line.strip()
        if line.startswith("Negative prompt:"):
            into, line = negative, line.removeprefix("Negative prompt:").strip()
        into.append(line)
    return Infotext(prompt="\n".join(prompt).strip(), negative="\n".join(negative).strip(), fields=dict(pairs))


def read(path: Path) -> tuple[Account | None, Infotext | None]:
    """Both accounts of a picture file, each None where the file has none.

    Raises:
        ImageError: It is no picture, or our own chunk in it is damaged or from a later version.
    """
    from mindseye.pictures import opened

    with opened(path) as image:
        # Text chunks may follow the pixels, and loading reads to the end; a picture cut short still has its first ones.
        with contextlib.suppress(OSError, ValueError, SyntaxError, EOFError):
            image.load()
        chunks = {key: value for key, value in image.info.items() if isinstance(value, str)}
        comment = image.getexif().get_ifd(0x8769).get(0x9286)
    ours, plain = chunks.get("mindseye"), chunks.get("parameters")
    if plain is None and isinstance(comment, (bytes, str)):
        plain = _user_comment(comment)
    return (
        None if ours is None else parse_account(ours, str(path)),
        None if plain is None else parse_infotext(plain),
    )


def parse_account(text: str, name: str = "the picture") -> Account:
    """Read our own chunk.

    Raises:
        ImageError: It is no account, or from a later version.
    """
    try:
        plain = json.loads(text[:LONGEST_TEXT])
        request, index = plain["request"], plain.get("index", 0)
        if not isinstance(request, dict) or type(index) is not int or index < 0:
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ImageError(f"{name} holds a damaged account of how it was made") from None
    if plain.get("schema") != SCHEMA:
        raise ImageError(
            f"{name} was written by mindseye {plain.get('version')!s:.20}, whose account this version cannot read",
            hint="pip install -U mindseye",
        )
    known = {key: plain[key] for key in ("version", "weights", "seconds") if key in plain}
    return replace(Account(request=request, index=index), **known)


def _pairs(line: str) -> list[tuple[str, str]]:
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
        except ValueError:
            return value
    return value


def _number(value: float | None) -> str | None:
    """7.0 as 7, 7.5 as 7.5."""
    return None if value is None else f"{value:g}"


def _user_comment(comment: bytes | str) -> str | None:
    """EXIF UserComment of a JPEG or WebP: eight bytes of encoding, then the text."""
    if isinstance(comment, str):
        return comment
    if comment.startswith(b"UNICODE\0"):
        body = comment[8:]
        # UTF-16 without a byte order mark. Latin text tells the order: every other byte is zero.
        return body.decode("utf-16-be" if body[:1] == b"\0" else "utf-16-le", errors="replace")
    if comment.startswith(b"ASCII\0\0\0"):
        return comment[8:].decode("ascii", errors="replace")
    return None
