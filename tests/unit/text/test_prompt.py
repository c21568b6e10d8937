import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.errors import PromptError
from mindseye.text.prompt import NetworkUse, Span, attention, parse


def test_plain_text_stays_as_it_is():
    text = "  A photo of 3 cats, at 10:30 \u2014 \u6771\u4eac  \n"
    prompt = parse(text, steps=20)
    (branch,) = prompt.branches
    assert (prompt.text, prompt.networks) == (text, ())
    assert (branch.weight, branch.entries, branch.texts) == (1.0, ((20, text),), (text,))
    assert attention(branch.at(7)) == (Span(text, 1.0),)


def test_real_prompts_are_plain(material):
    lines = (material / "prompts/PartiPrompts.tsv").read_text(encoding="utf-8").splitlines()[1:]
    plain = 0
    for line in lines:
        text = line.split("\t")[0]
        (branch,) = parse(text, steps=20).branches
        assert branch.entries == ((20, text),)
        plain += attention(text) == (Span(text, 1.0),)
    assert plain > 0.97 * len(lines) > 1500


def test_networks_are_taken_out():
    prompt = parse("a <lora:Pixel Art:0.8> cat<lyco:x:te=0.5:unet=0.25><hypernet:h><lora:y:0.5:0.75>", steps=1)
    assert prompt.branches[0].text == "a  cat"
    assert prompt.networks == (
        NetworkUse("lora", "Pixel Art", ("0.8",)),
        NetworkUse("lyco", "x", ("te=0.5", "unet=0.25")),
        NetworkUse("hypernet", "h"),
        NetworkUse("lora", "y", ("0.5", "0.75")),
    )
    assert [(use.text_weight, use.unet_weight) for use in prompt.networks] == [
        (0.8, 0.8),
        (0.5, 0.25),
        (1, 1),
        (0.5, 0.75),
    ]


@pytest.mark.parametrize(
    ("use", "weights"),
    [
        (NetworkUse("lora", "x", ("te=0.5",)), (0.5, 0.5)),
        (NetworkUse("lora", "x", ("unet=0",)), (1, 0)),
        (NetworkUse("lora", "x", ("0.3", "unet=2")), (0.3, 2)),
        (NetworkUse("lora", "x", ("-1",)), (-1, -1)),
    ],
)
def test_network_weights(use, weights):
    assert (use.text_weight, use.unet_weight) == weights


def test_what_fits_is_asked_for_by_name():
    use, other = parse("<lora:x:0.5:partial=Yes><lora:y:0.5:1>", steps=1).networks
    assert use.partial and not other.partial
    assert (use.text_weight, use.unet_weight) == (0.5, 0.5)


@pytest.mark.parametrize("weight", ["much", "nan", "inf", ""])
def test_a_weight_that_is_none_is_named(weight):
    (use,) = parse(f"<lora:x:{weight}>", steps=1).networks
    with pytest.raises(PromptError, match="no number") as caught:
        assert use.unet_weight
    assert "<lora:x:0.8>" in caught.value.hint


@pytest.mark.parametrize("text", ["a < b > c", "<lora>", "<lora:>", "<:x>", "<lora:x", "1<2:3"])
def test_what_is_no_network_is_text(text):
    prompt = parse(text, steps=1)
    assert (prompt.branches[0].text, prompt.networks) == (text, ())


def test_branches():
    prompt = parse("a cat AND a dog :1.2 AND  [fog:2] : -.5  AND b : c AND WANDA", steps=4)
    assert [(branch.weight, branch.text) for branch in prompt.branches] == [
        (1.0, "a cat"),
        (1.2, " a dog"),
        (-0.5, "  [fog:2]"),
        (1.0, " b : c"),
        (1.0, " WANDA"),
    ]
    assert prompt.branches[2].entries == ((2, "  "), (4, "  fog"))


def test_a_negative_prompt_is_one_text():
    prompt = parse("a AND b <lora:x:1> [c::1]", steps=2, negative=True)
    assert prompt.networks == ()
    assert prompt.branches[0].entries == ((1, "a AND b <lora:x:1> c"), (2, "a AND b <lora:x:1> "))


def test_texts_are_encoded_once():
    (branch,) = parse("[a|b] [c:1.5]", steps=4, hires_steps=4).branches
    assert branch.entries == ((1, "a "), (2, "b "), (3, "a "), (4, "b "))
    assert branch.hires_entries == ((1, "a "), (2, "b "), (3, "a c"), (4, "b c"))
    assert branch.texts == ("a ", "b ", "a c", "b c")
    assert [branch.at(step) for step in (0, 1, 2, 9)] == ["a ", "a ", "b ", "b "]
    assert [branch.at(step, 2) for step in (1, 2)] == ["a ", "b "]
    assert parse("x", steps=4).branches[0].hires_entries == ()


@given(st.text(st.characters(), max_size=40), st.integers(1, 5), st.integers(0, 5))
def test_never_fails(text, steps, hires_steps):
    prompt = parse(text, steps=steps, hires_steps=hires_steps)
    assert prompt.branches
    for branch in prompt.branches:
        for each in branch.texts:
            assert attention(each)
