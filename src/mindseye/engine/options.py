"""A system's own knobs: one frozen dataclass says their names, types, bounds and help, for every door alike.

A field of `System.Options` carries `metadata={"help": ..., "low": ..., "high": ..., "choices": ...}`, all but the help
being optional. Values come as Python values from the library and as text from the command line (`--set name=text`).
"""

import dataclasses
import math
import typing
from collections.abc import Mapping
from typing import Any, NamedTuple

from mindseye.errors import OptionError, UnknownName
from mindseye.request import Scalar

_TRUE, _FALSE = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


class Knob(NamedTuple):
    """One option, as help texts and forms want to know it."""

    name: str
    type: type
    default: Any
    help: str
    low: float | None
    high: float | None
    choices: tuple[Any, ...]


def knobs(schema: type) -> tuple[Knob, ...]:
    """The options of a system, in the order its dataclass declares them."""
    found = []
    hints = typing.get_type_hints(schema)
    for each in dataclasses.fields(schema):
        kind, about = hints[each.name], each.metadata
        choices = tuple(about.get("choices", ()))
        if typing.get_origin(kind) is typing.Literal:
            choices = typing.get_args(kind)
            kind = type(choices[0])
        default = each.default if each.default_factory is dataclasses.MISSING else each.default_factory()
        found.append(
            Knob(each.name, kind, default, about.get("help", ""), about.get("low"), about.get("high"), choices)
        )
    return tuple(found)


def build(schema: type, values: Mapping[str, Scalar], *, owner: str) -> Any:
    """An instance of the schema from loose values.

    Args:
        schema: The frozen dataclass `System.Options`.
        values: By name; text is read as the field's type.
        owner: Name of the card, for the sentences.

    Raises:
        UnknownName: No option of that name.
        OptionError: A value of the wrong type, out of its bounds or not among its choices.
    """
    by_name = {knob.name: knob for knob in knobs(schema)}
    for name in values:
        if name not in by_name:
            raise UnknownName(f"option of {owner}", name, by_name)
    return schema(**{name: _read(by_name[name], value) for name, value in values.items()})


def _read(knob: Knob, value: Scalar) -> Scalar:
    """One value, as its knob's type and within its bounds."""
    read = _convert(knob, value)
    if knob.choices and read not in knob.choices:
        raise UnknownName(f"value of option {knob.name}", str(value), [str(choice) for choice in knob.choices])
    if isinstance(read, (int, float)) and not isinstance(read, bool):
        low = -math.inf if knob.low is None else knob.low
        high = math.inf if knob.high is None else knob.high
        if not low <= read <= high or math.isinf(read):
            raise OptionError(f"option {knob.name} is {value}; it must lie within {low:g} and {high:g}", hint=knob.help)
    return read


def _convert(knob: Knob, value: Scalar) -> Scalar:
    """One value as its knob's type; whole floats serve as integers, nothing serves as a bool but a bool or its name."""
    text = str(value).strip()
    try:
        if knob.type is bool:
            if text.lower() in _TRUE + _FALSE:
                return text.lower() in _TRUE
        elif isinstance(value, bool):
            pass
        elif knob.type is int:
            if float(text).is_integer():
                return int(float(text)) if abs(float(text)) < 2**53 else int(text)
        elif knob.type is float:
            return float(text)
        elif knob.type is str:
            return str(value)
    except (ValueError, OverflowError):
        pass
    kind = {bool: "true or false", int: "a whole number", float: "a number"}.get(knob.type, "text")
    raise OptionError(f"option {knob.name} is {value!r}; it must be {kind}", hint=knob.help)
