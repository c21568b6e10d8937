"""Shapes that are checked in every test: each kind of call once, and each wrong one."""

import beartype
import pytest
import torch
from jaxtyping import Float, TypeCheckError
from tests.checks import checked, kind
from torch import Tensor


@pytest.fixture
def looks():
    """What was looked at: arguments, and arguments with an answer."""
    return []


@pytest.fixture
def watched(looks):
    """Decorates as the import hook does."""

    def typechecker(function):
        strict = beartype.beartype(function)

        def look(*args, **kwargs):
            looks.append(args)
            return strict(*args, **kwargs)

        return look

    return checked(typechecker=typechecker)


def test_a_call_like_one_before_is_not_looked_at_again(watched, looks):
    @watched
    def total(x: Float[Tensor, "N D"], times: int = 1) -> Float[Tensor, "N"]:
        return times * x.sum(1)

    assert total(torch.ones(2, 3)).tolist() == [3, 3]
    assert len(looks) == 2
    assert total(torch.zeros(2, 3)).tolist() == [0, 0] and len(looks) == 2
    for number, call in enumerate(
        (
            lambda: total(torch.ones(2, 4)),
            lambda: total(torch.ones(2, 3, dtype=torch.float64)),
            lambda: total(torch.ones(2, 3), 2),
            lambda: total(torch.ones(2, 3), times=2),
        )
    ):
        for _ in range(2):
            call()
            assert len(looks) == 4 + 2 * number


def test_wrong_arguments_are_refused_every_time(watched):
    @watched
    def product(x: Float[Tensor, "N D"], y: Float[Tensor, "D M"]) -> Float[Tensor, "N M"]:
        return x @ y

    right, wrong = torch.ones(2, 3), torch.ones(4, 2)
    for _ in range(2):
        assert product(right, right.T).shape == (2, 2)
        with pytest.raises(TypeCheckError, match="parameters"):
            product(right, wrong)
        with pytest.raises(TypeCheckError):
            product(right.int(), right.T)


def test_a_wrong_answer_to_a_right_question_is_refused(watched):
    answers = []
    calls = []

    @watched
    def answer(x: Float[Tensor, "N D"]) -> Float[Tensor, "N"]:
        calls.append(x)
        return answers.pop()

    x = torch.ones(2, 3)
    answers += [torch.ones(2, 1), torch.ones(3), torch.ones(2)]
    assert answer(x).shape == (2,)
    for _ in range(2):
        with pytest.raises(TypeCheckError, match="return value"):
            answer(x)
    answers.append(x[:, 0])
    assert answer(x).tolist() == [1, 1]
    assert len(calls) == 4  # each time once


def test_sides_by_value_and_things_in_lists(watched):
    @watched
    def ones(side: int, more: list[int]) -> Float[Tensor, "{side}"]:
        return torch.ones(2)

    assert len(ones(2, [])) == 2
    with pytest.raises(TypeCheckError):
        ones(3, [])
    with pytest.raises(TypeCheckError):
        ones(2, ["a"])
    with pytest.raises(TypeCheckError):
        ones(2, ["a"] * 100)


def test_kinds_say_what_annotations_ask():
    assert kind(1.0) == kind(2.0) and kind(1) != kind(2) and kind(1) != kind(True) and kind("a") != kind("b")
    assert kind((1, torch.ones(2))) == kind((1, torch.zeros(2))) != kind([1, torch.ones(2)])
    for nobody_knows in ({}, {"a": 1}, set(), [0] * 17, ({},)):
        with pytest.raises(TypeError):
            kind(nobody_knows)


def test_the_tests_run_with_it():
    from mindseye.nn.layers import Linear

    layer = Linear(2, 3)
    assert layer(torch.ones(1, 2)).shape == (1, 3)
    with pytest.raises(TypeCheckError):
        layer(torch.ones(1, 2, dtype=torch.int64))
