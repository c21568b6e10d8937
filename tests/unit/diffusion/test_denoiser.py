import pytest
import torch
from torch import nn

from mindseye.diffusion.denoiser import Conditioning, NetDenoiser, pooled_vector, precondition, target
from mindseye.diffusion.schedule import RectifiedFlow, cosine, scaled_linear

PREDICTIONS = ("eps", "x0", "v", "flow")
SCHEDULES = {"table": scaled_linear(), "flow": RectifiedFlow()}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_a_perfect_network_gives_the_clean_picture(prediction, schedule):
    generator = torch.Generator().manual_seed(0)
    x0, noise = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    sigma = torch.tensor([0.05, 0.8, 12.0], dtype=torch.float64)
    x = x0 + sigma.view(-1, 1, 1, 1) * noise
    seen = {}

    def network(scaled, timesteps, tokens, vector):
        seen.update(x=scaled, t=timesteps)
        return target(prediction, x0, noise, sigma, schedule.signal(sigma))

    got = NetDenoiser(network, schedule, prediction)(x, sigma)
    torch.testing.assert_close(got, x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(schedule.sigma(seen["t"].double()), sigma, rtol=1e-6, atol=0)
    if prediction == "v" and schedule is SCHEDULES["table"]:  # what Salimans and Ho write
        a, s = schedule.signal(sigma).view(-1, 1, 1, 1), (schedule.signal(sigma) * sigma).view(-1, 1, 1, 1)
        torch.testing.assert_close(seen["x"], a * x0 + s * noise)
        torch.testing.assert_close(a * seen["x"] - s * (a * noise - s * x0), x0)


def test_a_flow_network_sees_the_straight_line():
    t = torch.tensor([0.2, 0.9], dtype=torch.float64)
    x0, noise = torch.randn(2, 2, 1, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    schedule, seen = RectifiedFlow(), {}

    def network(x, timesteps, tokens, vector):
        seen.update(x=x, t=timesteps)
        return x

    sigma = schedule.sigma(1000 * t)
    NetDenoiser(network, schedule, "flow")(x0 + sigma.view(-1, 1, 1, 1) * noise, sigma)
    share = t.view(-1, 1, 1, 1)
    torch.testing.assert_close(seen["x"], (1 - share) * x0 + share * noise)
    torch.testing.assert_close(seen["t"].double(), 1000 * t, rtol=0, atol=1e-4)


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_what_is_clean_already_stays(prediction):
    """A clean x under no noise is its own estimate: skip + gain * answer is 1."""
    sigma = torch.tensor([0.3, 4.0], dtype=torch.float64)
    signal = cosine().signal(sigma)
    skip, gain = precondition(prediction, sigma, signal)
    x0 = torch.ones(2, 1, dtype=torch.float64)
    answer = target(prediction, x0, 0 * x0, sigma, signal)[:, 0]
    torch.testing.assert_close(skip + gain * answer, torch.ones(2, dtype=torch.float64))


class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.bfloat16))

    def forward(self, x, timesteps, tokens=None, vector=None):
        self.seen = x.dtype, timesteps.dtype
        return x * self.scale


def test_a_network_in_half_precision_gets_exact_times_and_the_sampler_keeps_its_digits():
    network = Half()
    out = NetDenoiser(network, scaled_linear(), "eps").predict(torch.ones(1, 1, 2, 2), torch.ones(1))
    assert network.seen == (torch.bfloat16, torch.float32)
    assert out.dtype == torch.float32


def test_planes_stand_beside_the_picture():
    planes = torch.arange(8.0).view(2, 1, 2, 2)

    def network(x, timesteps, tokens, vector):
        assert torch.equal(x[:, 3:], planes)
        return x[:, :3]

    NetDenoiser(network, scaled_linear(), "x0")(torch.ones(2, 3, 2, 2), torch.ones(2), Conditioning(planes=planes))


def test_conditioning_rows():
    a = Conditioning(tokens=torch.zeros(1, 2, 3), vector=torch.zeros(1, 4))
    b = Conditioning(tokens=torch.ones(1, 2, 3), vector=torch.ones(1, 4))
    both = a.cat(b)
    assert both.tokens.shape == (2, 2, 3)
    assert torch.equal(both.row(1).vector, b.vector)
    assert both.mask is None
    wide = a.expand(3)
    assert wide.tokens.shape == (3, 2, 3)
    dropped = wide.drop(torch.tensor([True, False, True]), b)
    assert dropped.vector[:, 0].tolist() == [1, 0, 1]
    assert dropped.tokens[:, 1, 2].tolist() == [1, 0, 1]
    with pytest.raises(ValueError, match="only one of the two conditionings has vector"):
        a.cat(Conditioning(tokens=torch.ones(1, 2, 3)))


def test_pooled_vectors_mean_directions():
    pooled = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    vector = pooled_vector(pooled)
    torch.testing.assert_close(vector.square().mean(1), torch.ones(3))
    torch.testing.assert_close(pooled_vector(7 * pooled), vector)
