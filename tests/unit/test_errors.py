import inspect

import pytest

from mindseye import errors
from mindseye.errors import MindseyeError, Missing, UnknownName, nearest

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, MindseyeError)]


@pytest.mark.parametrize("kind", TREE, ids=lambda kind: kind.__name__)
def test_every_error_is_drawn_in_the_tree_with_its_codes(kind):
    line = next(line for line in errors.__doc__.splitlines() if line.strip(" │├└─").split(" ")[0] == kind.__name__)
    assert f"http {kind.http_status}" in line
    inherited = kind is not MindseyeError and kind.exit_code == kind.__mro__[1].exit_code
    assert f"exit {kind.exit_code}" in line or inherited


def test_exit_codes_are_those_the_readme_promises():
    by_name = {kind.__name__: kind.exit_code for kind in TREE}
    assert by_name["Interrupted"] == 130
    assert by_name["WeightsMissing"] == 3
    assert {by_name[name] for name in ("UnknownName", "OptionError", "SizeError", "PromptError", "ImageError")} == {2}
    assert {by_name[name] for name in ("WeightsError", "OutputError", "DataError", "Missing")} == {1}


def test_unknown_name_lists_what_exists_and_the_nearest():
    error = UnknownName("sampler", "Eular", ["euler", "heun", "dpmpp-2m"])
    assert error.message == "there is no sampler named 'Eular'; known: euler, heun, dpmpp-2m"
    assert error.hint == "did you mean 'euler'?"


def test_unknown_name_without_anything_like_it_has_no_false_hint():
    assert UnknownName("sampler", "qqqqq", ["euler"]).hint == ""


@pytest.mark.parametrize(
    ("asked", "found"), [("stable-difusion", "stable-diffusion-pocket"), ("HEUN", "heun"), ("zzz", None), ("", None)]
)
def test_nearest(asked, found):
    assert nearest(asked, ["stable-diffusion-pocket", "heun"]) == found


def test_missing_extra_says_what_to_type():
    assert Missing("train", "training").hint == 'pip install "mindseye[train]"'
