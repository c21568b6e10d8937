"""Critics of any CLIP: unit rows, gradients, dtypes, and the real pocket one."""

from dataclasses import replace

import pytest
import torch

import mindseye
from mindseye.critique.critic import ClipCritic, Critic, critics_of
from mindseye.networks.clip import CLIP, HALF, Config, ResNet, Text, ViT
from mindseye.text.tokenizer import Tokenizer

VIT = Config(
    text=Text(vocabulary=600, length=12, width=32, layers=1, heads=1),
    image=ViT(size=32, patch=8, width=32, layers=1, heads=1),
    embed=16,
)
RESNET = replace(VIT, image=ResNet(size=32, width=8, layers=(1, 1, 1, 1), heads=2), mean=HALF, std=HALF)


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.train(["a red apple on a green field", "two cats"] * 3, 560, 12)


def network(config, dtype=torch.float32):
    torch.manual_seed(0)
    return CLIP(config).eval().requires_grad_(False).to(dtype)


@pytest.mark.parametrize("config", [VIT, RESNET], ids=["vit", "resnet"])
def test_both_towers(config, tokenizer):
    critic = ClipCritic(network(config), tokenizer)
    assert isinstance(critic, Critic) and critic.size == 32
    texts = critic.embed_text(["a red apple", "two cats", "a"])
    x = (torch.rand(4, 3, 32, 32) * 2 - 1).requires_grad_()
    images = critic.embed_image(x)
    assert texts.shape == (3, 16) and images.shape == (4, 16)
    for rows in (texts, images):
        torch.testing.assert_close(rows.norm(dim=1), torch.ones(len(rows)))
    (gradient,) = torch.autograd.grad((images @ texts.T).sum(), x)
    assert gradient.isfinite().all() and (gradient.abs().amax((1, 2, 3)) > 0).all()
    # What the network says, only of unit length.
    raw = critic.clip.image(x.detach())
    torch.testing.assert_close(images.detach(), raw / raw.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    assert torch.equal(critic.embed_image(x.detach(), unit=False), raw)
    long = critic.embed_text(["a red apple", "two cats", "a"], unit=False)
    torch.testing.assert_close(texts, long / long.norm(dim=1, keepdim=True))


@pytest.mark.parametrize(("dtype", "kept"), [(torch.float16, torch.float32), (torch.bfloat16, torch.bfloat16)])
def test_half_precision_on_a_cpu(dtype, kept, tokenizer):
    clip = network(VIT, dtype)
    critic = ClipCritic(clip, tokenizer)
    assert critic.clip.logit_scale.dtype == kept and clip.logit_scale.dtype == dtype
    found = critic.embed_image(torch.zeros(1, 3, 32, 32))
    assert found.dtype == torch.float32 and critic.embed_text(["cat"]).dtype == torch.float32
    assert found.norm().item() == pytest.approx(1, abs=1e-4)


def test_pixels_of_any_dtype(tokenizer):
    critic = ClipCritic(network(VIT), tokenizer)
    x = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(critic.embed_image(x.double()), critic.embed_image(x), rtol=1e-5, atol=1e-6)


def test_those_that_are_there(tokenizer):
    first, second = network(VIT), network(RESNET)
    found = critics_of((first, tokenizer), (None, None), (second, tokenizer))
    assert [critic.clip for critic in found] == [first, second]
    with pytest.raises(ValueError, match="at least one"):
        critics_of((None, None))
    with pytest.raises(ValueError, match="number 2 has no tokenizer"):
        critics_of((first, tokenizer), (second, None))
    with pytest.raises(ValueError, match="text encoder alone"):
        ClipCritic(CLIP(replace(VIT, image=None)), tokenizer)


def test_the_pocket_critic_knows_an_apple_from_a_cloud():
    from pathlib import Path

    from mindseye.checkpoints.save import load_part

    pocket = Path(mindseye.__file__).parent / "pocket"
    if not (pocket / "clip-pocket.safetensors").is_file():
        pytest.skip("no pocket weights")
    clip = load_part(pocket / "clip-pocket.safetensors")
    critic = ClipCritic(clip, Tokenizer.from_file(pocket / "bpe-pocket.json", clip.config.text.length))
    words = critic.embed_text(["a large red circle", "a large blue circle"])
    y, x = torch.meshgrid(torch.linspace(-1, 1, 64), torch.linspace(-1, 1, 64), indexing="ij")
    inside = (x**2 + y**2 < 0.5).float()
    red = torch.stack([1 - 0 * inside, 1 - 2 * inside, 1 - 2 * inside])
    blue = red.flip(0)
    scores = critic.embed_image(torch.stack([red, blue])) @ words.T
    assert scores[0, 0] > scores[0, 1] and scores[1, 1] > scores[1, 0]
