from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.errors import MindseyeError, PromptError, UnknownName
from mindseye.text.dynamic import combinations, expand, is_dynamic
from mindseye.text.wildcards import Wildcards

ALL = {
    "{a|b}": ["a", "b"],
    "{a|{b|c}} {d}": ["a d", "b d", "c d"],
    "{a|b} {c|d}": ["a c", "a d", "b c", "b d"],
    "{|very} good": ["good", "very good"],
    "{0.5::a|2::b|c}": ["a", "b", "c"],
    "{0::a|b}": ["b"],
    "{a|a}": ["a"],
    "{2$$a|b|c}": ["a,b", "a,c", "b,a", "b,c", "c,a", "c,b"],
    "{1-2$$ and $$a|b}": ["a", "b", "a and b", "b and a"],
    "{-2$$a|b}": ["a", "b", "a,b", "b,a"],
    "{2-$$ $$a|b}": ["a b", "b a"],
    "{9$$a|b}": ["a,b", "b,a"],
    "${x={a|b}}${x} ${x}": ["a a", "a b", "b a", "b b"],
    "${x=!{a|b}}${x} ${x}": ["a a", "b b"],
    "${x=a|b}${x}": ["a", "b"],
    "${x:c} ${x:{d|e}}": ["c d", "c e"],
    "${x=1}${y=${x}2}${x=3}${y}": ["32"],
    "a # b {c|d}\ne": ["a \ne"],
    "# b\n{c|d} #1 e#f": ["c #1 e#f", "d #1 e#f"],
    r"\{a\|b\} {c\|d|e}": [r"{a\|b} c|d", r"{a\|b} e"],
    r"(a:1.2) [b|c] \(d\) \\ {e}": [r"(a:1.2) [b|c] \(d\) \\ e"],
    r"\__a__ 5$ a_b } | __": ["__a__ 5$ a_b } | __"],
}


@pytest.mark.parametrize("text", ALL)
def test_all_texts(text):
    assert list(combinations(text)) == ALL[text]
    assert {expand(text, seed=seed) for seed in range(200)} == set(ALL[text])


@pytest.mark.parametrize(
    "text", ["", " a cat, (b:1.2) [c|d] AND e ", r"\(a\) \| 100%, $5 a_b } |", "the #1 cat", "a __ b"]
)
def test_what_has_no_syntax_comes_back_as_it_is(text):
    assert expand(text, seed=3) == text


def test_the_same_seed_gives_the_same_text():
    # Written down, so that a change of the way of drawing shows: pictures made before could not be made again.
    assert [expand("{a|b|c|d} {2$$ $$e|f|g} {1::h|3::i}", seed=seed) for seed in range(4)] == [
        "d g e i", "a g f i", "d g e h", "a f e i",
    ]  # fmt: skip


def test_weights_are_proportions():
    counts = Counter(expand("{3::a|b|0::c}", seed=seed) for seed in range(2000))
    assert counts["c"] == 0
    assert counts["a"] / 2000 == pytest.approx(0.75, abs=0.04)


def test_in_turn_and_at_random():
    assert [expand("{@a|b|c}", seed=seed) for seed in range(7, 11)] == ["b", "c", "a", "b"]
    assert combinations("{a|b|c} {@d|e}") == ("a d", "b e", "c d")
    assert len(combinations("{a|b} {~" + "|".join(map(str, range(1000))) + "}")) == 2


@pytest.fixture
def folder(tmp_path):
    for name, lines in {
        "colours": "red\nblue",
        "deep": "{dark|light} __colours__",
        "scene": "${who:a cat} in ${where}",
        "snake": "__snake__",
        "chick": "x\n__egg__",
        "egg": "__chick__",
    }.items():
        (tmp_path / f"{name}.txt").write_text(lines)
    return tmp_path


def test_wildcards(folder):
    assert combinations("__colours__ __deep__", wildcards=folder)[:3] == (
        "red dark red",
        "red dark blue",
        "red light red",
    )
    assert combinations("{2$$ $$__colours__}", wildcards=folder) == ("red blue", "blue red")
    assert combinations("__col*__", wildcards=Wildcards(folder)) == ("red", "blue")
    assert [expand("__@colours__", seed=seed, wildcards=folder) for seed in range(3)] == ["red", "blue", "red"]
    assert expand("__scene(who=a dog, where={mud})__ ${who:me}", seed=1, wildcards=folder) == "a dog in mud me"
    assert expand("__scene(where=mud)__", seed=1, wildcards=folder, variables={"who": "you"}) == "you in mud"


def test_variables_from_outside():
    assert combinations("${x}", variables={"x": "{a|b}"}) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a {b", "character 3 is never closed"),
        ("${x=a", "never closed"),
        ("${x}", "no variable named 'x'"),
        ("__none__", "no wildcard named 'none'"),
        ("__snake__", "contains itself: __snake__ -> __snake__"),
        ("${x=${y}}${y=${x}}${x}", "contains itself"),
        ("__scene(mud)__", "not of the form"),
        ("{" * 100 + "}" * 100, "open braces"),
        ("{a|b}" * 10_000, "more than 10,000"),
        ("".join(f"${{x{i}=${{x{i - 1}:a}}${{x{i - 1}:a}}}}" for i in range(1, 60)) + "${x59}", "choices"),
        ("".join(f"${{x{i}=!${{x{i - 1}:aaaaaaaa}}${{x{i - 1}:aaaaaaaa}}}}" for i in range(1, 60)), "grows"),
        ("".join(f"${{x{i}=${{x{i - 1}:a}}}}" for i in range(1, 300)) + "${x299}", "levels deep"),
    ],
)
def test_what_cannot_be_done_is_said(folder, text, says):
    with pytest.raises(MindseyeError, match=says):
        expand(text, seed=1, wildcards=folder)


def test_a_cycle_of_two_is_found(folder):
    with pytest.raises(PromptError, match="__chick__ -> __egg__ -> __chick__"):
        combinations("__chick__", wildcards=folder)


def test_without_a_folder():
    with pytest.raises(PromptError, match="no folder") as caught:
        expand("__colours__", seed=1)
    assert expand(r"\__colours__", seed=1) == "__colours__"
    assert r"\__colours__" in caught.value.hint


def test_a_billion_texts_are_too_many():
    with pytest.raises(PromptError, match="more than 100 texts"):
        combinations("{0|1|2|3|4|5|6|7|8|9}" * 9, 100)
    assert len(combinations("{0|1|2|3|4|5|6|7|8|9}" * 2, 100)) == 100


@given(
    st.lists(st.sampled_from([*"{{}}||$#_\\ab~@", "${x", "${", "__", "::", "$$", "2", "=", ":", "!", "(", ")"])).map(
        "".join
    )
)
def test_nothing_but_sentences(text):
    try:
        found = expand(text, seed=0)
    except (PromptError, UnknownName):
        return
    if not is_dynamic(text):
        assert found == text
