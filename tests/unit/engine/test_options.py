from dataclasses import dataclass, field
from typing import Literal

import pytest

from mindseye.engine.options import build, knobs
from mindseye.errors import OptionError, UnknownName


@dataclass(frozen=True, kw_only=True)
class Options:
    shift: float = field(default=3.0, metadata={"help": "How far.", "low": 0.1, "high": 10})
    rounds: int = field(default=2, metadata={"help": "How often.", "low": 1})
    karras: bool = field(default=False, metadata={"help": "Whether."})
    mood: Literal["calm", "wild"] = field(default="calm", metadata={"help": "Which."})
    scale: float = field(default=1.0, metadata={"help": "Without bounds."})
    note: str = field(default="", metadata={"help": "Any text."})


def test_nothing_given_is_the_defaults():
    assert build(Options, {}, owner="x") == Options()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("shift", "2.5", 2.5),
        ("shift", 2, 2.0),
        ("rounds", "4", 4),
        ("rounds", 4.0, 4),
        ("rounds", str(2**60 + 1), 2**60 + 1),
        ("karras", "yes", True),
        ("karras", "OFF", False),
        ("karras", True, True),
        ("mood", "wild", "wild"),
        ("note", "a=b, c", "a=b, c"),
        ("note", "3", "3"),
    ],
)
def test_values_are_read_as_their_type(name, value, read):
    found = getattr(build(Options, {name: value}, owner="x"), name)
    assert found == read and type(found) is type(read)


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("shift", "much", "a number"),
        ("shift", "11", "within 0.1 and 10"),
        ("shift", "nan", "within"),
        ("scale", "inf", "within"),
        ("scale", "-1e999", "within"),
        ("rounds", "2.5", "a whole number"),
        ("rounds", 0, "within 1 and inf"),
        ("rounds", "1e400", "a whole number"),
        ("rounds", True, "a whole number"),
        ("karras", "2", "true or false"),
        ("mood", "wlid", "no value of option mood named 'wlid'"),
    ],
)
def test_what_does_not_fit_is_a_sentence(name, value, says):
    with pytest.raises((OptionError, UnknownName), match=says):
        build(Options, {name: value}, owner="x")


def test_an_unknown_option_names_the_nearest():
    with pytest.raises(UnknownName, match="option of the-card") as caught:
        build(Options, {"shfit": 1}, owner="the-card")
    assert caught.value.nearest == "shift"


def test_knobs_describe_the_schema_in_order():
    found = {knob.name: knob for knob in knobs(Options)}
    assert list(found) == ["shift", "rounds", "karras", "mood", "scale", "note"]
    assert found["mood"].choices == ("calm", "wild") and found["mood"].type is str
    assert (found["shift"].low, found["shift"].high, found["shift"].help) == (0.1, 10, "How far.")
