"""Plain geometric shapes as signed silhouettes: what makes colour, count and position learnable and checkable."""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["SHAPES", "outline", "silhouette"]


def _regular(corners: int, turn: float = -90.0, inner: float = 1.0) -> list[tuple[float, float]]:
    """Corners of a regular polygon, or of a star when ``inner`` < 1, on the unit circle."""
    count = corners if inner == 1.0 else 2 * corners
    radii = [1.0] * count if inner == 1.0 else [1.0, inner] * corners
    angles = [math.radians(turn + 360 * k / count) for k in range(count)]
    return [(r * math.cos(a), r * math.sin(a)) for r, a in zip(radii, angles, strict=True)]


def _circle() -> list[tuple[float, float]]:
    return _regular(64)


def _heart() -> list[tuple[float, float]]:
    points = []
    for k in range(64):
        t = 2 * math.pi * k / 64
        x = 16 * math.sin(t) ** 3
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((x / 16.5, (-y - 2.5) / 16.5))
    return points


def _cross() -> list[tuple[float, float]]:
    a, b = 0.33, 0.95
    return [(-a, -b), (a, -b), (a, -a), (b, -a), (b, a), (a, a), (a, b), (-a, b), (-a, a), (-b, a), (-b, -a), (-a, -a)]


def _crescent() -> list[tuple[float, float]]:
    outer = [(math.cos(a) * 0.95 - 0.1, math.sin(a) * 0.95) for a in np.linspace(0.25 * math.pi, 1.75 * math.pi, 48)]
    x0, y0 = outer[-1]
    centre = 0.45
    radius = math.hypot(x0 - centre, y0)
    start, stop = math.atan2(y0, x0 - centre), math.atan2(-y0, x0 - centre)
    sweep = np.linspace(start % (2 * math.pi), stop % (2 * math.pi), 40)
    return outer + [(centre + radius * math.cos(a), radius * math.sin(a)) for a in sweep]


SHAPES: Final[dict[str, list[tuple[float, float]]]] = {
    "circle": _circle(),
    "square": [(-0.85, -0.85), (0.85, -0.85), (0.85, 0.85), (-0.85, 0.85)],
    "triangle": [(0.0, -0.9), (0.98, 0.8), (-0.98, 0.8)],
    "star": _regular(5, inner=0.42),
    "heart": _heart(),
    "diamond": [(0.0, -1.0), (0.68, 0.0), (0.0, 1.0), (-0.68, 0.0)],
    "cross": _cross(),
    "crescent": _crescent(),
    "hexagon": _regular(6),
    "ring": _circle(),
}
"""Name to the outline's corners in a box of [-1, 1] squared, y downwards; a ring also has a hole of radius 0.55."""

RING_HOLE: Final = 0.55


def outline(shape: str, centre: tuple[float, float], radius: float, turn: float = 0.0) -> list[tuple[float, float]]:
    """The shape's corners in pixels: moved to ``centre``, scaled to ``radius``, turned by ``turn`` degrees."""
    c, s = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    return [(centre[0] + radius * (x * c - y * s), centre[1] + radius * (x * s + y * c)) for x, y in SHAPES[shape]]


def silhouette(
    shape: str, size: int, supersample: int = 4, radius: float = 0.9, turn: float = 0.0
) -> NDArray[np.bool_]:
    """The shape filling a square of ``size`` pixels, ``True`` inside."""
    return coverage(shape, (size / 2, size / 2), radius * size / 2, size, turn, supersample) >= 0.5


def coverage(
    shape: str, centre: tuple[float, float], radius: float, size: int, turn: float = 0.0, supersample: int = 4
) -> NDArray[np.float32]:
    """How much of each pixel the shape covers: ``size x size`` in [0, 1], edges smoothed by supersampling."""
    from PIL import Image, ImageDraw

    big = Image.new("L", (size * supersample, size * supersample), 0)
    draw = ImageDraw.Draw(big)
    corners = [(x * supersample, y * supersample) for x, y in outline(shape, centre, radius, turn)]
    draw.polygon(corners, fill=255)
    if shape == "ring":
        x, y, r = centre[0] * supersample, centre[1] * supersample, radius * RING_HOLE * supersample
        draw.ellipse((x - r, y - r, x + r, y + r), fill=0)
    return np.asarray(big.resize((size, size), Image.Resampling.BOX), dtype=np.float32) / np.float32(255)
