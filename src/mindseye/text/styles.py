"""Styles: named pieces of prompt that are put around one's own, from AUTOMATIC1111's `styles.csv`.

The file has the columns `name,prompt,negative_prompt` (`text` for `prompt` in its first years). A style that holds
`{prompt}` takes one's own words in that place, any other is appended after a comma.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from mindseye.errors import DataError, PromptError, UnknownName

PLACE: Final = "{prompt}"
"""Where one's own words go."""
_LONGEST = 2**20
_LARGEST = 16 * 2**20


class Style(NamedTuple):
    """A named piece of prompt.

    Attributes:
        name: What it is called.
        prompt: Around what is wanted.
        negative: Around what is not.
    """

    name: str
    prompt: str = ""
    negative: str = ""


def read_styles(path: Path) -> dict[str, Style]:
    """Reads a `styles.csv`.

    Args:
        path: The file; UTF-8, with or without a byte-order mark.

    Returns:
        The styles by name, in order; of equal names the last one.

    Raises:
        DataError: It is not there, cannot be read, or is no such table.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"the styles in {path} take more than {_LARGEST // 2**20} MiB")
        text = path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise DataError(f"the styles in {path} cannot be read: {error.strerror}") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    styles = {}
    try:
        columns = rows.fieldnames or ()
        column = "prompt" if "prompt" in columns else "text"
        if "name" not in columns or column not in columns:
            raise DataError(
                f"{path} is no table of styles: its columns are {', '.join(columns)!r:.120}",
                hint="its first line has to be name,prompt,negative_prompt",
            )
        for row in rows:
            name = (row["name"] or "").strip()
            if name:
                styles[name] = Style(name, row[column] or "", row.get("negative_prompt") or "")
    except csv.Error as error:
        raise DataError(f"the styles in {path} cannot be read: {error}") from None
    return styles


def apply_styles(names: Iterable[str], styles: Mapping[str, Style], prompt: str, negative: str = "") -> tuple[str, str]:
    """Puts styles around a prompt, one after the other.

    Args:
        names: Which ones.
        styles: All there are.
        prompt: What is wanted.
        negative: What is not.

    Returns:
        Both, with the styles.

    Raises:
        UnknownName: No style of that name.
        PromptError: They multiply the prompt beyond all measure.
    """
    for name in names:
        style = styles.get(name)
        if style is None:
            raise UnknownName("style", name, styles)
        prompt, negative = _around(style, style.prompt, prompt), _around(style, style.negative, negative)
    return prompt, negative


def _around(style: Style, text: str, prompt: str) -> str:
    if len(text) + text.count(PLACE) * len(prompt) > _LONGEST:
        raise PromptError(f"with the style {style.name!r} the prompt grows beyond {_LONGEST:,} characters")
    if PLACE in text:
        return text.replace(PLACE, prompt)
    # A prompt that no style touches stays as it is.
    return ", ".join(filter(None, (prompt.strip(), text.strip()))) if text.strip() else prompt
