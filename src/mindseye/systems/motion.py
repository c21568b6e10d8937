"""Moving pictures as Disco Diffusion makes them: each frame starts from the one before, seen by a moved camera.

The camera turns, zooms and shifts in the plane ("2D"), or flies through space ("3D"), by keyframes. In space every
pixel has a distance: from a function that estimates depth, or 1 for all, a plane that fills the view. The new frame is
drawn from the moved one at part of the noise, with the next seed.

Where we deviate: the plane's centre is the picture's own middle (theirs is a pixel off, and drifts), pictures stay
numbers between frames instead of passing through files, and every frame is an ordinary `Request`, which may be drawn
again alone. As theirs, the flight looks up the old picture at a pixel's place less its displacement, which is exact for
small steps only.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, final

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.errors import LimitError, OptionError
from mindseye.pixels import from_image, to_images
from mindseye.request import SEEDS, Progress, Request, Result, Steps
from mindseye.shapes import Pixels
from mindseye.text.keyframes import Keyframes, read_keyframes

__all__ = ["Depth", "Motion", "film", "flown", "turned"]

Depth: TypeAlias = Callable[[Pixels], Float[Tensor, "B 1 H W"]]
"""How far every pixel is, the plane that fills the view being at 1."""
Draw: TypeAlias = Callable[[Request], Steps[Result]]
Mode: TypeAlias = Literal["2D", "3D"]

MOST_FRAMES = 10_000
_STILL = Keyframes((0,), (0.0,))
_NEAREST = 1e-3


@final
@dataclass(frozen=True, kw_only=True)
class Motion:
    """How the camera moves from each frame to the next.

    Attributes:
        mode: In the plane or through space.
        angle: Degrees counter-clockwise, of the plane.
        zoom: Factor, of the plane.
        x: Shift to the right; pixels in the plane, two-hundredths of the distance in space.
        y: Shift down, likewise.
        z: Flight forward, in two-hundredths of the distance.
        turn_x: Degrees about the axis to the right.
        turn_y: Degrees about the axis down.
        turn_z: Degrees about the line of sight.
        strength: How much of the noise each frame is drawn again from.
        fov: Height of the view in degrees.
        options: Of the system, from the second frame on.
    """

    mode: Mode = "2D"
    angle: Keyframes = _STILL
    zoom: Keyframes = Keyframes((0,), (1.0,))
    x: Keyframes = _STILL
    y: Keyframes = _STILL
    z: Keyframes = _STILL
    turn_x: Keyframes = _STILL
    turn_y: Keyframes = _STILL
    turn_z: Keyframes = _STILL
    strength: float = 0.4
    fov: float = 40.0
    options: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Motion":
        """From the keys of Disco Diffusion's settings, those that are there.

        Raises:
            OptionError: Keyframes that are none, or a mode that is not done here ("Video Input").
        """
        mode = str(settings.get("animation_mode", "2D"))
        if mode not in ("2D", "3D"):
            raise OptionError(f"animation mode {mode!r:.40}: 2D and 3D are possible")
        named = {
            "angle": "angle", "zoom": "zoom", "translation_x": "x", "translation_y": "y", "translation_z": "z",
            "rotation_3d_x": "turn_x", "rotation_3d_y": "turn_y", "rotation_3d_z": "turn_z",
        }  # fmt: skip
        given: dict[str, Any] = {
            ours: read_keyframes(str(settings[theirs]), low=1e-3 if ours == "zoom" else -1e6)
            for theirs, ours in named.items()
            if theirs in settings
        }
        for theirs, ours in (("frames_skip_steps", "strength"), ("fov", "fov")):
            if theirs in settings:
                text = str(settings[theirs]).strip()
                value = read_keyframes(text.removesuffix("%"))(0)
                given[ours] = 1 - value / 100 if ours == "strength" else value
        return cls(mode=mode, **given)

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 1 or not 1 <= self.fov < 180:
            raise OptionError(
                f"a strength of {self.strength:g} and a view of {self.fov:g} degrees: 0 to 1, and 1 to 179 are possible"
            )

    def move(self, pixels: Pixels, frame: int, depth: Depth | None = None) -> Pixels:
        """What the camera sees at a frame of the picture before it."""
        if self.mode == "2D":
            return turned(
                pixels, angle=self.angle(frame), zoom=self.zoom(frame), x=self.x(frame), y=self.y(frame)
            )  # fmt: skip
        shift = (self.x(frame) / 200, self.y(frame) / 200, self.z(frame) / 200)
        turn = (self.turn_x(frame), self.turn_y(frame), self.turn_z(frame))
        return flown(pixels, shift=shift, turn=turn, depth=None if depth is None else depth(pixels), fov=self.fov)


def turned(pixels: Pixels, *, angle: float = 0.0, zoom: float = 1.0, x: float = 0.0, y: float = 0.0) -> Pixels:
    """A picture shifted, then turned and enlarged about its middle; what leaves on one side comes in on the other.

    Args:
        pixels: Pictures.
        angle: Degrees counter-clockwise.
        zoom: Factor.
        x: Pixels to the right.
        y: Pixels down.
    """
    height, width = pixels.shape[-2:]
    cosine, sine = math.cos(math.radians(angle)) / zoom, math.sin(math.radians(angle)) / zoom
    down, across = torch.meshgrid(
        torch.arange(height, dtype=torch.float64) - (height - 1) / 2,
        torch.arange(width, dtype=torch.float64) - (width - 1) / 2,
        indexing="ij",
    )
    source_x = (cosine * across - sine * down - x + (width - 1) / 2) % width
    source_y = (sine * across + cosine * down - y + (height - 1) / 2) % height
    # One more row and column, so that the last pixel fades into the first.
    round_ = F.pad(pixels, (0, 1, 0, 1), mode="circular")
    grid = torch.stack([source_x * (2 / width) - 1, source_y * (2 / height) - 1], dim=-1)
    grid = grid.to(pixels).expand(len(pixels), -1, -1, -1)
    return F.grid_sample(round_, grid, mode="bilinear", align_corners=True)


def flown(
    pixels: Pixels,
    *,
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0),
    turn: tuple[float, float, float] = (0.0, 0.0, 0.0),
    depth: Float[Tensor, "B 1 H W"] | None = None,
    fov: float = 40.0,
) -> Pixels:
    """What a camera sees after moving, of a picture in space; beyond its edges the edge goes on.

    Args:
        pixels: Pictures.
        shift: Of the camera to the right, down and forward; the plane at 1 fills the view.
        turn: Of what is seen, in degrees about these axes, in this order.
        depth: How far every pixel is; None = 1.
        fov: Height of the view in degrees.
    """
    height, width = pixels.shape[-2:]
    focal, aspect = 1 / math.tan(math.radians(fov) / 2), width / height
    v, u = torch.meshgrid(
        (torch.arange(height) * 2 + 1) / height - 1, (torch.arange(width) * 2 + 1) / width - 1, indexing="ij"
    )
    far = torch.ones(len(pixels), height, width) if depth is None else depth[:, 0].float().cpu().clamp(min=_NEAREST)
    points = torch.stack([u * aspect / focal * far, v / focal * far, far], dim=-1)
    moved = points @ _rotation(turn).T - torch.tensor(shift)
    ahead = moved[..., 2].clamp(min=_NEAREST)
    seen = torch.stack([moved[..., 0] / ahead * focal / aspect, moved[..., 1] / ahead * focal], dim=-1)
    here = torch.stack([u, v], dim=-1)
    grid = (here - (seen - here)).to(pixels)
    return F.grid_sample(pixels, grid, mode="bicubic", padding_mode="border", align_corners=False)


def _rotation(degrees: tuple[float, float, float]) -> Float[Tensor, "3 3"]:
    """About x, then y, then z."""
    whole = torch.eye(3)
    for axis, angle in enumerate(degrees):
        one = torch.eye(3)
        a, b = (axis + 1) % 3, (axis + 2) % 3
        cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        one[a, a], one[a, b], one[b, a], one[b, b] = cosine, -sine, sine, cosine
        whole = one @ whole
    return whole


def film(
    request: Request,
    motion: Motion,
    count: int,
    draw: Draw,
    done: list[Result],
    *,
    prompts: Mapping[int, str] | None = None,
    depth: Depth | None = None,
) -> Steps[None]:
    """Draw a film into ``done``, which keeps what there is when the drawing is stopped.

    Args:
        request: Of the first frame; its seed must be given.
        motion: From each frame to the next.
        count: Frames.
        draw: The engine's ``stream``.
        done: Filled with one result a frame.
        prompts: What is drawn from which frame on; the request's own when None.
        depth: How far pixels are, in space.

    Raises:
        OptionError: No frames, or a request without a seed.
        LimitError: More than `MOST_FRAMES`.
    """
    if count < 1 or request.seed is None:
        raise OptionError("a film has one frame at least, and a seed" if count < 1 else "a film needs a seed: --seed 1")
    if count > MOST_FRAMES:
        raise LimitError(f"{count:,} frames are too many; at most {MOST_FRAMES:,} are drawn")
    for frame in range(count):
        told = [text for start, text in sorted((prompts or {}).items()) if start <= frame]
        asked = replace(
            request, prompt=told[-1] if told else request.prompt, count=1, keep=1, seed=(request.seed + frame) % SEEDS
        )
        if frame:
            moved = motion.move(from_image(done[-1].images[0]), frame, depth)
            asked = replace(
                asked, image=to_images(moved)[0], mask=None, strength=motion.strength,
                options={**request.options, **motion.options},
            )  # fmt: skip
        running = draw(asked)
        try:
            while True:
                now = next(running)
                total = max(now.total, 1)
                yield Progress(f"frame {frame + 1}", frame * total + min(now.step, total), count * total, now.peek)
        except StopIteration as stop:
            done.append(stop.value)
        finally:
            running.close()
