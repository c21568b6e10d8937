"""What the user has added: models, LoRAs, embeddings and autoencoders by name, wherever on the disk they lie.

Nothing is copied: an entry is a name for a path. A folder that was added stays alive, what appears in it later appears
here, so another program's folders of LoRAs and checkpoints can be shared with it. The index is one JSON file in the
user's data folder (`MINDSEYE_HOME`, else the system's place for such things); beside it lies what was found out about
files, which can be deleted at any time.

Names are unique within a kind: a LoRA and an embedding may both be called "cat".
"""

import contextlib
import os
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import final

from mindseye.checkpoints import public, sources
from mindseye.checkpoints.hashes import Hashes, Remembered
from mindseye.checkpoints.hub import WEIGHTS, Precision
from mindseye.checkpoints.index import Entry, Index, home
from mindseye.checkpoints.kinds import KINDS, PICTURES, Kind, Seen, is_unit, look
from mindseye.errors import UnknownName, UsageError, WeightsError, WeightsMissing
from mindseye.request import Steps

__all__ = ["Added", "Entry", "Library", "Removed", "find", "home"]

DEEPEST = 8
"""Levels of folders that are searched below one that was added."""
MOST = 50_000
"""Files that are looked at below one."""
_NAME = re.compile(r"[^\W_][^\x00-\x1f/\\:<>|*?\"]{0,119}")


@dataclass(frozen=True, kw_only=True)
class Added:
    """What came of adding something.

    Attributes:
        entries: What can now be used by name.
        problems: What was found and cannot be used, a sentence each.
        folder: The folder that is watched from now on, if it was one.
        release: The public release, if it was one of these.
    """

    entries: tuple[Entry, ...]
    problems: tuple[str, ...] = ()
    folder: Path | None = None
    release: public.PublicRelease | None = None


@dataclass(frozen=True, kw_only=True)
class Removed:
    """What came of removing something.

    Attributes:
        what: The entry, or the folder that is no longer watched.
        freed: Bytes of downloads that were deleted.
        kept: Whether files of the user's own stay where they are.
    """

    what: Entry | Path
    freed: int
    kept: bool


@final
class Library:
    """The index and what it leads to.

    Args:
        folder: Where the index lies; `home()` when None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or home()
        self._index = Index(self.folder / "library.json")
        self._facts = Remembered(self.folder / "files.json")

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user ought to know about the index itself, a sentence each."""
        return tuple(self._index.notices)

    # -- looking ------------------------------------------------------------------------------------------------------

    def entries(self, kind: Kind | None = None) -> tuple[Entry, ...]:
        """All there is, by kind and name; live folders are looked through."""
        own, folders = self._index.read()
        found = [self._fresh(entry) for entry in own]
        known = {entry.path for entry in found}
        for folder in folders:
            for path in _walk(folder):
                seen = self._look(path)
                if seen.kind is not None and path not in known:
                    known.add(path)
                    name = path.name if path.is_dir() else path.stem
                    found.append(
                        Entry(
                            name=name,
                            kind=seen.kind,
                            path=path,
                            family=seen.family,
                            folder=folder,
                            problem=seen.problem,
                        )
                    )
        self._facts.save()
        named = _named_apart(found)
        return tuple(
            sorted(
                (entry for entry in named if kind in (None, entry.kind)),
                key=lambda entry: (KINDS.index(entry.kind), entry.name.lower()),
            )
        )

    def folders(self) -> tuple[Path, ...]:
        """The folders that are watched."""
        return tuple(self._index.read()[1])

    def find(self, name: str, kind: Kind | None = None) -> Entry:
        """The entry of that name in any case; a public release also by its other names, a download by its source.

        Raises:
            UnknownName: There is none; carries the nearest.
            UsageError: There are several kinds of that name and none was given.
            WeightsMissing: It is a public release, or something on the hub, that was not downloaded.
        """
        there = self.entries(kind)
        if name.startswith(("hub:", "hf:")):
            return _downloaded(there, name)
        release = public.find(name) if kind in (None, "model") else None
        wanted = {name.lower()} | ({release.name} if release else set())
        found = [entry for entry in there if entry.name == name] or [
            entry for entry in there if entry.name.lower() in wanted
        ]
        if len(found) > 1:
            kinds = ", ".join(entry.kind for entry in found)
            raise UsageError(f"{name} is the name of several: {kinds}", hint=f"add --kind {found[0].kind}")
        if found:
            return found[0]
        if release is not None:
            raise WeightsMissing(
                f"{release.name} is not downloaded (about {release.gigabytes:g} GB, licence {release.licence})",
                hint=f"mindseye models add {release.name}",
            )
        names = [entry.name for entry in there]
        unknown = UnknownName(kind or "model, LoRA or embedding", name, names)
        if len(names) > 12:  # hundreds of LoRAs are no help in one sentence
            hint = f"did you mean {unknown.nearest!r}?" if unknown.nearest else "mindseye models list"
            near = [unknown.nearest] if unknown.nearest else names[:8]
            raise UnknownName(unknown.kind, name, near, hint=hint)
        raise unknown

    def usable(self, name: str, kind: Kind | None = None) -> Entry:
        """`find`, for something that is about to be loaded.

        Raises:
            WeightsMissing: As `find`; or its file is gone.
            WeightsError: It cannot be used; says why.
        """
        entry = self.find(name, kind)
        if not entry.path.exists():
            raise WeightsMissing(
                f"{entry.name} is no longer where it was: {entry.path}",
                hint=f"mindseye models remove {entry.name}, and add it again where it is now",
            )
        if entry.problem:
            raise WeightsError(f"{entry.name} cannot be used: {entry.problem}")
        return entry

    def hashes(self, path: Path) -> Hashes:
        """Fingerprints of a file, remembered until it changes.

        Raises:
            WeightsMissing: It cannot be read.
        """
        try:
            found = self._facts.hashes(path)
        except OSError as error:
            raise WeightsMissing(f"{path} cannot be read: {error.strerror or error}") from None
        self._facts.save()
        return found

    def known(self, path: Path) -> Hashes | None:
        """Fingerprints of a file that were taken before; None if they were not."""
        return self._facts.known(path)

    # -- changing -----------------------------------------------------------------------------------------------------

    def add(
        self,
        what: str,
        *,
        name: str | None = None,
        precision: Precision = "half",
        taken: Collection[str] = (),
    ) -> Steps[Added]:
        """Make something known by a name; yields progress where it has to be downloaded.

        Args:
            what: A path of a file or folder, `hub:org/repo...`, an https address, or the name of a public release.
            name: What to call it; the file's own name when None. A folder of many keeps their names.
            precision: Which weights to download where there are both.
            taken: Names that models may not have because others have them.

        Raises:
            UsageError: The name is taken, the source is none, or there is nothing in it.
            WeightsError: What is there cannot be used.
            OutputError: The index cannot be written.
        """
        if name is not None:
            _check_name(name)
        release = None if Path(what).expanduser().exists() else public.find(what)
        wanted = name or (release.name if release else None)
        if wanted is not None:
            # Before gigabytes are downloaded for nothing. What it is is known only then, but a release is a model.
            self._check_free(wanted, "model" if release else None, taken)
        fetched = yield from sources.fetch(
            release.source if release else what, downloads=self.folder / "downloads", precision=precision
        )
        try:
            added = self._take(fetched, wanted, release, taken)
        except Exception:
            # What nobody can use and nothing refers to is not left on the disk.
            sources.delete(fetched.new)
            raise
        self._facts.save()
        return added

    def remove(self, name: str, kind: Kind | None = None) -> Removed:
        """Forget an entry, or a watched folder by its path; delete what was downloaded for it and nothing else.

        Raises:
            UnknownName: There is no such entry.
            UsageError: It lies in a watched folder, which is for the user to tidy.
        """
        with self._index.changing():
            own, folders = self._index.read()
            folder = Path(name).expanduser()
            with contextlib.suppress(OSError):
                folder = folder.resolve()
            if folder in folders:
                self._index.write(own, [each for each in folders if each != folder])
                return Removed(what=folder, freed=0, kept=True)
            entry = self.find(name, kind)
            if entry.folder is not None:
                raise UsageError(
                    f"{entry.name} lies in the folder {entry.folder}, which is watched",
                    hint=f"delete {entry.path.name} there, or stop watching: mindseye models remove {entry.folder}",
                )
            left = [each for each in own if (each.kind, each.name) != (entry.kind, entry.name)]
            shared = {path for each in left for path in each.new}
            freed = sources.delete([path for path in entry.new if path not in shared])
            self._index.write(left, folders)
            return Removed(what=entry, freed=freed, kept=not entry.new and entry.path.exists())

    # -- inside -------------------------------------------------------------------------------------------------------

    def _take(
        self, fetched: sources.Fetched, name: str | None, release: public.PublicRelease | None, taken: Collection[str]
    ) -> Added:
        """Write down what was brought."""
        path = fetched.path
        if path.is_dir() and not is_unit(path):
            return self._watch(path, name)
        seen = self._look(path)
        if seen.kind is None or seen.problem:
            raise WeightsError(
                seen.problem or f"{path.name} is no model, LoRA, embedding or autoencoder",
                hint="models, LoRAs, embeddings and autoencoders are .safetensors, .ckpt, .pt, .bin, or a folder",
            )
        own = _default_name(path, fetched.source) if name is None else name
        entry = Entry(
            name=own,
            kind=seen.kind,
            path=path,
            family=seen.family or (release.family if release else ""),
            source=fetched.source,
            licence=release.licence if release else fetched.licence,
            added=date.today().isoformat(),
            new=fetched.new,
        )
        with self._index.changing():
            entries, folders = self._index.read()
            for each in entries:
                if each.path == path and each.kind == entry.kind and name in (None, each.name):
                    raise UsageError(f"{path} was added already, as {each.name}")
            self._check_free(entry.name, entry.kind, taken)
            self._index.write([*entries, entry], folders)
        return Added(entries=(entry,), release=release)

    def _watch(self, folder: Path, name: str | None) -> Added:
        """Look through a folder from now on."""
        if name is not None:
            raise UsageError(
                f"{folder} is a folder of several things, which keep their own names", hint="leave out --name"
            )
        here = [(path, self._look(path)) for path in _walk(folder)]
        problems = tuple(seen.problem for _, seen in here if seen.problem)
        if not any(seen.kind for _, seen in here):
            told = f": {problems[0]}" if problems else ""
            raise UsageError(
                f"{folder} holds no model, LoRA, embedding or autoencoder{told}",
                hint="a model in diffusers' layout has a model_index.json; single files end in .safetensors or .ckpt",
            )
        with self._index.changing():
            entries, folders = self._index.read()
            if folder not in folders:
                self._index.write(entries, [*folders, folder])
        found = tuple(entry for entry in self.entries() if entry.folder == folder)
        return Added(entries=tuple(entry for entry in found if not entry.problem), problems=problems, folder=folder)

    def _check_free(self, name: str, kind: Kind | None, taken: Collection[str]) -> None:
        """Raise UsageError when something of that kind (None = anything) has the name."""
        clash = (
            None
            if kind not in (None, "model")
            else next((each for each in taken if each.lower() == name.lower()), None)
        )
        for each in self._index.read()[0]:
            if each.name.lower() == name.lower() and kind in (None, each.kind):
                clash = f"{each.name} ({each.path})"
        if clash:
            raise UsageError(
                f"the name {name} is taken by {clash}",
                hint=f"choose another with --name, or first: mindseye models remove {name}",
            )

    def _look(self, path: Path) -> Seen:
        """`look`, remembered until the file changes."""
        try:
            known = self._facts.get(path)
            if "kind" in known:
                return Seen(kind=known["kind"], family=known.get("family", ""), problem=known.get("problem", ""))
            seen = look(path)
            if seen.problem and path.is_dir():
                return seen  # what is missing in a folder may come without anything else changing
            self._facts.put(path, {"kind": seen.kind, "family": seen.family, "problem": seen.problem})
        except OSError as error:
            return Seen(kind=None, problem=f"{path} cannot be read: {error.strerror or error}")
        return seen

    def _fresh(self, entry: Entry) -> Entry:
        """The entry with what its file is today."""
        if not entry.path.exists():
            return replace(entry, problem=f"it is no longer where it was: {entry.path}")
        return replace(entry, problem=self._look(entry.path).problem)


def find(name: str, kind: Kind | None = None) -> Entry:
    """The usable entry of that name in the user's library, as `Library.usable`."""
    return Library().usable(name, kind)


def _downloaded(entries: Collection[Entry], source: str) -> Entry:
    """The entry that was downloaded from there, at whatever commit unless one is asked for.

    Raises:
        WeightsMissing: There is none.
    """
    asked = sources.parse(source)
    for entry in entries:
        had = sources.parse(entry.source) if entry.source.startswith("hub:") else None
        if (
            isinstance(asked, sources.Hub)
            and isinstance(had, sources.Hub)
            and (had.repo, had.path) == (asked.repo, asked.path)
        ):
            if asked.revision in ("", "main") or had.revision.startswith(asked.revision):
                return entry
    raise WeightsMissing(f"{source} was not downloaded", hint=f"mindseye models add {source}")


def _walk(folder: Path) -> Iterator[Path]:
    """Files that may be weights, and folders that are one thing, below a folder; hidden ones left out."""
    seen = 0
    base = len(folder.parts)
    for place, below, files in os.walk(folder, followlinks=False):
        here = Path(place)
        deep = len(here.parts) - base
        below[:] = sorted(each for each in below if not each.startswith(".")) if deep < DEEPEST else []
        units = [each for each in below if is_unit(here / each)]
        yield from (here / each for each in units)
        below[:] = [each for each in below if each not in units]
        for name in sorted(files):
            seen += 1
            if seen > MOST:
                return
            if not name.startswith(".") and name.lower().endswith((*WEIGHTS, *PICTURES)):
                yield here / name


def _named_apart(entries: list[Entry]) -> list[Entry]:
    """The entries, those that would share a name with an earlier one of their kind named after their folder too."""
    used: set[tuple[str, str]] = set()
    apart = []
    for entry in entries:
        name, number = entry.name, 1
        while (entry.kind, name.lower()) in used:
            number += 1
            parent = f"{entry.path.parent.name}/{entry.name}"
            name = parent if number == 2 else f"{parent}-{number - 1}"
        used.add((entry.kind, name.lower()))
        apart.append(entry if name == entry.name else replace(entry, name=name))
    return apart


def _default_name(path: Path, source: str) -> str:
    """What something is called when nobody says: after its file, or its repository."""
    meant = sources.parse(source) if source.startswith("hub:") else None
    if isinstance(meant, sources.Hub) and path.is_dir():
        name = meant.path.rpartition("/")[2] or meant.repo.rpartition("/")[2]
    else:
        name = path.name if path.is_dir() else path.stem
    name = re.sub(r"[\x00-\x1f/\\:<>|*?\"]+", "-", name).lstrip("-_. ")[:120]
    return name or "unnamed"


def _check_name(name: str) -> None:
    """Raise UsageError for what cannot be typed back or would be mistaken for a path."""
    if not _NAME.fullmatch(name) or name != name.strip():
        raise UsageError(
            f"{name!r} cannot be a name", hint='letters, digits, spaces and signs other than / \\ : < > | * ? "'
        )
