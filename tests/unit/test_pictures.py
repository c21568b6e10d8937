import errno
import io
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from mindseye.errors import ImageError, OutputError
from mindseye.pictures import check_folder, flatten, open_image, save_png, sheet, write_whole


def stored(image, kind="PNG", **settings):
    stream = io.BytesIO()
    image.save(stream, format=kind, **settings)
    return stream.getvalue()


def names(folder):
    return [path.name for path in folder.iterdir()]


def png(width, height, body=b""):
    """A PNG that claims a size and holds whatever body."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16", "I", "CMYK", "F", "YCbCr", "PA", "HSV"])
def test_white_is_white_in_every_mode(mode):
    if mode in ("I", "I;16"):
        image = Image.new(mode, (2, 2), 65535)
    elif mode == "F":
        image = Image.new(mode, (2, 2), 255.0)
    else:
        image = Image.new("RGB", (2, 2), "white").convert("LA" if mode == "PA" else mode).convert(mode)
    flat = flatten(image)
    assert flat.mode == "RGB" and flat.getpixel((0, 0)) == (255, 255, 255)


@pytest.mark.parametrize(("deep", "shown"), [(0, 0), (32768, 128), (60000, 233), (65535, 255)])
def test_sixteen_bits_become_the_nearest_of_eight(deep, shown):
    assert flatten(Image.new("I;16", (1, 1), deep)).getpixel((0, 0)) == (shown,) * 3


def test_transparency_is_laid_over_white():
    half = Image.new("RGBA", (1, 1), (255, 0, 0, 128))
    red, green, blue = flatten(half).getpixel((0, 0))
    assert red == 255 and abs(green - 127) <= 1 and green == blue
    palette = Image.new("P", (2, 1))
    palette.putpalette([0, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    opened = open_image(stored(palette, transparency=0))
    assert [opened.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(orientation):
    # As stored, before the viewer turns it: mark the corner that each orientation shows at the top left.
    corner = {1: (0, 0), 2: (7, 0), 3: (7, 3), 4: (0, 3), 5: (0, 0), 6: (0, 3), 7: (7, 3), 8: (7, 0)}[orientation]
    image = Image.new("RGB", (8, 4), "white")
    image.putpixel(corner, (0, 0, 0))
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = open_image(stored(image, exif=exif))
    assert upright.size == ((8, 4) if orientation < 5 else (4, 8))
    assert upright.getpixel((0, 0)) == (0, 0, 0)


def test_the_path_is_kept_as_it_was_given(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(stored(Image.new("RGB", (2, 2)), dpi=(300, 300)))
    assert open_image(path).info == {"path": str(path)}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a picture"),
        (b"<html>not found</html>", "not a picture"),
        (stored(Image.effect_noise((64, 64), 9))[:900], "cut short"),
        (stored(Image.effect_noise((64, 64), 9), "JPEG")[:700], "cut short"),
        (png(50_000, 50_000), "megapixels"),
        (png(9_000, 9_000), "megapixels"),
        (png(64, 64, b"too little"), "cut short"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
    ],
    ids=["empty", "html", "png", "jpeg", "bomb", "big", "short", "eps"],
)
def test_what_is_no_honest_picture_is_a_sentence(data, says):
    with pytest.raises(ImageError, match=says):
        open_image(data)


def test_every_cut_of_a_png_is_an_error_or_a_picture():
    whole = stored(Image.effect_noise((16, 16), 50).convert("RGB"))
    for length in range(len(whole)):
        try:
            assert open_image(whole[:length]).size == (16, 16)
        except ImageError:
            pass


def test_missing_file_and_folder_are_sentences(tmp_path):
    with pytest.raises(ImageError, match="there is no file"):
        open_image(tmp_path / "none.png")
    with pytest.raises(ImageError):
        open_image(tmp_path)


def test_saving_replaces_or_not_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "a.png"
    assert save_png(Image.new("RGB", (2, 2), "red"), path, {"k": "v é 漢"})
    assert not save_png(Image.new("RGB", (2, 2), "blue"), path, replace=False)
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == (255, 0, 0) and image.info["k"] == "v é 漢"
    assert save_png(Image.new("RGB", (2, 2), "blue"), path)
    with Image.open(path) as image:
        assert image.getpixel((0, 0)) == (0, 0, 255)
    assert names(tmp_path) == ["a.png"]


def test_without_hard_links_nothing_is_overwritten_either(tmp_path, monkeypatch):
    def refuse(self, target):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr("pathlib.Path.hardlink_to", refuse)
    path = tmp_path / "a.bin"
    assert write_whole(path, lambda stream: stream.write(b"one"), replace=False)
    assert not write_whole(path, lambda stream: stream.write(b"two"), replace=False)
    assert path.read_bytes() == b"one" and names(tmp_path) == ["a.bin"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=str)
def test_a_write_that_fails_halfway_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def write(stream):
        stream.write(b"half")
        raise error

    with pytest.raises(OutputError if isinstance(error, OSError) else KeyboardInterrupt) as caught:
        write_whole(path, write)
    if isinstance(error, OSError):
        assert "no space left" in str(caught.value)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.png"]


def test_new_files_are_as_open_as_any_other(tmp_path):
    (tmp_path / "plain").touch()
    save_png(Image.new("RGB", (1, 1)), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_check_folder_says_it_before_the_work(tmp_path):
    check_folder(tmp_path)
    assert names(tmp_path) == []
    with pytest.raises(OutputError, match="no folder"):
        check_folder(tmp_path / "none")
    (tmp_path / "file").touch()
    with pytest.raises(OutputError):
        check_folder(tmp_path / "file")


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux")
def test_a_folder_that_cannot_be_written_is_a_sentence():
    with pytest.raises(OutputError, match="cannot write into"):
        check_folder(Path("/proc/self"))


def test_a_sheet_holds_every_picture():
    tiles = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 20, 30)]
    whole = sheet(tiles, columns=2, side=4, gap=1)
    assert whole.size == (11, 11)
    assert [whole.getpixel(place)[0] for place in ((2, 2), (7, 2), (2, 7), (7, 7))] == [10, 20, 30, 255]


def test_what_is_wide_stays_wide_on_a_sheet():
    whole = sheet([Image.new("RGB", (32, 8), (shade, 0, 0)) for shade in (10, 20, 30)], columns=8, side=4, gap=1)
    assert whole.size == (41, 11)
    assert [whole.getpixel(place)[0] for place in ((1, 2), (19, 2), (20, 2), (38, 2), (2, 7))] == [10, 10, 255, 20, 30]
