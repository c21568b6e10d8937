"""Pictures in rows and columns with words beside them, in the typeface that PIL brings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont
    from PIL.ImageFont import ImageFont as BitmapFont

__all__ = ["labelled"]

_INK, _PAPER, _EMPTY = "#222222", "#ffffff", "#e8e8e8"


def labelled(
    pictures: Mapping[tuple[int, int, int], Image.Image],
    *,
    columns: Sequence[str],
    rows: Sequence[str] = ("",),
    sheets: Sequence[str] = ("",),
) -> Image.Image:
    """Pictures on one sheet.

    Args:
        pictures: By column, row and sheet; those that are missing stay grey, smaller ones are centred.
        columns: What stands above each column; empty words take no room.
        rows: What stands left of each row.
        sheets: What stands above each sheet, one below another.
    """
    width = max((each.width for each in pictures.values()), default=128)
    height = max((each.height for each in pictures.values()), default=128)
    size = min(max(width // 10, 13), 48)
    font, gap = _font(size), max(size // 4, 3)
    # A row's words may take as much room as a picture, and not less than can be read.
    beside = [_wrapped(text, font, max(width, 8 * size)) for text in rows]
    above = [_wrapped(text, font, width) for text in columns]
    over = [_wrapped(text, font, len(columns) * (width + gap)) for text in sheets]
    left = max((_box(text, font)[0] for text in beside), default=0)
    left = left + 2 * gap if left else gap
    top = max((_box(text, font)[1] for text in above), default=0)
    top = top + 2 * gap if top else gap
    tall = [max(height, _box(text, font)[1]) + gap for text in beside]
    titles = [_box(text, font)[1] + 2 * gap if text else 0 for text in over]
    block = top + sum(tall)
    sheet = Image.new("RGB", (left + len(columns) * (width + gap), sum(titles) + len(sheets) * block), _PAPER)
    pen = ImageDraw.Draw(sheet)
    y = 0
    for z, title in enumerate(over):
        pen.multiline_text((left, y + gap), title, fill=_INK, font=font)
        y += titles[z]
        for x, text in enumerate(above):
            middle = left + x * (width + gap) + width // 2
            pen.multiline_text((middle, y + gap), text, fill=_INK, font=font, anchor="ma", align="center")
        y += top
        for row, text in enumerate(beside):
            place = (left - gap, y + (tall[row] - gap) // 2)
            pen.multiline_text(place, text, fill=_INK, font=font, anchor="rm", align="right")
            for column in range(len(columns)):
                corner = (left + column * (width + gap), y)
                picture = pictures.get((column, row, z))
                if picture is None:
                    pen.rectangle((*corner, corner[0] + width - 1, corner[1] + height - 1), fill=_EMPTY)
                    continue
                shift = (width - picture.width) // 2, (height - picture.height) // 2
                sheet.paste(picture.convert("RGB"), (corner[0] + shift[0], corner[1] + shift[1]))
            y += tall[row]
    return sheet


def _font(size: int) -> "FreeTypeFont | BitmapFont":
    """PIL's own typeface."""
    return ImageFont.load_default(size)


def _box(text: str, font: Any) -> tuple[int, int]:
    """Width and height of some lines."""
    if not text:
        return 0, 0
    left, top, right, bottom = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox((0, 0), text, font=font)
    return int(right - left) + 1, int(bottom) + 1


def _wrapped(text: str, font: Any, width: int) -> str:
    """The text in lines no wider than ``width``, four at most."""
    lines: list[str] = []
    line = ""
    for word in " ".join(text.split())[:400].split(" "):
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            longer = word
        while font.getlength(longer) > width and len(longer) > 1:
            fits = max(n for n in range(1, len(longer) + 1) if n == 1 or font.getlength(longer[:n]) <= width)
            lines.append(longer[:fits])
            longer = longer[fits:]
        line = longer
    lines.append(line)
    if len(lines) > 4:
        lines = [*lines[:3], f"{lines[3][:-3]}..."]
    return "\n".join(lines)
