import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.text.schedule import Schedule

ALL = {
    "test": {10: "test"},
    "": {10: ""},
    "a [b:3]": {3: "a ", 10: "a b"},
    "a [b: 3]": {3: "a ", 10: "a b"},
    "a [[[b]]:2]": {2: "a ", 10: "a [[b]]"},
    "[(a:2):3]": {3: "", 10: "(a:2)"},
    "a [b : c : 1] d": {1: "a b  d", 10: "a  c  d"},
    "a[b:[c:d:2]:1]e": {1: "abe", 2: "ace", 10: "ade"},
    "a [unbalanced": {10: "a [unbalanced"},
    "a [b:.5] c": {5: "a  c", 10: "a b c"},
    "a [cat:dog:0.5] b": {5: "a cat b", 10: "a dog b"},
    "((a][:b:c [d:3]": {3: "((a][:b:c ", 10: "((a][:b:c d"},
    "[fe|]male": {i: "male" if i % 2 == 0 else "female" for i in range(1, 11)},
    "[a|(b:1.1)]": {i: "(b:1.1)" if i % 2 == 0 else "a" for i in range(1, 11)},
    "[fe|||]male": {i: "female" if i % 4 == 1 else "male" for i in range(1, 11)},
    "a [{b|d{:.5] c": {10: "a [{b|d{:.5] c"},  # a bar outside of brackets of its own: nothing counts any more
    "[a:b:2] | c": {10: "[a:b:2] | c"},
    "[a:b:2] (c|d)": {10: "[a:b:2] (c|d)"},
    "[a:b:2] c\\": {10: "[a:b:2] c\\"},
    "[a\\:b:c\\]:2]": {2: "a\\:b", 10: "c\\]"},
    "[a::2]": {2: "a", 10: ""},
    "[:a:2]": {2: "", 10: "a"},
    "[a:b:c:2]": {10: "[a:b:c:2]"},
    "[a:b:c]": {10: "[a:b:c]"},
    "(a:[b|c:1.2])": {10: "(a:[b|c:1.2])"},
    "(a:b:c [d::1])": {1: "(a:b:c d)", 10: "(a:b:c )"},
    "[[a|b]:c:3]": {1: "a", 2: "b", 3: "a", 10: "c"},
    "[a|[b|c]]": {i: "a" if i % 2 else "c" for i in range(1, 11)},  # steps 2, 4, ... are even for the inner one, too
    "[a:b:-1]": {10: "b"},
    "[a:b:99]": {10: "a"},
    "[a:b:1e1]": {10: "a"},
    "[a:b:1e999]": {10: "a"},
    "[a:b:1.]": {10: "a"},  # a fraction, for it has a point
    "[a:b:0.29]": {2: "a", 10: "b"},
}


def steps(entries, count):
    return [next(entry.text for entry in entries if step <= entry.until) for step in range(1, count + 1)]


@pytest.mark.parametrize("text", ALL)
def test_ten_steps(text):
    wanted = [next(what for until, what in ALL[text].items() if step <= until) for step in range(1, 11)]
    schedule = Schedule(text)
    entries = schedule.entries(10)
    assert steps(entries, 10) == wanted
    assert [schedule.at(step, 10) for step in range(1, 11)] == wanted
    assert entries[-1].until == 10
    assert all(one.text != other.text for one, other in zip(entries, entries[1:], strict=False))
    assert schedule.varies or entries == ((10, text),)


def test_steps_outside_are_the_nearest():
    schedule = Schedule("[a|b]")
    assert (schedule.at(0, 3), schedule.at(7, 3)) == ("a", "a")


def test_second_pass():
    # Halves of the first pass are over in the second one; 1.5 is half of that; whole numbers go on counting.
    assert Schedule("a [b:.5] c").entries(10, after=10) == ((10, "a b c"),)
    assert Schedule("a [b:1.5] c").entries(10) == ((10, "a  c"),)
    assert Schedule("a [b:1.5] c").entries(8, after=10) == ((4, "a  c"), (8, "a b c"))
    assert Schedule("a [b:13] c").entries(8, after=10) == ((3, "a  c"), (8, "a b c"))
    assert Schedule("a [b:13] c").entries(10) == ((10, "a  c"),)


def slow(text, step, count):
    """The same by rewriting: again and again the innermost brackets become one letter, if they are well formed."""
    texts = []  # of the letters from U+E000 on
    masked = re.sub(r"\\[^\n]", lambda found: keep(found[0]), text) if (keep := _keeper(texts)) else text
    if "\\" in masked:
        return text
    number = r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*"
    while True:
        found = re.search(r"\[[^][()]*\]|\([^][()]*\)", masked)
        if found is None:
            break
        group = found[0]
        if POISON in group:
            chosen = None
        elif group[0] == "(":
            chosen = group if group.count(":") <= 1 and "|" not in group else None
        elif "|" in group:
            options = group[1:-1].split("|")
            chosen = options[(step - 1) % len(options)] if ":" not in group else None
        elif ":" in group:
            *fields, when = group[1:-1].split(":")
            match = re.fullmatch(number, when)
            chosen = None
            if match and len(fields) <= 2:
                last = float(match[1]) * (count if "." in match[1] else 1)
                chosen = fields[-1] if step > min(count, int(last)) else "".join(fields[:-1])
        else:
            chosen = group
        if chosen is None:  # both are text, and so is every bracket around them
            chosen = POISON + keep(group[0]) + group[1:-1] + POISON + keep(group[-1])
            masked = masked[: found.start()] + chosen + masked[found.end() :]
        else:
            masked = masked[: found.start()] + keep(chosen) + masked[found.end() :]
    if "|" in masked:
        return text
    while any(ord(letter) >= FIRST for letter in masked):
        masked = "".join(texts[ord(letter) - FIRST] if ord(letter) >= FIRST else letter for letter in masked)
    return masked.replace(POISON, "")


FIRST, POISON = 0xE000, "\0"


def _keeper(texts):
    def keep(text):
        texts.append(text)
        return chr(FIRST + len(texts) - 1)

    return keep


PIECES = st.lists(st.sampled_from([*"[[]]():|a", "b", "2", ":2]", ":.5]", "[c|", "\\]", " "]), max_size=14).map("".join)


@given(PIECES)
def test_equals_rewriting(text):
    # Stray brackets inside of well-formed ones: rewriting takes the inner pair first, the scan the nearest match.
    schedule = Schedule(text)
    for step in (1, 2, 5):
        assert schedule.at(step, 5) == slow(text, step, 5)


@given(st.text(st.characters(), max_size=30), st.integers(1, 7), st.integers(0, 9))
def test_never_fails(text, count, after):
    entries = Schedule(text).entries(count, after=after)
    assert [entry.until for entry in entries] == sorted({entry.until for entry in entries})
    assert entries[-1].until == count


def test_nested_alternatives_do_not_multiply():
    assert len(Schedule("[a|" * 2_000 + "b" + "]" * 2_000).entries(150)) == 150
