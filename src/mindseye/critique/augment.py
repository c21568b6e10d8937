"""What is done to cuts before the critic sees them, so that no single pixel can fool it.

Mirroring, turning, shifting, shearing and tilting are one projective map a cut, applied by one bilinear sampling; lost
colour and shifts of brightness, contrast, saturation and hue are one 3 x 3 matrix a cut; a rectangle may be wiped out
and noise added. Every cut has its own draw, from its picture's noise, before any pixel is touched: a run replays, and
cutting a run's work into other chunks changes nothing.

Deviations: the published code runs these one after the other (kornia, torchvision), and Disco Diffusion's gives all
cuts of a batch the same draw. Hue is turned about the grey axis and not in HSV, which has no gradient at grey. Noise is
added once, its variance that of all the times.
"""

import math
from dataclasses import dataclass, replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from mindseye.noise import Noise

__all__ = ["DISCO", "NERDY", "Augment", "Drawn", "colourless"]

LUMA = (0.299, 0.587, 0.114)
"""How bright red, green and blue look (ITU-R BT.601)."""


@final
@dataclass(frozen=True, kw_only=True)
class Augment:
    """How far cuts may be changed; zeros change nothing.

    Attributes:
        flip: Probability of mirroring left to right.
        degrees: Greatest turn either way.
        shift: Greatest shift, of the side.
        shear: Greatest shear, in degrees.
        affine: Probability of turning, shifting and shearing.
        tilt: Greatest perspective, 0 to 1: how far corners move inwards, of half the side.
        tilting: Probability of it.
        grey: Probability of losing the colour.
        jitter: Greatest change of brightness, contrast, saturation (as factors) and hue (in turns).
        jittering: Probability of that.
        noise: Greatest deviation of noise, in units of the range 0 to 1; each cut draws its own below it.
        erase: Probability of wiping out a rectangle, a tenth to four tenths of the area.
    """

    flip: float = 0.0
    degrees: float = 0.0
    shift: float = 0.0
    shear: float = 0.0
    affine: float = 1.0
    tilt: float = 0.0
    tilting: float = 0.0
    grey: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jittering: float = 1.0
    noise: float = 0.0
    erase: float = 0.0

    def draw(self, count: int, noise: Noise) -> "Drawn":
        """What happens to ``count`` cuts of each picture."""
        u = noise.uniform(count, 24)
        signed = 2 * u - 1
        where = _turned(signed[..., :5], self) if self.degrees or self.shift or self.shear else None
        if where is not None:
            where = _only(u[..., 5] < self.affine, where)
        if self.flip:
            mirror = torch.diag(torch.tensor([-1.0, 1.0, 1.0]))
            flipped = _only(u[..., 6] < self.flip, mirror.expand(*u.shape[:2], 3, 3))
            where = flipped if where is None else where @ flipped
        if self.tilt and self.tilting:
            tilted = _only(u[..., 7] < self.tilting, _tilted(u[..., 8:16] * self.tilt))
            where = tilted if where is None else tilted @ where
        colour = torch.eye(3).expand(*u.shape[:2], 3, 3)
        gains = 1 + signed[..., 16:19] * torch.tensor(self.jitter[:3])
        gains = torch.where((u[..., 20] < self.jittering)[..., None], gains, 1.0)
        if self.jitter[2] or self.jitter[3]:
            turned = _hue(signed[..., 19] * self.jitter[3] * (u[..., 20] < self.jittering)) @ _saturated(gains[..., 2])
            colour = turned @ colour
        colour = torch.where((u[..., 21] < self.grey)[..., None, None], _saturated(torch.zeros(()))[None], colour)
        # Seeds and not numbers, which would take as much memory as all cuts.
        grain = (noise.uniform(count) * 2**24).long()
        box = _wiped(noise.uniform(count, 4), u[..., 22] < self.erase) if self.erase else None
        return Drawn(where, colour, gains[..., :2], u[..., 23] * self.noise * 2, grain, box)


@final
@dataclass(frozen=True)
class Drawn:
    """What happens to K cuts of B pictures.

    Attributes:
        where: Maps places of the answer to places of the cut, both in [-1, 1]; None = they stay.
        colour: Applied to the three channels.
        gains: Brightness and contrast, as factors.
        noise: Deviation of the noise, in units of [-1, 1].
        grain: Seed of each cut's noise.
        box: Left, top, right, bottom of what is wiped out, in [-1, 1]; None = nothing.
    """

    where: Float[Tensor, "B K 3 3"] | None
    colour: Float[Tensor, "B K 3 3"]
    gains: Float[Tensor, "B K 2"]
    noise: Float[Tensor, "B K"]
    grain: Int[Tensor, "B K"]
    box: Float[Tensor, "B K 4"] | None

    def part(self, start: int, stop: int) -> "Drawn":
        """What happens to cuts ``start`` to ``stop``."""
        return self._picked(torch.arange(self.noise.shape[1])[start:stop])

    def repeated(self, times: int) -> "Drawn":
        """The same for as many cuts after one another; only their noise is each one's own."""
        some = self._picked(torch.arange(self.noise.shape[1]).repeat_interleave(times))
        return replace(some, grain=some.grain + torch.arange(some.grain.shape[1]))

    def _picked(self, places: Int[Tensor, "k"]) -> "Drawn":
        where, box = (None if each is None else each[:, places] for each in (self.where, self.box))
        colour, gains, noise, grain = (each[:, places] for each in (self.colour, self.gains, self.noise, self.grain))
        return Drawn(where, colour, gains, noise, grain, box)

    def apply(self, cuts: Float[Tensor, "B K 3 S S"]) -> Float[Tensor, "B K 3 S S"]:
        """The cuts, changed; differentiable."""
        rows, count, _, side, _ = cuts.shape
        flat, device = cuts.flatten(0, 1), cuts.device
        if self.where is not None:
            flat = F.grid_sample(
                flat, _grid(self.where.flatten(0, 1).to(flat), side), padding_mode="border", align_corners=False
            )
        flat = torch.einsum("nij,njhw->nihw", self.colour.flatten(0, 1).to(flat), flat)
        bright, contrast = (each.flatten()[:, None, None, None].to(flat) for each in self.gains.unbind(2))
        # Brightness scales light, which is zero at -1.
        flat = (flat + 1) * bright - 1
        middle = (flat * flat.new_tensor(LUMA)[:, None, None]).sum(1).mean((1, 2))[:, None, None, None]
        flat = middle + (flat - middle) * contrast
        if self.box is not None:
            flat = flat.masked_fill(_inside(self.box.flatten(0, 1).to(flat), side)[:, None], -1.0)
        if bool((self.noise > 0).any()):
            grain = _grain(self.grain.flatten().tolist(), side).to(device)
            flat = flat + (grain * self.noise.flatten()[:, None, None, None].to(device)).to(flat.dtype)
        return flat.unflatten(0, (rows, count))


def colourless(cuts: Float[Tensor, "B K 3 S S"], which: Bool[Tensor, "B K"]) -> Float[Tensor, "B K 3 S S"]:
    """Some of the cuts without colour."""
    if not bool(which.any()):
        return cuts
    grey = (cuts * cuts.new_tensor(LUMA)[:, None, None]).sum(2, keepdim=True)
    return torch.where(which.to(cuts.device)[:, :, None, None, None], grey.expand_as(cuts), cuts)


def _grain(seeds: list[int], side: int) -> Float[Tensor, "N 3 side side"]:
    """Normal numbers, each cut's from its own seed: they do not depend on what is drawn beside them."""
    found = torch.empty(len(seeds), 3, side, side)
    generator = torch.Generator()
    for row, seed in zip(found, seeds, strict=True):
        torch.randn(row.shape, generator=generator.manual_seed(seed), out=row)
    return found


def _only(which: Tensor, maps: Tensor) -> Tensor:
    """The maps where they apply, the identity elsewhere."""
    return torch.where(which[..., None, None], maps, torch.eye(3))


def _map(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=-2)


def _turned(signed: Tensor, limits: Augment) -> Tensor:
    """A turn, a shear along x and along y, and a shift."""
    angle = signed[..., 0] * math.radians(limits.degrees)
    lean, rise = (torch.tan(signed[..., place] * math.radians(limits.shear)) for place in (1, 2))
    right, down = (signed[..., place] * 2 * limits.shift for place in (3, 4))
    one, zero = torch.ones_like(angle), torch.zeros_like(angle)
    turn = _map([[angle.cos(), -angle.sin(), right], [angle.sin(), angle.cos(), down], [zero, zero, one]])
    return turn @ _map([[one, lean, zero], [rise, one, zero], [zero, zero, one]])


def _tilted(inwards: Float[Tensor, "B K 8"]) -> Float[Tensor, "B K 3 3"]:
    """The projective map from four moved corners back to the square's.

    The four corners give eight linear equations for the eight numbers of the map.
    """
    corner = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    seen = corner * (1 - inwards.unflatten(-1, (4, 2)))
    x, y = seen.unbind(-1)
    u, v = corner.unbind(-1)
    u, v = u.expand_as(x), v.expand_as(x)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    first = torch.stack([x, y, one, zero, zero, zero, -u * x, -u * y], dim=-1)
    second = torch.stack([zero, zero, zero, x, y, one, -v * x, -v * y], dim=-1)
    found = torch.linalg.solve(torch.cat([first, second], dim=-2), torch.cat([u, v], dim=-1)[..., None])[..., 0]
    return torch.cat([found, torch.ones_like(found[..., :1])], dim=-1).unflatten(-1, (3, 3))


def _grid(maps: Float[Tensor, "N 3 3"], side: int) -> Float[Tensor, "N side side 2"]:
    """Where each pixel of the answer looks."""
    along = (torch.arange(side, device=maps.device, dtype=maps.dtype) * 2 + 1) / side - 1
    y, x = torch.meshgrid(along, along, indexing="ij")
    places = torch.stack([x, y, torch.ones_like(x)], dim=-1).flatten(0, 1) @ maps.transpose(1, 2)
    # Beyond the horizon the divisor changes its sign; there is nothing to see there.
    depth = places[..., 2:]
    return (places[..., :2] / torch.where(depth.abs() < 1e-3, 1e-3, depth)).unflatten(1, (side, side))


def _saturated(gain: Tensor) -> Tensor:
    """Grey and colour mixed: 0 is grey, 1 changes nothing."""
    grey = torch.tensor(LUMA).expand(3, 3)
    return grey + (torch.eye(3) - grey) * gain[..., None, None]


def _hue(turns: Tensor) -> Tensor:
    """A turn of colours about the axis of greys (Rodrigues' formula)."""
    angle = 2 * math.pi * turns[..., None, None]
    third = 1 / 3
    axis = torch.full((3, 3), third)
    cross = math.sqrt(third) * torch.tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
    return axis + (torch.eye(3) - axis) * angle.cos() + cross * angle.sin()


def _wiped(u: Float[Tensor, "B K 4"], which: Tensor) -> Float[Tensor, "B K 4"]:
    """Rectangles of a tenth to four tenths of the area, up to 3.3 times as long as wide; empty where not wanted."""
    area = (0.1 + 0.3 * u[..., 0]) * which
    ratio = torch.exp((2 * u[..., 1] - 1) * math.log(1 / 0.3))
    wide, high = ((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))
    left, top = u[..., 2] * (1 - wide), u[..., 3] * (1 - high)
    return torch.stack([left, top, left + wide, top + high], dim=-1) * 2 - 1


def _inside(box: Float[Tensor, "N 4"], side: int) -> Bool[Tensor, "N side side"]:
    along = (torch.arange(side, device=box.device, dtype=box.dtype) * 2 + 1) / side - 1
    left, top, right, bottom = (each[:, None] for each in box.unbind(1))
    return ((along >= top) & (along < bottom))[:, :, None] & ((along >= left) & (along < right))[:, None]


NERDY = Augment(
    degrees=15, shift=0.1, shear=5, affine=0.7, tilt=0.7, tilting=0.7,
    jitter=(0.1, 0.1, 0.1, 0.1), jittering=0.7, noise=0.1, erase=0.7,
)  # fmt: skip
"""Of nerdyrodent/VQGAN-CLIP: affine, perspective, jitter, erasing, noise."""
DISCO = Augment(flip=0.5, degrees=10, shift=0.05, grey=0.1, jitter=(0.1, 0.1, 0.1, 0.1), noise=0.02)
"""Of Disco Diffusion for still pictures."""
