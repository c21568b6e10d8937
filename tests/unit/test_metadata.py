import json
import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mindseye.errors import ImageError
from mindseye.metadata import (
    Infotext,
    _pairs,
    format_infotext,
    infotext,
    parse_account,
    parse_infotext,
    read,
    texts,
)
from mindseye.pictures import save_png
from mindseye.request import Request, Result

# The grammar as its readers in the wild have it, which is what our scanner must agree with.
GRAMMAR = re.compile(
    r"""\s* (?P<key> \w [\w\ \-/]+ ) : \s* (?P<value> "(?: \\. | [^\\"] )+" | [^,]* ) (?: , | $ )""", re.VERBOSE
)

PIECES = ("a", "b1", "_", " ", "-", "/", ":", "é漢", "\t", "aa: ", 'aa: "', '\\"', "\\\\", '"', '",', ",", ".")
LINE = st.lists(st.sampled_from(PIECES), max_size=25).map("".join)
VALUE = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=20)
KEY = st.text("abZ09_/- ", min_size=1, max_size=8).map(lambda text: f"k{text}".rstrip() + "z")


def result(**changes):
    image = Image.new("RGB", (24, 16), "red")
    request = Request(
        prompt="a fox", size=(24, 16), count=2, seed=7, steps=20, guidance=4.5, sampler="euler", **changes
    )
    return Result(images=(image, image), seeds=(7, 8), request=request, seconds=1.5, weights={"unet": "ab" * 32})


def unquoted(value):
    try:
        return str(json.loads(value)) if len(value) > 1 and value[0] == value[-1] == '"' else value
    except ValueError:
        return value


@given(LINE)
@example('aa: "\\",b", ccc: 1')
@example('aa: "\\\\", ccc: 1')
def test_the_scanner_finds_what_the_grammar_finds(line):
    expected = [(found["key"], unquoted(found["value"])) for found in GRAMMAR.finditer(line)]
    assert _pairs(line) == expected


@given(st.dictionaries(KEY, VALUE, min_size=3, max_size=6), st.text("ab, (:)é\n", max_size=30), VALUE)
def test_what_is_written_is_read_back(fields, prompt, negative):
    prompt, negative = (" ".join(text.split()) for text in (prompt, negative))
    if "Negative prompt:" in prompt or "Negative prompt:" in negative:
        return
    info = Infotext(prompt=prompt, negative=negative, fields=fields)
    assert parse_infotext(format_infotext(info)) == info


@given(st.text(max_size=200))
def test_no_text_makes_it_raise(text):
    parse_infotext(text)
    with pytest.raises(ImageError):
        parse_account(text)


@pytest.mark.parametrize(
    "line",
    ["a b" * 100_000, "aa:" * 100_000, 'aa: "' * 60_000, "aa: " + '"\\' * 150_000, " " * 300_000, ":" * 300_000,
     "aa" * 150_000 + ":", "-" * 300_000, 'aa:"\\' * 60_000],
    ids=range(9),
)  # fmt: skip
def test_a_crafted_text_is_read_in_linear_time(line):
    started = time.perf_counter()
    parse_infotext(line)
    assert time.perf_counter() - started < 2


def test_the_text_is_what_galleries_expect():
    assert format_infotext(infotext(result(negative="blurry"), 1)) == (
        "a fox\nNegative prompt: blurry\nSteps: 20, Sampler: euler, CFG scale: 4.5, Seed: 8, Size: 24x16, "
        "Model hash: abababab" + "ab, Model: stable-diffusion-pocket, Version: mindseye 0.1.0"
    )


def test_a_value_with_a_comma_is_quoted():
    text = format_infotext(Infotext(prompt="x", fields={"Lora": "a: 1, b: 2", "Steps": "3", "Seed": "1"}))
    assert text == 'x\nLora: "a: 1, b: 2", Steps: 3, Seed: 1'


@pytest.mark.parametrize(
    ("text", "prompt", "negative", "fields"),
    [
        ("a photo of x: y, z: w, q: r", "a photo of x: y, z: w, q: r", "", {}),
        ("a\nSteps: 1, Seed: 2, Size: 8x8", "a", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        ("Steps: 1, Seed: 2, Size: 8x8", "", "", {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        ("a\nb\nNegative prompt: c\nd\nSteps: 1, Seed: 2, Size: 8x8", "a\nb", "c\nd",
         {"Steps": "1", "Seed": "2", "Size": "8x8"}),
        ('a\nModel: my "best", v2, Steps: 1, Seed: 2', "a", "", {"Model": 'my "best"', "Steps": "1", "Seed": "2"}),
        ("", "", "", {}),
    ],
)  # fmt: skip
def test_foreign_texts(text, prompt, negative, fields):
    assert parse_infotext(text) == Infotext(prompt=prompt, negative=negative, fields=fields)


def test_both_accounts_travel_in_the_file(tmp_path):
    made = result(negative="é 漢", options={"shift": 3.0})
    save_png(made.images[1], tmp_path / "a.png", texts(made, 1))
    account, plain = read(tmp_path / "a.png")
    assert account.request["options"] == {"shift": 3.0} and account.request["negative"] == "é 漢"
    assert (account.index, account.weights, account.seconds) == (1, {"unet": "ab" * 32}, 1.5)
    assert plain.fields["Seed"] == "8" and plain.fields["Shift"] == "3.0" and plain.negative == "é 漢"


def test_a_picture_without_any_account(tmp_path):
    save_png(Image.new("RGB", (2, 2)), tmp_path / "a.png")
    assert read(tmp_path / "a.png") == (None, None)


def test_a_later_version_is_named_instead_of_guessed_at():
    with pytest.raises(ImageError, match=r"written by mindseye 9\.1"):
        parse_account(json.dumps({"schema": 2, "version": "9.1", "request": {}}))


@pytest.mark.parametrize("name", ["automatic1111_cropped.png", "automatic1111_cropped.jpg"])
def test_real_pictures_of_a1111(material, name):
    account, plain = read(material / "metadata_samples" / "AUTOMATIC1111" / name)
    assert account is None
    assert plain.prompt and plain.negative and plain.fields["Steps"].isdigit() and "x" in plain.fields["Size"]


def test_real_pictures_of_others_are_not_misread(material):
    for name in ("ComfyUI", "InvokeAI", "NovelAI"):
        for path in (material / "metadata_samples" / name).iterdir():
            account, plain = read(path)
            assert account is None and plain is None
