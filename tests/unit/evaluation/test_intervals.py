"""Intervals against published values, independent formulas, and how often they hold."""

import math

import numpy as np
import pytest

from mindseye.evaluation.intervals import jackknife, mean, share


def test_wilsons_interval_against_its_published_examples():
    # Newcombe 1998, table I, method 3.
    for hits, n, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        got = share([True] * hits + [False] * (n - hits))
        assert (got.value, got.n) == (hits / n, n)
        assert got.low == pytest.approx(low, abs=6e-5)
        assert got.high == pytest.approx(high, abs=6e-5)


def test_all_hits_end_at_one():
    got = share([True] * 5)
    assert got.high == 1.0
    assert got.low == pytest.approx(1 - share([False] * 5).high)


def test_of_nothing_nothing_is_known():
    assert math.isnan(share([]).value)
    assert math.isnan(mean([]).low)


def test_bootstrap_of_a_mean_agrees_with_the_normal_interval_and_repeats():
    x = np.random.default_rng(0).normal(3, 2, 400)
    got = mean(x.tolist())
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert got.value == pytest.approx(x.mean())
    assert got.high - got.low == pytest.approx(2 * half, rel=0.08)
    assert got == mean(x.tolist())
    assert got != mean(x.tolist(), seed=1)


def test_jackknife_of_a_mean_is_its_standard_error():
    x = np.random.default_rng(1).normal(size=1000)
    got = jackknife(lambda kept: float(x[kept].mean()), len(x), groups=1000)
    assert got.high - got.value == pytest.approx(1.96 * x.std(ddof=1) / math.sqrt(len(x)), rel=1e-3)
    with pytest.raises(ValueError, match="10 groups"):
        jackknife(lambda kept: 0.0, 9)


def test_jackknifed_intervals_hold_the_truth_about_as_often_as_they_say():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(200):
        x = rng.normal(size=200)
        _, low, high, _ = jackknife(lambda kept, x=x: float(x[kept].std()), 200, groups=20)
        held += low <= 1 <= high
    assert 0.89 <= held / 200 <= 0.99
