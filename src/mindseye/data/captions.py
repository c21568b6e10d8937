"""Users' own pictures with words: a folder, a JSONL list, or WebDataset tars, all as (picture, caption) pairs.

- **Folder**: every picture below it. Its caption is the ``.txt`` beside it, else its file name read as words
  (``red_fox-12.png``: "red fox"), else, where the name says nothing (``IMG_0012.jpg``), the name of its folder. A
  ``metadata.jsonl`` in the folder (the Hugging Face convention) is a list and takes precedence; a folder of ``.tar``
  files is a set of shards.
- **JSONL**: one object a line; the picture under ``file_name``, ``image`` or ``path``, relative to the list and never
  outside its folder; the words under ``text``, ``caption`` or ``prompt``.
- **WebDataset tar**: members that share a name up to the first dot belong together: ``.jpg .jpeg .png .webp`` with
  ``.txt``, ``.caption`` or ``.json``. Nothing is unpacked to disk: headers are read once, then each member where it
  lies, so that even a tar can be shuffled exactly.

A list that is wrong is an error that names the line; a picture that is broken is skipped and counted, until there are
so many that the data set is what is broken.
"""

import json
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, final, overload

import numpy as np
from PIL import Image, ImageOps

from mindseye.errors import DataError, ImageError
from mindseye.pictures import open_image

__all__ = ["Captions", "open_captions"]

PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")
IMAGE_KEYS: Final = ("file_name", "image", "path")
TEXT_KEYS: Final = ("text", "caption", "prompt")
WORDS_MOST: Final = 1 << 20
"""Bytes; a longer caption is no caption."""
BYTES_MOST: Final = 1 << 28
"""Bytes of one picture file."""
BROKEN_LEAST: Final = 16
"""So many broken pictures are always put up with,"""
BROKEN_SHARE: Final = 0.1
"""and this share of the data set where that is more."""
# What cameras and crawlers call pictures: names that say nothing.
_NAMELESS: Final = re.compile(
    r"(img|image|dscn?f?|pxl|picture|photo|screenshot|download|untitled|frame)?\d*|(?=\D*\d)[0-9a-f]{4,}", re.IGNORECASE
)


@dataclass(frozen=True)
class _Bytes:
    """Where some bytes lie: a whole file, or a part of one."""

    path: Path
    offset: int = 0
    size: int | None = None

    def read(self, most: int) -> bytes:
        with self.path.open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(most + 1 if self.size is None else min(self.size, most + 1))


@dataclass(frozen=True)
class _Row:
    """One picture and its words, unread."""

    name: str
    """For messages: the file, or the tar and member."""
    picture: _Bytes
    words: str | _Bytes
    format: str = ""
    """``".json"`` where the words are inside an object."""


@final
class Captions(Sequence[tuple[Image.Image, str]]):
    """Pictures and captions, read when they are asked for.

    ``captions[i]`` reads one pair or raises; iterating skips what is broken and counts it in ``broken``.

    Attributes:
        broken: Name to reason of every picture that was skipped so far, in this data set and its shuffles.
    """

    def __init__(
        self,
        rows: Sequence[_Row],
        size: tuple[int, int] | None,
        order: Sequence[int] | None = None,
        broken: dict[str, str] | None = None,
    ) -> None:
        self._rows, self._size = rows, size
        self._order = range(len(rows)) if order is None else order
        self.broken: dict[str, str] = {} if broken is None else broken

    def __len__(self) -> int:
        """How many pairs are listed, the broken ones included."""
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> tuple[Image.Image, str]: ...
    @overload
    def __getitem__(self, index: slice) -> "Captions": ...
    def __getitem__(self, index: int | slice) -> "tuple[Image.Image, str] | Captions":
        """The pair at ``index``; for a slice, the data set of those pairs.

        Raises:
            DataError: The picture or its caption cannot be read.
        """
        if isinstance(index, slice):
            return Captions(self._rows, self._size, self._order[index], self.broken)
        return self._read(self._rows[self._order[index]])

    def __iter__(self) -> Iterator[tuple[Image.Image, str]]:
        """The pairs in order, without the broken ones.

        Raises:
            DataError: More than 16 and more than a tenth are broken, or all.
        """
        shown = 0
        for index in self._order:
            row = self._rows[index]
            try:
                pair = self._read(row)
            except DataError as error:
                self.broken[row.name] = error.message
                if len(self.broken) > max(BROKEN_LEAST, BROKEN_SHARE * len(self._rows)):
                    raise DataError(
                        f"{len(self.broken)} of {len(self._rows)} pictures cannot be read, the last: {error.message}",
                        hint="repair the data set or take them out",
                    ) from None
                continue
            shown += 1
            yield pair
        if len(self) and not shown:
            name, why = next(iter(self.broken.items()))
            raise DataError(f"not one of {len(self)} pictures can be read, the first ({name}): {why}")

    def shuffled(self, seed: int) -> "Captions":
        """The same pairs in an order that only ``seed`` decides."""
        order = np.random.default_rng(seed).permutation(len(self._order))
        return Captions(self._rows, self._size, [self._order[i] for i in order], self.broken)

    def _read(self, row: _Row) -> tuple[Image.Image, str]:
        caption = _caption(row)
        try:
            data = row.picture.read(BYTES_MOST)
            if len(data) > BYTES_MOST:
                raise DataError(f"{row.name} is larger than {BYTES_MOST >> 20} MiB")
            picture = open_image(data)
        except (OSError, ImageError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise DataError(f"{row.name} cannot be read: {reason}") from None
        picture.info = {}
        if self._size is not None and picture.size != self._size:
            picture = ImageOps.fit(picture, self._size, Image.Resampling.LANCZOS)
        return picture, caption


def open_captions(path: str | Path, size: tuple[int, int] | None = None) -> Captions:
    """A data set of captioned pictures.

    Args:
        path: A folder, a ``.jsonl`` list, a ``.tar``, or a folder of ``.tar`` files.
        size: Width and height that every picture is scaled to cover and cropped to about its centre; ``None`` leaves
            them.

    Raises:
        DataError: There is nothing there, nothing to use in it, or a line or member that is wrong.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"there is no data set at {path}", hint="give a folder, a .jsonl list or a .tar")
    if path.is_dir():
        tars = sorted(child for child in path.iterdir() if child.suffix == ".tar")
        listed = path / "metadata.jsonl"
        rows = (
            _listed(listed)
            if listed.is_file()
            else [row for tar in tars for row in _shard(tar)]
            if tars
            else _folder(path)
        )
    elif path.suffix in (".jsonl", ".ndjson"):
        rows = _listed(path)
    elif path.suffix == ".tar":
        rows = _shard(path)
    elif path.name.endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")):
        raise DataError(
            f"{path} is compressed, so its members cannot be read where they lie", hint="unpack it to a .tar first"
        )
    else:
        raise DataError(f"{path} is no data set", hint="give a folder, a .jsonl list or a .tar")
    if not rows:
        raise DataError(f"{path} holds no pictures", hint=f"pictures end in {', '.join(PICTURES)}")
    return Captions(rows, size)


def _folder(root: Path) -> list[_Row]:
    rows = []
    for path in sorted(root.rglob("*")):
        inside = path.relative_to(root)
        if path.suffix.lower() not in PICTURES or any(part.startswith(".") for part in inside.parts):
            continue
        side = path.with_suffix(".txt")
        if side.is_file():
            rows.append(_Row(str(path), _Bytes(path), _Bytes(side)))
        else:
            names = (path.stem, *reversed(inside.parts[:-1]))
            rows.append(_Row(str(path), _Bytes(path), next(filter(None, map(_words, names)), "")))
    return rows


def _words(name: str) -> str:
    """A file or folder name as words, without the numbers at its end; empty where it says nothing."""
    parts = [part for part in re.split(r"[\s_\-.+()\[\]]+", name) if part]
    while parts and parts[-1].isdigit():
        parts.pop()
    return "" if all(_NAMELESS.fullmatch(part) for part in parts) else " ".join(parts)


def _listed(path: Path) -> list[_Row]:
    root, rows = path.parent.resolve(), []
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is not UTF-8 text'}"
        ) from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            reason = error.msg if isinstance(error, json.JSONDecodeError) else "nested too deeply"
            raise DataError(f"{where}: not JSON ({reason})") from None
        if not isinstance(fields, dict):
            raise DataError(
                f"{where}: not an object but {type(fields).__name__}", hint='write {"file_name": ..., "text": ...}'
            )
        name, words = _field(fields, IMAGE_KEYS, where), _field(fields, TEXT_KEYS, where)
        try:
            picture = (root / name).resolve()
        except (OSError, ValueError, RuntimeError):  # a NUL in the name, a loop of links
            picture = None
        if picture is None or not picture.is_relative_to(root):
            raise DataError(
                f"{where}: {name!r} leads out of the list's folder", hint="put the pictures beside or below it"
            )
        rows.append(_Row(f"{where}: {name}", _Bytes(picture), words))
    return rows


def _field(fields: dict[str, Any], keys: Sequence[str], where: str) -> str:
    """The first of ``keys`` that is there, which must be text."""
    for key in keys:
        if key in fields:
            if isinstance(fields[key], str) and fields[key].strip():
                return fields[key].strip()
            raise DataError(f"{where}: {key!r} is not text, or empty")
    raise DataError(f"{where}: none of {', '.join(keys)}", hint=f"it has {', '.join(map(str, fields)) or 'nothing'}")


def _shard(path: Path) -> list[_Row]:
    """The pairs in one tar. Links, devices and folders are passed over; names are labels and never become paths."""
    groups: dict[str, dict[str, _Bytes]] = {}
    try:
        length = path.stat().st_size
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                # What is not a plain file of plain bytes, and what only file managers put there.
                name = PurePosixPath(member.name)
                if not member.isreg() or member.issparse() or name.name.startswith("."):
                    continue
                if member.offset_data + member.size > length:
                    raise DataError(f"{path} is cut short: {member.name} ends behind its end")
                stem, _, ending = name.name.partition(".")
                group = groups.setdefault(str(name.parent / stem), {})
                group["." + ending.lower()] = _Bytes(path, member.offset_data, member.size)
    except (tarfile.TarError, OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(f"{path} is no tar, or damaged: {reason}") from None
    rows = []
    for key, parts in groups.items():
        picture = next((parts[ending] for ending in PICTURES if ending in parts), None)
        words = next((ending for ending in (".txt", ".caption", ".json") if ending in parts), "")
        if picture is not None:
            rows.append(_Row(f"{path}: {key}", picture, parts[words] if words else "", words))
    return rows


def _caption(row: _Row) -> str:
    if isinstance(row.words, str):
        if not row.words:
            raise DataError(f"{row.name} has no caption")
        return row.words
    try:
        data = row.words.read(WORDS_MOST)
        if len(data) > WORDS_MOST:
            raise DataError(f"{row.name}: its caption is longer than {WORDS_MOST:,} bytes")
        text = data.decode("utf-8-sig").strip()
    except OSError as error:
        raise DataError(f"{row.name}: its caption cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{row.name}: its caption is not UTF-8 text") from None
    if row.format == ".json":
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise DataError(f"{row.name}: its .json is not a JSON object")
        return _field(fields, TEXT_KEYS, row.name)
    if not text:
        raise DataError(f"{row.name}: its caption is empty")
    return text
