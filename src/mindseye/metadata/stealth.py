"""Text hidden in the lowest bits of a picture's pixels, for it survives services that strip everything else.

The scheme of ashen-sensored's "stealth pnginfo" extension, which Forge and NovelAI write: down each column, column by
column, one bit a pixel in alpha or three in red, green and blue: a 15-byte signature that names the variant, the
payload's length in bits (32 bits), the payload, plain UTF-8 or gzip. Only lossless files can hold it.

Nothing is unpacked beyond a limit: a few kilobytes of gzip can stand for gigabytes.
"""

import gzip
import zlib
from typing import TYPE_CHECKING, Literal

from mindseye.errors import ImageError

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST = 1 << 22
"""Bytes of hidden text that are unpacked."""

_SIGNATURES: dict[str, dict[bytes, bool]] = {
    "alpha": {b"stealth_pnginfo": False, b"stealth_pngcomp": True},
    "rgb": {b"stealth_rgbinfo": False, b"stealth_rgbcomp": True},
}
_HEADER = 15 + 4


def read_stealth(image: "Image") -> str | None:
    """The hidden text, None where there is none.

    Args:
        image: Decoded, in the mode it was stored in.

    Raises:
        ImageError: There is a text which is cut short, damaged or unfolds to more than `LONGEST` bytes.
    """
    for where, signatures in _SIGNATURES.items():
        if where == "alpha" and image.mode != "RGBA":
            continue
        if where == "rgb" and image.mode not in ("RGB", "RGBA"):
            continue
        header = _bytes(image, where, 0, _HEADER)
        packed = signatures.get(header[:15])
        if packed is None or len(header) < _HEADER:
            continue
        length = int.from_bytes(header[15:], "big") // 8
        room = image.width * image.height * (3 if where == "rgb" else 1) // 8 - _HEADER
        if length > room:
            raise ImageError(f"the text hidden in the picture is cut short: {length} bytes, there is room for {room}")
        return _unpacked(_bytes(image, where, _HEADER, min(length, LONGEST)), packed=packed)
    return None


def write_stealth(image: "Image", text: str, *, where: Literal["alpha", "rgb"] = "alpha") -> "Image":
    """A copy of the picture with the text hidden in it, compressed.

    Args:
        image: Any mode; becomes RGBA for "alpha", RGB for "rgb".
        text: What to hide.
        where: "alpha" leaves the colours alone but makes a picture that has transparency.

    Raises:
        ImageError: The picture is too small for it.
    """
    import numpy as np
    from PIL import Image

    signature = next(name for name, packed in _SIGNATURES[where].items() if packed)
    # Without a time in it, the same picture and text give the same file.
    payload = gzip.compress(text.encode(), mtime=0)
    bits = np.unpackbits(np.frombuffer(signature + (8 * len(payload)).to_bytes(4, "big") + payload, np.uint8))
    pixels = np.array(image.convert("RGBA" if where == "alpha" else "RGB"))
    carrier = pixels[..., 3:] if where == "alpha" else pixels
    columns = carrier.transpose(1, 0, 2).copy()
    flat = columns.reshape(-1)
    if len(bits) > len(flat):
        raise ImageError(f"a picture of {image.width}x{image.height} is too small to hide {len(payload)} bytes in")
    flat[: len(bits)] = flat[: len(bits)] & 0xFE | bits
    carrier[...] = columns.transpose(1, 0, 2)
    return Image.fromarray(pixels)


def _bytes(image: "Image", where: str, start: int, count: int) -> bytes:
    """Bytes out of the lowest bits; only the columns that hold them are looked at."""
    import numpy as np

    depth = 3 if where == "rgb" else 1
    column = image.height * depth
    first, last = 8 * start // column, -(-8 * (start + count) // column)
    box = image.crop((first, 0, min(last, image.width), image.height))
    values = np.asarray(box.convert("RGB") if where == "rgb" else box.getchannel("A")).reshape(image.height, -1, depth)
    bits = values.transpose(1, 0, 2).reshape(-1)[8 * start - first * column :][: 8 * count] & 1
    return np.packbits(bits).tobytes() if len(bits) >= 8 * count else b""


def _unpacked(payload: bytes, *, packed: bool) -> str:
    """The payload as text."""
    if packed:
        unfold = zlib.decompressobj(wbits=31)
        try:
            payload = unfold.decompress(payload, LONGEST + 1)
        except zlib.error as error:
            raise ImageError(f"the text hidden in the picture is damaged: {error}") from None
        if len(payload) > LONGEST:
            raise ImageError(f"the text hidden in the picture unfolds to more than {LONGEST >> 20} MiB")
        if not unfold.eof:
            raise ImageError("the text hidden in the picture is cut short")
    return payload.decode(errors="replace")
