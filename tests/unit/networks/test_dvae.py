"""The discrete VAEs: the token codec's contract, where pictures are squeezed, and what a config may say."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from mindseye.checkpoints.save import from_json, load_part, save_part
from mindseye.codec import TokenCodec
from mindseye.networks import discrete_vae, dvae
from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE, OPENAI, POCKET, squeezed, unsqueezed
from mindseye.nn.quantize import one_hot, relaxed

TINY = dvae.Config(channels=(8, 16), blocks=(1, 2), codes=20, code_channels=12, kernel=3, patch=2)
PLAIN = discrete_vae.Config(layers=2, codes=20, code_channels=6, hidden=8, blocks=1)
KINDS = {
    "openai": (DVAE, TINY),
    "unfolded": (DVAE, replace(TINY, patch=1, channels=(8, 8, 12), blocks=(1, 1, 1))),
    "lucidrains": (DiscreteVAE, PLAIN),
    "without blocks": (DiscreteVAE, replace(PLAIN, blocks=0)),
}


@pytest.fixture(params=KINDS)
def network(request):
    kind, config = KINDS[request.param]
    torch.manual_seed(0)
    return kind(config).eval().requires_grad_(False)


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_satisfies_the_contract(network, pixels) -> None:
    assert isinstance(network, TokenCodec)
    assert network.factor == 4
    logits = network.logits(pixels)
    assert logits.shape == (2, 20, 4, 6)
    shares = network.encode(pixels)
    assert torch.equal(shares, one_hot(logits.argmax(1), 20))
    ids = network.to_ids(pixels)
    assert torch.equal(ids, logits.argmax(1).flatten(1))
    painted = network.from_ids(ids, (4, 6))
    assert painted.shape == pixels.shape
    # What is looked up is what shares of one code mix.
    torch.testing.assert_close(painted, network.decode(shares), atol=1e-5, rtol=1e-5)


def test_ids_are_in_rows(network) -> None:
    ids = torch.arange(8).view(1, 8)
    wide = network.from_ids(ids, (2, 4))
    torch.testing.assert_close(wide, network.decode(one_hot(ids.view(1, 2, 4), 20)), atol=1e-5, rtol=1e-5)
    square = torch.arange(9).view(1, 9)
    assert torch.equal(network.from_ids(square), network.from_ids(square, (3, 3)))


def test_a_gradient_reaches_everything(pixels) -> None:
    for kind, config in KINDS.values():
        torch.manual_seed(0)
        network = kind(config)
        shares = relaxed(network.logits(pixels), generator=torch.Generator().manual_seed(0))
        told = sum(network.heads(shares)) if kind is DVAE else network.decode(shares)
        told.square().mean().backward()
        assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_a_picture_alone_is_the_picture_in_a_batch(network, pixels) -> None:
    both = network.from_ids(network.to_ids(pixels), (4, 6))
    for one, painted in zip(pixels.split(1), both.split(1), strict=True):
        torch.testing.assert_close(network.from_ids(network.to_ids(one), (4, 6)), painted, atol=1e-5, rtol=1e-5)


def test_pictures_are_squeezed_inside() -> None:
    """Ours to 0..1 to 0.1..0.9, and back."""
    told = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(squeezed(told).flatten(), torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(unsqueezed(squeezed(told)), told)
    network = DVAE(TINY).eval().requires_grad_(False)
    # A decoder that always tells the logit of 0.9 paints white, and one sure of 1 a quarter more.
    network.decoder.output.weight.zero_()
    network.decoder.output.bias.fill_(torch.tensor(0.9).logit())
    shares = one_hot(torch.zeros(1, 2, 2, dtype=torch.long), 20)
    torch.testing.assert_close(network.decode(shares), torch.ones(1, 3, 8, 8))
    network.decoder.output.bias.fill_(50.0)
    torch.testing.assert_close(network.decode(shares), torch.full((1, 3, 8, 8), 1.25))


def test_heads_are_means_then_scales() -> None:
    network = DVAE(TINY).eval().requires_grad_(False)
    network.decoder.output.weight.zero_()
    colours = torch.arange(6.0)
    network.decoder.output.bias.copy_(colours.repeat_interleave(TINY.patch**2))
    mean, scale = network.heads(one_hot(torch.zeros(1, 2, 3, dtype=torch.long), 20))
    assert torch.equal(mean, colours[:3].view(1, 3, 1, 1).expand(1, 3, 8, 12))
    assert torch.equal(scale, colours[3:].view(1, 3, 1, 1).expand(1, 3, 8, 12))


def test_what_does_not_fit_is_refused(network) -> None:
    with pytest.raises(ValueError, match="multiples of 4, not 18x16"):
        network.to_ids(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="12 ids are no grid of 3 rows and 3 columns"):
        network.from_ids(torch.zeros(1, 12, dtype=torch.long))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"blocks": (1,)}, "each of the 2 levels"),
        ({"blocks": (0, 1)}, "at least one block"),
        ({"channels": (8, 18)}, "multiples of 4"),
        ({"kernel": 4}, "odd"),
    ],
)
def test_what_a_config_may_not_say(change, said) -> None:
    with pytest.raises(ValueError, match=said):
        replace(TINY, **change)


def test_saved_and_loaded(network, pixels, tmp_path) -> None:
    path = tmp_path / "part.safetensors"
    save_part(path, network)
    again = load_part(path)
    assert again.config == network.config
    assert torch.equal(again.to_ids(pixels), network.to_ids(pixels))
    assert from_json(type(network.config), json.loads(json.dumps(asdict(network.config)))) == network.config


def count(module) -> int:
    return sum(value.numel() for value in module.parameters())


def test_sizes() -> None:
    with torch.device("meta"):
        published, pocket = DVAE(OPENAI), DVAE(POCKET)
    assert (count(published.encoder), count(published.decoder)) == (53_786_240, 43_829_766)
    assert (published.factor, pocket.factor) == (8, 8)
    assert count(pocket) < 3_900_000
