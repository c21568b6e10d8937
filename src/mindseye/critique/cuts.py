"""Where a critic looks: boxes in the picture, drawn from the picture's own noise, as plain data.

A critic reads small square pictures. Shown the whole picture shrunk, it is content with a few blots; shown many crops
of many sizes, it wants every part to look right at every scale. Which crops, is a `CutPlan`: a function from the size
of the picture and how far the run has come to boxes. The boxes can be kept and replayed, and how their pixels are
resampled is another matter (`mindseye.critique.resample`). The published families are rows of `FAMILIES`:

    deep-daze   sizes evenly spread between a tenth and all of the side, bilinear (lucidrains/deep-daze)
    big-sleep   sizes about 0.8 of the side, nearest (lucidrains/big-sleep)
    crowson     u^pow between the critic's size and the short side, Lanczos-2 and bicubic (VQGAN+CLIP notebook)
    guided      the same boxes, averaged over areas (CLIP-guided diffusion notebooks)
    pooling     the whole picture over and over, half averaged and half the maximum (nerdyrodent/VQGAN-CLIP)
    disco       the whole picture in a black square, and inner crops, antialiased cubic (Disco Diffusion 5)

Deviations: boxes come from the picture's seed and not from global generators, so a run replays. Gaussian sizes of
`deep_daze` are Gaussian, and `disco` makes no crop grey that was not asked for: ``compat=True`` brings back upstream's
slips (every Gaussian size replaced by an even one; one grey crop too many; one change for all cuts of a batch).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mindseye.critique import augment as augment_
from mindseye.critique.augment import Augment, Drawn, colourless
from mindseye.critique.resample import Kernel, take
from mindseye.errors import OptionError, UnknownName
from mindseye.noise import Noise

__all__ = [
    "FAMILIES", "CutPlan", "Cuts", "Scheme", "big_sleep", "crowson", "deep_daze", "disco", "guided", "pooling",
    "scheme",
]  # fmt: skip


@dataclass(frozen=True)
class Cuts:
    """Crops of B pictures, K of each.

    Attributes:
        boxes: Left, top, width, height in whole pixels; may lie outside the picture, which is black there.
        grey: Which are shown without colour.
        flip: Which are mirrored left to right.
    """

    boxes: Float[Tensor, "B K 4"]
    grey: Bool[Tensor, "B K"]
    flip: Bool[Tensor, "B K"]

    def __len__(self) -> int:
        return self.boxes.shape[1]

    def part(self, start: int, stop: int) -> "Cuts":
        """Cuts ``start`` to ``stop`` of every picture."""
        return Cuts(self.boxes[:, start:stop], self.grey[:, start:stop], self.flip[:, start:stop])

    def and_(self, other: "Cuts") -> "Cuts":
        """These, then others."""
        pairs = ((self.boxes, other.boxes), (self.grey, other.grey), (self.flip, other.flip))
        return Cuts(*(torch.cat(pair, dim=1) for pair in pairs))


CutPlan: TypeAlias = Callable[[int, int, int, float, Noise], Cuts]
"""Height, width, the critic's size, how far the run has come (0 to 1), the pictures' noise -> cuts."""
Curve: TypeAlias = Callable[[float], float]
"""A number that changes over a run: how far it has come (0 to 1) -> the number."""


@dataclass(frozen=True, kw_only=True)
class Scheme:
    """A family of cutting with its settings.

    Attributes:
        plan: Where the boxes lie.
        kernel: How their pixels become the critic's.
        augment: What is done to the cuts then; None = nothing.
        batches: How often the plan is drawn for one opinion.
        shared: Whether all cuts of a batch are changed alike.
    """

    plan: CutPlan
    kernel: Kernel
    augment: Augment | None = None
    batches: int = 1
    shared: bool = False

    def draw(self, height: int, width: int, size: int, share: float, noise: Noise) -> tuple[Cuts, Drawn | None]:
        """All cuts of one opinion, and what is done to them; nothing random is left to draw then."""
        cuts = self.plan(height, width, size, share, noise)
        each = len(cuts)
        for _ in range(self.batches - 1):
            cuts = cuts.and_(self.plan(height, width, size, share, noise))
        if self.augment is None:
            return cuts, None
        if self.shared:
            return cuts, self.augment.draw(self.batches, noise).repeated(each)
        return cuts, self.augment.draw(len(cuts), noise)

    def show(
        self, pixels: Float[Tensor, "B 3 H W"], cuts: Cuts, changes: Drawn | None, size: int
    ) -> Float[Tensor, "B K 3 size size"]:
        """What a critic of that size sees of these cuts; differentiable in the pixels."""
        shown = take(pixels, cuts.boxes, size, self.kernel, cuts.flip)
        shown = colourless(shown, cuts.grey)
        return shown if changes is None else changes.apply(shown)


def _plain(boxes: Tensor) -> Cuts:
    """Cuts in colour and the right way round."""
    none = torch.zeros(boxes.shape[:2], dtype=torch.bool)
    return Cuts(boxes, none, none.clone())


def _placed(sides: Float[Tensor, "B K"], height: int, width: int, where: Float[Tensor, "B K 2"]) -> Tensor:
    """Square boxes, their corner anywhere in the picture with the same probability; ``where`` in [0, 1)."""
    room = torch.stack([width - sides, height - sides], dim=2)
    corner = torch.minimum((where * (room + 1)).floor(), room)
    return torch.cat([corner, sides[..., None].expand(-1, -1, 2)], dim=2)


def _powered(u: Float[Tensor, "B K"], power: float, height: int, width: int, size: int) -> Float[Tensor, "B K"]:
    """Crowson's sides: u^pow between the critic's size and the short side."""
    most = min(height, width)
    least = min(most, size)
    return (u**power * (most - least) + least).floor()


def _squares(count: int, power: float) -> CutPlan:
    """Crowson's boxes."""

    def plan(height: int, width: int, size: int, share: float, noise: Noise) -> Cuts:
        u = noise.uniform(count, 3)
        return _plain(_placed(_powered(u[..., 0], power, height, width, size), height, width, u[..., 1:]))

    return plan


def _check(count: int, power: float = 1.0, batches: int = 1) -> None:
    if count < 1 or batches < 1:
        raise OptionError(f"{count} cuts in {batches} batches show the critic nothing: 1 of each is the least")
    if not 0 < power <= 100:
        raise OptionError(f"a power of {power} for the sizes of cuts is out of range: above 0, to 100")


def crowson(count: int = 32, power: float = 1.0, *, augment: Augment | None = None) -> Scheme:
    """Cuts of the VQGAN+CLIP notebook.

    Args:
        count: Cuts a picture.
        power: Above 1 makes more small cuts, below 1 more large ones.
        augment: What is done to them.

    Raises:
        OptionError: A number out of its range; so for all families.
    """
    _check(count, power)
    return Scheme(plan=_squares(count, power), kernel="lanczos-bicubic", augment=augment)


def guided(count: int = 16, power: float = 1.0, *, augment: Augment | None = None) -> Scheme:
    """Cuts of the CLIP-guided diffusion notebooks; arguments as of `crowson`."""
    _check(count, power)
    return Scheme(plan=_squares(count, power), kernel="average", augment=augment)


def pooling(count: int = 32, *, augment: Augment | None = augment_.NERDY) -> Scheme:
    """nerdyrodent's "latest" cuts: all show the whole picture, and differ by what is done to them."""
    _check(count)

    def plan(height: int, width: int, size: int, share: float, noise: Noise) -> Cuts:
        whole = torch.tensor([0.0, 0.0, width, height])
        return _plain(whole.expand(len(noise.seeds), count, 4).clone())

    return Scheme(plan=plan, kernel="pooled", augment=augment)


def deep_daze(
    count: int = 4,
    *,
    low: float = 0.1,
    high: float = 1.0,
    saturate: bool = False,
    gauss: bool = False,
    centre: float = 0.0,
    augment: Augment | None = None,
    compat: bool = False,
) -> Scheme:
    """Cuts of Deep Daze.

    Args:
        count: Cuts a picture.
        low: Least side, of the picture's short one.
        high: Greatest side.
        saturate: Raises ``low`` to 0.75 over the run.
        gauss: Sides about 0.6 with a deviation of 0.2, those out of range drawn evenly.
        centre: Above 0, places are drawn about the middle with a deviation of ``room / (2 centre)``; 2 is usual.
        augment: What is done to them.
        compat: With ``gauss``, draws every side evenly, as the release does by mistake.
    """
    _check(count)
    if not 0 < low <= high <= 1:
        raise OptionError(f"cuts from {low} to {high} of the side are not possible: 0 < least <= greatest <= 1")

    def plan(height: int, width: int, size: int, share: float, noise: Noise) -> Cuts:
        short = min(height, width)
        floor = low + (max(0.75, low) - low) * share if saturate else low
        u = noise.uniform(count, 5)
        low_side, high_side = floor * short, high * short
        sides = low_side + u[..., 0] * (high_side - low_side)
        if gauss and not compat:
            drawn = (0.6 + 0.2 * noise.normal(count)) * short
            sides = torch.where((drawn >= low_side) & (drawn <= high_side), drawn, sides)
        sides = sides.floor().clamp(1, short)
        boxes = _placed(sides, height, width, u[..., 1:3])
        return _plain(_centred(boxes, height, width, centre, noise) if centre > 0 else boxes)

    return Scheme(plan=plan, kernel="bilinear", augment=augment)


def _centred(boxes: Tensor, height: int, width: int, focus: float, noise: Noise) -> Tensor:
    """Corners about the middle; those that would leave the picture stay where they are."""
    room = torch.tensor([width, height]) - boxes[..., 2:]
    corner = (room / 2 + room / 2 / focus * noise.normal(boxes.shape[1], 2)).floor()
    inside = (corner >= 0) & (corner <= room)
    return torch.cat([torch.where(inside, corner, boxes[..., :2]), boxes[..., 2:]], dim=2)


def big_sleep(
    count: int = 128, *, centre: float = 0.0, kernel: Kernel = "nearest", augment: Augment | None = None
) -> Scheme:
    """Cuts of Big Sleep.

    Args:
        count: Cuts a picture.
        centre: As for `deep_daze`.
        kernel: "nearest" as by default there; "bilinear" and "lanczos-bicubic" are its other two.
        augment: What is done to them.
    """
    _check(count)

    def plan(height: int, width: int, size: int, share: float, noise: Noise) -> Cuts:
        short = min(height, width)
        sides = (short * (0.8 + 0.3 * noise.normal(count)).clamp(0.5, 0.95)).floor().clamp(min=1)
        boxes = _placed(sides, height, width, noise.uniform(count, 2))
        return _plain(_centred(boxes, height, width, centre, noise) if centre > 0 else boxes)

    return Scheme(plan=plan, kernel=kernel, augment=augment)


def _fixed(value: float) -> Curve:
    return lambda share: value


def _early(first: float, then: float) -> Curve:
    """One value for the first 400 thousandths of a run, another for the rest."""
    return lambda share: first if share < 0.4 else then


def disco(
    *,
    overview: Curve = _early(12, 4),  # noqa: B008  functions do not change
    inner: Curve = _early(4, 12),  # noqa: B008
    power: Curve = _fixed(1.0),  # noqa: B008
    grey: Curve = _early(0.2, 0.0),  # noqa: B008
    batches: int = 4,
    augment: Augment | None = augment_.DISCO,
    compat: bool = False,
) -> Scheme:
    """Cuts of Disco Diffusion 5: views of the whole first, details later.

    Args:
        overview: Views of the whole picture in a black square. Up to 4 are, in this order, plain, grey, mirrored, grey
            and mirrored; more are all plain.
        inner: Crops.
        power: As for `crowson`, of the crops.
        grey: Which share of the crops has no colour.
        batches: How often all that is drawn for one opinion.
        augment: What is done to them.
        compat: Makes one crop more grey and changes all cuts of a batch alike, as the notebook does.
    """
    _check(1, batches=batches)

    def plan(height: int, width: int, size: int, share: float, noise: Noise) -> Cuts:
        views, crops = max(0, int(overview(share))), max(0, int(inner(share)))
        _check(views + crops, power(share))
        side, rows = max(height, width), len(noise.seeds)
        # The notebook pads half of what is missing on either side, rounded down.
        whole = torch.tensor([-((side - width) // 2), -((side - height) // 2), side, side]).float()
        boxes = whole.expand(rows, views, 4)
        few, order = views <= 4, torch.arange(views)
        is_grey, is_flipped = few & (order % 2 == 1), few & (order >= 2)
        u = noise.uniform(crops, 3)
        found = _placed(_powered(u[..., 0], power(share), height, width, size), height, width, u[..., 1:])
        colourless = int(grey(share) * crops) + compat
        is_grey = torch.cat([is_grey, torch.arange(crops) < colourless])
        is_flipped = torch.cat([is_flipped, torch.zeros(crops, dtype=torch.bool)])
        every = (rows, views + crops)
        return Cuts(torch.cat([boxes, found], dim=1), is_grey.expand(every).clone(), is_flipped.expand(every).clone())

    return Scheme(plan=plan, kernel="cubic", augment=augment, batches=batches, shared=compat)


def _disco(count: int, power: float, augment: Augment | None, compat: bool) -> Scheme:
    """Three quarters of the cuts show the whole at first and details later, as in the notebook's 12 and 4."""
    many = max(1, round(count * 0.75))
    return disco(
        overview=_early(many, count - many),
        inner=_early(count - many, many),
        power=_fixed(power),
        batches=1,
        augment=augment,
        compat=compat,
    )


FAMILIES: Mapping[str, Callable[[int, float, Augment | None, bool], Scheme]] = {
    "deep-daze": lambda count, power, augment, compat: deep_daze(count, augment=augment, compat=compat),
    "big-sleep": lambda count, power, augment, compat: big_sleep(count, augment=augment),
    "crowson": lambda count, power, augment, compat: crowson(count, power, augment=augment),
    "guided": lambda count, power, augment, compat: guided(count, power, augment=augment),
    "pooling": lambda count, power, augment, compat: pooling(count, augment=augment),
    "disco": _disco,
}
"""By name: number of cuts, power of their sizes where the family has one, what is done to them, compat -> scheme."""


def scheme(name: str, *, count: int, power: float = 1.0, augment: bool | None = None, compat: bool = False) -> Scheme:
    """A family by its name, as an option of a system names it.

    Args:
        name: A key of `FAMILIES`.
        count: Cuts a picture.
        power: Of the sizes, where the family has one.
        augment: Whether cuts are changed (as Disco Diffusion does for "disco", as nerdyrodent does for the others); as
            the family's own release does when None.
        compat: Whether upstream's slips are kept.

    Raises:
        UnknownName: No such family.
        OptionError: No cuts, or a power out of range.
    """
    if name not in FAMILIES:
        raise UnknownName("family of cuts", name, FAMILIES)
    changed = name in ("pooling", "disco") if augment is None else augment
    preset = augment_.DISCO if name == "disco" else augment_.NERDY
    return FAMILIES[name](count, power, preset if changed else None, compat)
