"""Parti: step by step the same as at once, and what it was published to weigh."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from mindseye.autoregression import Reader, State, TokenModel
from mindseye.checkpoints.save import from_json, load_part, save_part
from mindseye.networks import parti
from mindseye.networks.parti import POCKET, Config, Parti, Text

TINY = Config(
    text=Text(vocabulary=30, length=6, layers=1, pad=29),
    codes=11,
    grid=(3, 4),
    reach=None,
    width=16,
    layers=2,
    heads=2,
    hidden=24,
)
KINDS = [TINY, replace(TINY, reach=1)]
TEXT = torch.tensor([[28, 3, 5, 7, 29, 29], [28, 29, 29, 29, 29, 29]])


@pytest.fixture(params=KINDS, ids=["all", "nearby"])
def network(request):
    torch.manual_seed(0)
    found = Parti(request.param).eval().double().requires_grad_(False)
    for value in found.parameters():
        value.add_(torch.randn(value.shape) * 0.3)
    return found


@pytest.fixture
def ids():
    return torch.randint(11, (2, 12), generator=torch.Generator().manual_seed(1))


def test_step_by_step_is_at_once(network, ids):
    assert isinstance(network, TokenModel) and isinstance(network, Reader)
    assert (network.length, network.codes) == (12, 11)
    said, wanted = network(TEXT, ids)
    assert said is None and wanted.shape == (2, 12, 11)
    state = network.start(TEXT)
    assert isinstance(state, State)
    steps = [network.next(None, state)]
    for place in range(11):
        assert state.written == place
        steps.append(network.next(ids[:, place], state))
    torch.testing.assert_close(torch.stack(steps, 1), wanted, atol=1e-10, rtol=1e-8)


def test_given_codes_are_read_in_one_call(network, ids):
    wanted = network(TEXT, ids)[1]
    state = network.start(TEXT)
    torch.testing.assert_close(network.read(ids[:, :5], state), wanted[:, 5], atol=1e-10, rtol=1e-8)
    assert state.written == 5
    torch.testing.assert_close(network.next(ids[:, 5], state), wanted[:, 6], atol=1e-10, rtol=1e-8)


def test_rows_can_be_taken_apart(network, ids):
    wanted = network(TEXT[[1, 0, 1]], ids[[1, 0, 0]])[1]
    state = network.start(TEXT)
    network.next(None, state)
    state = state.select(torch.tensor([1, 0, 1]))
    for place in range(4):
        found = network.next(ids[[1, 0, 0], place], state)
    torch.testing.assert_close(found, wanted[:, 4], atol=1e-10, rtol=1e-8)


def test_a_token_depends_on_the_text_and_on_what_came_before_alone(network, ids):
    first = network(TEXT, ids)[1]
    later = network(TEXT, ids.index_fill(1, torch.tensor([7]), 3))[1]
    assert torch.equal(first[:, :8], later[:, :8]) and not torch.allclose(first[:, 8], later[:, 8])
    padded = network(TEXT[:, :4], ids)[1]
    torch.testing.assert_close(padded, first, atol=1e-5, rtol=1e-5)
    other = network(TEXT.index_fill(1, torch.tensor([1]), 9), ids)[1]
    assert not torch.allclose(other, first)


def test_what_does_not_fit_is_refused(network, ids):
    with pytest.raises(ValueError, match="a text has 7 ids, and 6 is the most"):
        network.start(torch.zeros(1, 7, dtype=torch.long))
    with pytest.raises(ValueError, match="13 codes do not fit a grid of 12"):
        network(TEXT, torch.zeros(2, 13, dtype=torch.long))
    with pytest.raises(ValueError, match="12 codes cannot begin a grid of 12"):
        network.read(ids, network.start(TEXT))
    state = network.start(TEXT)
    with pytest.raises(ValueError, match="each but the first needs the code before it"):
        network.next(ids[:, 0], state)
    network.read(ids[:, :11], state)
    with pytest.raises(ValueError, match="12 of 12 places are drawn"):
        network.next(ids[:, 11], state)
    with pytest.raises(ValueError, match="is none of 30"):
        Parti(replace(TINY, text=replace(TINY.text, pad=30)))


def test_a_gradient_reaches_everything(ids):
    for config in KINDS:
        network = Parti(config)
        network(TEXT, ids)[1].square().sum().backward()
        assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_saved_and_loaded(network, ids, tmp_path):
    path = tmp_path / "part.safetensors"
    save_part(path, network.float())
    again = load_part(path)
    assert again.config == network.config
    assert torch.equal(again(TEXT, ids)[1], network(TEXT, ids)[1])
    assert from_json(Config, json.loads(json.dumps(asdict(network.config)))) == network.config


@pytest.mark.parametrize(
    ("name", "blocks", "nominal"),
    [
        ("PARTI_350M", 352_714_752, 350e6),
        ("PARTI_750M", 755_834_880, 750e6),
        ("PARTI_3B", 3_021_619_200, 3e9),
        ("PARTI_20B", 20_406_927_360, 20e9),
    ],
)
def test_the_blocks_weigh_what_the_sizes_are_called(name, blocks, nominal):
    with torch.device("meta"):
        network = Parti(getattr(parti, name))
    found = sum(v.numel() for k, v in network.named_parameters() if "blocks." in k)
    assert found == pytest.approx(nominal, rel=0.025)
    assert found == blocks
    assert network.length == 1024 and network.codes == 8192


def test_the_pocket_is_small():
    with torch.device("meta"):
        network = Parti(POCKET)
    assert sum(value.numel() for value in network.parameters()) <= 4_600_000
    assert network.length == 256
