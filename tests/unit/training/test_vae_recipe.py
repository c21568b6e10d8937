"""The pocket autoencoder's objective: it learns, through noise of one width, and leaves one scale for all channels."""

import math
from pathlib import Path

import pytest
import torch

from mindseye.networks.vae import AutoencoderKL, Config, Tower
from mindseye.training.recipe import Workshop
from mindseye.training.recipes import vae as recipe
from mindseye.training.recipes.vae import NOISE, Autoencoding

TOWER = Tower(channels=(8, 8), blocks=(0, 1), middle=False, taper=True)
TINY = Config(encoder=TOWER, decoder=TOWER, latent_channels=4, patch=2, groups=4, quant_conv=False)

WORKSHOP = Workshop(corpus=Path(), parts=lambda name: None, part_files=lambda name: Path(name))


@pytest.fixture
def network():
    torch.manual_seed(0)
    return AutoencoderKL(TINY)


def fields(count, seed=0):
    """Squares of eight colours in 2x2 fields, ``count 3 16 16``."""
    drawn = torch.randint(2, (count, 3, 2, 2), generator=torch.Generator().manual_seed(seed)).float() * 1.6 - 0.8
    return drawn.repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_it_learns_whole_and_halved(network):
    objective = Autoencoding(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    seen = []
    for step in range(100):
        loss = objective({"pixels": fields(8, step)}, "main")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        seen.append(loss.parts["mse"])
    assert seen[-1] < 0.5 * seen[0]
    pixels = fields(8, 99)
    smaller = network.decode_raw(torch.nn.functional.avg_pool2d(network.posterior(pixels)[0], 2))
    assert smaller.shape[-1] == 8
    assert (smaller - torch.nn.functional.avg_pool2d(pixels, 2)).square().mean() < 0.5 * pixels.var()


def test_noise_is_of_one_width_and_large_latents_cost(network):
    pixels = fields(2)
    quiet = Autoencoding(network, noise=0.0, size=0.0, halved=0.0)
    again = [float(quiet({"pixels": pixels}, "main").total.detach()) for _ in range(2)]
    assert again[0] == again[1]
    noisy = Autoencoding(network, noise=0.5, size=0.0, halved=0.0)
    assert float(noisy({"pixels": pixels}, "main").total.detach()) != again[0]
    dear = Autoencoding(network, noise=0.0, size=1.0, halved=0.0)({"pixels": pixels}, "main")
    assert float(dear.total.detach()) == pytest.approx(again[0] + dear.parts["size"], rel=1e-5)


def test_what_matters_more_stays_larger(network, monkeypatch):
    pictures = ((fields(64) + 1) * 127.5).byte().permute(0, 2, 3, 1).numpy()

    class Shown:
        def __init__(self):
            self.pictures = pictures

        def __len__(self):
            return len(self.pictures)

    def training_pictures(workshop):
        yield from ()
        return Shown()

    monkeypatch.setattr(recipe, "training_pictures", training_pictures)
    with torch.no_grad():
        network.encoder.conv_out.weight[0] *= 5
        recipe._normalise(WORKSHOP, {"vae-pocket": network})
        latents = network.encode(torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1)
    assert len(network.latents_std.unique()) == 1
    assert float(latents.square().mean()) == pytest.approx(1, rel=0.02)
    assert latents.std((0, 2, 3)).argmax() == 0
    _, logvar = network.posterior(fields(1))
    torch.testing.assert_close(logvar, torch.full_like(logvar, 2 * math.log(NOISE)))
