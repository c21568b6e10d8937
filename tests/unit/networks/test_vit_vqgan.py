"""ViT-VQGAN: the token codec's contract, and the table of places."""

import json
import math
from dataclasses import asdict, replace

import pytest
import torch

from mindseye.checkpoints.save import from_json, load_part, save_part
from mindseye.codec import TokenCodec
from mindseye.networks.vit_vqgan import BASE, POCKET, SMALL, Config, Tower, ViTVQGAN, places
from mindseye.nn.quantize import look_up

TINY = Config(
    encoder=Tower(width=16, layers=1, heads=2, hidden=24),
    decoder=Tower(width=24, layers=2, heads=3, hidden=32),
    codes=20,
    code_channels=4,
    patch=4,
)


@pytest.fixture(params=[False, True], ids=["signed", "positive"])
def network(request):
    torch.manual_seed(0)
    found = ViTVQGAN(replace(TINY, positive=request.param)).eval().requires_grad_(False)
    found.quantizer.weight.normal_(generator=torch.Generator().manual_seed(0))
    return found


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_satisfies_the_contract(network, pixels) -> None:
    assert isinstance(network, TokenCodec)
    z = network.encode(pixels)
    assert z.shape == (2, 4, 4, 6)
    torch.testing.assert_close(z.norm(dim=1), torch.ones(2, 4, 6))
    torch.testing.assert_close(network.codebook.norm(dim=1), torch.ones(20))
    found = network.quantise(z)
    torch.testing.assert_close(found.embeddings, look_up(found.ids, network.codebook))
    # On the unit sphere, the nearest is the one whose direction is most alike.
    assert torch.equal(found.ids, torch.einsum("bchw,kc->bkhw", z, network.codebook).argmax(1))
    ids = network.to_ids(pixels)
    assert torch.equal(ids, found.ids.flatten(1))
    painted = network.from_ids(ids, (4, 6))
    torch.testing.assert_close(painted, network.decode(found.embeddings))
    assert not torch.allclose(network.decode(z), painted)


def test_a_gradient_reaches_everything(pixels) -> None:
    torch.manual_seed(0)
    network = ViTVQGAN(TINY)
    found = network.quantise(network.encode(pixels))
    (network.decode(found.embeddings).square().mean() + sum(found.parts.values())).backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_positive_pictures_are_the_same_ones(pixels) -> None:
    """Half the contrast and half of light more, folded into the first and last layer, is what the flag does."""
    torch.manual_seed(0)
    network = ViTVQGAN(replace(TINY, positive=True)).eval().requires_grad_(False)
    other = ViTVQGAN(TINY).eval().requires_grad_(False)
    other.load_state_dict(network.state_dict())
    other.to_patches.bias += network.to_patches.weight.sum((1, 2, 3)) / 2
    other.to_patches.weight /= 2
    torch.testing.assert_close(network.encode(pixels), other.encode(pixels), atol=1e-5, rtol=1e-4)
    z = network.encode(pixels)
    torch.testing.assert_close(network.decode(z), other.decode(z) * 2 - 1, atol=1e-5, rtol=1e-4)


def test_places_are_told_apart_row_by_row() -> None:
    table = places((2, 3), 8)
    assert table.shape == (6, 8)
    row, column = 1, 2
    expected = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    expected += [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    torch.testing.assert_close(table[row * 3 + column], torch.tensor(expected))


def test_what_does_not_fit_is_refused(network) -> None:
    with pytest.raises(ValueError, match="multiples of 4, not 18x16"):
        network.encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="no grid"):
        network.from_ids(torch.zeros(1, 12, dtype=torch.long), (5, 2))
    with pytest.raises(ValueError, match="multiple of 4"):
        Tower(width=18, layers=1, heads=2, hidden=8)


def test_saved_and_loaded(network, pixels, tmp_path) -> None:
    path = tmp_path / "part.safetensors"
    save_part(path, network)
    again = load_part(path)
    assert torch.equal(again.to_ids(pixels), network.to_ids(pixels))
    assert from_json(Config, json.loads(json.dumps(asdict(network.config)))) == network.config


def test_sizes() -> None:
    def count(config):
        with torch.device("meta"):
            return sum(value.numel() for value in ViTVQGAN(config).parameters())

    assert count(POCKET) < 3_900_000 and POCKET.factor == 8
    # A block: 12 squares of the width, less the missing biases of the three projections.
    assert (
        count(SMALL)
        == 2 * (8 * (12 * 512**2 + 10 * 512) + 2 * 512)
        + 2 * 3 * 64 * 512
        + 512
        + 3
        + (2 * 32 * 512 + 32 + 512)
        + 8192 * 32
    )
    assert count(BASE) > 3 * count(SMALL)
