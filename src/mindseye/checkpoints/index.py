"""The file in which the user's additions are written down, and where it lies.

JSON with a version; written whole or not at all, by one process at a time. One that cannot be read is put aside under
another name, and the user is told; one of a newer mindseye is left alone.
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from mindseye.checkpoints.hashes import locked, write_json
from mindseye.checkpoints.kinds import KINDS, Kind
from mindseye.errors import OutputError, UsageError

__all__ = ["Entry", "Index", "home"]

VERSION = 1


def home() -> Path:
    """Where what belongs to the user lies: `MINDSEYE_HOME`, or the system's folder for programs' data."""
    if own := os.environ.get("MINDSEYE_HOME"):
        return Path(own).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "mindseye"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "mindseye"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "mindseye"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One thing the user has.

    Attributes:
        name: What it is called by.
        kind: "model", "lora", "embedding", "vae", "clip" or "secondary".
        path: The file, or the folder where it is a folder.
        family: Which base it is or is for; "" when that cannot be told.
        source: Where it was downloaded from; "" for files of the user's own.
        licence: As the source stated it; "" for unknown.
        added: ISO date; "" of what was found in a folder.
        new: Files that were downloaded for it, and go when it is removed.
        folder: The added folder in which it was found; None when it was added by itself.
        problem: Why it cannot be used, as a sentence; "" when it can.
    """

    name: str
    kind: Kind
    path: Path
    family: str = ""
    source: str = ""
    licence: str = ""
    added: str = ""
    new: tuple[Path, ...] = ()
    folder: Path | None = None
    problem: str = ""


@final
class Index:
    """Entries and watched folders, on the disk.

    Args:
        path: The JSON file.

    Attributes:
        notices: What the user ought to know about it, a sentence each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.notices: list[str] = []

    def read(self) -> tuple[list[Entry], list[Path]]:
        """Entries and watched folders; a damaged index is put aside and is an empty one.

        Raises:
            UsageError: It was written by a newer mindseye.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return [], []
        except (OSError, UnicodeDecodeError) as error:
            return self._aside(str(error))
        try:
            stored = json.loads(text)
            version = int(stored["version"])
            if version <= VERSION:
                return [_entry(each) for each in stored["entries"]], [Path(str(each)) for each in stored["folders"]]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            return self._aside(str(error))
        raise UsageError(
            f"{self.path} was written by a newer mindseye (version {version})", hint="pip install -U mindseye"
        )

    def _aside(self, why: str) -> tuple[list[Entry], list[Path]]:
        """Keep what cannot be read under another name and go on with nothing."""
        kept = self.path.with_name(f"{self.path.name}.damaged")
        with contextlib.suppress(OSError):
            os.replace(self.path, kept)
        self.notices.append(
            f"the list of added models was damaged ({why:.80}) and is now {kept}; what you add is kept anew"
        )
        return [], []

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Keep other processes from changing it meanwhile. Raises OutputError."""
        try:
            with locked(self.path):
                yield
        except OSError as error:
            raise OutputError(
                f"{self.path.parent} cannot be written to: {error.strerror or error}",
                hint="MINDSEYE_HOME names another folder",
            ) from None

    def write(self, entries: list[Entry], folders: list[Path]) -> None:
        """Replace all that is written down. Raises OutputError."""
        stored = {
            "version": VERSION,
            "entries": [_stored(entry) for entry in entries],
            "folders": [str(folder) for folder in folders],
        }
        try:
            write_json(self.path, stored)
        except OSError as error:
            raise OutputError(
                f"{self.path} cannot be written: {error.strerror or error}", hint="MINDSEYE_HOME names another folder"
            ) from None


def _stored(entry: Entry) -> dict[str, Any]:
    """An entry as JSON."""
    return {
        "name": entry.name,
        "kind": entry.kind,
        "path": str(entry.path),
        "family": entry.family,
        "source": entry.source,
        "licence": entry.licence,
        "added": entry.added,
        "new": [str(path) for path in entry.new],
    }


def _entry(stored: dict[str, Any]) -> Entry:
    """An entry from JSON. Raises KeyError, TypeError or ValueError for what is none."""
    if stored["kind"] not in KINDS:
        raise ValueError(f"there is no kind {stored['kind']!r}")
    return Entry(
        name=str(stored["name"]),
        kind=stored["kind"],
        path=Path(str(stored["path"])),
        family=str(stored.get("family", "")),
        source=str(stored.get("source", "")),
        licence=str(stored.get("licence", "")),
        added=str(stored.get("added", "")),
        new=tuple(Path(str(each)) for each in stored.get("new", ())),
    )
