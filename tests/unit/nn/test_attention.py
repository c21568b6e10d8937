"""`attend` against the formula written out, and what its masks mean."""

import math
from pathlib import Path

import pytest
import torch

import mindseye
from mindseye.nn import attention
from mindseye.nn.attention import Attention, attend


def random(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def by_hand(q, k, v, heads, allowed=None, added=None):
    """Softmax attention one picture, one head and one query at a time."""
    out = torch.zeros(q.shape)
    width = q.shape[-1] // heads
    for b in range(q.shape[0]):
        for h in range(heads):
            part = slice(h * width, (h + 1) * width)
            for n in range(q.shape[1]):
                scores = (k[b, :, part] @ q[b, n, part]) / math.sqrt(width)
                if added is not None:
                    scores = scores + added[b, h, n]
                weights = scores.exp()
                if allowed is not None:
                    weights = weights * allowed[b, h, n]
                out[b, n, part] = (weights / weights.sum()) @ v[b, :, part]
    return out


@pytest.fixture
def qkv():
    return random(2, 3, 8), random(2, 5, 8), random(2, 5, 8) + 1


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_formula(qkv, heads):
    torch.testing.assert_close(attend(*qkv, heads=heads), by_hand(*qkv, heads))


def test_key_mask(qkv):
    mask = torch.tensor([[True, True, True, False, False], [True, False, True, True, True]])
    truth = by_hand(*qkv, 2, mask[:, None, None, :].expand(2, 2, 3, 5))
    torch.testing.assert_close(attend(*qkv, heads=2, mask=mask), truth)


def test_four_axis_masks(qkv):
    allowed = random(1, 2, 3, 5) > -0.5
    allowed[..., 0] = True
    torch.testing.assert_close(attend(*qkv, heads=2, mask=allowed), by_hand(*qkv, 2, allowed.expand(2, 2, 3, 5)))
    added = random(2, 2, 1, 5)
    torch.testing.assert_close(attend(*qkv, heads=2, mask=added), by_hand(*qkv, 2, added=added.expand(2, 2, 3, 5)))


@pytest.mark.parametrize("kind", ["plain", "keys", "added"])
@pytest.mark.parametrize("queries", [5, 3])
def test_causal(queries, kind):
    """Queries are the last places: with 3 of them over 5 keys, the first sees keys 0 to 2."""
    q, k, v = random(2, queries, 8), random(2, 5, 8), random(2, 5, 8) + 1
    past = torch.tensor([[j <= i + 5 - queries for j in range(5)] for i in range(queries)]).expand(2, 2, queries, 5)
    mask, added = None, None
    if kind == "keys":
        mask = torch.tensor([[True, True, True, False, True], [True, False, True, True, True]])
        past = past & mask[:, None, None, :]
    if kind == "added":
        mask = random(1, 2, queries, 5)
        added = mask.expand(2, 2, queries, 5)
    torch.testing.assert_close(attend(q, k, v, heads=2, mask=mask, causal=True), by_hand(q, k, v, 2, past, added))


def test_module_equals_torchs():
    ours = Attention(8, heads=2, context=6, bias=True)
    theirs = torch.nn.MultiheadAttention(8, 2, kdim=6, vdim=6, batch_first=True)
    with torch.no_grad():
        theirs.q_proj_weight.copy_(ours.query.weight)
        theirs.k_proj_weight.copy_(ours.key.weight)
        theirs.v_proj_weight.copy_(ours.value.weight)
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, ours.key.bias, ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, context = random(2, 3, 8), random(2, 5, 6)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    truth, _ = theirs(x, context, context, key_padding_mask=~mask)
    torch.testing.assert_close(ours(x, context, mask), truth)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="8 channels cannot be split into 3 heads"):
        Attention(8, heads=3)


def test_nobody_else_calls_torchs():
    """A better kernel then has one place to go."""
    sources = Path(mindseye.__file__).parent.rglob("*.py")
    callers = [path.name for path in sources if "F.scaled_dot_product_attention" in path.read_text(encoding="utf-8")]
    assert callers == ["attention.py"]


def test_a_single_query_of_bfloat16_is_answered_in_float32():
    q, k, v = random(2, 1, 12).bfloat16(), random(2, 9, 12).bfloat16(), random(2, 9, 12).bfloat16()
    mask = torch.tensor([[True] * 9, [True] * 4 + [False] * 5])
    for shown in (None, mask):
        truth = attend(q.float(), k.float(), v.float(), heads=3, mask=shown)
        assert torch.equal(attend(q, k, v, heads=3, mask=shown), truth.bfloat16())  # rounded once, at the end


def test_bfloat16_is_trained_in_float32(qkv):
    leaves = [t.bfloat16().requires_grad_() for t in qkv]
    exact = [t.detach().float().requires_grad_() for t in leaves]
    added = random(2, 2, 3, 5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = attend(*leaves, heads=2, mask=added)
    truth = attend(*exact, heads=2, mask=added.float())
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, truth.bfloat16())  # rounded once, at the end
    weight = random(2, 3, 8)
    for mine, theirs in zip(
        torch.autograd.grad((got * weight).sum(), leaves),
        torch.autograd.grad((truth.bfloat16() * weight).sum(), exact),
        strict=True,
    ):
        assert torch.equal(mine, theirs.bfloat16())


@pytest.mark.parametrize("places", [64, 70])
def test_attention_by_blocks(monkeypatch, places):
    monkeypatch.setattr(attention, "_products_are_faster", lambda: True)
    q, k, v = random(2, places, 12), random(2, 9, 12), random(2, 9, 12) + 1
    with torch.no_grad():
        truth = attend(q, k, v, heads=3)
        for scores in (9, 9 * 30, 9 * 64 * 4, 1 << 20):  # a query at a time; not all of a head; some heads; all
            monkeypatch.setattr(attention, "_BLOCK", scores)
            got = attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads=3)
            assert got.dtype == torch.bfloat16 and got.shape == truth.shape
            assert (got.float() - truth).norm() < 0.01 * truth.norm()
    monkeypatch.setattr(attention, "_by_blocks", lambda *_: pytest.fail("few queries, float32, masks, gradients"))
    with torch.no_grad():
        attend(q, k, v, heads=3)
        attend(q.bfloat16()[:, :63], k.bfloat16(), v.bfloat16(), heads=3)
        attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads=3, mask=torch.ones(2, 9, dtype=torch.bool))
    attend(q.bfloat16(), k.bfloat16(), v.bfloat16(), heads=3)
