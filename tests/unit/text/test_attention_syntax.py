import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.text.attention_syntax import BREAK, Span, attention


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("normal text", [("normal text", 1.0)]),
        ("", [("", 1.0)]),
        ("a: b, 3:4", [("a: b, 3:4", 1.0)]),
        ("an (important) word", [("an ", 1.0), ("important", 1.1), (" word", 1.0)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        ("[unbalanced", [("unbalanced", 1 / 1.1)]),
        ("unbalanced) ]", [("unbalanced) ]", 1.0)]),
        (r"\(literal\] \\ \a", [(r"(literal] \ a", 1.0)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        ("(x:1.3) [y] (z:0) (q:-1) (v: .5 )", [("x", 1.3), (" ", 1), ("y", 1 / 1.1), (" ", 1), ("z", 0), (" ", 1)]
         + [("q", -1), (" ", 1), ("v", 0.5)]),
        ("x:1.3)", [("x:1.3)", 1.0)]),
        ("(x:1.2.3)", [("x:1.2.3", 1.1)]),
        ("[x:1.3]", [("x:1.3", 1 / 1.1)]),
        ("((a) [b]:2)", [("a", 2.2), (" ", 2.0), ("b", 2 / 1.1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1.0), (" c", 1 / 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1.0),
                ("house", 1.3 * 1.1 * 1.1),
                (" ", 1.1),
                ("on", 1.0),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.1**4),
                (".", 1.1),
            ],
        ),
    ],
)  # fmt: skip
def test_table(text, spans):
    found = attention(text)
    assert [span.text for span in found] == [text for text, _ in spans]
    assert [span.weight for span in found] == pytest.approx([weight for _, weight in spans])


def test_breaks():
    assert attention("a BREAK  b") == (Span("a"), BREAK, Span("b"))
    assert attention("BREAK a BREAKS") == (BREAK, Span("a BREAKS"))
    assert attention("a\nBREAK") == (Span("a"), BREAK)
    assert attention("(a BREAK b)") == (Span("a", 1.1), BREAK, Span("b", 1.1))
    assert attention("a BREAK BREAK b") == (Span("a"), BREAK, BREAK, Span("b"))
    assert attention("a:BREAK:b") == (Span("a:"), BREAK, Span(":b"))
    assert attention("break") == (Span("break"),)


def slow(text):
    """(letter, weight) by the definition: a closing bracket multiplies whatever stands since the opening one."""
    letters: list[list] = []
    opened = {"(": [], "[": []}

    def close(kind, factor):
        for letter in letters[opened[kind].pop() :]:
            letter[1] *= factor

    at = 0
    while at < len(text):
        sign = text[at]
        number = re.match(r":\s*([+-]?[.\d]+)\s*\)", text[at:], re.ASCII)
        if sign == "\\":
            if text[at + 1 : at + 2] in set("\\()[]"):
                at += 1
                letters.append([text[at], 1.0])
        elif sign in opened:
            opened[sign].append(len(letters))
        elif sign == "]" and opened["["]:
            close("[", 1 / 1.1)
        elif number and opened["("] and number[1].count(".") < 2 and re.search(r"\d", number[1]):
            close("(", float(number[1]))
            at += len(number[0]) - 1
        elif sign == ")" and opened["("]:
            close("(", 1.1)
        else:
            letters.append([sign, 1.0])
        at += 1
    for kind, factor in (("(", 1.1), ("[", 1 / 1.1)):
        while opened[kind]:
            close(kind, factor)
    return letters


SIGNS = st.lists(st.sampled_from([*"(()[]):", "a", " ", ":1.5)", ":.5)", ": 2 )", ":1.2.3)", ":.)", "\\", "((", "))"]))


@given(SIGNS.map("".join))
def test_equals_the_definition(text):
    spans = attention(text)
    letters = slow(text)
    assert "".join(span.text for span in spans) == "".join(letter for letter, _ in letters)
    mine = [span.weight for span in spans for _ in span.text]
    assert mine == pytest.approx([weight for _, weight in letters])
    assert all(one.weight != other.weight for one, other in zip(spans, spans[1:], strict=False))


@given(st.text(st.characters()))
def test_never_fails(text):
    spans = attention(text)
    assert spans
    if not set("()[]\\") & set(text) and "BREAK" not in text:
        assert spans == (Span(text),)


def test_weights_stay_finite():
    assert attention("(" * 100_000 + "a") == (Span("a", 1e6),)
    assert attention("[" * 100_000 + "a")[0].weight == pytest.approx(0)
    assert attention("(a:-9999999)") == (Span("a", -1e6),)
