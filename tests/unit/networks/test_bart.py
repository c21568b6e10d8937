"""DALL-E mini's transformer: sizes, what sees what, and one code at a time like all at once."""

import json
from dataclasses import asdict, replace

import pytest
import torch

from mindseye.autoregression import Predictor, Reader, State, TokenModel
from mindseye.checkpoints.save import from_json, load_part, save_part
from mindseye.networks.bart import MEGA, MINI, POCKET, Bart, Config

TINY = Config(
    width=32,
    heads=4,
    hidden=48,
    encoder=2,
    decoder=2,
    vocabulary=50,
    text_length=7,
    codes=20,
    rows=23,
    length=9,
    start=21,
)
TEXT = torch.tensor([[0, 5, 6, 2, 1, 1, 1], [0, 2, 1, 1, 1, 1, 1], [0, 9, 8, 7, 6, 5, 2]])


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    found = Bart(TINY).eval().requires_grad_(False)
    for parameter in found.parameters():
        parameter.copy_(torch.randn(parameter.shape) * parameter.shape[-1] ** -0.5)
    return found


@pytest.fixture(scope="module")
def ids():
    return torch.randint(0, 20, (3, 9), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("config", "count"), [(MINI, 437_833_712), (MEGA, 2_587_521_024), (POCKET, 3_555_840)])
def test_sizes(config, count):
    """The released port counts 129,008 and 446,464 more: scales that its norms have and the files do not."""
    with torch.device("meta"):
        network = Bart(config)
    assert sum(parameter.numel() for parameter in network.parameters()) == count


def test_satisfies_the_contract(network):
    assert isinstance(network, TokenModel) and isinstance(network, Reader) and isinstance(network, Predictor)
    assert isinstance(network.start(TEXT), State)
    assert (network.length, network.codes) == (9, 20)


def test_one_by_one_is_all_at_once(network, ids):
    _, whole = network(TEXT, ids)
    assert whole.shape == (3, 9, 20)
    state = network.start(TEXT)
    single = [network.next(None, state)] + [network.next(column, state) for column in ids[:, :-1].unbind(1)]
    torch.testing.assert_close(torch.stack(single, 1), whole, atol=1e-6, rtol=1e-5)
    assert state.written == 9
    with pytest.raises(ValueError, match="9 codes, not 10"):
        network.next(ids[:, -1], state)


def test_reads_given_codes_in_one_call(network, ids):
    _, whole = network(TEXT, ids)
    state = network.start(TEXT)
    torch.testing.assert_close(network.read(ids[:, :4], state), whole[:, 4], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.next(ids[:, 4], state), whole[:, 5], atol=1e-6, rtol=1e-5)


def test_rows_that_are_selected_go_their_own_ways(network, ids):
    _, whole = network(TEXT, ids)
    state = network.start(TEXT)
    network.next(None, state)
    both = state.select(torch.tensor([2, 0, 2]))
    _, other = network(TEXT[[2, 0, 2]], ids)
    torch.testing.assert_close(network.next(ids[:, 0], both), other[:, 1], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(network.next(ids[:, 0], state), whole[:, 1], atol=1e-6, rtol=1e-5)


def test_nothing_is_seen_too_early(network, ids):
    _, before = network(TEXT, ids)
    changed = ids.clone()
    changed[:, 4] = (changed[:, 4] + 1) % 20
    _, after = network(TEXT, changed)
    assert torch.equal(before[:, :5], after[:, :5])
    assert (before[:, 5:] != after[:, 5:]).any(dim=-1).all()


def test_ids_that_fill_a_text_are_not_looked_at(network, ids):
    short = TEXT[:2, :4]
    torch.testing.assert_close(network(short, ids[:2])[1], network(TEXT[:2], ids[:2])[1], atol=1e-6, rtol=1e-5)
    nothing = torch.ones(1, 7, dtype=torch.long)
    assert torch.isfinite(network(nothing, ids[:1])[1]).all()


def test_rows_behind_the_codes_have_no_logits(network, ids):
    state = network.start(TEXT)
    assert network.next(None, state).shape == (3, 20)
    assert network.decoder.head.weight.shape == (23, 32)


def test_saved_and_loaded(network, tmp_path, ids):
    assert from_json(Config, json.loads(json.dumps(asdict(TINY)))) == TINY
    save_part(tmp_path / "bart.safetensors", network)
    again = load_part(tmp_path / "bart.safetensors")
    assert torch.equal(again(TEXT, ids)[1], network(TEXT, ids)[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, "do not divide"),
        ({"rows": 19}, "do not fit"),
        ({"start": 23}, "0 to 22, not 23"),
        ({"pad": 50}, "0 to 49, not 50"),
    ],
)
def test_what_no_config_may_say(change, said):
    with pytest.raises(ValueError, match=said):
        replace(TINY, **change)
