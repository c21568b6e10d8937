import pytest
import torch

from mindseye.diffusion.composition import Composed, Scheduled, scheduled
from mindseye.diffusion.denoiser import Conditioning, NetDenoiser
from mindseye.diffusion.guidance import Guided
from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import scaled_linear, spacing
from mindseye.noise import Noise


def told(value):
    return Conditioning(vector=torch.full((2, 1), value))


class Network:
    def __call__(self, x, timesteps, tokens, vector):
        ramp = torch.arange(x[0].numel(), dtype=x.dtype).view(x[0].shape) / 10
        return torch.tanh(x) + vector.to(x).view(-1, 1, 1, 1) * ramp


NET = NetDenoiser(Network(), scaled_linear(), "eps")
X, SIGMA = Noise([0, 1]).normal(3, 4, 4), torch.full((2,), 2.0)


@pytest.mark.parametrize("rescale", [0.0, 0.7])
def test_one_prompt_of_weight_one_is_plain_guidance(rescale):
    got = Composed(NET, [(told(1.0), 1.0)], told(-1.0), 3.0, rescale)(X, SIGMA)
    torch.testing.assert_close(got, Guided(NET, told(1.0), told(-1.0), 3.0, rescale)(X, SIGMA), rtol=1e-5, atol=1e-4)


def test_every_prompt_pulls_by_its_weight():
    first, second, null = (NET(X, SIGMA, told(value)) for value in (1.0, 0.5, -1.0))
    got = Composed(NET, [(told(1.0), 1.0), (told(0.5), -0.5)], told(-1.0), 3.0)(X, SIGMA)
    torch.testing.assert_close(got, null + 3 * ((first - null) - 0.5 * (second - null)), rtol=1e-5, atol=1e-4)


def test_outside_the_interval_the_prompts_count_unguided():
    got = Composed(NET, [(told(1.0), 1.0)], told(-1.0), 3.0, interval=(3.0, 9.0))(X, SIGMA)
    torch.testing.assert_close(got, NET(X, SIGMA, told(1.0)), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm++-2m"])
def test_a_step_is_served_by_the_stage_that_reaches_it(sampler):
    knots, seen = spacing("karras", scaled_linear(), 6), []

    def stage(name):
        def denoise(x, sigma):
            seen.append((name, float(sigma[0])))
            return x * 0

        return denoise

    both = scheduled(knots, [(1, stage("first")), (3, stage("second")), (99, stage("third"))])
    noise = Noise([0])
    for _ in SAMPLERS[sampler](both, noise.normal(3, 2, 2) * float(knots[0]), knots, noise):
        pass
    for name, sigma in seen:
        # Steps 0 and 1 are the first stage's; a midpoint belongs to its step, Heun's second look to the next one.
        wanted = (
            "first" if sigma > float(knots[2]) * 1.001 else "second" if sigma > float(knots[4]) * 1.001 else "third"
        )
        assert name == wanted, (name, sigma)
    assert {name for name, _ in seen} == {"first", "second", "third"}


def test_beyond_the_last_stage_it_goes_on_serving():
    knots = torch.tensor([3.0, 2.0, 1.0, 0.0])
    late = Scheduled(knots, [(0, lambda x, sigma: x + 1), (1, lambda x, sigma: x + 2)])
    assert float(late(torch.zeros(1, 1), torch.tensor([1.0]))) == 2


def test_a_single_stage_is_not_wrapped():
    denoise = Guided(NET, told(1.0), told(-1.0), 3.0)
    assert scheduled(torch.tensor([1.0, 0.0]), [(5, denoise)]) is denoise
