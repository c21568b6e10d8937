"""dvae-pocket's objective on a small network: its likelihood, its schedules, that it learns; and a run to its end."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mindseye.checkpoints.save import load_part
from mindseye.networks import discrete_vae
from mindseye.networks.dvae import DVAE, POCKET, Config, squeezed
from mindseye.nn.quantize import one_hot, relaxed
from mindseye.request import drain
from mindseye.training.feeds import to_pixels
from mindseye.training.recipe import Every, Workshop
from mindseye.training.recipes import dvae, vqgan
from mindseye.training.recipes.discrete_vae import by_squares, discrete_vae_pocket
from mindseye.training.recipes.dvae import Relaxing, dvae_pocket, falling, logit_laplace, rising, seeded, unevenness
from mindseye.training.trainer import train

TINY = Config(channels=(16, 16), blocks=(1, 1), codes=16, code_channels=8, kernel=3, patch=4)
PLAIN = discrete_vae.Config(layers=3, codes=16, code_channels=8, hidden=16, blocks=1)


def made(**settings) -> Relaxing:
    torch.manual_seed(0)
    found = Relaxing(DVAE(TINY), **settings)
    found.reseed(0)
    return found


@pytest.mark.parametrize(("mean", "log_scale"), [(0.0, -1.0), (1.3, -0.5), (-2.0, 0.3)])
def test_a_likelihood_is_a_density(mean, log_scale) -> None:
    """Its exponential has area 1, and it is the Laplace density of the logit."""
    edges = torch.linspace(0, 1, 400_001, dtype=torch.float64)
    middle = ((edges[1:] + edges[:-1]) / 2).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    told = [torch.full_like(middle, value) for value in (mean, log_scale)]
    unlikely = logit_laplace(middle, *told)
    assert (-unlikely[0, 0, 0]).exp().mean().item() == pytest.approx(1, abs=2e-3)
    laplace = torch.distributions.Laplace(told[0], told[1].exp())
    torch.testing.assert_close(unlikely, -laplace.log_prob(middle.logit()) + (middle * (1 - middle)).log())


def test_schedules() -> None:
    assert falling(0, 1 / 16, 0.5) == 1 and falling(0.5, 1 / 16, 0.5) == falling(1, 1 / 16, 0.5) == 1 / 16
    assert falling(0.25, 0.0, 0.5) == pytest.approx(0.5)
    assert (rising(0, 0.2), rising(0.1, 0.2), rising(0.7, 0.2)) == (0, pytest.approx(0.5), 1)
    assert falling(0, 0.25, 0) == 0.25


def test_unevenness_is_of_the_average() -> None:
    """Places that are sure of different codes are even together; two codes of four are one bit short."""
    sure = one_hot(torch.arange(4).view(1, 2, 2), 4) * 60
    assert unevenness(sure).item() == pytest.approx(0, abs=1e-6)
    half = one_hot(torch.tensor([0, 1, 0, 1]).view(1, 2, 2), 4) * 60
    assert unevenness(half).item() == pytest.approx(math.log(2))


def test_a_hopeless_code_leaves_the_gradient_finite() -> None:
    """Of a code whose likelihood is 0 in float32 the logarithm is asked for."""
    logits = torch.zeros(1, 4, 2, 2)
    logits[:, 3] = -400
    logits.requires_grad_()
    uneven = unevenness(logits)
    uneven.backward()
    assert uneven.item() == pytest.approx(math.log(4 / 3), rel=1e-5)
    assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("plain", [False, True])
def test_codes_begin_as_what_is_seen(plain) -> None:
    torch.manual_seed(0)
    network = discrete_vae.DiscreteVAE(PLAIN) if plain else DVAE(TINY)
    pixels = squares(16, torch.Generator().manual_seed(2))
    idle = len(network.to_ids(pixels).unique())
    seeded(network, pixels, torch.Generator().manual_seed(3))
    seen = network.features(pixels).movedim(1, -1).flatten(0, 2)
    ids = network.to_ids(pixels).flatten()
    assert idle < 10 and len(ids.unique()) == 16
    # What has a code is alike.
    own = torch.stack([seen[ids == code].mean(0) for code in range(16)])
    assert (seen - own[ids]).square().mean() < (0.5 if plain else 0.3) * seen.var(0, correction=0).mean()
    # And each is painted aloud.
    assert network.codebook.std() > 0.5
    for few in (pixels[:1], torch.ones(1, 3, 16, 16)):  # fewer places than codes; a single thing to see
        seeded(network, few, torch.Generator().manual_seed(3))
        assert all(each.isfinite().all() for each in network.parameters())


@pytest.mark.parametrize("hard", [False, True])
def test_the_loss_is_the_bound(hard) -> None:
    objective = made(hard=hard, warm=0.5, cooling=1.0)
    objective.share = 0.25
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loss = objective({"pixels": pixels}, "main")
    logits = objective.network.logits(pixels)
    temperature = falling(0.25, 1 / 16, 1.0)
    shares = relaxed(logits, temperature=temperature, generator=torch.Generator().manual_seed(0), hard=hard)
    mean, log_scale = objective.network.heads(shares)
    log_scale = (1 + (log_scale + 2).exp()).log() - 2  # no smaller than the floor, softly
    unlikely = logit_laplace(squeezed(pixels), mean, log_scale)
    chances = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1))
    equal = torch.distributions.Categorical(logits=torch.zeros(16).expand(2, 2, 2, 16))
    kl = torch.distributions.kl_divergence(chances, equal)
    # As the paper counts: both summed over a picture, divided by its numbers.
    whole = (unlikely.sum() + 6.6 * 0.5 * kl.sum()) / pixels.numel()
    whole = whole - 0.1 * (kl.mean() - unevenness(logits))
    torch.testing.assert_close(loss.total, whole, atol=1e-5, rtol=1e-5)
    assert loss.parts["temperature"] == temperature
    mse = (objective.network.decode(shares) - pixels).square().mean().item()
    assert loss.parts["mse"] == pytest.approx(mse, rel=1e-3)


def squares(count, generator):
    """Squares of any colours in 2x2 fields."""
    fields = torch.rand(count, 3, 2, 2, generator=generator) * 1.8 - 0.9
    return fields.repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_the_plain_one_is_measured_by_squares() -> None:
    torch.manual_seed(0)
    network = discrete_vae.DiscreteVAE(PLAIN)
    objective = Relaxing(network, error=by_squares, kl=0.0, inform=0.01, coldest=0.5, cooling=0.5, hard=True)
    objective.reseed(0)
    objective.share = 0.5
    pixels = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loss = objective({"pixels": pixels}, "main")
    logits = network.logits(pixels)
    shares = relaxed(logits, temperature=0.5, generator=torch.Generator().manual_seed(0), hard=True)
    assert set(shares.unique().tolist()) <= {0, 1}
    square = (network.decode(shares) - pixels).square().mean()
    chances = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1))
    kl = (math.log(16) - chances.entropy()).mean()
    torch.testing.assert_close(loss.total, square - 0.01 * (kl - unevenness(logits)), atol=1e-5, rtol=1e-5)
    assert loss.parts["error"] == loss.parts["mse"] == square.item()


@pytest.mark.parametrize("hard", [False, True])
def test_it_learns_and_uses_its_codes(hard) -> None:
    objective = made(hard=hard, coldest=0.25)
    optimizer = torch.optim.AdamW(objective.parameters(), lr=5e-3)
    generator = torch.Generator().manual_seed(5)
    kept = squares(128, torch.Generator().manual_seed(99))

    def told() -> dict[str, float]:
        objective.share = 1.0
        with torch.no_grad():
            return objective({"pixels": kept}, "main").parts

    first = told()
    for step in range(160):
        objective.share = step / 160
        loss = objective({"pixels": squares(8, generator)}, "main")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    last = told()
    # Over four seeds either way: 0.16 to 0.24 nats less, 0.74 to 0.82 of the error.
    assert last["error"] < first["error"] - 0.1 and last["mse"] < 0.9 * first["mse"]
    assert first["perplexity"] < 3 and last["perplexity"] > 4 and last["information"] > 1


def test_a_run_from_start_to_part(tmp_path, monkeypatch) -> None:
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(6)) * 2 - 1

    class Feed:
        def batch(self, step, size):
            return {"pixels": pixels[:size]}

    def feed(workshop):
        return Feed()
        yield

    monkeypatch.setattr(vqgan, "held_out_pixels", lambda workshop, count: pixels[:count])
    workshop = Workshop(corpus=Path(), parts=lambda name: None, part_files=Path)
    recipe = replace(
        dvae_pocket(), objective=lambda workshop: Relaxing(DVAE(TINY)), feed=feed, steps=3, batch=4,
        every=Every(log=1, sample=0, checkpoint=0), precision="fp32",
    )  # fmt: skip
    files = drain(train(recipe, tmp_path / "run", workshop))
    part = load_part(files["dvae-pocket"])
    assert isinstance(part, DVAE) and part.config == TINY
    scores = recipe.scores(workshop, {"dvae-pocket": part})
    assert set(scores) == {"psnr", "psnr_pooled", "perplexity", "used", "stable"}
    assert (tmp_path / "run" / "samples" / "00000003.png").is_file()


@pytest.mark.parametrize(
    ("recipe", "config"), [(dvae_pocket(), POCKET), (discrete_vae_pocket(), discrete_vae.POCKET)], ids=lambda each: ""
)
def test_the_recipe_is_what_the_pocket_needs(monkeypatch, recipe, config) -> None:
    shown = np.random.default_rng(0).integers(0, 256, (8, 128, 128, 3), dtype=np.uint8)

    def pictures(workshop):
        return SimpleNamespace(pictures=shown)
        yield

    monkeypatch.setattr(dvae, "training_pictures", pictures)
    objective = recipe.objective(Workshop(corpus=Path(), parts=lambda name: None, part_files=Path))
    tables = list(objective.tables())
    assert {id(each) for each in tables} <= {id(each) for each in objective.parameters()}
    assert len(tables) == 2 and all(config.codes in table.shape[:2] for table in tables)
    assert len(objective.network.to_ids(to_pixels(shown)).unique()) > config.codes // 3
    assert list(objective.parts()) == [recipe.name]
    assert objective.network.config == config and config.factor == POCKET.factor
