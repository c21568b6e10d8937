"""Numbers of the tables are those published with the models; plans are those every implementation agrees on."""

import math

import pytest
import torch

from mindseye.diffusion.schedule import (
    SCHEDULES,
    SPACINGS,
    RectifiedFlow,
    Tabulated,
    cosine,
    linear,
    scaled_linear,
    spacing,
)
from mindseye.errors import OptionError, UnknownName


def times(name, schedule, steps, **knobs):
    return schedule.timestep(spacing(name, schedule, steps, **knobs)[:-1]).tolist()


@pytest.mark.parametrize(
    ("table", "first", "last", "low", "high"),
    [
        (linear, 0.9999, 4.036e-5, 0.0100, 157.4073),
        (scaled_linear, 0.99915, 0.0046601, 0.029168, 14.614647),
        (cosine, 0.99995869, 2.429e-9, None, 4096),  # sigma 20291, held at 2**-24 of the variance
    ],
)
def test_ends_of_the_tables(table, first, last, low, high):
    schedule = table()
    assert float(schedule.alphas_bar[0]) == pytest.approx(first, rel=1e-4)
    assert float(schedule.alphas_bar[-1]) == pytest.approx(last, rel=1e-3)
    if low is not None:
        assert schedule.span[0] == pytest.approx(low, rel=2e-3)
    assert schedule.span[1] == pytest.approx(high, rel=1e-5)
    assert schedule.alphas_bar.dtype == torch.float64


def test_cosine_is_its_formula_until_the_cap():
    u = torch.arange(1, 900, dtype=torch.float64) / 1000
    f = ((u + 0.008) / 1.008 * math.pi / 2).cos() ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    torch.testing.assert_close(cosine().alphas_bar[:899], f, rtol=1e-10, atol=0)


def test_zero_terminal_keeps_the_first_and_zeroes_the_last():
    table = scaled_linear()
    stretched = table.zero_terminal()
    assert float(stretched.alphas_bar[0]) == pytest.approx(float(table.alphas_bar[0]), rel=1e-12)
    assert float(stretched.alphas_bar[-1]) == 0
    assert float(stretched.alphas_bar[-2]) == pytest.approx(1.97e-7, rel=0.01)
    assert stretched.span[1] == pytest.approx(4096, rel=1e-6)
    assert times("trailing", stretched, 4)[0] == 999


@pytest.mark.parametrize("name", SCHEDULES)
def test_timestep_undoes_sigma(name):
    schedule = SCHEDULES[name]()
    t = torch.linspace(schedule.first, schedule.first + schedule.steps - 2, 777, dtype=torch.float64)
    if name == "cosine":
        t = t[t < 990]  # beyond, the table is flat
    torch.testing.assert_close(schedule.timestep(schedule.sigma(t)), t, rtol=1e-9, atol=1e-9)
    assert (schedule.sigma(t).diff() > 0).all()


def test_entries_of_the_table_are_met_exactly_and_ends_hold():
    schedule = scaled_linear()
    whole = torch.arange(1000, dtype=torch.float64)
    torch.testing.assert_close(schedule.timestep(schedule.sigmas), whole, rtol=0, atol=1e-9)
    assert schedule.timestep(torch.tensor([0.0, 1e9])).tolist() == [0, 999]
    between = schedule.sigma(torch.tensor(500.5))
    assert float(between) == pytest.approx(float((schedule.sigmas[500] * schedule.sigmas[501]).sqrt()), rel=1e-12)


def test_signal_and_noise_of_a_table_have_unit_power():
    sigma = torch.tensor([0.0, 0.1, 3.0, 157.0], dtype=torch.float64)
    signal = scaled_linear().signal(sigma)
    torch.testing.assert_close(signal**2 + (signal * sigma) ** 2, torch.ones(4, dtype=torch.float64))


def test_signal_and_noise_of_a_flow_sum_to_one():
    t = torch.tensor([0.0, 0.25, 0.5, 0.999], dtype=torch.float64)
    schedule = RectifiedFlow()
    sigma = schedule.sigma(1000 * t)
    torch.testing.assert_close(schedule.signal(sigma), 1 - t)
    torch.testing.assert_close(schedule.signal(sigma) * sigma, t)


@pytest.mark.parametrize(
    ("name", "knobs", "expected"),
    [
        ("leading", {"offset": 1}, [901, 801, 701, 601, 501, 401, 301, 201, 101, 1]),
        ("trailing", {}, [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
        ("linspace", {}, [999, 888, 777, 666, 555, 444, 333, 222, 111, 0]),
        ("linspace-open", {}, [999, 899, 799, 699, 599, 500, 400, 300, 200, 100]),
        ("karras", {}, [999, 916.28, 815.05, 687.15, 523.20, 327.15, 145.94, 40.86, 6.73, 0]),
    ],
)
def test_plans_of_ten_steps(name, knobs, expected):
    assert times(name, scaled_linear(), 10, **knobs) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize(
    ("name", "steps", "expected"),
    [
        ("linspace", 5, [999, 749.25, 499.5, 249.75, 0]),
        ("lcm", 4, [999, 759, 499, 259]),
        ("lcm", 8, [999, 879, 759, 639, 499, 379, 259, 139]),
        ("trailing", 3, [999, 666, 332]),
    ],
)
def test_other_plans(name, steps, expected):
    assert times(name, scaled_linear(), steps) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("linspace", [14.6146, 7.8399, 4.6092, 2.9183, 1.9502, 1.3449, 0.9324, 0.6250, 0.3687, 0.0292, 0]),
        ("karras", [14.6146, 9.1029, 5.4784, 3.1686, 1.7494, 0.9141, 0.4469, 0.2014, 0.0819, 0.0292, 0]),
        ("linspace-open", [14.6146, 8.3028, 5.0878, 3.3211, 2.2765, 1.6183, 1.1644, 0.8328, 0.5717, 0.3439, 0]),
    ],
)
def test_sigmas_of_ten_steps(name, expected):
    assert spacing(name, scaled_linear(), 10).tolist() == pytest.approx(expected, abs=6e-5)


def test_exponential_is_geometric():
    sigmas = spacing("exponential", scaled_linear(), 9)[:-1]
    ratios = sigmas[1:] / sigmas[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(8))
    assert sigmas[[-1, 0]].tolist() == pytest.approx(scaled_linear().span)


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("name", SPACINGS)
@pytest.mark.parametrize("steps", [1, 2, 3, 7, 20, 50])
def test_every_spacing_falls_to_zero(name, steps, schedule):
    sigmas = spacing(name, schedule(), steps)
    assert sigmas.shape == (steps + 1,)
    assert sigmas.dtype == torch.float64
    assert sigmas.isfinite().all()
    assert (sigmas.diff() < 0).all()
    assert sigmas[-1] == 0


def test_a_flow_walks_evenly_in_time():
    t = RectifiedFlow().timestep(spacing("trailing", RectifiedFlow(), 8))
    torch.testing.assert_close(t, torch.linspace(1000, 0, 9, dtype=torch.float64), rtol=0, atol=1e-2)
    t = RectifiedFlow().timestep(spacing("linspace", RectifiedFlow(), 4)[:-1])
    torch.testing.assert_close(t, torch.linspace(1000, 1, 4, dtype=torch.float64), rtol=0, atol=1e-2)


def test_shift_is_the_published_map_of_times():
    flow, s = RectifiedFlow(), 3.0
    t = torch.arange(10, 0, -1, dtype=torch.float64) / 10
    got = flow.timestep(spacing("trailing", flow, 10, shift=s)[:-1]) / 1000
    torch.testing.assert_close(got, s * t / (1 + (s - 1) * t), rtol=0, atol=1e-6)


def test_final_minimum_ends_at_the_first_entry():
    assert float(spacing("trailing", scaled_linear(), 5, final="minimum")[-1]) == pytest.approx(0.029168, rel=1e-3)


def test_what_cannot_be_asked():
    with pytest.raises(UnknownName) as caught:
        spacing("kerras", scaled_linear(), 5)
    assert caught.value.nearest == "karras"
    with pytest.raises(OptionError, match="1 to 1000"):
        spacing("leading", scaled_linear(), 1001)
    with pytest.raises(OptionError, match="1 to 50"):
        spacing("lcm", scaled_linear(), 51)
    with pytest.raises(OptionError, match="1 to 1000"):
        spacing("trailing", scaled_linear(), 0)
    with pytest.raises(OptionError, match="only a rectified flow"):
        spacing("trailing", scaled_linear(), 5, shift=2.0)


def test_training_draws():
    u = torch.tensor([0.0, 0.4999, 0.99999])
    assert scaled_linear().draw(u).tolist() == [0, 499, 999]
    assert RectifiedFlow().draw(u).tolist() == pytest.approx([0, 499.9, 999.99])


def test_a_table_from_variances():
    torch.testing.assert_close(
        Tabulated.from_betas(torch.tensor([0.1, 0.5])).alphas_bar, torch.tensor([0.9, 0.45], dtype=torch.float64)
    )
