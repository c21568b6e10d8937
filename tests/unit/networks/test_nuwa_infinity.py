"""NUWA-Infinity: what a patch depends on, and that nothing which is dropped was needed."""

from dataclasses import replace

import pytest
import torch

from mindseye.autoregression import Forgetful, State, TokenModel, sample
from mindseye.checkpoints.save import load_part, save_part
from mindseye.networks.direction import DIRECTIONS, Plan, plan
from mindseye.networks.nuwa_infinity import POCKET, Config, NUWAInfinity, from_patches, to_patches
from mindseye.networks.parti import Text
from mindseye.noise import Noise
from mindseye.request import drain

TINY = Config(
    text=Text(vocabulary=30, length=6, layers=1, pad=29), codes=11, patch=2, width=16, layers=2, heads=2, hidden=24
)
TEXT = torch.tensor([[28, 3, 5, 7, 29, 29], [28, 4, 29, 29, 29, 29]])


def made(config=TINY):
    torch.manual_seed(0)
    found = NUWAInfinity(config).eval().double().requires_grad_(False)
    for value in found.parameters():
        value.add_(torch.randn(value.shape) * 0.3)
    return found


@pytest.fixture(scope="module")
def network():
    return made()


def tokens(count, rows=2):
    return torch.randint(11, (rows, count), generator=torch.Generator().manual_seed(1))


def at_once(network, ids, planned):
    return network(TEXT, ids, planned)[1]


def stepped(chain, ids, skip=0):
    state = chain.start(TEXT)
    return torch.stack(
        [chain.next(ids[:, skip + place - 1] if place else None, state) for place in range(chain.length)], 1
    )


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_step_by_step_is_at_once_in_every_direction(network, direction):
    planned = plan(3, 2, direction)
    ids = tokens(24)
    wanted = at_once(network, ids, planned)
    chain = network.chain(planned)
    assert isinstance(chain, TokenModel) and (chain.length, chain.codes) == (24, 11)
    torch.testing.assert_close(stepped(chain, ids), wanted, atol=1e-10, rtol=1e-8)


def test_dropping_what_nobody_sees_changes_nothing_and_bounds_the_memory(network):
    planned = plan(1, 7, "left")
    ids = tokens(28)
    bounded, endless = network.chain(planned), replace(network.chain(planned), keep_all=True)
    sizes = {}
    for name, chain in (("bounded", bounded), ("endless", endless)):
        state = chain.start(TEXT)
        for place in range(28):
            chain.next(ids[:, place - 1] if place else None, state)
        sizes[name] = len(state.pool)
    assert sizes == {"bounded": 1, "endless": 6}
    assert torch.equal(stepped(bounded, ids), stepped(endless, ids))


def test_a_patch_sees_nothing_beyond_its_reach():
    network, planned = made(replace(TINY, layers=1)), plan(1, 4, "left")
    ids = tokens(16)
    changed = ids.clone()
    changed[:, :4] = 10 - ids[:, :4]
    first, other = at_once(network, ids, planned), at_once(network, changed, planned)
    assert not torch.allclose(first[:, 4:8], other[:, 4:8])
    assert torch.equal(first[:, 8:], other[:, 8:])


def test_the_order_of_patches_that_do_not_see_each_other_is_free(network):
    one, other = Plan(1, 3, ((0, 0), (0, 2), (0, 1))), Plan(1, 3, ((0, 2), (0, 0), (0, 1)))
    ids = tokens(12)
    swapped = torch.cat([ids[:, 4:8], ids[:, :4], ids[:, 8:]], 1)
    found = at_once(network, swapped, other)
    back = torch.cat([found[:, 4:8], found[:, :4], found[:, 8:]], 1)
    torch.testing.assert_close(back, at_once(network, ids, one), atol=1e-10, rtol=1e-8)


def test_the_middle_of_a_strip_is_the_same_wherever_it_is(network):
    """No absolute place, so a canvas may be longer than any that was trained on."""
    short, long = plan(1, 5, "left"), plan(1, 9, "left")
    ids = tokens(4).repeat(1, 9)
    one, other = at_once(made(replace(TINY, layers=1)), ids[:, :20], short), None
    network = made(replace(TINY, layers=1))
    other = at_once(network, ids, long)
    torch.testing.assert_close(one[:, 8:12], other[:, 24:28], atol=1e-10, rtol=1e-8)


def test_a_row_that_forgets_sees_its_own_patch_alone(network):
    """Another canvas around it changes nothing, and where nothing is around it, forgetting does not either."""
    planned = plan(1, 3, "left")
    ids = tokens(12)
    changed = ids.clone()
    changed[:, :4] = 10 - ids[:, :4]
    chain = replace(network.chain(planned), forgets=True)
    assert isinstance(chain, Forgetful)

    def written(chain, ids):
        state = chain.start(TEXT)
        chain.forget(torch.tensor([False, True]), state)
        state = state.select(torch.tensor([0, 1]))
        return torch.stack([chain.next(ids[:, place - 1] if place else None, state) for place in range(8)], 1)

    first, other = written(chain, ids), written(chain, changed)
    assert not torch.allclose(first[0, 4:], other[0, 4:])
    assert torch.equal(first[1, 4:], other[1, 4:])
    remembers = written(network.chain(planned), ids)
    torch.testing.assert_close(remembers[0], first[0], atol=1e-10, rtol=1e-8)
    torch.testing.assert_close(remembers[1, :4], first[1, :4], atol=1e-10, rtol=1e-8)
    assert not torch.allclose(remembers[1, 4:], first[1, 4:])


def test_one_patch_is_the_plain_model(network):
    """A canvas of one patch: each token from all before it, nothing else."""
    planned = plan(1, 1)
    ids = tokens(4)
    first = at_once(network, ids, planned)
    later = at_once(network, ids.index_fill(1, torch.tensor([2]), 3), planned)
    assert torch.equal(first[:, :3], later[:, :3]) and not torch.equal(first[:, 3], later[:, 3])


def test_given_patches_are_read_not_written(network):
    planned = plan(2, 3, "outward", given=[(0, 0), (1, 0)])
    ids = tokens(24, rows=1)
    given = ids.clone()
    given[:, 8:] = -1
    chain = network.chain(planned, given)
    assert (chain.ready, chain.length) == (2, 16)
    both = ids.expand(2, -1)
    wanted = at_once(network, both, planned)
    torch.testing.assert_close(stepped(chain, both, skip=8), wanted[:, 8:], atol=1e-10, rtol=1e-8)


def test_given_tokens_within_a_patch_are_certain(network):
    given = torch.full((1, 16), -1)
    given[0, :4], given[0, 5], given[0, 15] = torch.tensor([1, 2, 3, 4]), 9, 7
    chain = network.float().chain(plan(2, 2), given)
    try:
        drawn = drain(sample(chain, TEXT[:1], TEXT[1:], Noise([3, 4]), guidance=3.0, temperature=2.0))
    finally:
        network.double()
    assert drawn.shape == (2, 12)
    assert drawn[:, 1].tolist() == [9, 9] and drawn[:, 11].tolist() == [7, 7]
    assert not torch.equal(drawn[0], drawn[1])


def test_rows_can_be_taken_apart(network):
    planned = plan(1, 2, "left")
    ids = tokens(8)
    chain = network.chain(planned)
    state = chain.start(TEXT)
    assert isinstance(state, State)
    for place in range(6):
        chain.next(ids[:, place - 1] if place else None, state)
    state = state.select(torch.tensor([1, 1]))
    assert state.written == 5
    found = chain.next(ids[[1, 1], 5], state)
    torch.testing.assert_close(found, at_once(network, ids, planned)[[1, 1], 6], atol=1e-10, rtol=1e-8)


def test_patches_and_back():
    planned = plan(2, 3, "bottom-right")
    ids = torch.arange(24)[None]
    found = to_patches(ids, planned, 2)
    assert found[0, :4].tolist() == [16, 17, 22, 23]
    assert torch.equal(from_patches(found, planned, 2), ids)
    for turn in (to_patches, from_patches):
        with pytest.raises(ValueError, match="23 tokens are not 6 patches of 4"):
            turn(ids[:, :23], planned, 2)


def test_what_does_not_fit_is_refused(network):
    planned = plan(1, 2, "left")
    with pytest.raises(ValueError, match="7 tokens are not 2 patches of 4"):
        network(TEXT, tokens(7), planned)
    with pytest.raises(ValueError, match="7 tokens are not 2 patches of 4"):
        network.chain(planned, tokens(7, rows=1))
    with pytest.raises(ValueError, match="sees \\(2, 1\\) patches away"):
        network.chain(plan(1, 2, reach=(2, 1)))
    chain = network.chain(planned)
    state = chain.start(TEXT)
    with pytest.raises(ValueError, match="each token but the first"):
        chain.next(tokens(2)[:, 0], state)
    for place in range(8):
        chain.next(tokens(8)[:, place] if place else None, state)
    with pytest.raises(ValueError, match="the canvas of 2 patches is full"):
        chain.next(tokens(8)[:, 0], state)


def test_a_gradient_reaches_everything():
    network = NUWAInfinity(TINY)
    network(TEXT, tokens(16), plan(2, 2))[1].square().sum().backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_saved_and_loaded(tmp_path):
    network = made().float()
    save_part(tmp_path / "part.safetensors", network)
    again = load_part(tmp_path / "part.safetensors")
    assert again.config == TINY
    assert torch.equal(at_once(again, tokens(8), plan(1, 2)), at_once(network, tokens(8), plan(1, 2)))


def test_the_pocket_is_small():
    with torch.device("meta"):
        network = NUWAInfinity(POCKET)
    assert sum(value.numel() for value in network.parameters()) <= 4_600_000
