import pytest

from mindseye.errors import DataError, OptionError, UnknownName
from mindseye.text.wildcards import Value, Wildcards


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "lists/clothes/old").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    root = tmp_path / "lists"
    (root / "colours.txt").write_text(
        "\ufeffred\n# no colour\n\n  3::blue \n0.5::{dark|light} green\n", encoding="utf-8"
    )
    (root / "clothes/hats.txt").write_text("bowler\n")
    (root / "clothes/old/wigs.txt").write_text("wig\n")
    (root / "empty.txt").write_text("# nothing\n")
    (root / "more.yaml").write_text("animals:\n  pets: [cat, 2::dog, 7]\n  wild:\n    - wolf\n  one: owl\n")
    (root / "clothes/set.json").write_text('{"shoes": ["boot"]}')
    (root / "plain.json").write_text('["a", "b", null]')
    (root / "notes.md").write_text("not a list")
    (root / "link.txt").symlink_to(tmp_path / "secret.txt")
    return root


def texts(folder, name):
    return [value.text for value in Wildcards(folder).values(name)]


def test_names(folder):
    assert Wildcards(folder).names == (
        "animals/one", "animals/pets", "animals/wild", "clothes/hats", "clothes/old/wigs", "clothes/shoes",
        "colours", "empty", "plain",
    )  # fmt: skip


def test_values(folder):
    assert Wildcards(folder).values("colours") == [Value(1, "red"), Value(3, "blue"), Value(0.5, "{dark|light} green")]
    assert Wildcards(folder).values("animals/pets") == [Value(1, "cat"), Value(2, "dog"), Value(1, "7")]
    assert texts(folder, "plain") == ["a", "b"]
    lists = Wildcards(folder)
    assert lists.values("clothes/hats") == lists.values("clothes/hats")  # read once


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("clothes/*", ["bowler", "boot"]),
        ("clothes/**", ["bowler", "wig", "boot"]),
        ("**/wigs", ["wig"]),
        ("**/old/**", ["wig"]),
        ("**/hats", ["bowler"]),
        ("*/h?ts", ["bowler"]),
        ("col*", ["red", "blue", "{dark|light} green"]),
        ("animals/[ow]*", ["owl", "wolf"]),
    ],
)
def test_patterns(folder, pattern, found):
    assert texts(folder, pattern) == found


@pytest.mark.parametrize(
    "name", ["../secret", "/etc/passwd", "link", "**/../secret", "colour", "empty", "notes", "*/" * 40 + "x"]
)
def test_nothing_leads_out_of_the_folder(folder, name):
    with pytest.raises(UnknownName):
        Wildcards(folder).values(name)


def test_the_nearest_name(folder):
    with pytest.raises(UnknownName) as caught:
        Wildcards(folder).values("colors")
    assert caught.value.nearest == "colours"
    for index in range(50):
        (folder / f"z{index}.txt").write_text("z")
    with pytest.raises(UnknownName) as caught:
        Wildcards(folder).values("colors")
    assert caught.value.nearest == "colours"
    assert len(caught.value.possible) == 20


def test_hostile_patterns_end(folder):
    (folder / ("a" * 200 + ".txt")).write_text("a")
    with pytest.raises(UnknownName):
        Wildcards(folder).values("*a" * 60 + "b")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.yaml", "a: [b: c: d"),
        ("x.yaml", "!!python/object/apply:os.system ['echo']"),
        ("x.yaml", "2020-99-99: [a]"),
        ("x.yaml", "a0: &a0 [x, y]\n" + "".join(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}\n" for i in range(1, 40))),
        ("x.json", "{"),
        ("x.json", "[" * 100_000),
    ],
)
def test_files_that_cannot_be_read_are_named(folder, name, content):
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=name):
        Wildcards(folder)


def test_no_folder(tmp_path):
    with pytest.raises(OptionError):
        Wildcards(tmp_path / "none")
