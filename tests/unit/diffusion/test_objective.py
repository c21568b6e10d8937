import pytest
import torch
from torch import nn

from mindseye.diffusion.objective import LatentDiffusion, draw_levels, weigh
from mindseye.diffusion.schedule import RectifiedFlow, scaled_linear


class Echo(nn.Module):
    """Answers one number; remembers what it was given."""

    def __init__(self, answer=0.0):
        super().__init__()
        self.answer = nn.Parameter(torch.tensor(answer))

    def forward(self, x, timesteps, tokens=None, vector=None):
        self.x, self.t, self.tokens, self.vector = x, timesteps, tokens, vector
        return self.answer * torch.ones_like(x)


def batch(count=64):
    generator = torch.Generator().manual_seed(1)
    return {
        "latents": torch.randn(count, 4, 3, 3, generator=generator),
        "tokens": torch.ones(count, 5, 6),
        "vector": torch.ones(count, 7),
    }


def build(unet=None, schedule=None, prediction="flow", **knobs):
    made = LatentDiffusion(
        unet or Echo(),
        schedule or RectifiedFlow(),
        prediction,
        null_tokens=torch.zeros(1, 5, 6),
        null_vector=torch.zeros(1, 7),
        **knobs,
    )
    made.reseed(0)
    return made


def test_a_step_is_a_function_of_its_seed():
    objective, data = build(), batch()
    first, second = objective(data, "main"), objective(data, "main")
    assert first.total != second.total
    objective.reseed(0)
    assert objective(data, "main").total == first.total
    state = torch.get_rng_state()
    objective(data, "main")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0", "flow"])
def test_a_network_that_knows_loses_nothing(prediction):
    """For x0 = 0, the input is the noise alone and the right answer can be read off it."""
    schedule = RectifiedFlow() if prediction == "flow" else scaled_linear()

    class Knows(nn.Module):
        def __init__(self):
            super().__init__()
            self.unused = nn.Parameter(torch.zeros(()))

        def forward(self, x, timesteps, tokens=None, vector=None):
            sigma = schedule.sigma(timesteps)
            signal = schedule.signal(sigma)
            noise = x / (signal * sigma).view(-1, 1, 1, 1).float()
            if prediction == "x0":
                return 0 * x
            return noise * signal.view(-1, 1, 1, 1).float() if prediction == "v" else noise

    data = {**batch(), "latents": torch.zeros(64, 4, 3, 3)}
    assert build(Knows(), schedule, prediction)(data, "main").total.item() < 1e-6


def test_zero_flow_answers_cost_what_they_should():
    """E (noise - x0)^2 = 2 for unit latents."""
    loss = build(drop=0.0)(
        {"latents": torch.randn(4000, 4, 3, 3, generator=torch.Generator().manual_seed(0))}
        | {k: v for k, v in batch(4000).items() if k != "latents"},
        "main",
    )
    assert loss.total.item() == pytest.approx(2, rel=0.02)
    assert loss.parts["error"] == pytest.approx(loss.total.item())


def test_what_the_network_sees_is_the_straight_line():
    unet = Echo()
    objective = build(unet)
    data = {**batch(512), "latents": torch.full((512, 4, 3, 3), 5.0)}
    objective(data, "main")
    t = unet.t / 1000
    torch.testing.assert_close(unet.x.mean((1, 2, 3)), 5 * (1 - t), rtol=0, atol=0.7)
    assert 0 < float(t.min())
    assert float(t.max()) < 1


def test_captions_are_dropped_together_and_as_often_as_asked():
    unet = Echo()
    build(unet, drop=0.1)(batch(5000), "main")
    tokens, vector = unet.tokens[:, 0, 0] == 0, unet.vector[:, 0] == 0
    assert torch.equal(tokens, vector)
    assert float(tokens.float().mean()) == pytest.approx(0.1, abs=0.015)
    build(unet, drop=0.0)(batch(100), "main")
    assert (unet.tokens == 1).all()


def test_networks_without_text():
    objective = LatentDiffusion(Echo(), RectifiedFlow(), "flow")
    assert objective({"latents": torch.ones(2, 4, 3, 3)}, "main").total.requires_grad


def test_turns_parts_and_state():
    unet = Echo()
    objective = build(unet)
    assert list(objective.turns()["main"]) == [unet.answer]
    assert objective.parts() == {"unet": unet}
    assert list(objective.state_dict()) == ["unet.answer"]
    assert {name for name, _ in objective.named_buffers()} == {"null_tokens", "null_vector"}


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        ("eps", lambda snr: min(snr, 5) / snr),
        ("v", lambda snr: min(snr, 5) / (snr + 1)),
        ("x0", lambda snr: min(snr, 5)),
        ("flow", lambda snr: min(snr, 5) / (1 + snr**0.5) ** 2),
    ],
)
def test_min_snr_as_published(prediction, expected):
    sigma = torch.tensor([0.1, 0.4, 1.0, 9.0], dtype=torch.float64)
    schedule = RectifiedFlow() if prediction == "flow" else scaled_linear()
    got = weigh("min-snr", prediction, sigma, schedule.signal(sigma))
    assert got.tolist() == pytest.approx([expected(1 / s**2) for s in sigma.tolist()])
    assert weigh("min-snr", prediction, torch.zeros(1), torch.ones(1)).isfinite().all()
    assert weigh("uniform", prediction, sigma, sigma).tolist() == [1] * 4


def test_levels():
    generator = torch.Generator().manual_seed(0)
    flow = RectifiedFlow()
    t = flow.timestep(draw_levels("uniform", flow, 20_000, generator)) / 1000
    torch.testing.assert_close(t.sort().values, torch.linspace(0, 1, 20_000, dtype=torch.float64), rtol=0, atol=0.02)
    logit = torch.logit(
        flow.timestep(draw_levels("logit-normal", flow, 20_000, generator, mean=0.5, spread=0.8)) / 1000
    )
    assert float(logit.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(logit.std()) == pytest.approx(0.8, abs=0.02)
    whole = scaled_linear().timestep(draw_levels("uniform", scaled_linear(), 1000, generator))
    torch.testing.assert_close(whole, whole.round(), rtol=0, atol=1e-6)


def test_training_teaches():
    """The best constant answer to a flow is -E[x0]."""
    unet = Echo(0.0)
    objective = build(unet)
    data = {**batch(256), "latents": torch.full((256, 4, 3, 3), 2.0)}
    optimizer = torch.optim.SGD(objective.turns()["main"], lr=0.2)
    for _ in range(30):
        optimizer.zero_grad()
        objective(data, "main").total.backward()
        optimizer.step()
    assert unet.answer.item() == pytest.approx(-2, abs=0.05)
