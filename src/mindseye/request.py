"""What is asked, how it is going, what came of it: the only things that pass between a front end and the engine.

This module imports neither torch nor anything else that is slow, so that a command line may build a `Request` before
the heavy half of the house wakes up.
"""

import hashlib
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypeVar

from mindseye.errors import LimitError, OptionError, PromptError, SizeError

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT = "stable-diffusion-pocket"
"""The card that draws when none is named."""

LONGEST_PROMPT = 32_000
"""Characters; what lies beyond is an attack or an accident, and tokenizers are not linear for everybody."""

SEEDS = 2**63
"""Seeds are 0 <= seed < SEEDS."""

T = TypeVar("T")
Scalar: TypeAlias = str | int | float | bool
Steps: TypeAlias = Generator["Progress", None, T]
"""Every long loop is a generator of `Progress`; its return value is the answer, closing it frees what it held."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One order for pictures. `None` means "as the card prefers"; `resolve` fills it in.

    Attributes:
        prompt: What to draw.
        negative: What to keep away from.
        model: Name of a card.
        size: Width and height in pixels.
        count: How many pictures; picture i has seed `seed + i`.
        seed: 0 <= seed < 2**63; drawn at random when None.
        steps: How many steps the method takes.
        guidance: How strongly the text pulls; 1 follows the model as it is.
        sampler: Name of a sampler, for the methods that have several.
        image: A picture to start from.
        mask: Where `image` is repainted: white is repainted, black is kept.
        strength: How far to go from `image`, 0 (not at all) to 1 (forget it).
        candidates: How many are drawn of every picture, of which a critic keeps the best. Candidate j of a picture with
            seed s has the seed `candidate_seed(s, j)`, the first one s itself.
        keep: How many of them are kept, the best first.
        options: The system's own knobs, by name.
    """

    prompt: str
    negative: str = ""
    model: str = DEFAULT
    size: tuple[int, int] | None = None
    count: int = 1
    seed: int | None = None
    steps: int | None = None
    guidance: float | None = None
    sampler: str | None = None
    image: "Image | None" = None
    mask: "Image | None" = None
    strength: float = 0.8
    candidates: int | None = None
    keep: int = 1
    options: Mapping[str, Scalar] = field(default_factory=dict)


class Progress(NamedTuple):
    """One step of a long loop. `peek()` renders a preview, and costs only if it is called."""

    stage: str
    step: int
    total: int
    peek: "Callable[[], Sequence[Image]]"


@dataclass(frozen=True, kw_only=True)
class Result:
    """What came of a request.

    Attributes:
        images: The pictures, RGB; of each that was asked for, `request.keep` in the order of their scores.
        seeds: One a picture.
        request: The request with nothing left open, so that asking it again draws the same.
        seconds: From the first token to the last pixel, loading excluded.
        notices: What was not done to the letter, one sentence each: a size rounded, a prompt cut.
        weights: sha256 of each part, by part name.
        usual: The system's own value of every option: what a short account need not say.
        scores: How much the critic likes each picture, -1 to 1; empty where there was nothing to choose from.
    """

    images: "tuple[Image, ...]"
    seeds: tuple[int, ...]
    request: Request
    seconds: float
    notices: tuple[str, ...] = ()
    weights: Mapping[str, str] = field(default_factory=dict)
    usual: Mapping[str, Scalar] = field(default_factory=dict)
    scores: tuple[float, ...] = ()


def drain(steps: Steps[T], on_progress: Callable[[Progress], object] | None = None) -> T:
    """Run a generator of `Progress` to its end and give back its return value; close it whatever happens."""
    try:
        while True:
            progress = next(steps)
            if on_progress is not None:
                on_progress(progress)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


class Preferences(Protocol):
    """The part of a card that `resolve` reads."""

    @property
    def native(self) -> tuple[int, int]:
        """Width and height the system was trained at."""
        ...

    @property
    def multiple(self) -> int:
        """Sides are multiples of this."""
        ...

    @property
    def defaults(self) -> Mapping[str, Any]:
        """Request fields, by name."""
        ...

    @property
    def options(self) -> Mapping[str, Scalar]:
        """Values for the system's own options, by name."""
        ...


def resolve(request: Request, card: Preferences, *, seed: int) -> tuple[Request, tuple[str, ...]]:
    """Fill every open field from the card's preferences and check what does not depend on the system.

    Args:
        request: What was asked.
        card: Whose preferences fill the gaps.
        seed: Used where the request has none.

    Returns:
        The request with only `image` and `mask` possibly None, and one sentence for each liberty taken.

    Raises:
        PromptError: The prompt is empty, not text, or endless.
        SizeError: The size cannot be drawn at all.
        OptionError: A number out of its range.
    """
    notices: list[str] = []
    filled: dict[str, Any] = {"steps": 1, "guidance": 1.0, "sampler": "", "candidates": 1, **card.defaults}
    if request.image is not None:  # it says what is wanted: what is drawn from it differs little
        filled["candidates"] = 1
    filled["candidates"] = max(filled["candidates"], request.keep)
    for name in ("steps", "guidance", "sampler", "candidates"):
        if (value := getattr(request, name)) is not None:
            filled[name] = value
    asked = request.size or card.native
    filled["size"], said = round_size(asked, card.multiple)
    notices += said
    filled["seed"] = seed if request.seed is None else request.seed
    filled["options"] = {**card.options, **request.options}
    resolved = replace(request, **filled)
    _check(resolved)
    image, mask = resolved.image, resolved.mask
    if image is not None and image.width * resolved.size[1] != image.height * resolved.size[0]:  # type: ignore[index]
        notices.append(
            f"the start picture is {image.width}x{image.height}: scaled and cropped about its centre to "
            f"{filled['size'][0]}x{filled['size'][1]}"
        )
    if image is not None and mask is not None and mask.size != image.size:
        notices.append(
            f"the mask is {mask.width}x{mask.height} and the picture {image.width}x{image.height}: mask resized"
        )
    return resolved, tuple(notices)


def round_size(size: tuple[int, int], multiple: int) -> tuple[tuple[int, int], list[str]]:
    """The nearest drawable size, and a sentence when it is not the one asked for."""
    width, height = size
    if width < 1 or height < 1:
        raise SizeError(f"a picture of {width}x{height} has no pixels", hint="give --size WIDTHxHEIGHT, say 128x128")
    rounded = tuple(max(multiple, int(side / multiple + 0.5) * multiple) for side in size)
    if rounded == tuple(size):
        return (width, height), []
    said = f"size {width}x{height} rounded to {rounded[0]}x{rounded[1]}: sides must be multiples of {multiple}"
    return (rounded[0], rounded[1]), [said]


def check_text(name: str, text: str) -> None:
    """Raise PromptError unless the text can be stored and tokenized."""
    if len(text) > LONGEST_PROMPT:
        raise LimitError(f"the {name} has {len(text):,} characters; at most {LONGEST_PROMPT:,} are read")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PromptError(
            f"the {name} is not readable text (character {error.start + 1})", hint="is the terminal set to UTF-8?"
        ) from None
    if "\0" in text:
        raise PromptError(f"the {name} holds a NUL character")


def _check(request: Request) -> None:
    """Ranges that hold for every system."""
    check_text("prompt", request.prompt)
    check_text("negative prompt", request.negative)
    if not request.prompt.strip():
        raise PromptError("the prompt is empty", hint='say what to draw: mindseye "a red apple"')
    ranges = (
        ("count", request.count, 1, None),
        ("steps", request.steps, 1, None),
        ("guidance", request.guidance, 0, 1000),
        ("strength", request.strength, 0, 1),
        ("seed", request.seed, 0, SEEDS - request.count),
        ("candidates", request.candidates, 1, None),
        ("keep", request.keep, 1, None),
    )
    for name, value, low, high in ranges:
        # `not (a <= b)` rather than `a > b`: NaN must fail, too.
        if not low <= value or (high is not None and not value <= high):  # type: ignore[operator]
            possible = f"{low} or more" if high is None else f"{low} to {high}"
            raise OptionError(f"{name} {value} is out of range: {possible}")
    if request.candidates is not None and request.keep > request.candidates:
        raise OptionError(
            f"{request.keep} of {request.candidates} candidates cannot be kept",
            hint=f"--candidates {request.keep} or more, or a smaller --keep",
        )
    if request.mask is not None and request.image is None:
        raise OptionError("a mask says what to repaint of a picture, but no picture was given", hint="add --image")


def candidate_seed(seed: int, number: int) -> int:
    """The seed of a picture's candidate: its own for the first, and 32 bits that follow from both for the others.

    A candidate is an ordinary picture: asked for by its seed alone, it is drawn again.
    """
    if number == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed} {number}".encode()).digest()[:4], "big")


def fingerprint(image: "Image") -> str:
    """sha256 of what the picture shows, whatever file it came from."""
    digest = hashlib.sha256(f"{image.width}x{image.height}".encode())
    digest.update(image.convert("RGBA").tobytes())
    return digest.hexdigest()


def to_json(request: Request) -> dict[str, Any]:
    """The request as plain JSON values; a picture becomes its name (if it came from a file) and its fingerprint."""
    plain: dict[str, Any] = {}
    for each in fields(request):
        value = getattr(request, each.name)
        if each.name in ("image", "mask"):
            if value is not None:
                plain[each.name] = {"path": value.info.get("path", ""), "sha256": fingerprint(value)}
        elif each.name == "size":
            plain["size"] = None if value is None else list(value)
        elif each.name == "options":
            plain["options"] = dict(value)
        else:
            plain[each.name] = value
    return plain


_KINDS: Mapping[str, tuple[type, ...]] = {
    "prompt": (str,),
    "negative": (str,),
    "model": (str,),
    "count": (int,),
    "seed": (int, type(None)),
    "steps": (int, type(None)),
    "guidance": (int, float, type(None)),
    "sampler": (str, type(None)),
    "strength": (int, float),
    "candidates": (int, type(None)),
    "keep": (int,),
}


def from_json(plain: Mapping[str, Any], open_image: "Callable[[str, str], Image]") -> Request:
    """The inverse of `to_json`. Unknown keys are refused: a request half understood draws another picture.

    Args:
        plain: What `to_json` gave; untrusted, for it may come out of somebody's file.
        open_image: From (path, sha256) to the picture itself.

    Raises:
        OptionError: A key or a type that no request has.
    """
    filled: dict[str, Any] = {}
    for name, value in plain.items():
        if name in ("image", "mask") and isinstance(value, Mapping):
            filled[name] = open_image(str(value.get("path", "")), str(value.get("sha256", "")))
        elif name == "size" and (value is None or _are_ints(value)):
            filled[name] = None if value is None else (value[0], value[1])
        elif (
            name == "options"
            and isinstance(value, Mapping)
            and all(isinstance(one, (str, int, float)) for one in value.values())
        ):
            filled[name] = {str(key): one for key, one in value.items()}
        elif name in _KINDS and isinstance(value, _KINDS[name]) and not isinstance(value, bool):
            filled[name] = value
        else:
            raise OptionError(f"the stored request has {name}={value!r:.80}, which this version cannot read")
    if "prompt" not in filled:
        raise OptionError("the stored request has no prompt")
    return Request(**filled)


def _are_ints(value: object) -> bool:
    """Whether the value is a list of two whole numbers."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(type(side) is int for side in value)
