"""What a picture says about itself, whichever program wrote it, and how loose values are read.

Everything in here comes out of strangers' files. A value of the wrong kind is left out, never guessed at and never an
error; numbers are finite, texts and lists are cut at a length nobody reaches by honest means.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypedDict, cast

from mindseye.metadata.own import Account

LONGEST_JSON = 1 << 22
"""Characters of a JSON chunk that are looked at; node graphs are long."""

MOST_LORAS = 100

Dialect = Literal["a1111", "comfy", "compel", "novelai"]
"""Whose prompt grammar a prompt is written in."""


class Lora(TypedDict, total=False):
    """A low-rank adapter that a picture was drawn with."""

    name: str
    weight: float
    hash: str


class Fields(TypedDict, total=False):
    """How a picture was made, under one name each. What is not known is not there.

    `sampler` and `schedule` are the writing program's own names, `size` that of the first pass, `strength` how far an
    image-to-image pass went; `hires` is the factor of a second, larger pass, `hires_strength` how far that one went.
    `clip_skip` counts from 1, the last layer. `extra` holds what has no name here, as text.
    """

    prompt: str
    negative: str
    steps: int
    sampler: str
    schedule: str
    guidance: float
    rescale: float
    eta: float
    seed: int
    size: tuple[int, int]
    model: str
    model_hash: str
    vae: str
    clip_skip: int
    strength: float
    variation_seed: int
    variation_strength: float
    hires: float
    hires_steps: int
    hires_strength: float
    hires_upscaler: str
    mask_blur: float
    masked: str
    only_masked: bool
    padding: int
    seamless: str
    emphasis: str
    rng: str
    loras: tuple[Lora, ...]
    version: str
    extra: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Found:
    """How a picture was made, as far as it says.

    Attributes:
        tool: The program that wrote it: "mindseye", "A1111", "ComfyUI", ...
        fields: What could be read.
        raw: The text itself.
        notices: What the reader could not make sense of or had to choose between, one sentence each.
        dialect: Whose prompt grammar the prompt is in.
        account: Of a picture of ours, everything.
    """

    tool: str
    fields: Fields = field(default_factory=lambda: Fields())
    raw: str = ""
    notices: tuple[str, ...] = ()
    dialect: Dialect = "a1111"
    account: Account | None = None


Reader = Callable[[Mapping[str, str]], Found | None]
"""From the text chunks of a file to what they say; None where they are another program's."""


def parse_object(text: str | None) -> dict[str, Any] | None:
    """A JSON object, or None for whatever else the text may be: not JSON, too long, nested without end."""
    if text is None or len(text) > LONGEST_JSON or text.lstrip()[:1] != "{":
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def text_of(value: object) -> str | None:
    """A text that is not empty."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    return str(value).strip() or None


def real(value: object) -> float | None:
    """A finite number, also out of text and out of "80%"."""
    if isinstance(value, str):
        value = value.strip()[:40]
        try:
            value = float(value.removesuffix("%")) / (100 if value.endswith("%") else 1)
        except ValueError:
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: object) -> int | None:
    """A whole number within 64 bits, also out of text; seeds do not survive a detour by way of float."""
    if isinstance(value, str):
        text = value.strip()[:40]
        digits = text.removeprefix("-")
        value = int(text) if digits.isascii() and digits.isdigit() else real(text)
    if isinstance(value, float):
        value = int(value) if math.isfinite(value) and value == int(value) else None
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if -(2**63) <= value < 2**64 else None


def size_of(value: object) -> tuple[int, int] | None:
    """ "512x768", "(512, 768)" or two numbers, as width and height."""
    if isinstance(value, str):
        value = value[:40].strip("() ").lower().replace("×", "x").replace(",", "x").split("x")
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        return None
    width, height = (whole(side) for side in value)
    if width is None or height is None or not (0 < width <= 100_000 and 0 < height <= 100_000):
        return None
    return width, height


def gathered(values: Mapping[str, object]) -> Fields:
    """Only what is there: None, empty text and empty lists are dropped."""
    return cast(Fields, {name: value for name, value in values.items() if value is not None and value not in ("", ())})


def lora_of(name: object, weight: object = None, digest: object = None) -> Lora | None:
    """An adapter, called by its file's name without folder and ending."""
    named = text_of(name)
    if named is None or named.lower() == "none":
        return None
    number = real(weight)
    made: Lora = {"name": stem(named), "weight": 1.0 if number is None else number}
    if shown := text_of(digest):
        made["hash"] = shown
    return made


def stem(name: str) -> str:
    """A file's name without folders of any system and without the endings weights have."""
    name = name.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    for ending in (".safetensors", ".ckpt", ".pt", ".pth", ".bin", ".sft", ".gguf"):
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return name


def spread(extra: Mapping[str, object]) -> dict[str, str]:
    """Leftovers as short texts, nested ones as JSON."""
    shown: dict[str, str] = {}
    for name, value in list(extra.items())[:200]:
        if value in (None, "", [], {}):
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        shown[str(name)[:80]] = text if len(text) <= 2000 else f"{text[:2000]}..."
    return shown
