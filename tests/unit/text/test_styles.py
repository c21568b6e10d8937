import pytest

from mindseye.errors import DataError, PromptError, UnknownName
from mindseye.text.styles import Style, apply_styles, read_styles

TABLE = """\ufeffname,prompt,negative_prompt
Film,"a still of {prompt}, grain","cartoon, {prompt}"
Neat,"clean, neat",
,x,y
"Two
lines","{prompt}
{prompt}",blur
"""


@pytest.fixture
def styles(tmp_path):
    (tmp_path / "styles.csv").write_text(TABLE, encoding="utf-8")
    return read_styles(tmp_path / "styles.csv")


def test_reading(styles):
    assert styles == {
        "Film": Style("Film", "a still of {prompt}, grain", "cartoon, {prompt}"),
        "Neat": Style("Neat", "clean, neat", ""),
        "Two\nlines": Style("Two\nlines", "{prompt}\n{prompt}", "blur"),
    }


def test_applying(styles):
    assert apply_styles([], styles, " a cat ", "") == (" a cat ", "")
    assert apply_styles(["Neat"], styles, "a cat ", " mud ") == ("a cat, clean, neat", " mud ")
    assert apply_styles(["Neat"], styles, "", "") == ("clean, neat", "")
    assert apply_styles(["Film", "Neat"], styles, "a cat", "mud") == (
        "a still of a cat, grain, clean, neat",
        "cartoon, mud",
    )


def test_an_unknown_style_names_the_nearest(styles):
    with pytest.raises(UnknownName, match="Neat") as caught:
        apply_styles(["Meat"], styles, "a cat")
    assert caught.value.nearest == "Neat"


def test_styles_cannot_multiply_without_end(styles):
    with pytest.raises(PromptError, match="grows"):
        apply_styles(["Two\nlines"] * 60, styles, "a cat")


def test_the_first_years_of_the_file(tmp_path):
    (tmp_path / "old.csv").write_text("name,text\nNeat,clean\n", encoding="utf-8")
    assert read_styles(tmp_path / "old.csv") == {"Neat": Style("Neat", "clean")}


@pytest.mark.parametrize(
    "content", [b"", b"a,b\n1,2\n", b'name,prompt\nx,"' + b"y" * 200_000, b"\x89PNG\r\n\x1a\n\0\0"]
)
def test_what_is_no_table_is_named(tmp_path, content):
    (tmp_path / "styles.csv").write_bytes(content)
    with pytest.raises(DataError):
        read_styles(tmp_path / "styles.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_styles(tmp_path / "none.csv")
