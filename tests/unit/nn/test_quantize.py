"""Codes and their gradients, against closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from mindseye.nn.quantize import (
    CodebookKeeper,
    GumbelQuantizer,
    NearestQuantizer,
    as_grid,
    clamp_with_gradient,
    commitment,
    divergence,
    gumbel,
    look_up,
    nearest,
    one_hot,
    perplexity,
    relaxed,
    snap,
    straight_through,
)


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def test_straight_through_has_one_value_and_the_others_gradient() -> None:
    value = torch.tensor([1e8, 0.1, -3.0], requires_grad=True)
    carrier = torch.tensor([[0.3], [0.7]], requires_grad=True)
    out = straight_through(value.expand(2, 3), carrier)
    # To the bit, which carrier + (value - carrier) is not.
    assert torch.equal(out, value.expand(2, 3))
    (out * torch.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert torch.equal(carrier.grad, torch.full((2, 1), 111.0))
    assert value.grad is None


def test_a_clamp_lets_a_gradient_through_that_leads_back() -> None:
    x = torch.tensor([-2.0, -2.0, 0.5, 0.5, 3.0, 3.0], requires_grad=True)
    out = clamp_with_gradient(x, 0.0, 1.0)
    assert out.tolist() == [0.0, 0.0, 0.5, 0.5, 1.0, 1.0]
    # Descent goes against the gradient: at -2, a negative one leads up and back in.
    out.backward(torch.tensor([-1.0, 1.0, -1.0, 1.0, 1.0, -1.0]))
    assert x.grad.tolist() == [-1.0, 0.0, -1.0, 1.0, 1.0, 0.0]


def test_a_clamp_has_bounds_by_channel() -> None:
    x = torch.zeros(1, 2, 1, 1, requires_grad=True)
    low = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1)
    out = clamp_with_gradient(x, low, low + 0.25)
    assert out.flatten().tolist() == [0.5, -0.75]
    out.sum().backward()
    assert x.grad.flatten().tolist() == [0.0, 1.0]


@given(st.integers(0, 10_000), st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
def test_nearest_is_nearest(seed, dtype) -> None:
    z = torch.randn(2, 3, 4, 5, generator=seeded(seed)).to(dtype)
    codebook = torch.randn(11, 3, generator=seeded(seed + 1)).to(dtype)
    distances = (z.double().permute(0, 2, 3, 1)[..., None, :] - codebook.double()).square().sum(-1)
    ids = nearest(z, codebook)
    chosen = distances.gather(-1, ids[..., None])[..., 0]
    # By distance: of two that are equally near, either is right.
    torch.testing.assert_close(chosen, distances.min(-1).values, atol=1e-5, rtol=1e-5)


def test_nearest_does_not_depend_on_how_much_is_held_at_a_time(monkeypatch) -> None:
    z, codebook = torch.randn(2, 4, 5, 7, generator=seeded()), torch.randn(30, 4, generator=seeded(1))
    whole = nearest(z, codebook)
    monkeypatch.setattr("mindseye.nn.quantize._CHUNK", 100)
    assert torch.equal(nearest(z, codebook), whole)


def test_snap_is_the_code_and_pulls_the_vector() -> None:
    z = torch.randn(1, 4, 3, 2, generator=seeded(), requires_grad=True)
    codebook = torch.nn.Parameter(torch.randn(9, 4, generator=seeded(1)))
    out = snap(z, codebook)
    assert torch.equal(out, look_up(nearest(z, codebook), codebook))
    out.sin().sum().backward()
    torch.testing.assert_close(z.grad, out.detach().cos())
    assert codebook.grad is None


def test_the_loss_pulls_both_ways() -> None:
    quantizer = NearestQuantizer(2, 1)
    quantizer.weight.data = torch.tensor([[0.0], [10.0]])
    z = torch.tensor([1.0, 2.0, 9.0]).view(1, 1, 1, 3).requires_grad_()
    found = quantizer(z)
    assert found.ids.flatten().tolist() == [0, 0, 1]
    assert found.parts["codebook"].item() == found.parts["commitment"].item() == pytest.approx((1 + 4 + 1) / 3)
    for legacy, encoder, codes in ((False, 0.25, 1.0), (True, 1.0, 0.25)):
        loss = commitment(quantizer(z).parts, beta=0.25, legacy=legacy)
        to_z, to_codes = torch.autograd.grad(loss, (z, quantizer.weight))
        torch.testing.assert_close(to_z.flatten(), encoder * 2 / 3 * torch.tensor([1.0, 2.0, -1.0]))
        torch.testing.assert_close(to_codes.flatten(), codes * 2 / 3 * torch.tensor([-3.0, 1.0]))


def test_unit_codes_are_sought_by_direction() -> None:
    quantizer = NearestQuantizer(3, 2, unit=True)
    quantizer.weight.data = torch.tensor([[100.0, 0.0], [0.0, 0.01], [-5.0, -5.0]])
    z = F.normalize(torch.tensor([[1.0, 0.1], [0.1, 1.0], [-1.0, -0.5]]), dim=1).T.reshape(1, 2, 1, 3)
    found = quantizer(z)
    assert found.ids.flatten().tolist() == [0, 1, 2]
    torch.testing.assert_close(found.embeddings.norm(dim=1), torch.ones(1, 1, 3))
    torch.testing.assert_close(found.embeddings, look_up(found.ids, quantizer.codebook))


def test_gumbel_takes_the_likeliest_unless_it_is_given_a_generator() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(5, 3)
    z = torch.randn(1, 3, 2, 2, generator=seeded())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, again = quantizer(z), quantizer(z)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first.ids, again.ids)
    assert torch.equal(first.ids, quantizer.projection(z).argmax(1))
    with torch.no_grad():
        assert torch.equal(quantizer(z).embeddings, first.embeddings.detach())
    drawn, same = (quantizer(z, generator=seeded(7)).ids for _ in range(2))
    assert torch.equal(drawn, same)


def test_gumbel_draws_by_likelihood() -> None:
    quantizer = GumbelQuantizer(3, 1)
    shares = torch.tensor([0.2, 0.5, 0.3])
    quantizer.projection.weight.data.zero_()
    quantizer.projection.bias.data = shares.log()
    found = quantizer(torch.zeros(1, 1, 100, 200), generator=seeded())
    # 20,000 draws: the deviation of a share is 0.0035.
    torch.testing.assert_close(torch.bincount(found.ids.flatten()) / 20_000, shares, atol=0.015, rtol=0)
    divergence = sum(share * math.log(3 * share) for share in shares.tolist())
    assert found.parts["kl"].item() == pytest.approx(divergence, rel=1e-5)


def test_a_relaxed_draw_is_a_mixture_the_colder_the_purer() -> None:
    logits = torch.randn(2, 7, 3, 4, generator=seeded()) * 2
    for temperature in (2.0, 0.5, 1e-3):
        shares = relaxed(logits, temperature=temperature, generator=seeded(3))
        torch.testing.assert_close(shares.sum(1), torch.ones(2, 3, 4))
        torch.testing.assert_close(shares, (gumbel(logits, seeded(3)) / temperature).softmax(1))
    drawn = gumbel(logits, seeded(3)).argmax(1)
    torch.testing.assert_close(shares, one_hot(drawn, 7), atol=1e-3, rtol=0)
    hard = relaxed(logits, temperature=2.0, generator=seeded(3), hard=True)
    assert torch.equal(hard, one_hot(drawn, 7))
    # Without a generator nothing is drawn.
    assert torch.equal(relaxed(logits), logits.softmax(1))
    assert torch.equal(relaxed(logits, hard=True).argmax(1), logits.argmax(1))


def test_gumbel_noise_has_its_distribution() -> None:
    """Mean: Euler's constant; variance: a sixth of pi squared; and no infinity."""
    noise = gumbel(torch.zeros(1, 100, 100, 100), seeded())
    assert noise.isfinite().all()
    assert noise.mean().item() == pytest.approx(0.5772, abs=5e-3)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, abs=1e-2)


def test_divergence_from_equal_likelihoods() -> None:
    assert divergence(torch.zeros(1, 8, 2, 2)).item() == pytest.approx(0, abs=1e-6)
    assert divergence(one_hot(torch.zeros(1, 2, 2, dtype=torch.long), 8) * 50).item() == pytest.approx(math.log(8))


def test_a_row_of_ids_as_a_grid() -> None:
    assert as_grid(torch.arange(6)[None], (2, 3)).tolist() == [[[0, 1, 2], [3, 4, 5]]]
    assert as_grid(torch.arange(4)[None]).tolist() == [[[0, 1], [2, 3]]]
    with pytest.raises(ValueError, match="6 ids are no grid of 2 rows and 2 columns"):
        as_grid(torch.arange(6)[None])


def test_gumbels_gradient_is_the_mixtures() -> None:
    torch.manual_seed(0)
    quantizer = GumbelQuantizer(4, 2)
    z = torch.randn(1, 2, 1, 1, requires_grad=True)
    found = quantizer(z, temperature=0.5)
    chosen = quantizer.weight[found.ids.item()]
    torch.testing.assert_close(found.embeddings.flatten(), chosen)
    pull = torch.tensor([1.0, -2.0])
    to_z, to_codes = torch.autograd.grad((found.embeddings.flatten() * pull).sum(), (z, quantizer.weight))
    mixture = (quantizer.projection(z).flatten() / 0.5).softmax(0) @ quantizer.weight.detach()
    (wanted,) = torch.autograd.grad((mixture * pull).sum(), z)
    torch.testing.assert_close(to_z, wanted)
    expected = torch.zeros(4, 2)
    expected[found.ids.item()] = pull
    torch.testing.assert_close(to_codes, expected)


def test_perplexity() -> None:
    assert perplexity(torch.arange(8).repeat(3), 16) == pytest.approx(8)
    assert perplexity(torch.zeros(2, 5, dtype=torch.long), 16) == pytest.approx(1)


def clusters(count: int, generator: torch.Generator):
    """Vectors around the corners of a square, and where these are."""
    corners = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    rows = corners[torch.randint(4, (count,), generator=generator)]
    return corners, (rows + 0.05 * torch.randn(count, 2, generator=generator)).T.reshape(1, 2, 1, count)


def test_a_codebook_follows_its_vectors_and_none_stays_dead() -> None:
    generator = seeded()
    quantizer = NearestQuantizer(8, 2).requires_grad_(False)
    quantizer.weight.fill_(50.0)  # the first would be chosen, and no other ever
    keeper = CodebookKeeper(8, 2, decay=0.8, dead=0.2)
    dead = []
    for _ in range(80):
        corners, z = clusters(256, generator)
        dead.append(keeper.update(quantizer.weight, z, quantizer(z).ids, generator))
    assert dead[0] == 7
    assert sum(dead[-20:]) == 0
    assert len(quantizer(z).ids.unique()) == 8
    assert (torch.cdist(corners, quantizer.weight).min(1).values < 0.1).all()
    # Each is the mean of what chooses it.
    ids, rows = quantizer(z).ids.flatten(), z[0, :, 0].T
    means = torch.stack([rows[ids == code].mean(0) for code in range(8)])
    torch.testing.assert_close(quantizer.weight.data, means, atol=0.03, rtol=0)


def test_moved_codes_are_weighted_means() -> None:
    keeper = CodebookKeeper(2, 1, decay=0.5, dead=0.0)
    weight = torch.tensor([[7.0], [8.0]])
    z = torch.tensor([1.0, 3.0, 5.0]).view(1, 1, 1, 3)
    keeper.update(weight, z, torch.tensor([[[0, 0, 0]]]), seeded())
    assert weight.flatten().tolist() == [3.0, 8.0]
    keeper.update(weight, z, torch.tensor([[[0, 1, 1]]]), seeded())
    # First code: half of a half of (1 + 3 + 5) and half of 1, over half of a half of 3 and half of 1.
    assert weight.flatten().tolist() == pytest.approx([(9 / 4 + 1 / 2) / (3 / 4 + 1 / 2), 4.0])


def test_a_keeper_that_does_not_move_revives_only() -> None:
    keeper = CodebookKeeper(3, 1, decay=0.5, moves=False, dead=0.5)
    weight = torch.tensor([[1.0], [2.0], [3.0]])
    z = torch.tensor([1.1, 1.1, 2.1, 2.1]).view(1, 1, 1, 4)
    ids = torch.tensor([[[0, 0, 1, 1]]])
    keeper.counts += 2.0
    for _ in range(3):
        keeper.update(weight, z, ids, seeded(), revive=False)
    assert weight.flatten().tolist() == [1.0, 2.0, 3.0]
    assert keeper.update(weight, z, ids, seeded()) == 1
    assert weight[:2].flatten().tolist() == [1.0, 2.0]
    assert weight[2].item() in (pytest.approx(1.1), pytest.approx(2.1))


def test_with_fewer_vectors_than_dead_codes_the_others_wait() -> None:
    keeper = CodebookKeeper(6, 1, moves=False)
    weight = torch.full((6, 1), 9.0)
    z = torch.tensor([1.0, 2.0]).view(1, 1, 1, 2)
    assert keeper.update(weight, z, nearest(z, weight), seeded()) == 2
    assert sorted(weight.flatten().tolist()) == [1.0, 2.0, 9.0, 9.0, 9.0, 9.0]


def test_the_nearest_code_is_found_in_float32_under_autocast():
    generator = torch.Generator().manual_seed(0)
    z = 8 + torch.randn(1, 4, 16, 16, generator=generator)
    codes = 8 + torch.randn(64, 4, generator=generator)
    truth = nearest(z, codes)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(nearest(z, codes), truth)
