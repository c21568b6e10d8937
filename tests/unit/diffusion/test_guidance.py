import pytest
import torch

from mindseye.diffusion.denoiser import Conditioning, NetDenoiser
from mindseye.diffusion.guidance import Guided, Masked, Thresholded
from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import RectifiedFlow, scaled_linear, spacing
from mindseye.noise import Noise

COND = Conditioning(vector=torch.full((2, 1), 1.0))
NULL = Conditioning(vector=torch.full((2, 1), -1.0))


class Network:
    """Its answer depends on the condition and the place; remembers the conditions of each call."""

    def __init__(self):
        self.asked = []

    def __call__(self, x, timesteps, tokens, vector):
        self.asked.append(vector[:, 0].tolist())
        ramp = torch.arange(x[0].numel(), dtype=x.dtype).view(x[0].shape) / 10
        return torch.tanh(x) + vector.to(x).view(-1, 1, 1, 1) * ramp


def drain(steps):
    try:
        while True:
            next(steps)
    except StopIteration as stop:
        return stop.value


def picture(seed=0):
    return Noise([seed, seed + 1]).normal(3, 4, 4)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow"])
def test_the_answer_is_moved_away_from_null(prediction):
    net, x, sigma = NetDenoiser(Network(), scaled_linear(), prediction), picture(), torch.full((2,), 2.0)
    cond, null = net(x, sigma, COND), net(x, sigma, NULL)
    got = Guided(net, COND, NULL, 4.0)(x, sigma)
    torch.testing.assert_close(got, null + 4 * (cond - null), rtol=1e-4, atol=1e-4)


def test_null_and_cond_share_a_batch_in_that_order():
    network = Network()
    Guided(NetDenoiser(network, scaled_linear(), "eps"), COND, NULL, 2.0)(picture(), torch.ones(2))
    assert network.asked == [[-1, -1, 1, 1]]


@pytest.mark.parametrize(
    ("scale", "interval", "halves"),
    [(1.0, (0.0, 9.0), 1), (2.0, (0.0, 9.0), 2), (2.0, (0.0, 1.0), 1), (2.0, (3.0, 9.0), 1)],
)
def test_null_is_only_computed_where_it_counts(scale, interval, halves):
    network, x, sigma = Network(), picture(), torch.full((2,), 2.0)
    net = NetDenoiser(network, scaled_linear(), "eps")
    got = Guided(net, COND, NULL, scale, interval=interval)(x, sigma)
    assert len(network.asked[0]) == 2 * halves
    if halves == 1:
        assert torch.equal(got, net(x, sigma, COND))


def test_rescale_restores_the_spread_of_the_answer():
    network, x, sigma = Network(), picture(), torch.full((2,), 2.0)
    net = NetDenoiser(network, scaled_linear(), "eps")
    cond = net.predict(x, sigma, COND)

    def spread(rescale):
        x0 = Guided(net, COND, NULL, 6.0, rescale=rescale)(x, sigma)
        return ((x - x0) / 2.0).flatten(1).std(1)

    wanted = cond.flatten(1).std(1)
    torch.testing.assert_close(spread(1.0), wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(spread(0.7), 0.7 * wanted + 0.3 * spread(0.0), rtol=1e-4, atol=1e-4)
    assert (spread(0.0) > 2 * wanted).all()


def test_thresholding_by_hand():
    values = torch.tensor([[0.5, -1.0, 2.0, -4.0], [0.1, 0.2, 0.3, 0.4]]).view(2, 1, 2, 2)
    got = Thresholded(lambda x, sigma: values, 0.75)(values, torch.ones(2))
    reach = 2.5  # the 0.75 quantile of 0.5 1 2 4
    assert got[0].flatten().tolist() == pytest.approx([0.5 / reach, -1 / reach, 2 / reach, -1])
    assert torch.equal(got[1], values[1])  # already within the range that is always allowed
    wide = Thresholded(lambda x, sigma: values, 1.0, lowest=3.0)(values, torch.ones(2))
    assert wide[0].flatten().tolist() == pytest.approx([0.375, -0.75, 1.5, -3])
    held = Thresholded(lambda x, sigma: values, 1.0, highest=2.0)(values, torch.ones(2))
    assert held[0].flatten().tolist() == pytest.approx([0.25, -0.5, 1, -1])


def test_thresholding_in_half_precision():
    values = (10 * picture()).bfloat16()
    got = Thresholded(lambda x, sigma: values, 0.9)(values, torch.ones(2))
    assert got.dtype == torch.bfloat16
    assert float(got.abs().max()) <= 1


@pytest.mark.parametrize("name", ["euler", "heun", "plms", "dpm++-2m", "unipc"])
def test_knowing_is_pasting_after_every_step(name):
    """The identity the class claims, for deterministic samplers, at every step of a run."""
    known, mask = picture(9)[:1], torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    schedule = RectifiedFlow()
    sigmas = spacing("trailing", schedule, 8)[2:]
    noise = picture(3)
    inner = NetDenoiser(Network(), schedule, "flow")

    def net(x, sigma):
        return inner(x, sigma, COND)

    x = known + float(sigmas[0]) * noise
    for end in range(2, len(sigmas) + 1):
        got = drain(SAMPLERS[name](Masked(net, known, mask), x, sigmas[:end], Noise([0, 1])))
        pasted = known + float(sigmas[end - 1]) * noise
        torch.testing.assert_close((1 - mask) * got, (1 - mask) * pasted, rtol=1e-5, atol=1e-5)
    if name == "euler":
        y = x
        for sigma, after in zip(sigmas.tolist(), sigmas.tolist()[1:], strict=False):
            x0 = net(y, torch.full((2,), sigma, dtype=torch.float64))
            y = x0 + after / sigma * (y - x0)
            y = mask * y + (1 - mask) * (known + after * noise)
        torch.testing.assert_close(got, y, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SAMPLERS)
def test_what_is_kept_comes_out_clean(name):
    known, mask = picture(9)[:1], torch.zeros(1, 1, 4, 4)
    mask[..., 1:3] = 1
    net = NetDenoiser(Network(), RectifiedFlow(), "flow")
    sigmas = spacing("trailing", RectifiedFlow(), 5)
    x = known + float(sigmas[0]) * picture(1)
    masked = Masked(lambda x, sigma: net(x, sigma, COND), known, mask)
    got = drain(SAMPLERS[name](masked, x, sigmas, Noise([0, 1])))
    torch.testing.assert_close((1 - mask) * got, (1 - mask) * known.expand_as(got), rtol=0, atol=1e-5)
    assert not torch.allclose(mask * got, mask * known)
