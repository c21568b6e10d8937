"""What can be said about something without drawing with it: its parts, what of it is understood, its maker's notes.

For a model every part's keys are matched strictly against the network they would fill, so that what is told here is
what loading will do; weights are not read, except to take their fingerprints.
"""

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mindseye.checkpoints.hashes import Hashes
from mindseye.checkpoints.hub import WEIGHTS
from mindseye.checkpoints.index import Entry
from mindseye.checkpoints.kinds import PICTURES
from mindseye.checkpoints.library import Library
from mindseye.errors import MindseyeError, WeightsMissing

__all__ = ["describe", "files_of"]

_NOTED = re.compile(r"(ss_|modelspec\.|sshs_|name$|step$|epoch$|global_step$|sd_checkpoint)")


def describe(entry: Entry, library: Library, *, hashes: bool = True) -> dict[str, Any]:
    """All that can be told about an entry, as plain values for JSON.

    Args:
        entry: Of the library, or made up for a path.
        library: Remembers fingerprints.
        hashes: Whether to take them; for large files that takes seconds, once.

    Raises:
        WeightsMissing: Its file is gone.
    """
    if not entry.path.exists():
        raise WeightsMissing(
            f"{entry.name} is no longer where it was: {entry.path}", hint=f"mindseye models remove {entry.name}"
        )
    files = files_of(entry.path)
    told: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "family": entry.family,
        "path": str(entry.path),
        "bytes": sum(path.stat().st_size for path in files),
        "source": entry.source,
        "licence": entry.licence,
        "added": entry.added,
        "problem": entry.problem,
    }
    tellers = {"lora": _lora, "embedding": _embedding, "vae": _vae}
    teller = tellers.get(entry.kind, _model)
    try:
        told |= {key: value for key, value in teller(entry.path).items() if value or key not in told}
    except MindseyeError as error:
        told["problem"] = error.message
    if hashes:
        told["hashes"] = {
            str(path.relative_to(entry.path) if path != entry.path else path.name): _digits(library.hashes(path))
            for path in files
        }
    return told


def files_of(path: Path) -> list[Path]:
    """The files of weights in a folder, or the file itself."""
    if not path.is_dir():
        return [path]
    return sorted(each for each in path.rglob("*") if each.suffix.lower() in (*WEIGHTS, *PICTURES) and each.is_file())


def _digits(taken: Hashes) -> dict[str, str]:
    """Fingerprints by the names people know them by."""
    told = {"sha256": taken.sha256, "model_hash": taken.short}
    return told | ({"tensors": taken.tensors, "lora_hash": taken.tensors[:12]} if taken.tensors else {})


def _notes(metadata: Mapping[str, str]) -> dict[str, str]:
    """What the maker wrote down about the making."""
    return {key: value for key, value in sorted(metadata.items()) if _NOTED.match(key)}


def _part(part: Any) -> dict[str, Any]:
    """One network of a model: what of its file is understood."""
    from mindseye.checkpoints.layouts import READERS
    from mindseye.checkpoints.load import load_foreign, resolve_part
    from mindseye.checkpoints.manifest import read_manifest

    told: dict[str, Any] = {"files": [path.name for path in part.files], "layout": part.layout, "prefix": part.prefix}
    whole = read_manifest(part.files, part.under).under(part.prefix)
    dtypes = Counter(item.dtype for item in whole.values())
    told |= {
        "tensors": len(whole),
        "parameters": sum(item.numbers for item in whole.values()),
        "dtype": "+".join(name for name, _ in dtypes.most_common()),
    }
    try:
        if part.layout in READERS:
            load_foreign(part)  # small files, whose reader is the only one to know
            return told | {"matched": len(whole)}
        _, _, _, places = resolve_part(part)
        told["matched"] = sum(map(len, places.values()))
    except MindseyeError as error:
        told |= {"matched": 0, "problem": error.message}
    return told


def _model(path: Path) -> dict[str, Any]:
    from mindseye.checkpoints.manifest import read_manifest
    from mindseye.checkpoints.releases import identify

    release = identify(path)
    metadata = read_manifest(path).metadata if path.is_file() else {}
    parts = {name: _part(part) for name, part in release.parts.items()}
    wrong = [f"{name}: {part['problem']}" for name, part in parts.items() if part.get("problem")]
    return {
        "family": release.family,
        "size": list(release.native),
        "facts": {key: value for key, value in release.facts.items() if isinstance(value, str | int | float | None)},
        "parts": parts,
        "notes": list(release.notes),
        "licence": release.licence,
        "metadata": _notes(metadata),
        "problem": "; ".join(wrong),
    }


def _lora(path: Path) -> dict[str, Any]:
    from mindseye.checkpoints.adapters import read_adapter

    adapter = read_adapter(path)
    used = sum(len(change.keys) for change in adapter.modules.values())
    return {
        "family": adapter.base,
        "dialect": adapter.dialect,
        "modules": len(adapter.modules),
        "matched": used,
        "unknown": list(adapter.left[:20]),
        "tensors": used + len(adapter.left),
        "rank": list(adapter.rank),
        "words": list(adapter.words),
        "embeddings": [each.name for each in adapter.embeddings],
        "metadata": _notes(adapter.metadata),
    }


def _embedding(path: Path) -> dict[str, Any]:
    from mindseye.checkpoints.adapters import read_embeddings

    found = read_embeddings(path)
    first = found[0]
    return {
        "family": first.base,
        "words": sorted({name for each in found for name in each.names}),
        "vectors": len(first),
        "width": {name: int(value.shape[-1]) for name, value in first.vectors.items()},
        "metadata": {
            key: str(value)
            for key, value in (("step", first.step), ("sd_checkpoint_name", first.trained_on))
            if value not in (None, "")
        },
    }


def _vae(path: Path) -> dict[str, Any]:
    from mindseye.checkpoints.layouts.taesd import config, half_of
    from mindseye.checkpoints.manifest import read_manifest
    from mindseye.checkpoints.releases import identify_codec

    file = next(iter(files_of(path)), path)
    manifest = read_manifest(file)
    tiny = config(manifest.shapes())
    if tiny is not None:
        half = half_of(manifest.shapes())
        numbers = sum(item.numbers for item in manifest.values())
        return {
            "family": "taesd",
            "half": half or "both",
            "channels": tiny.latent_channels,
            "factor": tiny.factor,
            "tensors": len(manifest),
            "matched": len(manifest),
            "parameters": numbers,
            "dtype": "+".join(sorted({item.dtype for item in manifest.values()})),
        }
    told = _part(identify_codec(path))
    return {"metadata": _notes(manifest.metadata), **told, "problem": told.get("problem", "")}
