import pytest
from PIL import Image

from mindseye.labels import labelled


def picture(colour, size=(40, 30)):
    return Image.new("RGB", size, colour)


def ink(sheet):
    """How many dark pixels there are."""
    return sum(sheet.convert("L").histogram()[:100])


def test_pictures_stand_in_their_places_unscaled():
    sheet = labelled(
        {(0, 0, 0): picture("#0000ff"), (1, 1, 0): picture("#00ff00", (20, 10))}, columns=["", ""], rows=["", ""]
    )
    assert sheet.getpixel((20, 20)) == (0, 0, 255)
    blue, green = (sheet.convert("RGB").point(lambda v: 255 if v > 200 else 0).split()[i] for i in (2, 1))
    assert (sheet.width, sheet.height) == (3 + 2 * 43, 3 + 2 * 33)
    # The smaller one is centred in its place.
    assert sheet.getpixel((3 + 43 + 20, 3 + 33 + 15)) == (0, 255, 0)
    assert sheet.getpixel((3 + 43 + 5, 3 + 33 + 15)) == (255, 255, 255)
    assert sheet.getpixel((3 + 43 + 20, 15)) == (232, 232, 232)  # missing
    assert blue.size == green.size


@pytest.mark.parametrize("where", ["columns", "rows", "sheets"])
def test_words_take_room_and_ink(where):
    plain = labelled({(0, 0, 0): picture("white", (100, 100))}, columns=[""])
    words = {"columns": [""], where: ["guidance 7.5"]}
    sheet = labelled({(0, 0, 0): picture("white", (100, 100))}, **words)
    assert ink(plain) == 0 and ink(sheet) > 100
    assert sheet.width * sheet.height > plain.width * plain.height


def test_long_words_are_wrapped_and_cut():
    text = "a very long prompt that goes on " * 20 + "x" * 500
    sheet = labelled({(0, 0, 0): picture("white", (100, 100))}, columns=[text], rows=[text], sheets=[text])
    assert sheet.width < 260 and sheet.height < 320
    assert labelled({}, columns=["a"]).size[0] > 128
