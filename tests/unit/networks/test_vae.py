"""The autoencoder's sizes, its normalisation and its gradients."""

import pytest
import torch

from mindseye.networks.vae import KL_F8, POCKET, AutoencoderKL, Config, Tower

TINY = Config(
    encoder=Tower(channels=(8, 16), blocks=(0, 2), middle=False, taper=True),
    decoder=Tower(channels=(8, 24), blocks=(2, 1)),
    latent_channels=5,
    patch=2,
    groups=4,
)


def parameters(config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AutoencoderKL(config).parameters())


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return AutoencoderKL(TINY)


def test_public_size():
    assert parameters(KL_F8) == 83_653_863
    assert KL_F8.factor == 8


def test_pocket_fits_eight_megabytes_in_half_precision():
    assert 2 * parameters(POCKET) < 8_000_000
    assert POCKET.factor == 8


@pytest.mark.parametrize("config", [TINY, POCKET])
def test_shapes(config):
    vae = AutoencoderKL(config)
    side = 4 * config.factor
    with torch.no_grad():
        mean, logvar = vae.posterior(torch.zeros(2, 3, side, 2 * side))
        assert mean.shape == logvar.shape == (2, config.latent_channels, 4, 8)
        assert vae.decode(mean).shape == (2, 3, side, 2 * side)


def test_patch_keeps_neighbours_together(tiny):
    """A change of one pixel reaches the first convolution as one place of the folded picture, not as several."""
    seen = []
    tiny.encoder.conv_in.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    pixels = torch.zeros(1, 3, 16, 16)
    pixels[0, 1, 5, 8] = 1.0
    tiny.posterior(pixels)
    folded = seen[0]
    assert folded.shape == (1, 12, 8, 8)
    # channel 1, row 5 = 2 * 2 + 1, column 8 = 4 * 2 + 0: sub-place (1, 0) of the 2x2 square at (2, 4)
    assert folded.nonzero().tolist() == [[0, 1 * 4 + 1 * 2 + 0, 2, 4]]


def test_sides_must_be_multiples(tiny):
    with pytest.raises(ValueError, match="multiples of 4, not 18x16"):
        tiny.posterior(torch.zeros(1, 3, 16, 18))


def test_log_variance_is_clamped(tiny):
    with torch.no_grad():
        tiny.quant_conv.bias[:] = torch.tensor([0.0] * 5 + [-100.0, 100.0, 0.0, 0.0, 0.0])
        tiny.quant_conv.weight.zero_()
        _, logvar = tiny.posterior(torch.zeros(1, 3, 8, 8))
    assert logvar[0, :3, 0, 0].tolist() == [-30.0, 20.0, 0.0]


@torch.no_grad()
def test_normalisation_by_channel(tiny):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, _ = tiny.posterior(pixels)
    tiny.latents_mean.copy_(torch.tensor([0.0, 1.0, -2.0, 3.0, 0.5]))
    tiny.latents_std.copy_(torch.tensor([1.0, 2.0, 0.5, 4.0, 0.1]))
    latents = tiny.encode(pixels)
    torch.testing.assert_close(latents[:, 2], (mean[:, 2] + 2.0) / 0.5)
    torch.testing.assert_close(tiny.decode(latents), tiny.decode_raw(mean), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_scale_keeps_its_digits_in_half_precision(tiny):
    tiny.latents_std.fill_(1 / 0.18215)
    tiny.bfloat16()
    assert next(tiny.parameters()).dtype == torch.bfloat16
    assert tiny.latents_std.dtype == torch.float32 and float(tiny.latents_std[0]) == pytest.approx(1 / 0.18215)
    latents = tiny.encode(torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16))
    assert latents.dtype == tiny.decode(latents).dtype == torch.bfloat16
    assert tiny.float().latents_std.dtype == torch.float32


@torch.no_grad()
def test_channels_last_is_the_same_and_stays(tiny):
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    mean, _ = tiny.posterior(pixels)
    painted = tiny.decode(mean)
    tiny = tiny.to(memory_format=torch.channels_last)
    last = pixels.contiguous(memory_format=torch.channels_last)
    mean2, _ = tiny.posterior(last)
    painted2 = tiny.decode(mean2)
    assert painted2.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mean2, mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(painted2, painted, rtol=0, atol=1e-5)


def test_every_parameter_learns(tiny):
    pixels = torch.rand(2, 3, 16, 16) * 2 - 1
    mean, logvar = tiny.posterior(pixels)
    noise = torch.randn(mean.shape, generator=torch.Generator().manual_seed(0))
    painted = tiny.decode_raw(mean + (0.5 * logvar).exp() * noise)
    ((painted - pixels).square().mean() + (mean.square() - logvar).mean()).backward()
    still = [
        name
        for name, parameter in tiny.named_parameters()
        # Softmax does not see what is added to all its scores, so a key's bias has no gradient.
        if not name.endswith("key.bias") and (parameter.grad is None or not parameter.grad.abs().sum() > 0)
    ]
    assert not still


def test_taper_widens_in_the_resampling():
    """Every residual block then keeps its width, so none needs a shortcut convolution."""
    towers = [Tower(channels=(8, 16, 24), blocks=(1, 1, 1), middle=False, taper=taper) for taper in (False, True)]
    shortcuts = []
    for tower in towers:
        vae = AutoencoderKL(Config(encoder=tower, decoder=tower, latent_channels=4, groups=4))
        assert vae.decode(vae.encode(torch.zeros(1, 3, 8, 8))).shape == (1, 3, 8, 8)
        shortcuts.append(sum("shortcut" in name for name in vae.state_dict()))
    assert shortcuts == [2 * 4, 0]


def test_towers_must_agree():
    with pytest.raises(ValueError, match="same number of levels"):
        Config(encoder=TINY.encoder, decoder=Tower(channels=(8,), blocks=(1,)), latent_channels=4)
    with pytest.raises(ValueError, match="block count"):
        Tower(channels=(8, 16), blocks=(1,))
