"""An autoencoder on its own, in the three forms it comes in."""

import pytest
import torch

from mindseye.checkpoints.codecs import load_codec
from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import compvis, taesd
from mindseye.checkpoints.save import save_part
from mindseye.codec import Codec
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks import vae
from mindseye.networks.clip import CLIP, Text
from mindseye.networks.clip import Config as CLIPConfig
from mindseye.networks.taesd import Config, TinyAutoencoder

TOWER = vae.Tower(channels=(8, 16), blocks=(1, 1))
KL = vae.Config(encoder=TOWER, decoder=vae.Tower(channels=(8, 16), blocks=(2, 2)), latent_channels=4, groups=4)
TINY = Config(latent_channels=4, width=8, encoder=(1, 1), decoder=(1, 1))


def save(path, state):
    from safetensors.torch import save_file

    save_file({key: value.contiguous() for key, value in state.items()}, path)
    return path


def test_ours_and_the_tiny_ones(tmp_path):
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 4, 4)
    for network in (vae.AutoencoderKL(KL), TinyAutoencoder(TINY)):
        network.eval().requires_grad_(False)
        save_part(tmp_path / "ours.safetensors", network)
        codec = load_codec(tmp_path / "ours.safetensors", torch.float32, channels=4)
        assert isinstance(codec, Codec) and torch.equal(codec.decode(latents), network.decode(latents))
    theirs = restore(network.state_dict(), taesd.rules(TINY))
    tiny = load_codec(save(tmp_path / "tiny.safetensors", theirs), torch.bfloat16, channels=4)
    assert isinstance(tiny, TinyAutoencoder) and tiny.decode(latents.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(WeightsError, match="4 latent channels, and this model has 16"):
        load_codec(tmp_path / "tiny.safetensors", torch.float32, channels=16)


def test_the_large_one_in_the_original_names(tmp_path):
    torch.manual_seed(0)
    config = vae.Config(
        encoder=vae.Tower(channels=(32, 64), blocks=(2, 2)),
        decoder=vae.Tower(channels=(32, 64), blocks=(3, 3)),
        latent_channels=4,
    )
    network = vae.AutoencoderKL(config).eval().requires_grad_(False)
    network.latents_std.fill_(1 / 0.13025)
    given = ("latents_mean", "latents_std")
    path = save(tmp_path / "vae.safetensors", restore(network.state_dict(), compvis.vae_rules(config), given=given))
    latents = torch.randn(1, 4, 4, 4)
    codec = load_codec(path, torch.float32, channels=4, scale=0.13025)
    torch.testing.assert_close(codec.decode(latents), network.decode(latents))
    other = load_codec(path, torch.float32)
    assert not torch.allclose(other.decode(latents), network.decode(latents))


def test_what_is_no_autoencoder_is_refused(tmp_path):
    with pytest.raises(WeightsMissing):
        load_codec(tmp_path / "none.safetensors", torch.float32)
    with pytest.raises(WeightsError):
        load_codec(save(tmp_path / "x.safetensors", {"a.b": torch.zeros(2)}), torch.float32)
    text = CLIP(CLIPConfig(text=Text(vocabulary=9, length=4, width=8, layers=1, heads=1), image=None, embed=None))
    save_part(tmp_path / "clip.safetensors", text)
    with pytest.raises(WeightsError, match="is a CLIP, no autoencoder"):
        load_codec(tmp_path / "clip.safetensors", torch.float32)
