"""Users' pictures: every source gives the pairs it holds, and says where it is wrong."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from mindseye.data import captions
from mindseye.data.captions import open_captions
from mindseye.errors import DataError


def picture(shade, size=(6, 4), format="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(
        stream, format, **({"lossless": True} if format == "WEBP" else {})
    )
    return stream.getvalue()


def put(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def shades(pairs):
    return [(image.getpixel((0, 0))[0], text) for image, text in pairs]


def tar(path, members):
    with tarfile.open(path, "w") as out:
        for name, data in members:
            if isinstance(data, tarfile.TarInfo):
                out.addfile(data)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def test_a_folder_takes_side_files_then_file_names_then_folder_names(tmp_path):
    put(tmp_path / "a.png", picture(1))
    put(tmp_path / "a.txt", " a cat, asleep\n")
    put(tmp_path / "b_red-fox_(12).png", picture(2))
    put(tmp_path / "lions" / "IMG_0012.jpg", picture(3, format="JPEG"))
    put(tmp_path / "lions" / "big cats" / "00017.webp", picture(4, format="WEBP"))
    put(tmp_path / "lions" / "1f981.png", picture(5))
    put(tmp_path / ".hidden" / "c.png", picture(6))
    put(tmp_path / "notes.md", "no picture")
    found = open_captions(tmp_path)
    assert shades(found) == [(1, "a cat, asleep"), (2, "b red fox"), (5, "lions"), (3, "lions"), (4, "big cats")]
    assert len(found) == 5
    assert found.broken == {}


def test_pictures_without_words_are_counted_not_dropped(tmp_path):
    put(tmp_path / "001.png", picture(1))
    put(tmp_path / "fox.png", picture(2))
    put(tmp_path / "owl.png", picture(3))
    put(tmp_path / "owl.txt", "  \n")
    found = open_captions(tmp_path)
    assert shades(found) == [(2, "fox")]
    assert sorted(reason.rpartition("/")[2] for reason in found.broken.values()) == [
        "001.png has no caption",
        "owl.png: its caption is empty",
    ]


def test_jsonl_with_every_spelling_and_as_a_folders_metadata(tmp_path):
    put(tmp_path / "in" / "a.png", picture(1))
    put(tmp_path / "b.png", picture(2))
    lines = [
        {"file_name": "in/a.png", "text": "one"},
        {"image": "b.png", "caption": " two "},
        {"path": "./in/a.png", "prompt": "three"},
    ]
    text = "\ufeff" + "\n\n".join(json.dumps(line) for line in lines) + "\n"
    put(tmp_path / "metadata.jsonl", text)
    expected = [(1, "one"), (2, "two"), (1, "three")]
    assert shades(open_captions(tmp_path / "metadata.jsonl")) == expected
    assert shades(open_captions(str(tmp_path))) == expected


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ('["b.png"]', "line 2: not an object but list"),
        ('{"file_name": "b.png"}', "line 2: none of text, caption, prompt"),
        ('{"text": "x"}', "line 2: none of file_name, image, path"),
        ('{"file_name": 7, "text": "x"}', "line 2: 'file_name' is not text"),
        ('{"file_name": "b.png", "text": " "}', "line 2: 'text' is not text, or empty"),
        ('{"file_name": "../b.png", "text": "x"}', "line 2: '../b.png' leads out"),
        ('{"file_name": "/etc/passwd", "text": "x"}', "line 2: '/etc/passwd' leads out"),
        ('{"file_name": "in/../../b.png", "text": "x"}', "leads out"),
        ('{"file_name": "link.png", "text": "x"}', "leads out"),
        ('{"file_name": "a\\u0000.png", "text": "x"}', "leads out"),
        ("[" * 100_000, "line 2: not JSON (nested too deeply)"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, line, said):
    put(tmp_path / "outside.png", picture(9))
    root = tmp_path / "set"
    put(root / "a.png", picture(1))
    (root / "link.png").symlink_to(tmp_path / "outside.png")
    put(root / "list.jsonl", '{"file_name": "a.png", "text": "fine"}\n' + line)
    with pytest.raises(DataError) as error:
        open_captions(root / "list.jsonl")
    assert said in error.value.message
    assert str(root / "list.jsonl") in error.value.message


def test_webdataset_pairs_members_by_name_and_reads_them_where_they_lie(tmp_path):
    members = [
        ("000.png", picture(1)),
        ("000.txt", b"one"),
        ("000.seg.png", picture(99)),
        ("deep/001.JPG", picture(2, format="JPEG")),
        ("deep/001.json", b'{"caption": "two", "id": 7}'),
        ("001.webp", picture(3, format="WEBP")),
        ("001.txt", "drei Bäume".encode()),
        ("._000.png", b"AppleDouble"),
        ("lonely.txt", b"no picture"),
    ]
    path = tar(tmp_path / "shard-0.tar", members)
    expected = [(1, "one"), (2, "two"), (3, "drei Bäume")]
    assert shades(open_captions(path)) == expected
    tar(tmp_path / "shard-1.tar", [("a.png", picture(4)), ("a.txt", b"four")])
    assert shades(open_captions(tmp_path)) == [*expected, (4, "four")]


def test_hostile_members_are_passed_over_and_nothing_is_written(tmp_path):
    link = tarfile.TarInfo("b.txt")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    pipe = tarfile.TarInfo("c.txt")
    pipe.type = tarfile.FIFOTYPE
    members = [
        ("../../a.png", picture(1)),
        ("../../a.txt", b"a"),
        ("b.png", picture(2)),
        ("b.txt", link),
        ("c.png", picture(3)),
        ("c.txt", pipe),
    ]
    inside = tmp_path / "set"
    inside.mkdir()
    found = open_captions(tar(inside / "x.tar", members))
    assert shades(found) == [(1, "a")]
    assert sorted(reason.rpartition(": ")[2] for reason in found.broken.values()) == [
        "b has no caption",
        "c has no caption",
    ]
    assert [path.name for path in tmp_path.rglob("*")] == ["set", "x.tar"]


def test_a_short_and_a_foreign_tar_are_said(tmp_path):
    whole = tar(tmp_path / "x.tar", [("a.txt", b"a"), ("a.png", picture(1) + b"\0" * 5000)]).read_bytes()
    put(tmp_path / "short.tar", whole[:3000])
    put(tmp_path / "foreign.tar", b"x" * 2000)
    put(tmp_path / "x.tar.gz", b"")
    for name, said in (("short.tar", "cut short|damaged"), ("foreign.tar", "no tar"), ("x.tar.gz", "is compressed")):
        with pytest.raises(DataError, match=said):
            open_captions(tmp_path / name)


def test_what_is_no_data_set_is_said(tmp_path):
    put(tmp_path / "x.csv", "a,b")
    (tmp_path / "empty").mkdir()
    put(tmp_path / "none.jsonl", "\n")
    for name, said in (
        ("nowhere", "no data set at"),
        ("x.csv", "is no data set"),
        ("empty", "holds no pictures"),
        ("none.jsonl", "holds no pictures"),
    ):
        with pytest.raises(DataError, match=said):
            open_captions(tmp_path / name)


def test_broken_pictures_are_skipped_counted_and_named_once(tmp_path):
    for i in range(20):
        put(tmp_path / f"fox {chr(97 + i)}.png", picture(i))
    put(tmp_path / "fox c.png", picture(2)[:40])
    put(tmp_path / "fox d.png", "a text")
    found = open_captions(tmp_path)
    for _ in range(2):
        assert len(list(found)) == 18
    assert {name.rpartition("/")[2] for name in found.broken} == {"fox c.png", "fox d.png"}
    with pytest.raises(DataError, match="fox d.png cannot be read: .*not a picture"):
        found[3]
    assert found[4][1] == "fox e"


def test_too_many_broken_pictures_break_the_data_set(tmp_path, monkeypatch):
    monkeypatch.setattr(captions, "BROKEN_LEAST", 3)
    for i in range(30):
        put(tmp_path / f"fox {chr(97 + i % 26)}{i // 26}x.png", picture(i) if i % 5 else b"")
    with pytest.raises(DataError, match="4 of 30 pictures cannot be read"):
        list(open_captions(tmp_path))


def test_all_broken_is_an_error_however_few(tmp_path):
    put(tmp_path / "list.jsonl", '{"image": "gone.png", "text": "x"}')
    with pytest.raises(DataError, match="not one of 1 pictures can be read.*gone.png"):
        list(open_captions(tmp_path / "list.jsonl"))


def test_endless_captions_and_pictures_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(captions, "WORDS_MOST", 10)
    monkeypatch.setattr(captions, "BYTES_MOST", 200)
    put(tmp_path / "a.png", picture(1))
    put(tmp_path / "a.txt", "x" * 11)
    put(tmp_path / "fox.png", picture(1) + b"\0" * 300)
    put(tmp_path / "owl.png", picture(1))
    found = open_captions(tmp_path)
    assert shades(found) == [(1, "owl")]
    assert any("longer than 10 bytes" in reason for reason in found.broken.values())


def test_shuffling_is_decided_by_the_seed_and_loses_nothing(tmp_path):
    path = tar(
        tmp_path / "x.tar",
        [member for i in range(40) for member in ((f"{i}.png", picture(i)), (f"{i}.txt", b"%d" % i))],
    )
    plain = open_captions(path)
    one, again, other = (shades(plain.shuffled(seed)) for seed in (1, 1, 2))
    assert one == again != other
    assert one != shades(plain)
    assert sorted(one) == sorted(other) == sorted(shades(plain))
    assert shades(plain.shuffled(1)[:5]) == one[:5]
    assert all(str(shade) == text for shade, text in one)


def test_pictures_are_cropped_about_their_centre_to_one_size(tmp_path):
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    Image.fromarray(wide).save(tmp_path / "wide fox.png")
    image, _ = open_captions(tmp_path, size=(10, 10))[0]
    assert image.size == (10, 10)
    assert image.mode == "RGB"
    assert np.asarray(image)[:, 1:9].min() > 150  # the middle third and none of the black beside it
    assert open_captions(tmp_path)[0][0].size == (60, 20)
