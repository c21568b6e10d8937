"""Schedules and keyframes, against Python's own lists and numpy's interpolation."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindseye.errors import LimitError, OptionError
from mindseye.text.keyframes import forward_filled, read_keyframes, read_schedule


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("[12]*400+[4]*600", [12] * 400 + [4] * 600),
        ("[0.2]*400+[0]*600", [0.2] * 400 + [0] * 600),
        ("[1]*1000", [1] * 1000),
        ("[14]*200+[12]*200+[4]*400+[0]*200", [14] * 200 + [12] * 200 + [4] * 400 + [0] * 200),
        (" 400 * [ 5 ] + [ 1 , -2.5 ] * 300 ", [5] * 400 + [1, -2.5] * 300),
        ("[2]*10*100", [2] * 1000),
    ],
)
def test_schedules_are_what_python_makes_of_them(text, entries):
    schedule = read_schedule(text)
    assert len(schedule) == 1000
    assert [schedule(1 - (t + 1) / 1000) for t in range(999, -1, -1)] == entries
    again = read_schedule(str(schedule))
    assert [again(i / 1000) for i in range(1000)] == entries


def test_other_lengths_are_stretched_and_a_number_holds_throughout():
    assert [read_schedule("[1,2,3]")(share) for share in (0, 0.3, 0.34, 0.7, 1.0)] == [1, 1, 2, 3, 3]
    assert read_schedule("8")(0.5) == 8
    assert read_schedule("-1.5e-1")(0.5) == -0.15
    assert read_schedule("[7]*0+[4]*2")(0) == 4


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')", "[x for x in range(9)]", "[4]**9", "[12]*400+", "[]", "", "[1]*-3",
        "[1]*2.5", "[1]-[2]", "(4)", "[1][2]", "[4]*", "lambda: 4", "[nan]", "[1e999]", "[4]*0",
        "[4]*9999999999999", "4 5",
    ],
)  # fmt: skip
def test_anything_else_is_refused_in_a_sentence(text):
    with pytest.raises((OptionError, LimitError)) as caught:
        read_schedule(text)
    assert len(caught.value.message) < 300


def test_ranges_are_kept():
    assert read_schedule("[0]*4", low=0, high=64)(0) == 0
    with pytest.raises(OptionError, match="out of range: 0 to 64"):
        read_schedule("[65]*4", low=0, high=64)
    with pytest.raises(OptionError, match="frame 3 is out of range"):
        read_keyframes("3: (0)", low=0.1)


@given(
    st.dictionaries(st.integers(0, 300), st.floats(-9, 9).map(lambda x: round(x, 3)), min_size=1, max_size=6),
    st.integers(0, 400),
)
def test_keyframes_are_joined_by_straight_lines(given_values, frame):
    text = ", ".join(f"{key}: ({value})" for key, value in given_values.items())
    keys = sorted(given_values)
    wanted = np.interp(frame, keys, [given_values[key] for key in keys])
    assert read_keyframes(text)(frame) == pytest.approx(wanted, abs=1e-9)


def test_keyframes_as_disco_writes_them():
    zoom = read_keyframes("0: (1), 10: (1.05)")
    assert (zoom(0), zoom(5), zoom(10), zoom(99)) == (1, pytest.approx(1.025), 1.05, 1.05)
    assert str(zoom) == "0: (1), 10: (1.05)"
    assert read_keyframes("0:-1.5, 4:+2")(2) == 0.25
    assert read_keyframes("1.5")(7) == 1.5


@pytest.mark.parametrize(
    "text", ["", "0: (1+t)", "0: (sin(3))", "0: (1), 0: (2)", "0 (1)", "-3: (1)", "0: (1", "0: (1) 4: (2)", "a: (1)"]
)
def test_formulas_are_not_evaluated(text):
    with pytest.raises(OptionError):
        read_keyframes(text)


def test_prompts_hold_until_the_next():
    prompts = {10: ["b"], 0: ["a"], 30: ["c"]}
    assert [forward_filled(prompts, frame)[0] for frame in (0, 9, 10, 29, 30, 400)] == list("aabbcc")
    assert forward_filled({5: ["late"]}, 0) == ["late"]
    assert forward_filled({}, 3) == ()


@pytest.mark.parametrize("unit", ["[1]*1+", "0: (1), ", "[", "(", "1" * 50, " ", "+-", "1e", "*[1"])
def test_hostile_texts_take_no_time(unit, second):
    text = (unit * 10_000)[:10_000]
    start = time.process_time()
    for read in (read_schedule, read_keyframes):
        try:
            read(text)
        except (OptionError, LimitError):
            pass
    assert time.process_time() - start < 2 * second
    with pytest.raises(LimitError):
        read_schedule("1" * 10_001)
