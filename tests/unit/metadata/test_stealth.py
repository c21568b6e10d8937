"""Text in the lowest bits, against an encoder that goes pixel by pixel."""

import gzip
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mindseye.errors import ImageError
from mindseye.metadata import read, read_stealth, write_stealth
from mindseye.metadata.stealth import LONGEST

TEXT = "a fox\nSteps: 3, Sampler: Euler, Seed: 5, Size: 64x64"


def hide(signature, payload, size=(40, 50), bits=None, mode="RGBA"):
    """The scheme as its readers in the wild walk it: down each column, a bit in alpha or three in the colours."""
    length = (8 * len(payload) if bits is None else bits).to_bytes(4, "big")
    stream = iter("".join(f"{byte:08b}" for byte in signature.encode() + length + payload))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], len(mode)), np.uint8)).copy()
    pixels = image.load()
    for x in range(size[0]):
        for y in range(size[1]):
            pixel = list(pixels[x, y])
            for channel in (3,) if "png" in signature else (0, 1, 2):
                if (bit := next(stream, None)) is not None:
                    pixel[channel] = pixel[channel] & ~1 | int(bit)
            pixels[x, y] = tuple(pixel)
    return image


@pytest.mark.parametrize(
    ("signature", "mode"),
    [("stealth_pnginfo", "RGBA"), ("stealth_pngcomp", "RGBA"), ("stealth_rgbinfo", "RGB"), ("stealth_rgbcomp", "RGB"),
     ("stealth_rgbcomp", "RGBA")],
)  # fmt: skip
@pytest.mark.parametrize("size", [(40, 50), (500, 7), (9, 700)])
def test_every_variant_is_read(signature, mode, size, tmp_path):
    payload = TEXT.encode()
    if signature.endswith("comp"):
        payload = gzip.compress(payload)
    image = hide(signature, payload, size, mode=mode)
    assert read_stealth(image) == TEXT
    image.save(tmp_path / "a.png")
    found = read(tmp_path / "a.png")
    assert (found.tool, found.fields["seed"], found.raw) == ("A1111", 5, TEXT)


def test_webp_without_loss_hides_as_well(tmp_path):
    hide("stealth_pngcomp", gzip.compress(TEXT.encode())).save(tmp_path / "a.webp", lossless=True, exact=True)
    assert read(tmp_path / "a.webp").fields["steps"] == 3


@given(st.text(max_size=60), st.sampled_from(["alpha", "rgb"]))
def test_what_is_written_is_read_and_colours_stay(text, where):
    image = Image.effect_mandelbrot((30, 41), (-3, -2.5, 2, 2.5), 100).convert("RGB")
    hidden = write_stealth(image, text, where=where)
    assert read_stealth(hidden) == text
    before, after = (np.asarray(each.convert("RGB")).astype(int) for each in (image, hidden))
    assert abs(before - after).max() <= (0 if where == "alpha" else 1)


def test_a_text_that_is_too_long_for_the_picture_is_refused():
    noise = np.random.default_rng(1).integers(33, 127, 500, np.uint8).tobytes().decode()
    with pytest.raises(ImageError, match="too small"):
        write_stealth(Image.new("RGB", (20, 20)), noise)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB", "RGBA", "CMYK", "LA"])
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (64, 64)])
def test_ordinary_pictures_hide_nothing(mode, size):
    assert read_stealth(Image.new(mode, size)) is None


@pytest.mark.parametrize(
    ("payload", "bits", "says"),
    [
        (b"not gzip at all", None, "damaged"),
        (gzip.compress(b"x" * 999)[:-9], None, "cut short"),
        (gzip.compress(b"x"), 2**32 - 1, "cut short"),
        (gzip.compress(bytes(LONGEST + 1)), None, "unfolds to more than"),
        (zlib.compress(b"x"), None, "damaged"),
    ],
    ids=["no gzip", "short gzip", "too long", "bomb", "zlib"],
)
def test_hostile_payloads_are_a_sentence(payload, bits, says, tmp_path):
    image = hide("stealth_pngcomp", payload, (200, 200), bits)
    image.save(tmp_path / "a.png")
    with pytest.raises(ImageError, match=says):
        read(tmp_path / "a.png")
