import pytest
import torch
from PIL import Image

from mindseye.pixels import fit, from_image, from_images, mask_from_image, to_images


def ramp(width=16, height=16):
    image = Image.new("RGB", (width, height))
    image.putdata([((x * 16) % 256, (y * 16) % 256, (x * y) % 256) for y in range(height) for x in range(width)])
    return image


def test_black_white_and_the_axes():
    image = Image.new("RGB", (3, 2), "black")
    image.putpixel((2, 0), (255, 255, 255))
    image.putpixel((0, 1), (255, 0, 0))
    pixels = from_image(image)
    assert pixels.shape == (1, 3, 2, 3) and pixels.dtype == torch.float32
    assert pixels[0, :, 0, 2].tolist() == [1, 1, 1]
    assert pixels[0, :, 1, 0].tolist() == [1, -1, -1]
    assert pixels[0, :, 0, 0].tolist() == [-1, -1, -1]


def test_all_256_values_survive_the_round_trip():
    image = Image.new("L", (256, 1))
    image.putdata(list(range(256)))
    (back,) = to_images(from_image(image))
    assert list(back.getchannel("G").tobytes()) == list(range(256))


def test_values_are_rounded_and_clamped():
    pixels = torch.tensor([-3.0, -1 + 0.9 / 127.5, 0.0, 7.0]).view(1, 1, 1, 4).expand(1, 3, 1, 4)
    (image,) = to_images(pixels.half())
    assert list(image.getchannel("R").tobytes()) == [0, 1, 128, 255]


def test_several_pictures_become_one_batch_of_the_asked_size():
    pixels = from_images([ramp(16, 16), ramp(40, 10)], (8, 4))
    assert pixels.shape == (2, 3, 4, 8)


@pytest.mark.parametrize(("width", "height"), [(40, 10), (10, 40), (30, 30)])
def test_fit_crops_about_the_centre_and_does_not_distort(width, height):
    # A white square in the middle must stay a centred square, whatever the frame around it.
    image = Image.new("L", (width, height))
    side = min(width, height)
    image.paste(255, ((width - side // 2) // 2, (height - side // 2) // 2, (width + side // 2) // 2,
                      (height + side // 2) // 2))  # fmt: skip
    left, top, right, bottom = fit(image, (64, 64)).point(lambda value: 255 * (value > 127)).getbbox()
    assert abs((right - left) - (bottom - top)) <= 1
    assert abs(left + right - 64) <= 2 * 64 / side and abs(top + bottom - 64) <= 2 * 64 / side
    assert abs((right - left) - 32) <= 64 / side


def test_fit_leaves_a_picture_of_the_right_size_alone():
    image = ramp()
    assert fit(image, (16, 16)) is image


def test_mask_is_one_where_white_and_follows_its_picture():
    mask = Image.new("L", (40, 10))
    mask.paste(255, (20, 0, 40, 10))
    values = mask_from_image(mask, (10, 10))
    assert values.shape == (1, 1, 10, 10)
    assert values[0, 0, :, 0].max() == 0 and values[0, 0, :, 9].min() == 1


def test_a_mask_drawn_in_transparency_is_white_where_transparent():
    mask = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    mask.putpixel((1, 0), (0, 0, 0, 0))
    assert mask_from_image(mask).flatten().tolist() == [0, 1]
