import json
import re
import time
from dataclasses import replace

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from mindseye.errors import ImageError
from mindseye.metadata import (
    Infotext,
    format_infotext,
    infotext,
    parse_account,
    parse_infotext,
)
from mindseye.metadata.infotext import pairs_of
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
    assert pairs_of(line) == expected


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
    started = time.process_time()
    parse_infotext(line)
    assert time.process_time() - started < 1


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


@pytest.mark.parametrize(
    "ending", ["Template: {a|b} cat", "Template: a\nb\nNegative Template: c", "Negative Template: x"]
)
def test_templates_after_the_settings_do_not_hide_them(ending):
    text = f"a cat\nNegative prompt: blur\nSteps: 1, Seed: 2, Size: 8x8\n{ending}"
    assert parse_infotext(text) == Infotext(
        prompt="a cat", negative="blur", fields={"Steps": "1", "Seed": "2", "Size": "8x8"}
    )


def test_settings_in_the_middle_of_a_prompt_are_prompt():
    text = "a cat\nSteps: 1, Seed: 2, Size: 8x8\nand so on"
    assert parse_infotext(text) == Infotext(prompt=text)


def test_hashes_of_adapters_are_written_as_their_readers_expect():
    made = result()
    made = replace(
        made, weights={"lora:ink": "ab" * 32, "unet": "cd" * 32, "lora:b": "ef" * 32, "embedding:t": "0" * 64}
    )
    fields = infotext(made, 0).fields
    assert fields["Model hash"] == "cdcdcdcdcd"
    assert fields["Lora hashes"] == "ink: abababababab, b: efefefefefef" and fields["TI hashes"] == "t: 000000000000"
    assert parse_infotext(format_infotext(infotext(made, 0))).fields["Lora hashes"] == fields["Lora hashes"]


def test_a_later_version_is_named_instead_of_guessed_at():
    with pytest.raises(ImageError, match=r"written by mindseye 9\.1"):
        parse_account(json.dumps({"schema": 2, "version": "9.1", "request": {}}))


def test_loose_values_of_an_account_are_left_out():
    account = parse_account(json.dumps({"schema": 1, "request": {"prompt": "x"}, "weights": [1], "seconds": "long"}))
    assert (dict(account.weights), account.seconds) == ({}, 0.0)
