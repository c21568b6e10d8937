"""vqgan-pocket's objective on small networks: the gradient it gives, its adversary, its codebook, its figures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mindseye.checkpoints.save import load_part
from mindseye.networks import clip, vit_vqgan
from mindseye.networks.vae import Tower
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.networks.vqgan import POCKET, VQGAN, Config
from mindseye.request import drain
from mindseye.training.recipe import Every, Workshop
from mindseye.training.recipes import vqgan
from mindseye.training.recipes.vqgan import Tokenising, appearance, vit_vqgan_pocket, vqgan_pocket
from mindseye.training.trainer import train

TINY = Config(
    encoder=Tower(channels=(8, 16), blocks=(0, 1), middle=False, taper=True),
    decoder=Tower(channels=(8, 16), blocks=(1, 1), middle=False, taper=True),
    codes=16,
    code_channels=4,
    z_channels=8,
    patch=4,
    groups=4,
)
EYE = clip.Config(
    text=clip.Text(vocabulary=8, length=4, width=8, layers=1, heads=1),
    image=clip.ViT(size=16, patch=8, width=16, layers=3, heads=2, activation="gelu"),
    embed=8,
    mean=clip.HALF,
    std=clip.HALF,
)


def eye():
    torch.manual_seed(1)
    return clip.CLIP(EYE).eval().requires_grad_(False)


def made(network=None, **settings) -> Tokenising:
    torch.manual_seed(0)
    found = Tokenising(network or VQGAN(TINY), eye(), **settings)
    found.reseed(0)
    return found


@pytest.fixture
def batch():
    return {"pixels": torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1}


def test_the_gradient_is_that_of_the_loss(batch) -> None:
    """Given at the picture and carried on, it is what a loss written down in full has."""
    objective = made(adversary=0.0, quantizer="gradient", looks=0.3)
    network, pixels = objective.network, batch["pixels"]
    network.quantizer.weight.data.normal_()
    objective.keeper.counts += 100  # none is dead, so none is revived
    loss = objective(batch, "painter")
    z = network.encode(pixels)
    found = network.quantise(z)
    painted = network.decode(found.embeddings)
    error = painted - pixels
    edges = error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()
    pairs = zip(appearance(eye(), painted), appearance(eye(), pixels), strict=True)
    looks = sum(F.mse_loss(one, other) for one, other in pairs) / 2
    whole = error.abs().mean() + 2 * error.square().mean() + 0.5 * edges + 0.3 * looks
    whole = whole + found.parts["codebook"] + 0.25 * found.parts["commitment"]
    torch.testing.assert_close(loss.total, whole, atol=1e-5, rtol=1e-5)
    weights = list(network.parameters())
    for ours, wanted in zip(
        torch.autograd.grad(loss.total, weights, allow_unused=True),
        torch.autograd.grad(whole, weights, allow_unused=True),
        strict=True,
    ):
        torch.testing.assert_close(ours, wanted, atol=1e-6, rtol=1e-4)


def test_the_adversary_comes_in_later_and_has_its_share(batch) -> None:
    objective = made(adversary=0.25, start=0.5)
    objective.share = 0.4
    painted = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    before, parts = objective._pull(painted, batch["pixels"])
    assert "fooled" not in parts
    assert objective(batch, "judge").parts == {}
    objective.share = 0.6
    after, parts = objective._pull(painted, batch["pixels"])
    assert "fooled" in parts
    assert (after - before).norm().item() == pytest.approx(0.25 * before.norm().item(), rel=1e-4)
    picture = painted.clone().requires_grad_()
    (fooled,) = torch.autograd.grad(-objective.judged(picture).mean(), picture)
    assert F.cosine_similarity((after - before).flatten(), fooled.flatten(), dim=0).item() == pytest.approx(1, abs=1e-4)


def test_turns_do_not_touch_each_others_weights(batch) -> None:
    objective = made(start=0.0)
    objective.share = 0.1
    objective(batch, "painter").total.backward()
    assert all(value.grad is None for value in objective.discriminator.parameters())
    assert all(value.grad is not None for value in objective.network.parameters() if value.requires_grad)
    assert not objective.network.quantizer.weight.requires_grad
    objective.network.zero_grad(set_to_none=True)
    objective(batch, "judge").total.backward()
    assert all(value.grad is not None for value in objective.discriminator.parameters())
    assert all(value.grad is None for value in objective.network.parameters())


def test_the_judge_learns_to_tell(batch) -> None:
    objective = made(start=0.0)
    objective.share = 0.1
    objective._painted = batch["pixels"] * 0.2
    optimizer = torch.optim.AdamW(objective.discriminator.parameters(), lr=2e-3)
    for _ in range(30):
        loss = objective(batch, "judge")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert loss.parts["told"] > 0.9


def patches():
    torch.manual_seed(0)
    tower = vit_vqgan.Tower(width=16, layers=1, heads=2, hidden=32)
    return ViTVQGAN(
        vit_vqgan.Config(encoder=tower, decoder=tower, codes=16, code_channels=4, patch=8, activation="gelu")
    )


@pytest.mark.parametrize(
    ("network", "quantizer"), [(None, "moving"), (None, "gradient"), (patches, "moving")], ids=["moving", "grad", "vit"]
)
def test_it_learns_and_uses_its_codes(network, quantizer) -> None:
    objective = made(network and network(), quantizer=quantizer, adversary=0.0, looks=0.0)
    optimizer = torch.optim.AdamW([value for value in objective.network.parameters() if value.requires_grad], lr=5e-3)
    generator = torch.Generator().manual_seed(5)
    seen = []
    for _ in range(60):
        # Squares of eight colours in 2x2 fields.
        fields = torch.randint(2, (8, 3, 2, 2), generator=generator).float() * 1.6 - 0.8
        loss = objective({"pixels": fields.repeat_interleave(16, 2).repeat_interleave(16, 3)}, "painter")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
        seen.append(loss.parts)
    assert seen[-1]["faithful"] < (0.6 if network is None else 0.75) * seen[0]["faithful"]
    assert seen[-1]["perplexity"] > 2


def test_features_need_a_transformer() -> None:
    found = clip.CLIP(clip.Config(text=EYE.text, image=None, embed=8))
    with pytest.raises(TypeError, match="vision transformer"):
        appearance(found, torch.zeros(1, 3, 16, 16))


def test_features_are_the_towers_own() -> None:
    """Of all blocks, they end where the tower's own last norm begins."""
    network, pixels = eye(), torch.rand(2, 3, 16, 16) * 2 - 1
    last = appearance(network, pixels, blocks=3)[-1]
    tower = network.image_tower
    whole = (last[:, 0] * tower.final_norm.weight + tower.final_norm.bias) @ tower.projection
    torch.testing.assert_close(whole, network.image(pixels), atol=1e-5, rtol=1e-4)


def test_a_run_from_start_to_part(tmp_path, monkeypatch) -> None:
    """The trainer's two turns, figures, a sheet, and a part that loads."""
    pixels = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(6)) * 2 - 1

    class Feed:
        def batch(self, step, size):
            return {"pixels": pixels[:size]}

    def feed(workshop):
        return Feed()
        yield

    monkeypatch.setattr(vqgan, "held_out_pixels", lambda workshop, count: pixels[:count])
    workshop = Workshop(corpus=Path(), parts=lambda name: eye(), part_files=Path)

    recipe = replace(
        vqgan_pocket(),
        objective=lambda workshop: Tokenising(VQGAN(TINY), workshop.parts("clip-pocket"), start=0.0),
        feed=feed,
        steps=3,
        batch=4,
        every=Every(log=1, sample=0, checkpoint=0),
        precision="fp32",
    )
    files = drain(train(recipe, tmp_path / "run", workshop))
    part = load_part(files["vqgan-pocket"])
    assert isinstance(part, VQGAN)
    assert part.config == TINY
    scores = vqgan.token_scores("vqgan-pocket", workshop, {"vqgan-pocket": part})
    assert set(scores) == {"psnr", "psnr_pooled", "perplexity", "used", "stable"}
    assert 0 < scores["used"] <= 1
    assert (tmp_path / "run" / "samples" / "00000003.png").is_file()


@pytest.mark.parametrize(("recipe", "config"), [(vqgan_pocket(), POCKET), (vit_vqgan_pocket(), vit_vqgan.POCKET)])
def test_the_recipe_is_what_the_pocket_needs(recipe, config) -> None:
    workshop = Workshop(corpus=Path(), parts=lambda name: eye(), part_files=Path)
    objective = recipe.objective(workshop)
    assert list(objective.parts()) == [recipe.name]
    assert objective.network.config == config
    assert list(objective.turns()) == ["painter", "judge"]
    assert not any(name.startswith("_clip") for name in objective.state_dict())
