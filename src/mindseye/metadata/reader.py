"""From a file, a picture or pasted text to what it says, whichever program wrote it."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mindseye.errors import ImageError
from mindseye.metadata import a1111, comfy, disco, fooocus, invoke, novelai, plain, stealth, swarm
from mindseye.metadata.chunks import chunks_of, unfolded
from mindseye.metadata.found import LONGEST_JSON, Fields, Found, Reader, gathered, real, size_of, text_of, whole
from mindseye.metadata.own import parse_account

if TYPE_CHECKING:
    from PIL.Image import Image

READERS: tuple[Reader, ...] = (
    disco.read,
    swarm.read,
    fooocus.read,
    invoke.read,
    novelai.read,
    a1111.read,
    comfy.read,
    plain.read,
)
"""The most telling first: several of them use the chunk `parameters`."""

_BESIDE = (".json", ".txt")
_TEXTS = (".json", ".txt", ".md", ".log")
_HIDING = ("PNG", "WEBP")
"""The formats that may be lossless, without which nothing survives in the pixels."""


def read(source: "Path | str | bytes | Image") -> Found | None:
    """How a picture was made, None if it does not say.

    Args:
        source: A picture file (a path, or its bytes), a picture that PIL has opened, or a `.txt` or `.json` file. What
            a picture does not say itself is looked for in a file of its name beside it.

    Raises:
        ImageError: It is no picture, or what it says of itself is ours and damaged or from a later version, or hidden
            in the pixels and damaged.
    """
    if isinstance(source, (str, Path)) and Path(source).suffix.lower() in _TEXTS:
        return read_text(_text(Path(source)))
    if not isinstance(source, (str, Path, bytes)):
        return _of_picture(source, "the picture")
    from mindseye.pictures import opened

    name = "the picture" if isinstance(source, bytes) else str(source)
    with opened(source, formats=_formats()) as image:
        found = _of_picture(image, name)
    return found if found is not None or isinstance(source, bytes) else _beside(Path(source))


def _formats() -> tuple[str, ...]:
    """What is opened: AVIF, too, where PIL can; its pixels are of no interest here."""
    from mindseye.pictures import FORMATS

    try:
        from PIL import AvifImagePlugin
    except ImportError:
        return FORMATS
    return (*FORMATS, "AVIF") if AvifImagePlugin.SUPPORTED else FORMATS


def read_text(text: str) -> Found:
    """What a pasted text says: A1111's prompt and settings, or anybody's JSON. A text without settings is a prompt."""
    text = text[:LONGEST_JSON]
    for chunks in ({"parameters": text}, {"prompt": text}, {"invokeai_metadata": text}, {"Comment": text}):
        if text.lstrip()[:1] == "{":
            found = read_chunks(unfolded(chunks))
            if found is not None and found.fields.get("prompt"):
                return found
    return read_chunks({"parameters": text}) or Found(tool="unknown", fields=Fields(prompt=text.strip()), raw=text)


def read_chunks(chunks: Mapping[str, str], name: str = "the picture") -> Found | None:
    """What the text chunks of a file say.

    Args:
        chunks: As `mindseye.metadata.chunks.chunks_of` gives them.
        name: What sentences call the file.

    Raises:
        ImageError: Our own chunk is damaged or from a later version.
    """
    if "mindseye" in chunks:
        return _own(chunks["mindseye"], name)
    for reader in READERS:
        if (found := reader(chunks)) is not None:
            return found
    return None


def _of_picture(image: "Image", name: str) -> Found | None:
    """What an open picture says, aloud or hidden."""
    # Text chunks may follow the pixels, and loading reads to the end; a picture cut short still has its first ones.
    whole_picture = False
    with contextlib.suppress(OSError, ValueError, SyntaxError, EOFError):
        image.load()
        whole_picture = True
    chunks = chunks_of(image)
    found = read_chunks({**chunks, "size": f"{image.width}x{image.height}"}, name)
    if found is None and whole_picture and image.format in (*_HIDING, None):
        hidden = stealth.read_stealth(image)
        found = None if hidden is None else read_chunks(unfolded({"stealth": hidden}), name)
    return found


def _own(text: str, name: str) -> Found:
    """What we wrote."""
    account = parse_account(text, name)
    get = account.request.get
    seed, options = whole(get("seed")), get("options")
    fields = {
        "prompt": text_of(get("prompt")),
        "negative": text_of(get("negative")),
        "steps": whole(get("steps")),
        "sampler": text_of(get("sampler")),
        "guidance": real(get("guidance")),
        "seed": None if seed is None else seed + account.index,
        "size": size_of(get("size")),
        "model": text_of(get("model")),
        "strength": real(get("strength")) if get("image") else None,
        "version": account.version,
        "extra": {str(key): str(value) for key, value in options.items()} if isinstance(options, dict) else {},
    }
    return Found(tool="mindseye", fields=gathered(fields), raw=text, account=account)


def _beside(path: Path) -> Found | None:
    """What a file of the picture's name says, if that is settings: captions lie beside pictures, too."""
    for ending in _BESIDE:
        beside = path.with_suffix(ending)
        if beside.is_file():
            with contextlib.suppress(ImageError):
                found = read_text(_text(beside))
                if found.fields.get("steps") is not None:
                    return found
    return None


def _text(path: Path) -> str:
    """A text file, as far as it is looked at."""
    try:
        with path.open("rb") as stream:
            return stream.read(LONGEST_JSON).decode("utf-8-sig", errors="replace")
    except FileNotFoundError:
        raise ImageError(f"there is no file {path}") from None
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from None
