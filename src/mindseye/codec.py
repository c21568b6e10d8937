"""What turns pictures into something smaller and back, and how to do that to pictures too large for the memory.

Cutting latents into tiles and decoding each gives tiles that do not match, for two reasons. At its edges a tile lacks
what lies beyond. And GroupNorm and attention measure the picture that they are given: each tile is then normalised by
its own contents, a tile of sky comes out in another tone than the same sky beside a house, and blending only smears
that. `Tiled` does not cut an `AutoencoderKL` up that way. It runs the whole network in the network's own order, every
step of it in bands of a few rows:

- The coarsest level with its attention runs on all of the picture at once; it is small there.
- Of the finer levels, only the features between residual blocks are ever held whole, one set at a time, and a block
  writes over the features it reads. Its inside, and the doubling before it, exist for one band at a time.
- Statistics of a norm inside a block are gathered in a run over all bands that keeps nothing else; then the block runs
  again to its end.

So the answer is the undivided network's, to rounding: no seams, no tones. The price is about twice the time, and
features of the finest level that are still held once: of Stable Diffusion's decoder 768 bytes a pixel in float32, by
count.

Any other codec is cut into tiles, faded into each other over their overlap: exact for convolutions alone, where the
overlap is as wide as they see, and a compromise for the rest.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise, product
from typing import NamedTuple, Protocol, TypeAlias, final, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.networks.vae import AutoencoderKL
from mindseye.nn.resnet import ResBlock
from mindseye.nn.seamless import Seamless, circular
from mindseye.shapes import Latents, Pixels, check_sides

__all__ = ["Codec", "Tiled", "TokenCodec"]


@runtime_checkable
class Codec(Protocol):
    """Pixels to latents and back, each side smaller by ``factor``.

    Latents are normalised: roughly zero mean and unit variance over the training pictures, so a diffusion
    method never needs to know a scale factor.
    """

    @property
    def factor(self) -> int:
        """How many times smaller a side of the latents is."""
        ...

    def encode(self, pixels: Pixels) -> Latents:
        """The mode of the posterior, normalised."""
        ...

    def decode(self, latents: Latents) -> Pixels:
        """Pictures in [-1, 1], not clamped."""
        ...


@runtime_checkable
class TokenCodec(Codec, Protocol):
    """A codec whose latents are a grid of integers."""

    def to_ids(self, pixels: Pixels) -> Int[Tensor, "B N"]:
        """Ids of the codes, row by row.

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        ...

    def from_ids(self, ids: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Float[Tensor, "B 3 H W"]:
        """Pictures in about [-1, 1] (not clamped) from ids in the order of `to_ids`.

        Args:
            ids: Row by row.
            grid: Rows and columns; a square when None.

        Raises:
            ValueError: As many ids are no such grid.
        """
        ...


@final
@dataclass(frozen=True, eq=False)
class Tiled:
    """A codec that works on a part of the picture at a time; stands wherever the codec stands.

    Pictures no larger than a tile go through the codec as they are.

    Attributes:
        codec: Any codec; for an `AutoencoderKL` nothing but time and memory changes.
        tile: Side of a tile in latents; bands are as large as a tile.
        overlap: How many latents further a tile looks on every side. Bands know by themselves.

    A `Seamless` codec stays seamless.
    """

    codec: Codec
    tile: int = 64
    overlap: int = 16

    def __post_init__(self) -> None:
        if self.tile < 1 or self.overlap < 0:
            raise ValueError("a tile has at least one latent, and its overlap is not negative")

    @property
    def factor(self) -> int:
        """The codec's."""
        return self.codec.factor

    @torch.no_grad()
    def encode(self, pixels: Pixels) -> Latents:
        """The codec's latents.

        Raises:
            ValueError: A side is no multiple of ``factor``.
        """
        height, width = pixels.shape[2:]
        check_sides(pixels, self.factor)
        if height * width <= (self.tile * self.factor) ** 2:
            return self.codec.encode(pixels)
        plain = self._plain
        if isinstance(plain, AutoencoderKL):
            return torch.cat([self._encode_one(plain, each) for each in pixels.split(1)])
        return self._blended(plain.encode, pixels, (height // self.factor, width // self.factor))

    @torch.no_grad()
    def decode(self, latents: Latents) -> Pixels:
        """The codec's pictures."""
        height, width = latents.shape[2:]
        if height * width <= self.tile**2:
            return self.codec.decode(latents)
        plain = self._plain
        if isinstance(plain, AutoencoderKL):
            return torch.cat([self._decode_one(plain, each) for each in latents.split(1)])
        return self._blended(plain.decode, latents, (height, width))

    @property
    def _plain(self) -> Codec:
        """The codec as it is where no edges meet."""
        if isinstance(self.codec, Seamless) and isinstance(self.codec.network, Codec):
            return self.codec.network
        return self.codec

    @property
    def _around(self) -> tuple[bool, bool]:
        """Whether top and bottom edge meet, and left and right edge."""
        return (self.codec.y, self.codec.x) if isinstance(self.codec, Seamless) else (False, False)

    def _torus(self, codec: AutoencoderKL) -> AbstractContextManager[None]:
        """Within, the codec's convolutions see around the edges that meet."""
        down, across = self._around
        return circular(codec, x=across, y=down)

    def _decode_one(self, codec: AutoencoderKL, latents: Latents) -> Pixels:
        """The coarsest level whole, the others in bands."""
        decoder, patch = codec.decoder, codec.config.patch
        program: list[_Step] = []
        for level in reversed(decoder.levels):
            program += level["blocks"] if level is not decoder.levels[-1] else ()  # type: ignore[index]
            if "up" in level:  # type: ignore[operator]
                program.append(_Layer(level["up"], scale=Fraction(2)))  # type: ignore[index]

        def out(x: Tensor) -> Tensor:
            x = decoder.conv_out(F.silu(x))
            return x if patch == 1 else F.pixel_shuffle(x, patch)

        program.append(_Layer(out, norm=decoder.norm_out, scale=Fraction(patch), above=patch, below=patch))
        with self._torus(codec):
            x = decoder.middle(decoder.conv_in(codec.post_quant_conv(codec.raw(latents))))
            x = decoder.levels[-1]["blocks"](x)  # type: ignore[index]
            return self._banded(program, x)

    def _encode_one(self, codec: AutoencoderKL, pixels: Pixels) -> Latents:
        """The finer levels in bands, the coarsest whole."""
        encoder, patch = codec.encoder, codec.config.patch

        def folded(x: Tensor) -> Tensor:
            return encoder.conv_in(x if patch == 1 else F.pixel_unshuffle(x, patch))

        program: list[_Step] = [_Layer(folded, scale=Fraction(1, patch))]
        for level in list(encoder.levels)[:-1]:
            program += level["blocks"]  # type: ignore[index]
            # Pads at the bottom only: row i sees rows 2 i to 2 i + 2.
            half = Fraction(1, 2)
            program.append(_Layer(level["down"], scale=half, above=Fraction(0), below=half))  # type: ignore[index]
        with self._torus(codec):
            x = encoder.middle(encoder.levels[-1](self._banded(program, pixels)))
            mean, _ = codec.quant_conv(encoder.conv_out(F.silu(encoder.norm_out(x)))).chunk(2, dim=1)
        return codec.normalised(mean)

    def _banded(self, program: "Sequence[_Step]", x: Tensor) -> Tensor:
        """Run residual blocks and the layers between them, holding little more than what is between two blocks."""
        rows = _Rows(x, around=self._around[0], most=_CHANNELS * (self.tile * self.factor) ** 2)
        waiting: _Layer | None = None
        for step in program:
            if isinstance(step, _Layer):
                rows = rows if waiting is None else rows.through(waiting)
                waiting = step
            else:
                rows, waiting = rows.block(step, waiting), None
        return (rows if waiting is None else rows.through(waiting)).data

    def _blended(self, run: Callable[[Tensor], Tensor], x: Tensor, places: tuple[int, int]) -> Tensor:
        """Run a codec over overlapping tiles and fade each into the next; ``places`` is the size in latents."""
        if any(self._around):
            # Unrolled by the overlap on either side, drawn like any picture, and cut back.
            rims = [self.overlap if meet else 0 for meet in self._around]
            for axis, (rim, length) in enumerate(zip(rims, places, strict=True), start=2):
                ratio = x.shape[axis] // length
                index = torch.arange(-rim * ratio, (length + rim) * ratio, device=x.device)
                x = x.index_select(axis, index % (length * ratio))
            larger = (places[0] + 2 * rims[0], places[1] + 2 * rims[1])
            drawn = Tiled(self._plain, tile=self.tile, overlap=self.overlap)._blended(run, x, larger)
            for axis, (rim, length, all) in enumerate(zip(rims, places, larger, strict=True), start=2):
                ratio = Fraction(drawn.shape[axis], all)
                drawn = drawn.narrow(axis, int(rim * ratio), int(length * ratio))
            return drawn
        spans = [_spans(length, self.tile, self.overlap) for length in places]
        total: Tensor | None = None
        weights: Tensor | None = None
        for tile in product(*spans):
            seen = x
            for axis, (span, length) in enumerate(zip(tile, places, strict=True), start=2):
                ratio = x.shape[axis] // length
                seen = seen.narrow(axis, span.low * ratio, (span.high - span.low) * ratio)
            drawn = run(seen)
            ratio = Fraction(drawn.shape[2], tile[0].high - tile[0].low)
            if total is None or weights is None:
                size = [int(side * ratio) for side in places]
                total = drawn.new_zeros(*drawn.shape[:2], *size, dtype=torch.float32)
                weights = total.new_zeros(size)
            down, across = (_fade(span, ratio, drawn.device) for span in tile)
            top, left = (int(span.low * ratio) for span in tile)
            spot = slice(top, top + len(down)), slice(left, left + len(across))
            total[:, :, spot[0], spot[1]] += down[:, None] * across * drawn
            weights[spot] += down[:, None] * across
        if total is None or weights is None:
            raise ValueError("a picture without pixels has no tiles")
        return (total / weights).to(x.dtype)


@final
@dataclass(frozen=True, eq=False, kw_only=True)
class _Layer:
    """A layer between residual blocks.

    Attributes:
        run: The layer, on some rows.
        norm: Applied before it.
        scale: Rows out for one row in.
        above: How many rows of its output further up it must be run for the rows that are wanted to be right.
        below: The same further down.
    """

    run: Callable[[Tensor], Tensor] = field(kw_only=False)
    norm: nn.GroupNorm | None = None
    scale: Fraction = Fraction(1)
    above: Fraction | int = 1
    below: Fraction | int = 1


_Step: TypeAlias = nn.Module | _Layer
_Affine: TypeAlias = tuple[Tensor, Tensor]


@final
class _Rows:
    """Features of one picture, read and written in bands of rows.

    Args:
        data: ``1 C H W``.
        around: Whether the row above the first is the last.
        most: Numbers in a band.
    """

    def __init__(self, data: Tensor, *, around: bool, most: int) -> None:
        self.data, self.around, self.most = data, around, most
        # The last band of a torus sees the first rows, which are written over by then.
        self._top = data[:, :, :_REACH].clone() if around else data[:, :, :0]

    def read(self, low: int, high: int) -> tuple[Tensor, int]:
        """Rows low to high, or those of them that there are, and which is the first."""
        height = self.data.shape[2]
        if not self.around:
            low, high = max(low, 0), min(high, height)
            return self.data[:, :, low:high], low
        if max(-low, high - height) > height:
            return self.data.index_select(2, torch.arange(low, high, device=self.data.device) % height), low
        parts = [self.data[:, :, height + low :]] if low < 0 else []
        parts.append(self.data[:, :, max(low, 0) : min(high, height)])
        if high > height:
            # A block that reads more than its own reach reads through a layer, and is not written over what it reads.
            parts.append((self._top if high - height <= _REACH else self.data)[:, :, : high - height])
        return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)), low

    def ahead(self, low: int, high: int, layer: _Layer | None, affine: _Affine | None = None) -> tuple[Tensor, int]:
        """As `read`, of what a layer makes of these rows."""
        if layer is None:
            return self.read(low, high)
        first, last = (low - layer.above) / layer.scale, (high + layer.below) / layer.scale
        seen, first = self.read(math.floor(first), math.ceil(last))
        drawn = layer.run(seen if affine is None else _applied(affine, seen))
        start = int(first * layer.scale)
        # Beyond the picture there are no rows; with an edge in sight, its last rows are right.
        low, high = (low, high) if self.around else (max(low, 0), min(high, int(self.data.shape[2] * layer.scale)))
        return drawn[:, :, low - start : high - start], low

    def bands(self, layer: _Layer | None) -> list[tuple[int, int]]:
        """First and last row of every band of what a layer makes of this."""
        scale = Fraction(1) if layer is None else layer.scale
        height, width = (int(side * scale) for side in self.data.shape[2:])
        count = max(1, height // max(self.most // (width * self.data.shape[1]), 4 * _REACH))
        edges = [height * i // count for i in range(count + 1)]
        return list(pairwise(edges))

    def through(self, layer: _Layer) -> "_Rows":
        """What a layer makes of this, all of it."""
        affine = None if layer.norm is None else self.measured(layer.norm)
        whole: Tensor | None = None
        for low, high in self.bands(layer):
            drawn, _ = self.ahead(low, high, layer, affine)
            whole = _empty(drawn, self.bands(layer)[-1][1]) if whole is None else whole
            whole[:, :, low:high] = drawn
        return self._like(whole)

    def block(self, block: nn.Module, layer: _Layer | None) -> "_Rows":
        """What a residual block makes of what a layer makes of this; written over this where it has room."""
        if not isinstance(block, ResBlock):
            raise TypeError(f"a {type(block).__name__} is no residual block")
        if layer is not None and layer.norm is not None:
            return self.through(layer).block(block, None)
        first = self.measured(block.norm1, layer)

        def begun(low: int, high: int) -> tuple[Tensor, Tensor, int]:
            x, start = self.ahead(low, high, layer)
            return x, block.conv1(F.silu(_applied(first, x), inplace=True)), start

        def middle(low: int, high: int) -> Tensor:
            _, h, start = begun(low - 1, high + 1)
            return h[:, :, low - start : high - start]

        second = _pooled(block.norm2, (middle(low, high) for low, high in self.bands(layer)))

        def drawn(low: int, high: int) -> Tensor:
            x, h, start = begun(low - _REACH, high + _REACH)
            h = block.conv2(F.silu(_applied(second, h), inplace=True))[:, :, low - start : high - start]
            return h.add_(block.shortcut(x[:, :, low - start : high - start]))

        whole: Tensor | None = self.data if layer is None and isinstance(block.shortcut, nn.Identity) else None
        written: tuple[int, int, Tensor] | None = None
        # Written one band late: the band below still sees the last rows as they were.
        for low, high in self.bands(layer):
            band = drawn(low, high)
            whole = _empty(band, self.bands(layer)[-1][1]) if whole is None else whole
            if written is not None:
                whole[:, :, written[0] : written[1]] = written[2]
            written = low, high, band
        if whole is not None and written is not None:
            whole[:, :, written[0] : written[1]] = written[2]
        return self._like(whole)

    def measured(self, norm: nn.GroupNorm, layer: _Layer | None = None) -> _Affine:
        """What a norm does to what a layer makes of this."""
        return _pooled(norm, (self.ahead(low, high, layer)[0] for low, high in self.bands(layer)))

    def _like(self, data: Tensor | None) -> "_Rows":
        if data is None:
            raise ValueError("a picture without pixels has no rows")
        return _Rows(data, around=self.around, most=self.most)


_REACH = 2
"""Rows above and below its own that a residual block sees."""

_CHANNELS = 64
"""A band holds as many numbers as a tile of pixels with so many channels."""


def _empty(like: Tensor, height: int) -> Tensor:
    """Room for all rows, in the memory format of one band."""
    channels_last = like.is_contiguous(memory_format=torch.channels_last) and not like.is_contiguous()
    layout = torch.channels_last if channels_last else torch.contiguous_format
    size = (*like.shape[:2], height, like.shape[3])
    return torch.empty(size, dtype=like.dtype, device=like.device, memory_format=layout)


def _pooled(norm: nn.GroupNorm, bands: Iterable[Tensor]) -> _Affine:
    """What a norm does to a picture that comes in bands: scale and shift of every channel."""
    seen: list[tuple[int, Tensor, Tensor]] = []
    for band in bands:
        values = band[0].unflatten(0, (norm.num_groups, -1)).flatten(1)
        values = values.to(torch.promote_types(values.dtype, torch.float32))
        var, mean = torch.var_mean(values, dim=1, correction=0)
        seen.append((values.shape[1], mean.double(), var.double()))
    count = sum(n for n, _, _ in seen)
    mean = torch.stack([m * (n / count) for n, m, _ in seen]).sum(0)
    var = torch.stack([(v + (m - mean) ** 2) * (n / count) for n, m, v in seen]).sum(0)
    size = norm.num_channels // norm.num_groups
    scale = norm.weight.double() * (var + norm.eps).rsqrt().repeat_interleave(size)
    shift = norm.bias.double() - mean.repeat_interleave(size) * scale
    return scale[:, None, None], shift[:, None, None]


def _applied(affine: _Affine, x: Tensor) -> Tensor:
    """Normalised, in the dtype of ``x``; computed in float32 at least."""
    wide = torch.promote_types(x.dtype, torch.float32)
    scale, shift = (each.to(wide) for each in affine)
    return torch.addcmul(shift, x.to(wide), scale).to(x.dtype)


class _Span(NamedTuple):
    """One side of a tile in latents: it looks at low to high, and start to stop is no other tile's."""

    low: int
    start: int
    stop: int
    high: int


def _spans(length: int, tile: int, overlap: int) -> list[_Span]:
    """Tiles along one side, as even as can be."""
    count = -(-length // tile)
    edges = [length * i // count for i in range(count + 1)]
    return [_Span(max(low - overlap, 0), low, high, min(high + overlap, length)) for low, high in pairwise(edges)]


def _fade(span: _Span, ratio: Fraction, device: torch.device) -> Float[Tensor, "n"]:
    """Weights along one side of a tile: up over the overlap on either side, but not at the picture's own edges."""
    length = span.high - span.low
    place = (torch.arange(int(length * ratio), device=device) + 0.5) / float(ratio)
    rise = torch.ones_like(place)
    for near, width in ((place, 2 * (span.start - span.low)), (length - place, 2 * (span.high - span.stop))):
        if width > 0:
            rise = rise * torch.sin((near / width).clamp(0, 1) * (math.pi / 2)) ** 2
    return rise
