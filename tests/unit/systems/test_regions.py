import numpy as np
import pytest
import torch
from PIL import Image

from mindseye.errors import OptionError, UnknownName
from mindseye.noise import Noise
from mindseye.pixels import from_image, mask_from_image
from mindseye.systems import regions
from mindseye.systems.regions import Box, Margins


def picture(width=40, height=30, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def mask(size=(40, 30), box=(10, 8, 20, 14)):
    made = Image.new("L", size, 0)
    made.paste(255, box)
    return made


def array(image):
    return np.asarray(image).astype(int)


def test_a_mask_grows_and_shrinks_by_pixels():
    assert regions.grown(mask(), 3).getbbox() == (7, 5, 23, 17)
    assert regions.grown(mask(), -2).getbbox() == (12, 10, 18, 12)
    assert regions.grown(mask(), 0).tobytes() == mask().tobytes()
    assert regions.grown(mask(), 100).getextrema() == (255, 255)
    # The picture's edge is no black border: white that touches it stays.
    assert regions.grown(mask(box=(0, 0, 10, 10)), -2).getbbox() == (0, 0, 8, 8)


def test_a_blurred_mask_is_a_gaussian_edge():
    edge = Image.new("L", (81, 3), 0)
    edge.paste(255, (40, 0, 81, 3))
    row = array(regions.blurred(edge, 4))[1]
    places = np.arange(81) - 39.5
    expected = 255 * np.array([0.5 * (1 + torch.erf(torch.tensor(p / 4 / 2**0.5)).item()) for p in places])
    assert np.abs(row - expected).max() < 6
    assert regions.blurred(mask(), 0).tobytes() == mask().tobytes()


@pytest.mark.parametrize(
    ("size", "padding", "box"),
    [
        ((64, 64), 0, Box(10, 6, 20, 16)),  # square about the middle of 10x6
        ((64, 64), 2, Box(8, 4, 22, 18)),
        ((64, 32), 0, Box(9, 8, 21, 14)),
        ((64, 64), 8, Box(2, 0, 28, 26)),  # moved down from -2
        ((64, 64), 100, Box(0, 0, 40, 30)),
        ((10, 100), 0, Box(10, 0, 20, 30)),  # as high as there is room
    ],
)
def test_the_box_around_a_mask_has_the_aspect_that_is_drawn(size, padding, box):
    assert regions.around(mask(), size, padding) == box


def test_the_box_lies_in_the_picture_and_holds_the_mask():
    generator = np.random.default_rng(1)
    for _ in range(200):
        left, top = generator.integers(0, 39), generator.integers(0, 29)
        inner = (int(left), int(top), int(generator.integers(left + 1, 41)), int(generator.integers(top + 1, 31)))
        asked = tuple(int(side) for side in generator.integers(1, 100, 2))
        box = regions.around(mask(box=inner), asked, int(generator.integers(0, 20)))
        assert 0 <= box.left <= inner[0] and inner[2] <= box.right <= 40
        assert 0 <= box.top <= inner[1] and inner[3] <= box.bottom <= 30


def test_a_black_mask_has_no_box():
    assert regions.around(Image.new("L", (8, 8)), (8, 8)) is None


def test_cut_and_put_back_keep_every_pixel_outside_the_mask():
    image, soft = picture(), regions.blurred(mask(), 2)
    box = regions.around(soft, (64, 64), 4)
    part = regions.cut(image, box, (64, 64))
    assert part.size == (64, 64)
    red = Image.new("RGB", (64, 64), "red")
    result = array(regions.put_back(image, red, box, soft))
    outside = array(soft) == 0
    assert (result[outside] == array(image)[outside]).all()
    half = array(soft)[:, :, None] / 255
    assert np.abs(result - (half * (255, 0, 0) + (1 - half) * array(image))).max() <= 1
    # A mask that is white beyond the box shows nothing there: nothing was drawn there.
    white = array(regions.put_back(image, red, box, Image.new("L", image.size, 255)))
    assert (white[:, : box.left] == array(image)[:, : box.left]).all()
    same = regions.put_back(image, regions.cut(image, box, box.size), box, Image.new("L", image.size, 255))
    assert same.tobytes() == image.tobytes()


@pytest.mark.parametrize("canvas", regions.CANVASES)
def test_outpainting_keeps_the_picture_and_marks_the_margins(canvas):
    image, margins = picture(), Margins(left=8, top=100)
    larger, new = regions.extended(image, margins, Noise([1]).normal, canvas=canvas, overlap=4)
    assert larger.size == new.size == (48, 130)
    assert larger.crop((8, 100, 48, 130)).tobytes() == image.tobytes()
    marked = array(new)
    assert (marked[:100] == 255).all() and (marked[:, :8] == 255).all()
    assert (marked[104:, 12:] == 0).all()  # no margin right and below: nothing is repainted there
    assert (np.diff(marked[120, 8:13]) < 0).all() and (np.diff(marked[100:105, 40]) < 0).all()
    again, _ = regions.extended(image, margins, Noise([1]).normal, canvas=canvas, overlap=4)
    assert larger.tobytes() == again.tobytes()


def test_canvases_are_what_they_are_called():
    image, margins = picture(), Margins(right=50)
    draw = Noise([1]).normal

    def margin(canvas):
        larger, _ = regions.extended(image, margins, draw, canvas=canvas, overlap=0)
        return array(larger)[:, 40:]

    mirrored = np.concatenate([array(image)[:, ::-1][:, 1:], array(image)[:, 1:]], axis=1)[:, :50]
    assert (margin("mirror") == mirrored).all()
    assert np.abs(margin("mean") - array(image).mean((0, 1))).max() <= 1
    assert margin("noise").std() > 40
    stretched = Image.new("RGB", (40, 30), (200, 20, 20))
    larger, _ = regions.extended(stretched, margins, draw)
    assert np.abs(array(larger)[:, 45:].mean((0, 1)) - (200, 20, 20)).max() < 5
    assert array(regions.extended(picture(1, 1), Margins(left=3), draw, canvas="mirror")[0]).std() < 120


def test_outpainting_says_what_it_cannot():
    for margins in (Margins(), Margins(left=-1, right=5)):
        with pytest.raises(OptionError, match="at least one side"):
            regions.extended(picture(), margins, Noise([1]).normal)
    with pytest.raises(UnknownName, match="mirrored"):
        regions.extended(picture(), Margins(left=1), Noise([1]).normal, canvas="mirrored")


def test_fill_continues_the_surroundings():
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], (64, 1, 3)))
    spoilt = ramp.copy()
    hole = mask((64, 64), (20, 20, 44, 44))
    spoilt.paste((255, 0, 255), (20, 20, 44, 44))
    mended = array(regions.filled(spoilt, hole, "fill"))
    assert (mended[:20] == array(ramp)[:20]).all()
    assert np.abs(mended - array(ramp)).max() < 45  # the hole is 97 levels wide, and magenta is 255 off
    assert np.abs(mended - array(ramp)).mean() < 4
    plain = Image.new("RGB", (33, 17), (10, 200, 30))
    assert np.abs(array(regions.filled(plain, mask((33, 17)), "fill")) - array(plain)).max() <= 1
    for content in ("original", "noise", "nothing"):
        assert regions.filled(spoilt, hole, content).tobytes() == spoilt.tobytes()
    white = Image.new("L", (64, 64), 255)
    assert regions.filled(spoilt, white, "fill").tobytes() == spoilt.tobytes()
    with pytest.raises(UnknownName, match="did you mean|masked content"):
        regions.filled(spoilt, hole, "fil")


def test_latents_under_the_mask():
    latents, noise = torch.ones(1, 2, 4, 4), Noise([1, 2]).normal(2, 4, 4)
    hole = torch.zeros(1, 1, 4, 4)
    hole[..., :2] = 1
    assert torch.equal(regions.refilled(latents, hole, "original", noise), torch.ones(2, 2, 4, 4))
    for content, under in (("noise", noise), ("nothing", torch.zeros_like(noise))):
        refilled = regions.refilled(latents, hole, content, noise)
        assert torch.equal(refilled[..., :2], under[..., :2]) and bool((refilled[..., 2:] == 1).all())
    with pytest.raises(UnknownName):
        regions.refilled(latents, hole, "void", noise)


def test_planes_for_inpainting_networks():
    pixels, white = from_image(picture(32, 16)), mask_from_image(mask((32, 16), (8, 0, 20, 9)))
    seen = []

    def encode(given):
        seen.append(given)
        return given[:, :, ::8, ::8].repeat(1, 2, 1, 1)[:, :4]

    planes = regions.inpaint_planes(pixels, white * 0.6, encode)
    assert planes.shape == (1, 5, 2, 4)
    assert torch.equal(planes[0, 0], torch.tensor([[0.0, 1, 1, 0], [0, 1, 1, 0]]))
    assert bool((seen[0][:, :, :9, 8:20] == 0).all())  # grey
    assert torch.equal(seen[0][:, :, 9:], pixels[:, :, 9:])
    assert torch.equal(planes[:, 1:], encode(seen[0]))
    assert bool((regions.inpaint_planes(pixels, white * 0.4, encode)[0, 0] == 0).all())


@pytest.mark.parametrize("way", regions.ENLARGEMENTS)
def test_enlarged_latents(way):
    flat = torch.full((2, 4, 6, 8), 0.5, dtype=torch.bfloat16)
    larger = regions.enlarged(flat, (20, 9), way)
    assert larger.shape == (2, 4, 9, 20) and larger.dtype == torch.bfloat16
    torch.testing.assert_close(larger, torch.full_like(larger, 0.5))
    ramp = torch.arange(8.0).expand(1, 1, 4, 8)
    assert regions.enlarged(ramp, (16, 8), way)[0, 0, 0, 3:13].diff().ge(0).all()


def test_ways_to_enlarge_are_named():
    with pytest.raises(UnknownName, match="latent-nearest"):
        regions.enlarged(torch.zeros(1, 1, 2, 2), (4, 4), "lanczos")
