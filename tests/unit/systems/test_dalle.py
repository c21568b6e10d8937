"""DALL-E as a system: text, guidance, filters, completion, sizes, and what does not fit."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from mindseye.codec import TokenCodec
from mindseye.errors import OptionError, WeightsError
from mindseye.networks.dalle import DALLE as Network
from mindseye.networks.dalle import Config
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN
from mindseye.networks.vqgan import Config as Codec
from mindseye.noise import Noise
from mindseye.pixels import from_image, to_images
from mindseye.request import Request, drain
from mindseye.systems.base import System
from mindseye.systems.dalle import DALLE
from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer

GRID, SIDE = 4, 16


@pytest.fixture(scope="module")
def words():
    return Tokenizer.train(["a cat", "a dog", "red", "green"] * 4, 600, length=8)


@pytest.fixture(scope="module")
def system(words):
    torch.manual_seed(0)
    tower = Tower(channels=(8, 8), blocks=(1, 1), middle=False)
    codec = VQGAN(
        Codec(encoder=tower, decoder=tower, codes=12, code_channels=4, z_channels=8, patch=2, groups=4)
    ).eval()
    nn.init.normal_(codec.quantizer.weight)
    network = Network(
        Config(width=16, layers=2, heads=2, head_width=12, text_tokens=words.vocabulary, text_length=5, image_tokens=12,
               grid=GRID)
    ).eval()  # fmt: skip
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.5)
    return DALLE(network.requires_grad_(False), codec.requires_grad_(False), PlainTokenizer.of(words, 5))


def asked(prompt="a cat", size=(SIDE, SIDE), guidance=1.0, **more):
    return Request(prompt=prompt, size=size, seed=0, steps=1, guidance=guidance, sampler="", **more)


def run(system, request, seeds=(0, 1), **options):
    return drain(system.synthesize(request, system.Options(**options), Noise(list(seeds))))


def test_a_text_is_continued_and_drawn(system):
    assert isinstance(system, System) and isinstance(system.codec, TokenCodec) and system.native == (SIDE, SIDE)
    seen = []
    steps = system.synthesize(asked(), system.Options(), Noise([3, 4]))
    pixels = drain(steps, lambda progress: seen.append((progress.step, progress.total, len(progress.peek()))))
    assert seen == [(n + 1, 16, 2) for n in range(16)]
    assert pixels.shape == (2, 3, SIDE, SIDE) and pixels.abs().max() <= 1
    assert torch.allclose(run(system, asked(), [4])[0], pixels[1], atol=1e-5)
    assert not torch.allclose(run(system, asked("a dog"), [3, 4]), pixels)
    assert run(system, asked(size=(24, 20))).shape == (2, 3, 20, 24)


def test_the_likeliest_codes_are_those_of_the_network_itself(system):
    """Greedy, against one uncached pass a token."""
    text = system.tokenizer.encode(["a cat"])[0]
    ids = torch.zeros(1, 16, dtype=torch.long)
    for place in range(16):
        ids[:, place] = system.network(text, ids)[1][:, place].argmax(-1)
    expected = system.codec.from_ids(ids).clamp(-1, 1)
    for greedy in ({"temperature": 0.0}, {"top_k": 1}, {"top_p": 0.0}, {"filter_thres": 1.0}):
        assert torch.allclose(run(system, asked(), [5], **greedy), expected, atol=1e-5)


def test_guidance_is_against_the_negative_prompt(system):
    plain, guided = run(system, asked()), run(system, asked(guidance=4.0))
    against = run(system, asked(guidance=4.0, negative="green"))
    assert not torch.equal(plain, guided) and not torch.equal(guided, against)
    assert torch.equal(plain, run(system, asked(negative="green")))
    assert any("guidance above 1" in said for said in system.notices(asked(negative="green")))


def test_a_picture_is_completed_from_its_top(system):
    codes = torch.randint(0, 12, (1, 16), generator=torch.Generator().manual_seed(8))
    image = to_images(system.codec.from_ids(codes))[0]
    own = system.codec.to_ids(from_image(image))
    whole = run(system, asked(image=image, strength=0.0), [0])
    assert torch.allclose(whole, system.codec.from_ids(own).clamp(-1, 1), atol=1e-5)
    shown = []
    system.codec.__dict__["from_ids"] = lambda ids: (shown.append(ids.clone()), VQGAN.from_ids(system.codec, ids))[1]
    try:
        run(system, asked(image=image, strength=0.5))
        run(system, asked(image=image), prime=3)
    finally:
        del system.codec.__dict__["from_ids"]
    assert (shown[0][:, :8] == own[:, :8]).all() and (shown[0][:, 8:] != own[:, 8:]).any()
    assert (shown[1][:, :12] == own[:, :12]).all()
    assert torch.equal(run(system, asked(image=image, strength=1.0)), run(system, asked()))


def test_what_does_not_fit_is_a_sentence(system, words):
    image, mask = Image.new("RGB", (16, 16)), Image.new("L", (16, 16))
    with pytest.raises(OptionError, match="under a mask"):
        run(system, asked(image=image, mask=mask))
    with pytest.raises(OptionError, match="5 rows cannot be kept of 4"):
        run(system, asked(image=image), prime=5)
    with pytest.raises(OptionError, match="two ways"):
        run(system, asked(), top_k=3, filter_thres=0.5)
    with pytest.raises(WeightsError, match="49,408 tokens"):
        DALLE(system.network, system.codec, PlainTokenizer.clip(5))
    wide = Network(replace(system.network.config, text_tokens=words.vocabulary + 513))
    with pytest.raises(WeightsError, match=f"{words.vocabulary} tokens and the network reads 1,[0-9]+: they do not"):
        DALLE(wide, system.codec, system.tokenizer)
    with pytest.raises(WeightsError, match="gives 7 ids.*reads 5"):
        DALLE(system.network, system.codec, PlainTokenizer.of(words, 7))
    told = replace(system, always_told=True)
    assert not told.notices(asked()) and not system.notices(asked(guidance=3.0))
    assert "nothing says that this one was" in told.notices(asked(guidance=3.0))[0]
    said = system.notices(asked("a cat and a dog and something else", size=(32, 32)))
    assert "else" in said[0] and "draws 16x16" in said[1]
