"""Fingerprints of files, taken once: sha256 of a model of gigabytes takes seconds, so what was seen is remembered.

Three are in use by people and pictures' metadata: sha256 of the whole file; its first ten digits (A1111's "Model
hash"); and sha256 of what follows a safetensors header (kohya's `sshs_model_hash` and A1111's LoRA hash), which stays
the same when somebody edits the metadata. Until 2023 A1111 took eight digits from one stretch of the file (`early`).
"""

import contextlib
import hashlib
import json
import os
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

__all__ = ["Hashes", "Remembered", "early", "locked", "take", "write_json"]

VERSION = 1
_BLOCK = 4 << 20


@dataclass(frozen=True)
class Hashes:
    """Fingerprints of one file.

    Attributes:
        sha256: Of the whole file.
        tensors: Of its tensors alone; "" of files that are no safetensors.
    """

    sha256: str
    tensors: str = ""

    @property
    def short(self) -> str:
        """The ten digits that A1111 writes as "Model hash"."""
        return self.sha256[:10]


def take(path: Path) -> Hashes:
    """Read the whole file, once, for both. Raises OSError."""
    whole, tensors = hashlib.sha256(), hashlib.sha256()
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
        whole.update(start)
        length = struct.unpack("<Q", start[:8])[0] if len(start) == 9 else 0
        header = length + 8 if start[8:] == b"{" and length + 8 <= size else 0
        while header and file.tell() < header:
            block = file.read(min(_BLOCK, header - file.tell()))
            if not block:
                break
            whole.update(block)
        while block := file.read(_BLOCK):
            whole.update(block)
            if header:
                tensors.update(block)
    return Hashes(whole.hexdigest(), tensors.hexdigest() if header else "")


def early(path: Path) -> str:
    """What A1111 wrote as "Model hash" at first: eight digits of 64 KiB in the file's second MiB; "" of a smaller file.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        file.seek(0x100000)
        read = file.read(0x10000)
    return hashlib.sha256(read).hexdigest()[:8] if read else ""


def write_json(path: Path, value: Any) -> None:
    """Write a small JSON file so that it is the old or the new one, never half of either. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1, sort_keys=True)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other processes of ours out while a file is read, changed and written; where the system has such locks."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@final
class Remembered:
    """What was found out about files, until they change (by size and time of change).

    Args:
        path: The JSON file it is kept in; a damaged or missing one is an empty one, for all of it can be found again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._changed: set[str] = set()
        # Fingerprints are taken beside the drawing, several at a time.
        self._lock = threading.RLock()
        self._files = self._stored()

    def _stored(self) -> dict[str, dict[str, Any]]:
        """What is on the disk."""
        try:
            stored = json.loads(self._path.read_text(encoding="utf-8"))
            files = stored["files"] if stored["version"] == VERSION else {}
            return {str(key): dict(value) for key, value in files.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return {}

    def get(self, path: Path) -> dict[str, Any]:
        """What is known of the file as it is now; empty when nothing is. Raises OSError."""
        with self._lock:
            known = self._files.get(str(path), {})
        return known if all(known.get(key) == value for key, value in _stamp(path).items()) else {}

    def put(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Add to what is known. Raises OSError."""
        with self._lock:
            self._files[str(path)] = {**self.get(path), **_stamp(path), **facts}
            self._changed.add(str(path))

    def hashes(self, path: Path) -> Hashes:
        """The file's fingerprints, taken now or remembered. Raises OSError."""
        known = self.get(path)
        if not isinstance(known.get("sha256"), str):
            taken = take(path)
            self.put(path, {"sha256": taken.sha256, "tensors": taken.tensors})
            return taken
        return Hashes(known["sha256"], str(known.get("tensors", "")))

    def known(self, path: Path) -> Hashes | None:
        """The file's fingerprints if they were taken before; None if they were not, or the file is gone."""
        with contextlib.suppress(OSError):
            if isinstance(self.get(path).get("sha256"), str):
                return self.hashes(path)
        return None

    def save(self) -> None:
        """Write it down if anything is new; files that are gone are dropped. A disk that refuses is no error here."""
        with self._lock, contextlib.suppress(OSError):
            if self._changed:
                with locked(self._path):
                    # Other processes find things out too.
                    files = {**self._stored(), **{name: self._files[name] for name in self._changed}}
                    there = {name: facts for name, facts in files.items() if Path(name).exists()}
                    write_json(self._path, {"version": VERSION, "files": there})
                self._changed.clear()


def _stamp(path: Path) -> dict[str, int]:
    """What changes when a file does; of a folder that is one thing, the time of its index."""
    index = next(
        (path / name for name in ("model_index.json", "card.json", "config.json") if (path / name).is_file()), path
    )
    stat = index.stat()
    return {"size": stat.st_size, "mtime": stat.st_mtime_ns}
