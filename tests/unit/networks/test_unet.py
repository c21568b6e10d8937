"""The U-Net's public sizes, what it refuses, and that conditioning and gradients reach everything."""

import math
from dataclasses import replace

import pytest
import torch

from mindseye.networks import unet as unet_module
from mindseye.networks.unet import GEGLU, POCKET, SD1, SD2, SDXL, Config, Transformers, UNet

TINY = Config(
    in_channels=3,
    out_channels=2,
    channels=(8, 16),
    blocks=1,
    transformers=Transformers(depth=(1, 2), middle=1, context=6, head_dim=4),
    embedding=16,
    vector=5,
    groups=4,
)


@pytest.fixture
def tiny():
    """A tiny U-Net past its first steps: nothing is zero any more."""
    torch.manual_seed(0)
    unet = UNet(TINY)
    with torch.no_grad():
        for parameter in unet.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return unet


def inputs(height=8, width=8, batch=2):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(batch, 3, height, width, generator=generator),
        torch.linspace(3.0, 900.0, batch),
        torch.randn(batch, 7, 6, generator=generator),
        torch.randn(batch, 5, generator=generator),
    )


@pytest.mark.parametrize(
    ("config", "count"),
    [(SD1, 859_520_964), (replace(SD1, in_channels=9), 859_535_364), (SD2, 865_910_724), (SDXL, 2_567_463_684)],
    ids=["sd1", "sd1-inpaint", "sd2", "sdxl"],
)
def test_public_sizes(config, count):
    with torch.device("meta"):
        assert sum(parameter.numel() for parameter in UNet(config).parameters()) == count


def test_pocket_fits_twenty_four_megabytes_in_half_precision():
    with torch.device("meta"):
        state = UNet(POCKET).state_dict()
    header = 150 * len(state)  # safetensors writes about that much JSON for a tensor
    assert 2 * sum(value.numel() for value in state.values()) + header < 24_000_000


def test_pocket_runs():
    with torch.no_grad():
        out = UNet(POCKET)(torch.randn(2, 8, 16, 16), torch.zeros(2), torch.randn(2, 9, 192), torch.randn(2, 192))
    assert out.shape == (2, 8, 16, 16)


def test_starts_at_zero():
    """The last layers start at zero, so an untrained network predicts zero whatever it is asked."""
    assert UNet(TINY)(*inputs()).abs().max() == 0


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 3)])
def test_any_size(tiny, size):
    with torch.no_grad():
        assert tiny(*inputs(*size)).shape == (2, 2, *size)


@torch.no_grad()
@pytest.mark.parametrize("which", ["timesteps", "tokens", "vector"])
def test_conditioning_reaches_its_own_row_only(tiny, which):
    given = dict(zip(("x", "timesteps", "tokens", "vector"), inputs(), strict=True))
    before = tiny(**given)
    changed = given[which].clone()
    changed[1] += 1.0
    after = tiny(**(given | {which: changed}))
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=1e-6)
    assert (after[1] - before[1]).abs().max() > 1e-3


@torch.no_grad()
def test_tokens_are_a_set(tiny):
    """Cross-attention knows no order: whoever makes the tokens has to put the order in."""
    x, timesteps, tokens, vector = inputs()
    torch.testing.assert_close(
        tiny(x, timesteps, tokens.flip(1), vector), tiny(x, timesteps, tokens, vector), rtol=0, atol=1e-5
    )


@torch.no_grad()
def test_the_gate_is_an_exact_gelu():
    layer, x = GEGLU(4), torch.linspace(-3, 3, 12).view(1, 3, 4)
    layer.proj.weight.copy_(torch.eye(4).repeat(8, 1))
    layer.proj.bias.zero_()
    layer.out.weight.copy_(torch.eye(4).repeat(1, 4))
    layer.out.bias.zero_()
    truth = [4 * v * v * 0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.flatten().tolist()]
    assert layer(x).flatten().tolist() == pytest.approx(truth, abs=1e-5)


def test_missing_and_unwanted_conditioning(tiny):
    x, timesteps, tokens, vector = inputs()
    with pytest.raises(ValueError, match="needs tokens"):
        tiny(x, timesteps, None, vector)
    with pytest.raises(ValueError, match="needs vector"):
        tiny(x, timesteps, tokens)
    alone = UNet(replace(TINY, vector=None, transformers=replace(TINY.transformers, context=None)))
    assert alone(x, timesteps).shape == (2, 2, 8, 8)
    with pytest.raises(ValueError, match="takes no tokens"):
        alone(x, timesteps, tokens)


@torch.no_grad()
@pytest.mark.parametrize("linear", [True, False])
def test_channels_last_is_the_same_and_stays(linear):
    torch.manual_seed(0)
    unet = UNet(replace(TINY, transformers=replace(TINY.transformers, linear=linear)))
    for parameter in unet.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    x, *rest = inputs()
    before = unet(x, *rest)
    after = unet.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last), *rest)
    assert after.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)


@torch.no_grad()
def test_convolutions_and_linear_layers_around_transformers_are_the_same_sums(tiny):
    other = UNet(replace(TINY, transformers=replace(TINY.transformers, linear=False)))
    other.load_state_dict(
        {
            key: value[..., None, None] if key.endswith(("proj_in.weight", "proj_out.weight")) else value
            for key, value in tiny.state_dict().items()
        }
    )
    torch.testing.assert_close(other(*inputs()), tiny(*inputs()), rtol=0, atol=1e-5)


def test_every_parameter_learns(tiny):
    tiny(*inputs()).square().mean().backward()
    still = [name for name, p in tiny.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert not still


def test_learns_from_its_zero_start():
    """The zeros must not shut the gradient out: a few steps move every parameter."""
    torch.manual_seed(0)
    unet = UNet(TINY)
    start = {name: parameter.detach().clone() for name, parameter in unet.named_parameters()}
    optimizer = torch.optim.Adam(unet.parameters(), lr=1e-3)
    given, target = inputs(), torch.randn(2, 2, 8, 8)
    losses = []
    for _ in range(5):
        loss = (unet(*given) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert not [name for name, parameter in unet.named_parameters() if torch.equal(parameter, start[name])]


def test_half_precision_keeps_its_type(tiny):
    x, timesteps, tokens, vector = inputs()
    out = tiny.bfloat16()(x.bfloat16(), timesteps, tokens.bfloat16(), vector.bfloat16())
    assert out.dtype == torch.bfloat16


def test_wrong_configs():
    with pytest.raises(ValueError, match="either heads or head_dim"):
        Transformers(depth=(1,), middle=1, context=4)
    with pytest.raises(ValueError, match="depth for each of 1 levels"):
        replace(TINY, channels=(8,))
    with pytest.raises(ValueError, match="8 channels cannot be split into heads of 3"):
        UNet(replace(TINY, transformers=replace(TINY.transformers, head_dim=3)))


@torch.no_grad()
def test_the_gate_works_in_blocks_without_gradients(monkeypatch):
    torch.manual_seed(0)
    layer, x = GEGLU(4), torch.randn(2, 5, 4)
    with torch.enable_grad():
        truth = layer(x)
    kept = x.clone()
    for rows in (3, 10, 100):
        monkeypatch.setattr(unet_module, "_ROWS", rows)
        torch.testing.assert_close(layer(x), truth)
    assert torch.equal(x, kept)


def test_the_same_with_and_without_gradients(tiny):
    """In-place sums are for those who need no gradient; nobody may see a difference, nor a changed input."""
    given = inputs()
    kept = [each.clone() for each in given]
    with torch.no_grad():
        plain = tiny(*given)
    torch.testing.assert_close(plain, tiny(*given).detach(), rtol=0, atol=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))


@pytest.mark.parametrize("depth", [(1, 2), (0, 1)], ids=["texts at once", "texts a level down"])
def test_latents_seen_with_several_texts_are_as_if_repeated(depth):
    torch.manual_seed(0)
    config = replace(TINY, vector=None, transformers=replace(TINY.transformers, depth=depth))
    unet = UNet(config).requires_grad_(False)
    for parameter in unet.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    x, t, _, _ = inputs(height=7)
    tokens = torch.randn(6, 7, 6, generator=torch.Generator().manual_seed(2))
    sizes = []
    unet.conv_in.register_forward_hook(lambda layer, given, got: sizes.append(len(got)))
    got = unet(x, t, tokens)
    torch.testing.assert_close(got, unet(torch.cat([x] * 3), torch.cat([t] * 3), tokens), rtol=1e-5, atol=1e-5)
    assert (got[:2] - got[2:4]).abs().max() > 1e-3  # the texts do matter
    assert sizes == [2, 6]


def test_texts_that_latents_cannot_be_shared_among_are_refused(tiny):
    x, t, tokens, vector = inputs()
    with pytest.raises(ValueError, match="2 latents with 4 texts"):
        tiny(x, t, tokens.repeat(2, 1, 1), vector)
    plain = UNet(replace(TINY, vector=None))
    with pytest.raises(ValueError, match="2 latents with 3 texts"):
        plain(x, t, torch.cat([tokens, tokens[:1]]))
    assert not UNet(replace(TINY, vector=None, transformers=replace(TINY.transformers, context=None))).shares
