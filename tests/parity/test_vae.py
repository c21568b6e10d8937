"""The autoencoder against diffusers' on tiny random weights, and the public size against the public count."""

import pytest
import torch

from mindseye.checkpoints.layout import convert
from mindseye.checkpoints.layouts.diffusers import vae_rules
from mindseye.networks.vae import KL_F8, AutoencoderKL, Config, Tower

pytestmark = pytest.mark.parity


def twins(config: Config):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    levels = len(config.encoder.channels)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=config.encoder.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=config.encoder.blocks[0],
        latent_channels=config.latent_channels,
        norm_num_groups=config.groups,
    ).eval()
    for parameter in theirs.parameters():  # diffusers starts norms at 1 and 0, which would hide a swap of them
        torch.nn.init.normal_(parameter, std=0.1) if parameter.ndim == 1 else None
    ours = AutoencoderKL(config).eval()
    fresh = {key: value for key, value in ours.state_dict().items() if key.startswith("latents_")}
    ours.load_state_dict(convert(theirs.state_dict(), vae_rules(config)) | fresh, strict=True)
    return theirs, ours


TINY = Config(
    encoder=Tower(channels=(8, 16, 24), blocks=(2, 2, 2)),
    decoder=Tower(channels=(8, 16, 24), blocks=(3, 3, 3)),
    latent_channels=4,
    groups=4,
)


@torch.no_grad()
def test_equals_diffusers():
    theirs, ours = twins(TINY)
    pixels = torch.rand(2, 3, 32, 24) * 2 - 1
    mean, logvar = ours.posterior(pixels)
    truth = theirs.encode(pixels).latent_dist
    torch.testing.assert_close(mean, truth.mean, rtol=0, atol=1e-5)
    torch.testing.assert_close(logvar, truth.logvar, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.decode_raw(mean), theirs.decode(mean).sample, rtol=0, atol=1e-5)


@torch.no_grad()
def test_normalises_as_the_public_scale_factor():
    theirs, ours = twins(TINY)
    ours.latents_std.fill_(1 / 0.18215)
    pixels = torch.rand(1, 3, 16, 16) * 2 - 1
    latents = theirs.encode(pixels).latent_dist.mode() * 0.18215
    torch.testing.assert_close(ours.encode(pixels), latents, rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.decode(latents), theirs.decode(latents / 0.18215).sample, rtol=0, atol=1e-5)


def test_public_keys_are_all_mapped_at_full_size():
    diffusers = pytest.importorskip("diffusers")
    with torch.device("meta"):
        theirs = diffusers.AutoencoderKL(
            block_out_channels=KL_F8.encoder.channels,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=2,
            latent_channels=4,
        )
        ours = AutoencoderKL(KL_F8)
    shapes = {key: value.shape for key, value in convert(theirs.state_dict(), vae_rules(KL_F8)).items()}
    assert shapes == {key: value.shape for key, value in ours.named_parameters()}
