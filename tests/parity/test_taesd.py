"""The tiny autoencoder against diffusers' AutoencoderTiny, on random weights of the public size and of another."""

import pytest
import torch

from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts import taesd
from mindseye.networks.taesd import Config, TinyAutoencoder

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    "config",
    [Config(width=16), Config(latent_channels=16, width=8, encoder=(1, 2), decoder=(2, 1))],
    ids=["like-sd", "other"],
)
def test_same_numbers_both_ways(config, tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    levels = len(config.encoder)
    theirs = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(config.width,) * levels,
        decoder_block_out_channels=(config.width,) * levels,
        num_encoder_blocks=config.encoder,
        num_decoder_blocks=config.decoder[::-1],
        latent_channels=config.latent_channels,
    ).eval()
    for weight in theirs.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    state = theirs.state_dict()
    assert taesd.config({key: tuple(value.shape) for key, value in state.items()}) == config
    ours = TinyAutoencoder(config).eval()
    ours.load_state_dict(convert(state, taesd.diffusers_rules(config)), strict=True)
    pixels = torch.rand(2, 3, 8 * config.factor, 4 * config.factor) * 2 - 1
    latents = torch.randn(2, config.latent_channels, 8, 4) * 2
    with torch.no_grad():
        torch.testing.assert_close(ours.encode(pixels), theirs.encode(pixels).latents, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(ours.decode(latents), theirs.decode(latents).sample, rtol=1e-5, atol=1e-5)
    back = restore(ours.state_dict(), taesd.diffusers_rules(config))
    assert set(back) == set(state) and all(torch.equal(back[key], value) for key, value in state.items())
    theirs.save_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(taesd.load_tiny(tmp_path).decode(latents), ours.decode(latents))
