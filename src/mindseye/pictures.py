"""Picture files: read without trust, written whole or not at all.

Reading: one door for everything a user hands in. A picture is decoded completely, turned as its EXIF says, and laid
over white where it is transparent, so that the rest of the house only ever sees RGB. A file that is cut short, is no
picture, or unfolds to an absurd size is an `ImageError`, never a crash.

Writing: into a temporary file in the same folder, synced, then renamed. A full disk or a Ctrl-C leaves no half file.
"""

import contextlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from mindseye.errors import ImageError, OutputError

MOST_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded: a decompression bomb costs nothing to send."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""What is decoded at all: every further codec is a further parser facing strangers' files."""


def open_image(source: Path | str | bytes, *, most_pixels: int = MOST_PIXELS) -> Image.Image:
    """Read a picture as upright RGB, over white where it is transparent.

    Args:
        source: A path, or the bytes of a file.
        most_pixels: Larger pictures are refused.

    Returns:
        The picture; `info["path"]` holds the path as it was given, `info` also the file's text chunks.

    Raises:
        ImageError: There is no such file, it is no picture, it is cut short, or it is too large.
    """
    with opened(source, most_pixels=most_pixels) as image:
        name = _named(source)
        try:
            image.load()
            # PIL keeps the orientation in EXIF, and `exif_transpose` drops it there when it turns the picture.
            upright = flatten(ImageOps.exif_transpose(image))
        except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
            raise ImageError(f"{name} is damaged or cut short: {_short(error)}") from None
    upright.info = {"path": str(source)} if not isinstance(source, bytes) else {}
    return upright


@contextlib.contextmanager
def opened(  # noqa: ANN201 (an iterator of Image.Image)
    source: Path | str | bytes, *, most_pixels: int = MOST_PIXELS, formats: tuple[str, ...] = FORMATS
):
    """A picture whose header is read and whose pixels are not yet decoded. Raises ImageError as `open_image` does."""
    name = _named(source)
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():
            # PIL warns of bombs at a limit of its own (ours is below it and an error) and of damaged EXIF, which is
            # none to us; neither is for the user to read.
            warnings.simplefilter("ignore")
            try:
                stream = (
                    io.BytesIO(source) if isinstance(source, bytes) else stack.enter_context(Path(source).open("rb"))
                )
                image = stack.enter_context(Image.open(stream, formats=formats))
            except FileNotFoundError:
                raise ImageError(f"there is no file {name}") from None
            except UnidentifiedImageError:
                kinds = ", ".join(FORMATS)
                raise ImageError(f"{name} is not a picture this program reads", hint=f"it reads {kinds}") from None
            except Image.DecompressionBombError:
                raise ImageError(f"{name} unfolds to more than {most_pixels / 1e6:.0f} megapixels") from None
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                raise ImageError(f"{name} cannot be read: {_short(error)}") from None
        if image.width * image.height > most_pixels:
            raise ImageError(
                f"{name} is {image.width}x{image.height}; at most {most_pixels / 1e6:.0f} megapixels are read",
                hint="scale it down first",
            )
        yield image


def flatten(image: Image.Image) -> Image.Image:
    """Any PIL mode to RGB: 16 bits to 8, transparency over white, palettes and CMYK as PIL reads them."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image.copy()
    if image.mode.startswith("I"):
        # 16-bit greys: PIL's own conversion clips at 255, which turns most of the picture white.
        image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        over = image.convert("RGBA")
        white = Image.new("RGBA", over.size, "white")
        return Image.alpha_composite(white, over).convert("RGB")
    return image.convert("RGB")


def save_png(image: Image.Image, path: Path, texts: dict[str, str] | None = None, *, replace: bool = True) -> bool:
    """Write a PNG with text chunks, whole or not at all.

    Args:
        image: The picture.
        path: Where to.
        texts: Text chunks, by key.
        replace: Whether a file that is there already is replaced.

    Returns:
        Whether it was written; False only where a file is there and may not be replaced.

    Raises:
        OutputError: The folder is missing, may not be written to, or the disk is full.
    """
    chunks = PngInfo()
    for key, text in (texts or {}).items():
        chunks.add_text(key, text)
    return write_whole(path, lambda stream: image.save(stream, format="PNG", pnginfo=chunks), replace=replace)


def save_lossy(image: Image.Image, path: Path, exif: bytes = b"", *, quality: int = 95, replace: bool = True) -> bool:
    """Write a JPEG or WebP, as the path's ending says, whole or not at all; see `save_png`.

    Args:
        image: The picture, RGB.
        path: Where to: `.jpg`, `.jpeg` or `.webp`.
        exif: As `mindseye.metadata.exif` makes it.
        quality: 1 to 100.
        replace: Whether a file that is there already is replaced.

    Raises:
        OutputError: Another ending; the folder is missing, may not be written to, or the disk is full.
    """
    kind = {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(path.suffix.lower())
    if kind is None:
        raise OutputError(f"cannot write {path}: only .jpg, .jpeg and .webp are lossy", hint="-o picture.jpg")
    more = {"subsampling": 0} if kind == "JPEG" else {}
    return write_whole(
        path, lambda stream: image.save(stream, format=kind, quality=quality, exif=exif, **more), replace=replace
    )


def write_whole(path: Path, write: Callable[[BinaryIO], object], *, replace: bool = True) -> bool:
    """Let `write` fill a temporary file beside `path`, sync it, and give it the name `path`; see `save_png`."""
    temporary: Path | None = None
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".mindseye-", suffix=path.suffix)
        temporary = Path(name)
        with os.fdopen(descriptor, "wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        # mkstemp makes files that only the owner may read; a picture should be as open as any other new file.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        return _rename(temporary, path, replace=replace)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {_short(error)}", hint="choose another place with -o") from None
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def _rename(temporary: Path, path: Path, *, replace: bool) -> bool:
    """Give the file its name; whether it has it now."""
    if replace:
        temporary.replace(path)
        return True
    try:
        # A hard link is refused where the name is taken, even if that happened a moment ago; a rename is not.
        path.hardlink_to(temporary)
    except FileExistsError:
        return False
    except OSError:
        # File systems without links.
        if path.exists():
            return False
        temporary.replace(path)
    return True


def check_folder(folder: Path) -> None:
    """Raise OutputError now, before any picture is drawn, where `write_whole` would raise it later."""
    if not folder.is_dir():
        raise OutputError(f"there is no folder {folder}", hint=f"mkdir -p {folder}")
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".mindseye-"):
            pass
    except OSError as error:
        raise OutputError(f"cannot write into {folder}: {_short(error)}", hint="choose another place with -o") from None


def _named(source: Path | str | bytes) -> str:
    """How a sentence calls the source."""
    return "the picture" if isinstance(source, bytes) else str(source)


def _short(error: Exception) -> str:
    """An exception in a few words, without errno and path, which the sentence has already."""
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__)[:200].rstrip(".").lower()


def sheet(pictures: Iterable[Image.Image], columns: int = 8, side: int = 128, gap: int = 4) -> Image.Image:
    """Pictures side by side on white, row by row; those wider than high take the room of several."""
    shown = [picture.convert("RGB") for picture in pictures]
    span = max((round(picture.width / picture.height) for picture in shown), default=1) or 1
    columns, width = max(1, columns // span), span * (side + gap) - gap
    tiles = [picture.resize((width, side), Image.Resampling.LANCZOS) for picture in shown]
    rows = max(1, -(-len(tiles) // columns))
    whole = Image.new("RGB", (columns * (width + gap) + gap, rows * (side + gap) + gap), "white")
    for i, tile in enumerate(tiles):
        whole.paste(tile, (gap + i % columns * (width + gap), gap + i // columns * (side + gap)))
    return whole
