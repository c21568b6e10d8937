"""What mindseye writes into its pictures.

Two PNG text chunks: `parameters`, A1111's plain text (`mindseye.metadata.infotext`), and `mindseye`, JSON with the
whole resolved request, which is what `--like` draws from. JPEG and WebP have no such chunks: there the plain text is
the EXIF `UserComment`, as A1111 does it, and the JSON the `MakerNote`, which EXIF keeps for exactly this.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mindseye import __version__
from mindseye.errors import ImageError
from mindseye.metadata.infotext import LONGEST_TEXT, Infotext, format_infotext
from mindseye.request import Result, to_json

SCHEMA = 1
"""Of the JSON chunk; a reader refuses a higher one instead of guessing."""

NOTE = b"mindseye\0"
"""How our MakerNote begins."""

EXIF_IFD, USER_COMMENT, MAKER_NOTE = 0x8769, 0x9286, 0x927C
_MOST_EXIF = 65_533 - 6
"""What fits into a JPEG's one EXIF segment."""


@dataclass(frozen=True, kw_only=True)
class Account:
    """The full account of a picture, as in its `mindseye` chunk.

    Attributes:
        request: Fully resolved, as JSON values, for the whole batch the picture was drawn in.
        index: Which picture of that batch it is.
        seed: That draws it alone; None in the accounts of earlier versions.
        version: Of mindseye.
        weights: sha256 of each part.
        seconds: For the whole batch.
    """

    request: Mapping[str, Any]
    index: int = 0
    seed: int | None = None
    version: str = __version__
    weights: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


def texts(result: Result, index: int) -> dict[str, str]:
    """Both chunks for one picture of a result."""
    account = {
        "schema": SCHEMA,
        "request": to_json(result.request),
        "index": index,
        "seed": result.seeds[index],
        "version": __version__,
        "weights": dict(result.weights),
        "seconds": round(result.seconds, 3),
    }
    if result.scores:
        account["score"] = round(result.scores[index], 6)
    return {"parameters": format_infotext(infotext(result, index)), "mindseye": json.dumps(account, ensure_ascii=False)}


def exif(result: Result, index: int) -> bytes:
    """The same for a JPEG or WebP, as EXIF.

    A JPEG has room for 64 KB of it: what does not fit is left out, first the JSON, then the plain text.
    """
    chunks = texts(result, index)
    comment = b"UNICODE\0" + chunks["parameters"].encode("utf-16-be")
    note = NOTE + chunks["mindseye"].encode()
    for values in ({USER_COMMENT: comment, MAKER_NOTE: note}, {USER_COMMENT: comment}):
        made = _exif(values)
        if len(made) <= _MOST_EXIF:
            return made
    return b""


def _exif(values: Mapping[int, bytes]) -> bytes:
    """EXIF with these entries."""
    from PIL import Image

    made = Image.Exif()
    made.get_ifd(EXIF_IFD).update(values)
    return made.tobytes()


def infotext(result: Result, index: int) -> Infotext:
    """The plain-text account of one picture of a result, keys in the order the format's readers expect.

    Weights named `lora:NAME` and `embedding:NAME` are the `Lora hashes` and `TI hashes`; the first of the others is the
    model's.
    """
    request = result.request
    image = result.images[index]
    values: dict[str, object] = {"Steps": request.steps, "Sampler": request.sampler or None}
    values |= {"CFG scale": _number(request.guidance), "Seed": result.seeds[index]}
    values |= {"Size": f"{image.width}x{image.height}"}
    loras, embeddings = (_hashes(result.weights, kind) for kind in ("lora:", "embedding:"))
    parts = (digest for part, digest in result.weights.items() if not part.startswith(("lora:", "embedding:")))
    if digest := next(parts, None):
        values["Model hash"] = digest[:10]
    values["Model"] = request.model
    if result.scores:
        values |= {"Candidates": request.candidates, "Score": f"{result.scores[index]:.4f}"}
    if request.image is not None:
        values["Denoising strength"] = _number(request.strength)
    told = {name: value for name, value in request.options.items() if name and value != result.usual.get(name, "")}
    values |= {name.replace("_", " ").capitalize(): value for name, value in told.items() if value or result.usual}
    values |= {"Lora hashes": loras, "TI hashes": embeddings, "Version": f"mindseye {__version__}"}
    return Infotext(
        prompt=request.prompt,
        negative=request.negative,
        fields={key: str(value) for key, value in values.items() if value is not None},
    )


def _hashes(weights: Mapping[str, str], kind: str) -> str | None:
    """`name: hash, name: hash` of the weights of one kind, of twelve digits."""
    shown = [f"{part[len(kind) :]}: {digest[:12]}" for part, digest in weights.items() if part.startswith(kind)]
    return ", ".join(shown) or None


def parse_account(text: str, name: str = "the picture") -> Account:
    """Read our own chunk.

    Raises:
        ImageError: It is no account, or from a later version.
    """
    try:
        plain = json.loads(text[:LONGEST_TEXT])
        request, index = plain["request"], plain.get("index", 0)
        if not isinstance(request, dict) or type(index) is not int or index < 0:
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ImageError(f"{name} holds a damaged account of how it was made") from None
    if plain.get("schema") != SCHEMA:
        raise ImageError(
            f"{name} was written by mindseye {plain.get('version')!s:.20}, whose account this version cannot read",
            hint="pip install -U mindseye",
        )
    kinds = {"seed": int, "version": str, "weights": dict, "seconds": (int, float)}
    known = {key: plain[key] for key, kind in kinds.items() if isinstance(plain.get(key), kind)}
    return replace(Account(request=request, index=index), **known)


def _number(value: float | None) -> str | None:
    """7.0 as 7, 7.5 as 7.5."""
    return None if value is None else f"{value:g}"
