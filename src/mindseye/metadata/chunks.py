"""The texts a picture file carries, wherever its format keeps them, under the names they have in a PNG.

PNG has named text chunks. JPEG, WebP and AVIF have EXIF: A1111 and its heirs use `UserComment`, Fooocus also
`MakerNote`, ComfyUI any of the camera's text fields with the name in front ("prompt:{...}"). Draw Things writes XMP;
GIF and old JPEG have a comment. What lies in the pixels themselves is `mindseye.metadata.stealth`'s.
"""

import contextlib
import html
import json
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mindseye.metadata.found import LONGEST_JSON, parse_object
from mindseye.metadata.own import EXIF_IFD, MAKER_NOTE, NOTE, USER_COMMENT

if TYPE_CHECKING:
    from PIL.Image import Image

_SOFTWARE, _DESCRIPTION = 0x0131, 0x010E
_CAMERA = range(0x0100, 0x0111)
"""EXIF fields that ComfyUI counts down through, from `Model`."""


def chunks_of(image: "Image") -> dict[str, str]:
    """Every text in the file, by name; each at most `LONGEST_JSON` long.

    Args:
        image: Open; what follows the pixels in a PNG is there once it is loaded.
    """
    chunks: dict[str, str] = {}
    for key, value in image.info.items():
        if isinstance(value, bytes) and key in ("comment", "xmp"):
            value = value.decode(errors="replace")
        if isinstance(value, str) and isinstance(key, str):
            chunks[key] = value[:LONGEST_JSON]
    for key, value in _exif(image).items():
        chunks.setdefault(key, value[:LONGEST_JSON])
    xmp = chunks.pop("XML:com.adobe.xmp", None) or chunks.pop("xmp", None)
    if xmp and (comment := _xmp_comment(xmp)):
        chunks.setdefault("UserComment", comment)
    return unfolded(chunks)


def unfolded(chunks: Mapping[str, str]) -> dict[str, str]:
    """The chunks, and those of chunks within: a single JSON text may hold what would be several in a PNG."""
    found = dict(chunks)
    for key in ("UserComment", "comment", "stealth"):
        inner = parse_object(found.get(key)) or {}
        if any(isinstance(inner.get(name), (str, dict)) for name in ("Comment", "parameters", "invokeai_metadata")):
            for name, value in inner.items():
                if (text := _as_text(value)) is not None:
                    found.setdefault(name, text)
    # A PNG's "parameters" are elsewhere the comment.
    for key in ("UserComment", "stealth", "comment"):
        if key in found:
            found.setdefault("parameters", found[key])
    return found


def _as_text(value: object) -> str | None:
    """A JSON value as the text of a chunk."""
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict) else None


def _exif(image: "Image") -> dict[str, str]:
    """The texts of the file's EXIF."""
    chunks: dict[str, str] = {}
    fields: dict[int, Any] = {}
    # Whatever a damaged EXIF makes PIL raise or warn of, it means that there is none.
    with contextlib.suppress(Exception), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exif = image.getexif()
        fields = dict(exif)
        fields |= exif.get_ifd(EXIF_IFD)
    if comment := user_comment(fields.get(USER_COMMENT)):
        chunks["UserComment"] = comment
    note = fields.get(MAKER_NOTE)
    if isinstance(note, bytes) and note.startswith(NOTE):
        chunks["mindseye"] = note[len(NOTE) :].decode(errors="replace")
    elif isinstance(note, (bytes, str)) and 0 < len(note) < 40:
        # Fooocus says here in which of its two schemes the comment is.
        scheme = note if isinstance(note, str) else note.decode(errors="replace")
        chunks["fooocus_scheme"] = scheme.strip("\0 ")
    for tag in _CAMERA:
        value = fields.get(tag)
        if isinstance(value, str):
            name, colon, rest = value.partition(":")
            if colon and name.lower() in ("prompt", "workflow"):
                chunks[name.lower()] = rest
            elif value.lstrip()[:1] == "{":
                chunks.setdefault("UserComment", value)
    for tag, name in ((_SOFTWARE, "Software"), (_DESCRIPTION, "Description")):
        if isinstance(value := fields.get(tag), str):
            chunks[name] = value
    return chunks


def user_comment(comment: object) -> str | None:
    """EXIF's UserComment: eight bytes that name the encoding, then the text."""
    if isinstance(comment, str):
        return comment
    if not isinstance(comment, bytes):
        return None
    code, body = comment[:8], comment[8:]
    if code == b"UNICODE\0":
        return _utf16(body)
    if code == b"ASCII\0\0\0":
        return body.decode(errors="replace").rstrip("\0")
    if code == b"JIS\0\0\0\0\0":
        return body.decode("shift_jis", errors="replace").rstrip("\0")
    text = body if code == bytes(8) else comment
    return text.decode(errors="replace").rstrip("\0") or None


def _utf16(body: bytes) -> str:
    """UTF-16 in whichever order: EXIF's is big-endian by the book and whatever the writer's machine has in the wild."""
    if body[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return body.decode("utf-16", errors="replace")
    # Without a mark: settings are Latin, and of a Latin letter's two bytes the high one is zero.
    high_first, high_last = body[0::2].count(0), body[1::2].count(0)
    return body.decode("utf-16-le" if high_last > high_first else "utf-16-be", errors="replace").rstrip("\0")


def _xmp_comment(xmp: str) -> str | None:
    """The text of XMP's `exif:UserComment`; found by hand, for an XML parser is one more thing to be attacked."""
    start = xmp.find("<exif:UserComment")
    end = xmp.find("</exif:UserComment>", start)
    if start == -1 or end == -1:
        return None
    inside = xmp[start:end]
    opening, closing = inside.find("{"), inside.rfind("}")
    if not 0 <= opening < closing:
        return None
    try:
        return html.unescape(inside[opening : closing + 1])
    except ValueError:  # a character number of thousands of digits
        return None
