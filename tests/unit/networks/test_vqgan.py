"""VQGAN: the token codec's contract, and what a config may say."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from mindseye.checkpoints.save import from_json, load_part, save_part
from mindseye.codec import TokenCodec
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import F16, POCKET, VQGAN, Attend, Config
from mindseye.nn.quantize import look_up, snap

TINY = Config(
    encoder=Tower(channels=(8, 16), blocks=(1, 1)),
    decoder=Tower(channels=(8, 16), blocks=(1, 2)),
    codes=20,
    code_channels=4,
    z_channels=6,
    attention=(1,),
    patch=2,
    groups=4,
)
KINDS = [TINY, replace(TINY, unit=True), replace(TINY, quantizer="gumbel")]


@pytest.fixture(params=KINDS, ids=["nearest", "unit", "gumbel"])
def network(request):
    torch.manual_seed(0)
    found = VQGAN(request.param).eval().requires_grad_(False)
    found.quantizer.weight.normal_(generator=torch.Generator().manual_seed(0))
    return found


@pytest.fixture
def pixels():
    return torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_satisfies_the_contract(network, pixels) -> None:
    assert isinstance(network, TokenCodec)
    assert network.factor == 4
    z = network.encode(pixels)
    assert z.shape == (2, 4, 4, 6)
    assert network.codebook.shape == (20, 4)
    found = network.quantise(z)
    assert found.ids.shape == (2, 4, 6)
    assert torch.equal(found.embeddings, look_up(found.ids, network.codebook))
    ids = network.to_ids(pixels)
    assert torch.equal(ids, found.ids.flatten(1))
    painted = network.from_ids(ids, (4, 6))
    assert painted.shape == pixels.shape
    torch.testing.assert_close(painted, network.decode(found.embeddings))
    # Decoding quantises nothing.
    assert not torch.allclose(network.decode(z), painted)


def test_ids_are_in_rows(network) -> None:
    ids = torch.arange(8).view(1, 8)
    wide = network.from_ids(ids, (2, 4))
    embeddings = network.codebook[:8].T.reshape(1, 4, 2, 4)
    torch.testing.assert_close(wide, network.decode(embeddings))
    square = torch.arange(9).view(1, 9)
    assert torch.equal(network.from_ids(square), network.from_ids(square, (3, 3)))


def test_points_of_the_codebooks_space_snap_to_it(network) -> None:
    z = torch.randn(1, 4, 3, 3, generator=torch.Generator().manual_seed(2), requires_grad=True)
    with torch.enable_grad():
        network.decode(snap(z, network.codebook)).square().sum().backward()
    assert z.grad.abs().sum() > 0
    codes = look_up(torch.arange(9).view(1, 3, 3), network.codebook)
    assert torch.equal(snap(codes, network.codebook), codes)


def test_unit_vectors_are(pixels) -> None:
    torch.manual_seed(0)
    network = VQGAN(replace(TINY, unit=True))
    torch.testing.assert_close(network.encode(pixels).norm(dim=1), torch.ones(2, 4, 6))
    torch.testing.assert_close(network.codebook.norm(dim=1), torch.ones(20))


def test_a_gradient_reaches_everything(pixels) -> None:
    for config in KINDS:
        torch.manual_seed(0)
        network = VQGAN(config)
        found = network.quantise(network.encode(pixels))
        (network.decode(found.embeddings).square().mean() + sum(found.parts.values())).backward()
        assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_a_picture_alone_is_the_picture_in_a_batch(network, pixels) -> None:
    both = network.from_ids(network.to_ids(pixels), (4, 6))
    for one, painted in zip(pixels.split(1), both.split(1), strict=True):
        torch.testing.assert_close(network.from_ids(network.to_ids(one), (4, 6)), painted, atol=1e-5, rtol=1e-5)


def test_attention_stands_behind_every_block_of_its_level() -> None:
    with torch.device("meta"):
        network = VQGAN(F16)
    for tower, count in ((network.encoder, 2), (network.decoder, 3)):
        kinds = [[isinstance(part, Attend) for part in level["blocks"].children()] for level in tower.levels]
        assert kinds == [[False] * count] * 4 + [[False, True] * count]


def test_what_does_not_fit_is_refused(network) -> None:
    with pytest.raises(ValueError, match="multiples of 4, not 18x16"):
        network.encode(torch.zeros(1, 3, 16, 18))
    with pytest.raises(ValueError, match="12 ids are no grid of 3 rows and 3 columns"):
        network.from_ids(torch.zeros(1, 12, dtype=torch.long))
    with pytest.raises(ValueError, match="no grid"):
        network.from_ids(torch.zeros(1, 12, dtype=torch.long), (5, 2))
    with pytest.raises(ValueError, match="2 levels"):
        replace(TINY, attention=(2,))
    with pytest.raises(ValueError, match="unit sphere"):
        replace(TINY, unit=True, quantizer="gumbel")


def test_saved_and_loaded(network, pixels, tmp_path) -> None:
    path = tmp_path / "part.safetensors"
    save_part(path, network)
    again = load_part(path)
    assert again.config == network.config
    assert torch.equal(again.to_ids(pixels), network.to_ids(pixels))
    assert from_json(Config, json.loads(json.dumps(asdict(network.config)))) == network.config


def test_the_pocket_is_small() -> None:
    with torch.device("meta"):
        network = VQGAN(POCKET)
    assert network.factor == 8
    assert sum(value.numel() for value in network.parameters()) < 4_000_000
