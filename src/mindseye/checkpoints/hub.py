"""Repositories of the Hugging Face hub: which of their files to take, and how they come into the hub's own cache.

The cache is shared with every other program on the machine (`HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT` and
`HF_HUB_OFFLINE` mean what they always mean), so nothing is downloaded twice. Of a repository only what is needed comes:
one set of weights a part, safetensors before pickles, half precision where that is published; never code, never a
safety checker. What was downloaded before is found again without a network.
"""

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NoReturn

from mindseye.errors import MindseyeError, OutputError, UsageError, WeightsError, WeightsMissing, nearest
from mindseye.request import Progress, Steps

__all__ = ["WEIGHTS", "Fetched", "Hub", "Precision", "delete", "from_hub", "room", "wanted"]

Precision = Literal["half", "full"]
"""Which weights to take where a repository has both."""

WEIGHTS = (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".pkl")
"""Endings of files that may hold weights, the best first."""
PARTS = ("unet", "vae", "vqvae", "text_encoder", "text_encoder_2", "bert", "tokenizer", "tokenizer_2", "scheduler")
"""Folders of a diffusers repository that a text-to-picture system is made of."""

_STANDARD = re.compile(
    r"(?:diffusion_pytorch_model|pytorch_model|model)(?:\.(?P<variant>[A-Za-z0-9_]+))?(?:-\d{5}-of-\d{5})?"
    r"(?:\.(?P<late>[A-Za-z0-9_]+))?\.(?P<kind>safetensors|bin)(?:\.index(?:\.(?P<of>[A-Za-z0-9_]+))?\.json)?"
)
_TEXT = (".json", ".txt", ".model")


@dataclass(frozen=True)
class Hub:
    """Something on the Hugging Face hub.

    Attributes:
        repo: "organisation/repository".
        revision: Branch, tag or commit; "" = the main branch.
        path: A folder or file in it; "" = all of it.
    """

    repo: str
    revision: str = ""
    path: str = ""

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"hub:{self.repo}{at}{f'/{self.path}' if self.path else ''}"


@dataclass(frozen=True, kw_only=True)
class Fetched:
    """What came of a source.

    Attributes:
        path: The file or folder.
        source: Where it is from, pinned to a commit where there are commits; "" for what was the user's already.
        new: Files that were not on this machine before.
        licence: As the source states it; "" when it does not.
    """

    path: Path
    source: str = ""
    new: tuple[Path, ...] = ()
    licence: str = ""


def wanted(names: Sequence[str], path: str = "", precision: Precision = "half") -> tuple[str, ...]:
    """Which files of a repository to take.

    Args:
        names: All files, as paths in the repository.
        path: The folder or file that was asked for; "" = the repository itself.
        precision: Which weights to take where there are both.

    Raises:
        UsageError: There is no such file, there are no weights, or there are several and one has to be chosen.
    """
    if path in names:
        if not path.endswith(".json"):
            return (path,)
        return (path, *_siblings(names, path))
    inside = {
        name[len(path) + 1 :] if path else name: name for name in names if not path or name.startswith(f"{path}/")
    }
    if not inside:
        close = nearest(path, [*names, *{str(PurePosixPath(name).parent) for name in names if "/" in name}])
        raise UsageError(f"there is no {path} in it", hint=f"did you mean {close}?" if close else "")
    if "model_index.json" in inside:
        chosen = ["model_index.json"]
        for part in PARTS:
            found = [name for name in inside if PurePosixPath(name).parent == PurePosixPath(part)]
            chosen += [
                name for name in found if name.endswith(_TEXT) and not _STANDARD.fullmatch(PurePosixPath(name).name)
            ]
            chosen += _one_set(found, precision)
        return tuple(inside[name] for name in chosen)
    top = [name for name in inside if "/" not in name]
    if "config.json" in top and (weights := _one_set(top, precision)):
        texts = [name for name in top if name.endswith(_TEXT) and not _STANDARD.fullmatch(name)]
        return tuple(inside[name] for name in (*texts, *weights))
    return (inside[_single(top, path)],)


def _siblings(names: Sequence[str], index: str) -> list[str]:
    """The shards of an index, by their common name."""
    stem = index.removesuffix(".json").partition(".index")[0]
    start, _, kind = stem.rpartition(".")
    return [name for name in names if name.startswith(start) and name.endswith(f".{kind}") and "-of-" in name]


def _one_set(names: Sequence[str], precision: Precision) -> list[str]:
    """Of the standard weights of one folder those of one precision and one format, with their index."""
    sets: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if found := _STANDARD.fullmatch(PurePosixPath(name).name):
            variant = found["variant"] or found["late"] or found["of"] or ""
            sets.setdefault((found["kind"], variant), []).append(name)
    order = ("fp16", "") if precision == "half" else ("", "fp16")
    known = [key for key in sets if key[1] in order] or list(sets)
    best = min(
        known,
        default=None,
        key=lambda key: (key[0] != "safetensors", key[1] not in order, order.index(key[1]) if key[1] in order else 0),
    )
    return sorted(sets[best]) if best else []


def _single(names: Sequence[str], path: str) -> str:
    """The one file of weights among them."""
    weights = [name for name in names if name.lower().endswith(WEIGHTS)]
    best: dict[str, str] = {}
    for name in sorted(weights, key=lambda name: WEIGHTS.index(PurePosixPath(name.lower()).suffix)):
        best.setdefault(name.rpartition(".")[0], name)
    if len(best) == 1:
        return next(iter(best.values()))
    if not best:
        raise UsageError("it holds no weights that mindseye reads (a diffusers folder, .safetensors, .ckpt, .pt, .bin)")
    some = sorted(best.values())
    listed = ", ".join(some[:8]) + (f" and {len(some) - 8} more" if len(some) > 8 else "")
    raise UsageError(
        f"it holds {len(best)} files of weights: {listed}",
        hint=f"name one of them: hub:org/repo/{f'{path}/' if path else ''}{some[0]}",
    )


def from_hub(asked: Hub, precision: Precision) -> Steps[Fetched]:
    """One set of weights of a repository, from the cache where it is there already."""
    yield Progress("ask the hub", 0, 1, tuple)
    try:
        listing = _listing(asked)
    except Exception as error:
        folder = _cached(asked)
        if folder is None:
            _explain(error, asked)
        # What was downloaded before serves where the hub cannot be reached.
        if not _unreachable(error):
            _explain(error, asked)
        names = [each.relative_to(folder).as_posix() for each in sorted(folder.rglob("*")) if each.is_file()]
        chosen = _choose(names, asked, precision)
        return Fetched(path=_top(folder, chosen, asked), source=str(Hub(asked.repo, folder.name, asked.path)))
    chosen = _choose(list(listing.files), asked, precision)
    total = sum(listing.files[name][0] for name in chosen)
    room(_cache_folder(), total, str(asked))
    new: list[Path] = []
    done = 0
    folder: Path | None = None
    try:
        for name in chosen:
            yield Progress("download", done >> 20, max(1, total >> 20), tuple)
            path, fresh = _one_file(asked, listing.commit, name)
            folder = path.parents[len(PurePosixPath(name).parts) - 1]
            if fresh:
                new.append(path)
                _verify(path, listing.files[name][1], name)
            done += listing.files[name][0]
    except MindseyeError:
        raise
    except Exception as error:
        _explain(error, asked)
    assert folder is not None  # `wanted` never answers with nothing
    yield Progress("download", max(1, total >> 20), max(1, total >> 20), tuple)
    pinned = str(Hub(asked.repo, listing.commit, asked.path))
    return Fetched(path=_top(folder, chosen, asked), source=pinned, new=tuple(new), licence=listing.licence)


@dataclass(frozen=True)
class _Listing:
    """What a repository holds: name -> bytes and sha256 ("" where the hub states none)."""

    commit: str
    files: Mapping[str, tuple[int, str]]
    licence: str


def _listing(asked: Hub) -> _Listing:
    """Ask the hub; raises what its library raises."""
    from huggingface_hub import HfApi

    info = HfApi().model_info(asked.repo, revision=asked.revision or None, files_metadata=True, timeout=20)
    files = {
        each.rfilename: (each.size or 0, getattr(each.lfs, "sha256", "") if each.lfs else "")
        for each in info.siblings or ()
    }
    card: Any = info.card_data
    licence = str((card.get("license") if card is not None else "") or "")
    return _Listing(info.sha or asked.revision or "main", files, "" if licence == "other" else licence)


def _choose(names: Sequence[str], asked: Hub, precision: Precision) -> tuple[str, ...]:
    """`wanted`, with the repository's name in what goes wrong."""
    try:
        return wanted(names, asked.path, precision)
    except UsageError as error:
        hint = error.hint.replace("org/repo", asked.repo)
        raise UsageError(f"hub:{asked.repo}: {error.message}", hint=hint) from None


def _top(folder: Path, chosen: Sequence[str], asked: Hub) -> Path:
    """The folder or the file that was asked for."""
    return folder / (chosen[0] if len(chosen) == 1 else asked.path)


def _one_file(asked: Hub, commit: str, name: str) -> tuple[Path, bool]:
    """One file in the hub's cache, and whether it came just now."""
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    fresh = not isinstance(try_to_load_from_cache(asked.repo, name, cache_dir=_cache_folder(), revision=commit), str)
    return Path(hf_hub_download(asked.repo, name, cache_dir=_cache_folder(), revision=commit)), fresh


def _verify(path: Path, sha256: str, name: str) -> None:
    """Compare with what the hub states; a damaged file does not stay."""
    if not sha256:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        delete([path])
        raise WeightsError(f"{name} arrived damaged: its sha256 is not the one that the hub states", hint="try again")


def _cache_folder() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def _cached(asked: Hub) -> Path | None:
    """The snapshot that was downloaded before, if there is one."""
    repository = _cache_folder() / f"models--{asked.repo.replace('/', '--')}"
    snapshots = repository / "snapshots"
    try:
        commit = (repository / "refs" / (asked.revision or "main")).read_text(encoding="utf-8").strip()
    except OSError:
        # Files that were asked for by their commit leave no note of the branch.
        there = sorted(snapshots.iterdir(), key=lambda each: each.stat().st_mtime) if snapshots.is_dir() else []
        commit = asked.revision or (there[-1].name if there else "")
    folder = snapshots / commit
    return folder if commit and folder.is_dir() and any(folder.iterdir()) else None


def _unreachable(error: Exception) -> bool:
    """Whether it is the network's fault, or the user's wish to be offline."""
    from huggingface_hub import errors

    if isinstance(error, errors.RepositoryNotFoundError | errors.RevisionNotFoundError | errors.HFValidationError):
        return False
    if isinstance(error, errors.OfflineModeIsEnabled | errors.LocalEntryNotFoundError | OSError):
        return True
    # The library's client for the web is another one in every second version of it.
    return any(re.search(r"Connect|Timeout|Network|Transport|Proxy", kind.__name__) for kind in type(error).__mro__)


def _explain(error: Exception, asked: Hub) -> NoReturn:
    """Raise what the hub's library said as a sentence.

    Raises:
        MindseyeError: Always.
    """
    from huggingface_hub import errors

    page = f"https://huggingface.co/{asked.repo}"
    if isinstance(error, errors.GatedRepoError):
        raise UsageError(
            f"hub:{asked.repo} is given only to those who accept its terms",
            hint=f"accept them on {page}, then: hf auth login",
        ) from error
    if isinstance(error, errors.RepositoryNotFoundError | errors.HFValidationError):
        raise UsageError(
            f"there is no hub:{asked.repo}, or it is private", hint="check the spelling; if it is yours: hf auth login"
        ) from error
    if isinstance(error, errors.RevisionNotFoundError):
        raise UsageError(f"hub:{asked.repo} has no revision {asked.revision!r}", hint=f"see {page}") from error
    if isinstance(error, errors.OfflineModeIsEnabled):
        raise WeightsMissing(
            f"HF_HUB_OFFLINE is set, and {asked} was not downloaded before", hint="unset HF_HUB_OFFLINE and try again"
        ) from error
    if isinstance(error, OSError) and error.errno in (28, 122):
        raise OutputError(
            f"no room is left on the disk for {asked}", hint="HF_HOME says where the hub's cache lies"
        ) from error
    if _unreachable(error):
        raise WeightsMissing(
            f"the hub cannot be reached, and {asked} was not downloaded before",
            hint="is there a network? a folder copied from another machine can be added by its path",
        ) from error
    if isinstance(error, errors.HfHubHTTPError):
        status = getattr(error.response, "status_code", "an error")
        raise WeightsMissing(f"the hub answered {status} to {asked}", hint="try again later") from error
    raise error


def room(folder: Path, size: int, what: str) -> None:
    """Raise OutputError when the disk has not that much room."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OutputError(
            f"{what} may need {size / 1e9:.1f} GB and {folder} has {free / 1e9:.1f} GB left",
            hint="HF_HOME and MINDSEYE_HOME say where downloads lie",
        )


def delete(paths: Sequence[Path], said: Callable[[Path], object] | None = None) -> int:
    """Delete downloaded files; of the hub's cache also the blob, unless another snapshot uses it.

    Args:
        paths: As `Fetched.new` names them.
        said: Called with each file that is gone.

    Returns:
        Bytes that are free again.
    """
    freed = 0
    for path in paths:
        if not any(part == "downloads" or part.startswith("models--") for part in path.parts[:-1]):
            continue  # no place of ours: whoever wrote that down, we did not download it
        try:
            blob = path.resolve() if path.is_symlink() else None
            size = path.stat().st_size if path.exists() else 0
            path.unlink(missing_ok=True)
            if blob is not None and blob.parent.name == "blobs":
                snapshots = blob.parent.parent / "snapshots"
                used = any(each.is_symlink() and each.resolve() == blob for each in snapshots.rglob("*"))
                if used:
                    continue
                blob.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path} cannot be deleted: {error.strerror or error}") from None
        freed += size
        if said is not None:
            said(path)
        _prune(path)
    return freed


def _prune(path: Path) -> None:
    """Remove the folders that a deleted file leaves empty, a repository's whole place in the hub's cache included."""
    for folder in path.parents:
        if folder.name == "snapshots" and folder.parent.name.startswith("models--"):
            if folder.is_dir() and not any(folder.iterdir()):
                shutil.rmtree(folder.parent, ignore_errors=True)
            return
        if len(folder.parts) < 3 or folder.name == "downloads" or not folder.is_dir() or any(folder.iterdir()):
            return
        folder.rmdir()
