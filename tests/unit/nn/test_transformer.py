from functools import partial

import pytest
import torch
from torch import nn

from mindseye.nn.attention import attend
from mindseye.nn.transformer import Block, CrossBlock, Stack, quick_gelu, start


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def twins():
    """A block and torch's own layer with the same weights."""
    block = Block(24, 3, 40)
    peer = nn.TransformerEncoderLayer(24, 3, 40, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    pairs = {
        "self_attn.in_proj_": "qkv.",
        "self_attn.out_proj.": "out.",
        "linear1.": "up.",
        "linear2.": "down.",
        "norm1.": "attention_norm.",
        "norm2.": "mlp_norm.",
    }
    ours = block.state_dict()
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in ours.items()}
    block.load_state_dict(state)
    peer.load_state_dict({t + end: state[o + end] for t, o in pairs.items() for end in ("weight", "bias")})
    return block, peer


def test_block_is_the_pre_norm_encoder_layer(twins):
    block, peer = twins
    x = noise(2, 7, 24)
    torch.testing.assert_close(block(x), peer(x), rtol=1e-5, atol=1e-5)


def test_block_with_causal_and_padding_masks(twins):
    block, peer = twins
    x, mask = noise(2, 7, 24), torch.tensor([[True] * 7, [True] * 4 + [False] * 3])
    future = torch.ones(7, 7, dtype=torch.bool).triu(1)
    torch.testing.assert_close(block(x, mask), peer(x, src_key_padding_mask=~mask), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(block(x, causal=True), peer(x, src_mask=future), rtol=1e-5, atol=1e-5)


def test_stack_answers_last_and_early():
    stack, x = Stack(16, 3, 2), noise(2, 5, 16)
    first = stack.blocks[0](x)
    last = stack.blocks[2](stack.blocks[1](first))
    for skip, early in ((0, last), (2, first), (3, x)):
        got_last, got_early = stack(x, skip=skip)
        torch.testing.assert_close(got_last, last)
        torch.testing.assert_close(got_early, early)
    with pytest.raises(ValueError, match="cannot skip 4 of 3"):
        stack(x, skip=4)


def test_stack_starts_with_deviations_by_width_and_depth():
    stack = Stack(256, 2, 4)
    wanted = {"qkv": 1 / 16, "out": 1 / 32, "up": 512**-0.5, "down": 1 / 32}
    for name, deviation in wanted.items():
        weights = torch.stack([getattr(block, name).weight for block in stack.blocks])
        assert weights.std().item() == pytest.approx(deviation, rel=0.02)
        assert all(not getattr(block, name).bias.any() for block in stack.blocks)


def test_quick_gelu():
    x = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(quick_gelu(x), torch.tensor([-0.1542058, 0.0, 0.8457942]))
    assert x.tolist() == [-1, 0, 1]
    leaf, plain = ((noise(50) * 4).double().requires_grad_() for _ in range(2))
    found, wanted = quick_gelu(leaf), plain * torch.sigmoid(1.702 * plain)
    torch.testing.assert_close(found, wanted)
    pull = noise(2, 50)[1].double()
    (found,), (wanted,) = (torch.autograd.grad(y, x, pull) for y, x in ((found, leaf), (wanted, plain)))
    torch.testing.assert_close(found, wanted)


def test_heads_must_divide():
    with pytest.raises(ValueError, match="3 heads do not divide"):
        Block(16, 3)


def test_cross_block_is_the_pre_norm_decoder_layer():
    block = CrossBlock(24, 3, 40)
    peer = nn.TransformerDecoderLayer(24, 3, 40, dropout=0, activation="gelu", batch_first=True, norm_first=True)
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.randn(value.shape, generator=generator) * 0.3 for key, value in block.state_dict().items()}
    block.load_state_dict(state)
    theirs = {}
    for end in ("weight", "bias"):
        theirs |= {f"self_attn.in_proj_{end}": state[f"qkv.{end}"], f"self_attn.out_proj.{end}": state[f"out.{end}"]}
        theirs[f"multihead_attn.in_proj_{end}"] = torch.cat([state[f"query.{end}"], state[f"memory.{end}"]])
        theirs |= {f"multihead_attn.out_proj.{end}": state[f"read.{end}"], f"linear1.{end}": state[f"up.{end}"]}
        theirs |= {f"linear2.{end}": state[f"down.{end}"], f"norm1.{end}": state[f"attention_norm.{end}"]}
        theirs |= {f"norm2.{end}": state[f"memory_norm.{end}"], f"norm3.{end}": state[f"mlp_norm.{end}"]}
    peer.load_state_dict(theirs)
    x, memory = noise(2, 7, 24), noise(2, 5, 24) * 2
    keep = torch.tensor([[True] * 5, [True, True, False, True, False]])
    ours = block(x, partial(attend, heads=3, causal=True), block.remember(memory), keep)
    past = nn.Transformer.generate_square_subsequent_mask(7)
    with torch.no_grad():
        wanted = peer(x, memory, tgt_mask=past, tgt_is_causal=True, memory_key_padding_mask=~keep)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)


def test_a_stacks_start_is_small_where_it_adds_to_the_stream():
    torch.manual_seed(0)
    blocks = [CrossBlock(64, 2) for _ in range(8)]
    start(blocks)
    stds = {name: getattr(blocks[0], name).weight.std().item() for name in ("qkv", "read", "down", "up")}
    wanted = {"qkv": 64**-0.5, "read": 64**-0.5 / 4, "down": 64**-0.5 / 4, "up": 128**-0.5}
    assert stds == pytest.approx(wanted, rel=0.05)
    with pytest.raises(ValueError, match="3 heads do not divide a width of 64"):
        CrossBlock(64, 3)


def test_the_last_block_may_answer_for_the_first_places_alone():
    stack, x = Stack(16, 3, 2), noise(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    for seen in (None, mask):
        torch.testing.assert_close(stack(x, seen, last=2)[0], stack(x, seen)[0][:, :2])
    leaf = x.clone().requires_grad_()
    torch.testing.assert_close(
        *(torch.autograd.grad(stack(leaf, last=last)[0][:, 0].square().sum(), leaf)[0] for last in (1, None))
    )
