"""The prompt grammar: what is a weight, and what only looks like one."""

import math
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.critique.grammar import MOST, Wish, parse, scaled, wishes
from mindseye.errors import LimitError, OptionError, PromptError


@pytest.mark.parametrize(
    ("text", "words", "weight", "stop"),
    [
        ("a castle", "a castle", 1, -math.inf),
        ("a castle:2", "a castle", 2, -math.inf),
        ("a castle: -0.5 : .7", "a castle", -0.5, 0.7),
        ("a castle:1e-1:-inf", "a castle", 0.1, -math.inf),
        ("cat:dog", "cat:dog", 1, -math.inf),
        ("cat:2:dog", "cat:2:dog", 1, -math.inf),
        ("cat:dog:2", "cat:dog", 2, -math.inf),
        ("cat:1:2:3", "cat:1", 2, 3),
        ("cat:nan", "cat:nan", 1, -math.inf),
        ("cat:1_0", "cat:1_0", 1, -math.inf),
        ("cat:٣", "cat:٣", 1, -math.inf),
        ("cat:", "cat:", 1, -math.inf),
        ("https://a.b/c.png", "https://a.b/c.png", 1, -math.inf),
        ("https://a.b/c.png:2", "https://a.b/c.png", 2, -math.inf),
        ("https://a.b:8080/c.png:2:0.5", "https://a.b:8080/c.png", 2, 0.5),
        ("https://a.b:8080", "https://a.b:8080", 1, -math.inf),
        ("https://a.b:8080:3", "https://a.b:8080", 3, -math.inf),
        ("a clock at 12:30", "a clock at 12:30", 1, -math.inf),
        ("a clock at 12:30:2", "a clock at 12:30", 2, -math.inf),
        ("a clock at 12:30.0", "a clock at 12", 30, -math.inf),
        ("Blade Runner 2049:2", "Blade Runner 2049", 2, -math.inf),
        (r"C:\pictures\a.png:2", r"C:\pictures\a.png", 2, -math.inf),
    ],
)
def test_weights_and_colons(text, words, weight, stop):
    (found,) = parse(text)
    assert (found.text, found.weight, found.stop) == (words, weight, stop)


def test_several_prompts():
    found = parse(" a castle:2 || fog:-0.5 | ")
    assert found == (Wish(text="a castle", weight=2.0), Wish(text="fog", weight=-0.5))
    assert parse(" | ") == ()


def test_all_kinds_in_one_request():
    found = wishes("castle", "fog:2|people", images="a.png:0.5", noises="7:0.1")
    assert [(each.kind, each.text, each.weight) for each in found] == [
        ("text", "castle", 1.0),
        ("text", "fog", -2.0),
        ("text", "people", -1.0),
        ("image", "a.png", 0.5),
        ("noise", "7", 0.1),
    ]


@pytest.mark.parametrize(
    ("text", "kind", "error"),
    [
        (":2", "text", PromptError),
        ("castle:inf", "text", OptionError),
        ("castle:1e9", "text", OptionError),
        ("castle:1:1e99", "text", OptionError),
        ("seven:1", "noise", PromptError),
        ("-1", "noise", PromptError),
        ("|".join("a" * (MOST + 1)), "text", LimitError),
    ],
)
def test_a_sentence_each(text, kind, error):
    with pytest.raises(error):
        parse(text, kind)


def test_nothing_to_aim_for():
    with pytest.raises(PromptError, match="nothing to aim for"):
        wishes(" | ")


def weights(found):
    return [each.weight for each in found]


def test_scaling():
    found = parse("a:3|b:-1")
    assert weights(scaled(found, "none")) == [3, -1]
    assert weights(scaled(found, "absolute")) == [0.75, -0.25]
    assert weights(scaled(found, "sum")) == [1.5, -0.5]
    assert weights(scaled(parse("a:3|b:-4"), "square")) == [0.6, -0.8]
    # A sum below zero keeps the signs.
    assert weights(scaled(parse("a:1|b:-3"), "sum")) == [0.5, -1.5]


@pytest.mark.parametrize(
    ("text", "how"), [("a:1|b:-1", "sum"), ("a:0", "absolute"), ("a:0", "square"), ("a:0|b:0", "none"), ("a:0", "sum")]
)
def test_weights_that_pull_nowhere(text, how):
    with pytest.raises(OptionError, match="sum to about zero"):
        scaled(parse(text), how)


@given(st.text(alphabet="ab:|.-+0123456789e/ inf", max_size=40))
def test_any_text_is_read_or_refused(text):
    try:
        found = parse(text)
    except (PromptError, OptionError):
        return
    for each in found:
        assert each.text and each.text == each.text.strip() and math.isfinite(each.weight) and not math.isnan(each.stop)


@pytest.mark.parametrize("text", [":" * 32_000, "1:" * 16_000, "a:" + "1" * 32_000, "http://" + ":1" * 15_000])
def test_hostile_text_is_read_in_no_time(text, second):
    began = time.process_time()
    try:
        parse(text)
    except (PromptError, OptionError):
        pass
    assert time.process_time() - began < 0.2 * second


def test_no_torch():
    code = "import sys, mindseye.critique.grammar; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
