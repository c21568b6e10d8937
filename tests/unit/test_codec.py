import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mindseye.codec import Codec, Tiled
from mindseye.networks import vae
from mindseye.nn.seamless import Seamless


def shaken(config):
    """Random weights, far from a fresh network's, in double precision."""
    module, generator = vae.AutoencoderKL(config).double(), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in module.parameters():
            each += 0.2 * torch.randn(each.shape, generator=generator, dtype=each.dtype)
        module.latents_mean += 0.5
        module.latents_std *= 2
    return module.requires_grad_(False).eval()


def tower(*channels, blocks, **more):
    return vae.Tower(channels=channels, blocks=blocks, **more)


SHAPES = {
    "Stable Diffusion's": vae.Config(
        encoder=tower(8, 16, 16, blocks=(2, 1, 2)),
        decoder=tower(8, 16, 16, blocks=(3, 2, 1)),
        latent_channels=4,
        groups=4,
    ),
    "the pocket one's": vae.Config(
        encoder=tower(8, 12, blocks=(0, 2), middle=False, taper=True),
        decoder=tower(8, 12, blocks=(2, 1), middle=False, taper=True),
        latent_channels=6,
        patch=4,
        groups=4,
        quant_conv=False,
    ),
    "a level without blocks": vae.Config(
        encoder=tower(8, 8, 8, blocks=(1, 0, 1)), decoder=tower(8, 8, 8, blocks=(0, 0, 1)), latent_channels=4, groups=4
    ),
    "one level": vae.Config(encoder=tower(8, blocks=(1,)), decoder=tower(8, blocks=(1,)), latent_channels=4, groups=4),
}


def uneven(channels, height, width, count=1):
    """Flat on the left and rough on the right: what tiles with statistics of their own get most wrong."""
    generator = torch.Generator().manual_seed(3)
    rough = torch.randn(count, channels, height, width, generator=generator, dtype=torch.float64)
    return rough * (torch.arange(width) > width // 2) + 0.3


def tiled(codec, **more):
    """Bands of a few rows at every level, which production never has."""
    return Tiled(codec, **{"tile": 2, **more})


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(12, 7), (7, 30), (64, 3)])
def test_a_tiled_autoencoder_is_the_whole_one(shape, size):
    codec = shaken(SHAPES[shape])
    latents = uneven(SHAPES[shape].latent_channels, *size, count=2)
    whole = codec.decode(latents)
    torch.testing.assert_close(tiled(codec).decode(latents), whole, rtol=0, atol=1e-9)
    pixels = uneven(3, *(side * codec.factor for side in size))
    torch.testing.assert_close(tiled(codec).encode(pixels), codec.encode(pixels), rtol=0, atol=1e-9)


def test_it_does_go_by_bands(monkeypatch):
    codec, latents, seen = shaken(SHAPES["Stable Diffusion's"]), uneven(4, 32, 32), []
    codec.decoder.conv_out.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[2]))
    tiled(codec).decode(latents)
    assert sum(seen) >= 128 and max(seen) <= 24
    seen.clear()
    Tiled(codec, tile=32).decode(latents)
    assert seen == [128]


def test_the_latents_are_left_as_they_were():
    codec, latents = shaken(SHAPES["one level"]), uneven(4, 12, 12)
    before = latents.clone()
    tiled(codec).decode(latents)
    pixels = uneven(3, 12, 12)
    kept = pixels.clone()
    tiled(codec).encode(pixels)
    assert torch.equal(latents, before) and torch.equal(pixels, kept)


@pytest.mark.parametrize("shape", ["Stable Diffusion's", "the pocket one's"])
@pytest.mark.parametrize("wrap", [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("size", [(10, 9), (3, 20)])
def test_a_seamless_texture_stays_one(shape, wrap, size):
    codec = shaken(SHAPES[shape])
    latents = uneven(SHAPES[shape].latent_channels, *size)
    torus = Seamless(codec, x=wrap[0], y=wrap[1])
    band = tiled(torus)
    torch.testing.assert_close(band.decode(latents), torus.decode(latents), rtol=0, atol=1e-9)
    pixels = uneven(3, *(side * codec.factor for side in size))
    torch.testing.assert_close(band.encode(pixels), torus.encode(pixels), rtol=0, atol=1e-9)


def test_half_precision_and_channels_last():
    codec = shaken(SHAPES["Stable Diffusion's"]).to(torch.bfloat16).to(memory_format=torch.channels_last)
    latents = uneven(4, 12, 12).bfloat16().to(memory_format=torch.channels_last)
    drawn, whole = tiled(codec).decode(latents), codec.decode(latents)
    assert drawn.dtype == torch.bfloat16
    # Both round; neither is further than that from the other.
    exact = shaken(SHAPES["Stable Diffusion's"]).decode(latents.double())
    assert (drawn - exact).abs().mean() < 1.5 * (whole - exact).abs().mean()


class Convolutions(nn.Module):
    """A codec without norms, like the tiny ones for previews."""

    factor = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.down, self.up = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 3, 3, 1, 1)
        self.largest = 0

    def encode(self, pixels):
        return self.down(pixels)

    def decode(self, latents):
        self.largest = max(self.largest, latents.shape[2] * latents.shape[3])
        return self.up(F.interpolate(latents, scale_factor=2.0))


def test_any_other_codec_is_blended():
    codec = Convolutions().double().requires_grad_(False)
    both = Tiled(codec, tile=4, overlap=2)
    assert isinstance(both, Codec)
    latents, pixels = uneven(4, 14, 9, count=2), uneven(3, 28, 18)
    drawn = both.decode(latents)
    assert codec.largest <= 64
    whole = codec.decode(latents)
    # Where no tile ends within reach of the convolution it is right to rounding; elsewhere the wrong edge is faint.
    assert (drawn - whole).abs().median() < 1e-6
    assert (drawn - whole).abs().max() < 0.05 * whole.abs().max()
    assert (both.encode(pixels) - codec.encode(pixels)).abs().max() < 0.05 * codec.encode(pixels).abs().max()
    alone = Tiled(codec, tile=4, overlap=0).decode(latents)
    assert (alone - whole).abs().max() > 3 * (drawn - whole).abs().max()


def test_blending_fades_one_tile_into_the_next():
    class Steps:
        """Each tile has a tone of its own."""

        factor = 1
        count = 0

        def decode(self, latents):
            self.count += 1
            return torch.full((1, 3, *latents.shape[2:]), float(self.count % 2))

        encode = decode

    drawn = Tiled(Steps(), tile=8, overlap=2).decode(torch.zeros(1, 1, 1, 65))
    steps = drawn[0, 0, 0].diff().abs()
    assert 0.1 < steps.max() < 0.45 and drawn.max() == 1 and drawn.min() == 0


def test_small_pictures_pass_through():
    codec, latents = shaken(SHAPES["Stable Diffusion's"]), uneven(4, 8, 8)
    torch.testing.assert_close(Tiled(codec).decode(latents), codec.decode(latents), rtol=0, atol=1e-12)
    pixels = uneven(3, 32, 32)
    torch.testing.assert_close(Tiled(codec).encode(pixels), codec.encode(pixels), rtol=0, atol=1e-12)
    assert Tiled(codec).factor == codec.factor


def test_what_cannot_be_tiled():
    codec = shaken(SHAPES["Stable Diffusion's"])
    with pytest.raises(ValueError, match="multiples of 4, not 34x32"):
        Tiled(codec).encode(uneven(3, 32, 34))
    with pytest.raises(ValueError, match="at least one latent"):
        Tiled(codec, tile=0)


def test_other_codecs_stay_seamless_too():
    codec = Convolutions().double().requires_grad_(False)
    latents, torus = uneven(4, 14, 9), Seamless(codec, x=True, y=False)
    drawn, whole = Tiled(torus, tile=4, overlap=2).decode(latents), torus.decode(latents)
    edge = (drawn - whole)[..., [0, 1, -2, -1]].abs().max()
    assert edge < 0.05 * whole.abs().max() < (codec.decode(latents) - whole).abs().max()
