"""The one place where a name becomes weights on a device, and a request becomes pictures.

Every door hands a `Request` to `Engine.stream` and drains `Progress`; limits are enforced here, once for all doors.
A long run is a generator: closing it stops the run and frees what it held. Every picture has its own noise generator,
so a batch may be cut to whatever fits the memory without changing what is drawn.
"""

import importlib
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor

from mindseye import zoo
from mindseye.checkpoints.library import Library
from mindseye.critique.ranking import Ranking
from mindseye.engine import options
from mindseye.engine.adapting import Adapting
from mindseye.engine.calling import Calling
from mindseye.engine.choosing import Best, critic_for
from mindseye.engine.parts import Parts
from mindseye.engine.policy import Policy, choose
from mindseye.errors import LimitError, MemoryShort, OptionError, UnknownName, WeightsError
from mindseye.noise import Noise
from mindseye.request import DEFAULT, Progress, Request, Result, Scalar, Steps, drain, resolve
from mindseye.zoo import Card, Foreign, Source

_CHUNK_PIXELS = {"cpu": 2**18, "cuda": 2**21}
"""Pixels of one batch, by kind of device: sixteen pictures of 128x128 on a processor."""

_SHORT_TILE = 256
"""Pixels of the bands in which pictures are decoded where memory is short: at 512x512, 0.75 GB less than whole, for
twice the time."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one request may ask for, whatever door it came through."""

    pixels: int = 4096 * 4096
    steps: int = 10_000
    count: int = 1_000

    def check(self, request: Request) -> None:
        """Raise LimitError when the request, which must be resolved, asks for more."""
        width, height = request.size or (0, 0)
        for name, asked, most in (
            (f"a picture of {width}x{height} =", width * height, self.pixels),
            ("steps:", request.steps or 0, self.steps),
            ("pictures:", request.count * (request.candidates or 1), self.count),
        ):
            if asked > most:
                raise LimitError(f"{name} {asked:,} is too much; this engine allows {most:,}")


@final
class Engine:
    """Draws pictures and keeps the parts it has loaded.

    One engine serves one device and one run at a time; it holds no lock.

    Args:
        device: "cpu", "cuda", "cuda:1", "mps"; the best there is when None.
        dtype: Of the networks; when None, bfloat16 on a graphics card that has it, float32 on a processor for small
            networks, and whichever of the two is faster here for large ones.
        limits: What a request may ask for.
        cards: The cards it knows; all of the zoo's when None.

    Raises:
        OptionError: There is no such device.
    """

    def __init__(
        self,
        *,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        limits: Limits = Limits(),  # noqa: B008 (frozen)
        cards: Iterable[Card] | None = None,
    ) -> None:
        self.device = _device(device or _best_device())
        self._asked_dtype = dtype
        self.dtype = dtype or _best_dtype(self.device)
        self.limits = limits
        self._cards = {card.name: card for card in (zoo.ZOO if cards is None else cards)}
        self._open = cards is None
        self._systems: dict[str, Any] = {}
        library = Library()
        self.parts = Parts(self.device, self.dtype, lambda path: library.hashes(path).sha256)
        self._adapting = Adapting(library)
        self._calling = Calling(library, self.parts)

    def add(self, card: Card, system: object) -> None:
        """Make a system built elsewhere known under a card's name; its parts are not looked at."""
        self._cards[card.name] = card
        self._systems[card.name] = system

    def card(self, name: str) -> Card:
        """The card of that name: the zoo's, one the user has added, or a file, folder or hub id itself.

        Raises:
            UnknownName: No such card; with the nearest.
            WeightsError: It is a file or folder, and no checkpoint that can be read.
        """
        if name not in self._cards:
            if not self._open:
                raise UnknownName("model", name, self._cards)
            self._cards[name] = zoo.find(name)
        return self._cards[name]

    def load(self, name: str = DEFAULT) -> Any:
        """The system of that card, its parts loaded and on the device; parts are shared between cards.

        Raises:
            UnknownName: No such card.
            WeightsMissing: A file of its is not there.
            WeightsError: A file of its is damaged, foreign, or holds numbers that are not finite.
        """
        card = self.card(name)
        if name not in self._systems:
            policy = self._policy(card)
            parts = {part: self.parts.get(source, policy) for part, source in card.parts.items()}
            kind = system_class(card)
            # Where memory is so short that weights stay small, decoding whole would be the peak.
            told = {"tile": _SHORT_TILE} if policy.keep and "tile" in kind.__dataclass_fields__ else {}
            self._systems[name] = kind(**parts, **told, **card.facts)
        return self._systems[name]

    def _policy(self, card: Card) -> Policy:
        """What its networks are computed in: as the engine was told, or what this machine does fastest."""
        files = {path for source in card.parts.values() if isinstance(source, Foreign) for path in source.files}
        # Two bytes a weight: nothing on the hub is stored in less, so this is the most that there can be.
        most = sum(path.stat().st_size for path in files if path.is_file()) // 2
        return choose(self.device, parameters=most, dtype=self._asked_dtype)

    def unload(self) -> None:
        """Forget every part that was loaded from a file."""
        self._adapting.release()
        self._systems = {name: system for name, system in self._systems.items() if not self._cards[name].parts}
        self.parts.clear()
        _free(self.device)

    def generate(self, request: Request, on_progress: Callable[[Progress], object] | None = None) -> Result:
        """Draw, calling `on_progress` at every step. Raises as `stream` does."""
        return drain(self.stream(request), on_progress)

    def stream(self, request: Request) -> Steps[Result]:
        """Draw step by step; the generator's return value is the `Result`. Closing it frees the run's memory.

        Raises:
            MindseyeError: Anything that cannot be done as asked; most before the first step.
        """
        card = self.card(request.model)
        kind = system_class(card)
        settings = options.build(kind.Options, {**card.options, **request.options}, owner=card.name)
        resolved, notices = self._resolve(request, card, kind, settings)
        self.limits.check(resolved)
        check_sampler(kind, resolved.sampler or "")
        resolved = replace(resolved, options=_plain(settings))
        yield Progress("load", 0, 1, tuple)
        # By the name that was asked for: the card of a file is called after the file, and nothing finds it by that.
        system, said = self._adapting.fit(self.load(request.model), resolved)
        system, heard, called = self._calling.fit(system, resolved)
        notices += (*card.notes, *said, *heard, *system.notices(resolved))
        started = time.perf_counter()
        ranking = None
        if resolved.candidates != 1:
            ranking = Ranking.of(critic_for(system, self.parts), resolved.prompt, resolved.negative)
        kept = (yield from self._draw(system, resolved, settings, Best(resolved, ranking))).ordered()
        return Result(
            images=tuple(drawn.image for drawn in kept),
            seeds=tuple(drawn.seed for drawn in kept),
            request=resolved,
            seconds=time.perf_counter() - started,
            notices=notices,
            weights=self.fingerprints({**card.parts, **called}) | self._adapting.fingerprints(),
            usual=_plain(kind.Options()),
            scores=() if ranking is None else tuple(drawn.score for drawn in kept),
        )

    def _resolve(self, request: Request, card: Card, kind: Any, settings: Any) -> tuple[Request, tuple[str, ...]]:
        """`resolve`, where a system may place the start picture by itself instead of having it fitted to the size."""
        seed = secrets.randbelow(2**32)
        place = getattr(kind, "placed", None)
        set_ = None if place is None else place(request, settings)
        if set_ is None:
            return resolve(request, card, seed=seed)
        resolved, notices = resolve(replace(set_, image=None, mask=None), card, seed=seed)
        return replace(resolved, image=set_.image, mask=set_.mask), notices

    def fingerprints(self, parts: Mapping[str, Source]) -> dict[str, str]:
        """sha256 of each of these parts that is loaded, by part name."""
        found = {part: self.parts.fingerprint(source) for part, source in parts.items()}
        return {part: digest for part, digest in found.items() if digest is not None}

    def _draw(self, system: Any, request: Request, settings: object, best: Best) -> Steps[Best]:
        """All candidates of all pictures, in batches that fit."""
        seeds = best.seeds
        width, height = request.size or (1, 1)
        most = max(1, _CHUNK_PIXELS.get(self.device.type, 2**19) // (width * height))
        if request.image is not None and request.mask is not None and request.mask.size != request.image.size:
            request = replace(request, mask=request.mask.resize(request.image.size))
        while best.done < len(seeds):
            chunk = seeds[best.done : best.done + most]
            part = replace(request, count=len(chunk), seed=chunk[0])
            try:
                steps = system.synthesize(part, settings, Noise(chunk))
                pixels: Tensor = yield from _counted(steps, done=best.done, now=len(chunk), all=len(seeds))
                if not bool(torch.isfinite(pixels).all()):
                    raise WeightsError(
                        f"{request.model} drew numbers that are not finite",
                        hint="its weights are damaged, or --guidance is too high for it",
                    )
                best.add(pixels)
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not _is_out_of_memory(error):
                    raise
                if len(chunk) == 1:
                    raise MemoryShort(
                        f"{self.device} has too little memory for a picture of {width}x{height}",
                        hint="ask for a smaller --size",
                    ) from None
                # Noise belongs to the picture, not to the batch: smaller batches draw the same pictures.
                most = len(chunk) // 2
            finally:
                _free(self.device)
        return best


def system_class(card: Card) -> Any:
    """The class a card names."""
    module, _, name = card.system.partition(":")
    return getattr(importlib.import_module(module), name)


def check_sampler(kind: Any, asked: str) -> None:
    """Raise UnknownName unless the system class has the sampler; systems without samplers take any."""
    known: Sequence[str] = tuple(getattr(kind, "samplers", ()))
    if known and asked not in known:
        raise UnknownName("sampler", asked, known)


def _counted(steps: Steps[Tensor], *, done: int, now: int, all: int) -> Steps[Tensor]:
    """Progress of one batch as progress of all pictures."""
    try:
        while True:
            each = next(steps)
            if now == all:
                yield each
            else:
                step, total = done * each.total + now * each.step, all * each.total
                yield Progress(each.stage, step // now, -(-total // now), each.peek)
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()


def _plain(settings: Any) -> dict[str, Scalar]:
    """Options as a mapping again, every default spelled out."""
    return {knob.name: getattr(settings, knob.name) for knob in options.knobs(type(settings))}


def _device(name: str) -> torch.device:
    """The device of that name, if it is there."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError):  # torch built without a kind of device asserts
        raise OptionError(f"there is no device {name!r} here", hint=f"leave it out, or say {_best_device()}") from None
    return device


def _best_device() -> str:
    """The fastest kind of device this machine has."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _best_dtype(device: torch.device) -> torch.dtype:
    """Half precision only where it is fast and has float32's range."""
    if device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def _is_out_of_memory(error: RuntimeError) -> bool:
    """A processor says it in words only."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free(device: torch.device) -> None:
    """Give cached blocks back to the device."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


_shared: Engine | None = None


def _engine() -> Engine:
    """The engine behind the module's functions, made when first wanted."""
    global _shared
    if _shared is None:
        _shared = Engine()
    return _shared


def generate(
    request: Request | str,
    on_progress: Callable[[Progress], object] | None = None,
    *,
    count: int = 1,
    seed: int | None = None,
    model: str = DEFAULT,
) -> Result:
    """Draw pictures.

        >>> generate("a red apple", seed=7).images[0]

    Args:
        request: A `Request`, or just a prompt.
        on_progress: Called with a `Progress` at every step.
        count: How many pictures; only beside a prompt.
        seed: Of the first picture; only beside a prompt.
        model: Name of a card; only beside a prompt.

    Raises:
        MindseyeError: It cannot be done as asked.
    """
    if isinstance(request, str):
        request = Request(prompt=request, count=count, seed=seed, model=model)
    return _engine().generate(request, on_progress)


def stream(request: Request) -> Steps[Result]:
    """Draw step by step, as `Engine.stream`."""
    return _engine().stream(request)


def load(name: str = DEFAULT) -> Any:
    """The system of a card, ready to draw, as `Engine.load`."""
    return _engine().load(name)
