"""The camera: closed forms in the plane and in space, and films of frames that follow from each other."""

import math

import pytest
import torch

from mindseye.errors import LimitError, OptionError
from mindseye.metadata.disco import DEFAULTS
from mindseye.pixels import from_image, to_images
from mindseye.request import Progress, Request, Result, drain
from mindseye.systems.motion import Motion, film, flown, turned
from mindseye.text.keyframes import read_keyframes


def smooth(height=24, width=24):
    """A picture without edges, also from side to side."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    waves = [torch.sin(2 * math.pi * (x + k / 3)) * torch.cos(2 * math.pi * y) for k in range(3)]
    return torch.stack(waves)[None].float()


def test_standing_still_changes_nothing():
    x = torch.rand(2, 3, 10, 14)
    torch.testing.assert_close(turned(x), x, atol=1e-5, rtol=0)
    torch.testing.assert_close(flown(x), x, atol=1e-5, rtol=0)


def test_whole_shifts_wrap_around():
    x = torch.rand(1, 3, 8, 12)
    torch.testing.assert_close(turned(x, x=3, y=-2), x.roll((-2, 3), (2, 3)), atol=1e-5, rtol=0)


def test_a_quarter_turn_is_counter_clockwise():
    x = torch.rand(1, 3, 9, 9)
    torch.testing.assert_close(turned(x, angle=90), x.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_zoom_is_about_the_middle():
    x = torch.zeros(1, 3, 17, 17)
    x[..., 8, 8] = 1.0
    large = turned(x, zoom=2.0)
    assert large[0, 0, 8, 8] == pytest.approx(1, abs=1e-5) and large[0, 0, 8, 9] == pytest.approx(0.5, abs=1e-5)
    assert torch.allclose(large, large.flip(3), atol=1e-5) and large.sum() == pytest.approx(12, abs=1e-3)


def test_flying_at_a_plane_enlarges_it():
    x = smooth()
    forward, zoomed = flown(x, shift=(0, 0, 0.02)), turned(x, zoom=1 / 0.98)
    inside = (..., slice(3, -3), slice(3, -3))
    assert (forward - zoomed)[inside].abs().max() < 0.02 < (x - zoomed)[inside].abs().max()


def test_near_things_move_more():
    x = smooth()
    depth = torch.ones(1, 1, 24, 24)
    depth[..., 12:] = 4.0
    moved = flown(x, shift=(0.05, 0, 0), depth=depth) - x
    plane = flown(x, shift=(0.05, 0, 0)) - x
    far = flown(x, shift=(0.0125, 0, 0)) - x
    assert torch.allclose(moved[..., :11], plane[..., :11], atol=1e-5)
    assert torch.allclose(moved[..., 13:], far[..., 13:], atol=1e-5)
    # The camera to the right: the picture to the left.
    ramp = torch.linspace(-1, 1, 24).expand(1, 3, 24, 24)
    assert (flown(ramp, shift=(0.05, 0, 0)) - ramp)[..., 2:-2].mean() > 0.01


def test_turning_about_the_line_of_sight_turns_the_picture():
    x = smooth(33, 33)
    found, wanted = flown(x, turn=(0, 0, 2.0)), turned(x, angle=-2.0)
    assert (found - wanted)[..., 8:-8, 8:-8].abs().max() < 0.02


def test_discos_own_settings_are_read():
    motion = Motion.of({**DEFAULTS, "animation_mode": "3D"})
    assert (motion.mode, motion.zoom(5), motion.z(3), motion.fov) == ("3D", pytest.approx(1.025), 10.0, 40.0)
    assert motion.strength == pytest.approx(0.4)
    for wrong in ({"animation_mode": "Video Input"}, {"angle": "0: (t)"}, {"zoom": "0: (0)"}, {"fov": "200"}):
        with pytest.raises(OptionError):
            Motion.of(wrong)


def painter(asked):
    """Draws the start picture, or noise; notes what it is asked."""

    def draw(request):
        asked.append(request)
        yield Progress("paint", 1, 2, tuple)
        yield Progress("paint", 2, 2, tuple)
        images = (request.image,) if request.image else to_images(smooth())
        return Result(images=images, seeds=(request.seed,), request=request, seconds=0.0)

    return draw


def test_frames_follow_from_each_other():
    asked, done, seen = [], [], []
    motion = Motion(x=read_keyframes("0: (0), 2: (2)"), strength=0.3, options={"likeness": 5.0})
    request = Request(prompt="a", seed=7, count=3, strength=0.9, options={"clamp": 0.1})
    drain(
        film(request, motion, 3, painter(asked), done, prompts={0: "one", 2: "two"}),
        lambda now: seen.append((now.stage, now.step, now.total)),
    )
    assert [each.seed for each in asked] == [7, 8, 9] and {each.count for each in asked} == {1}
    assert [each.prompt for each in asked] == ["one", "one", "two"]
    assert asked[0].image is None and asked[0].strength == 0.9 and asked[0].options == {"clamp": 0.1}
    assert asked[2].strength == 0.3 and asked[2].options == {"clamp": 0.1, "likeness": 5.0}
    first, last = from_image(done[0].images[0]), from_image(done[2].images[0])
    assert (last - first.roll(3, 3)).abs().max() < 0.02  # 1 pixel, then 2
    assert seen[0] == ("frame 1", 1, 6) and seen[-1] == ("frame 3", 6, 6)


def test_mistakes_are_named():
    for count, seed in ((0, 1), (3, None)):
        with pytest.raises(OptionError):
            drain(film(Request(prompt="a", seed=seed), Motion(), count, painter([]), []))
    with pytest.raises(LimitError):
        drain(film(Request(prompt="a", seed=1), Motion(), 10_001, painter([]), []))
    with pytest.raises(OptionError):
        Motion(strength=1.5)
