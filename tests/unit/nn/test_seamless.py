import pytest
import torch
from torch import nn

from mindseye.diffusion.denoiser import NetDenoiser
from mindseye.diffusion.schedule import SCHEDULES
from mindseye.networks import unet, vae
from mindseye.nn.seamless import Seamless, circular


def network():
    attends = unet.Transformers(depth=(0, 1), middle=1, context=6, heads=2)
    made = unet.UNet(
        unet.Config(
            in_channels=3, out_channels=3, channels=(8, 8), blocks=1, transformers=attends, embedding=16, groups=4
        )
    ).double()
    return shaken(made)


def codec(patch=2):
    tower = vae.Tower(channels=(8, 8), blocks=(1, 1))
    return shaken(
        vae.AutoencoderKL(vae.Config(encoder=tower, decoder=tower, latent_channels=4, patch=patch, groups=4)).double()
    )


def shaken(module):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for each in module.parameters():
            each += 0.2 * torch.randn(each.shape, generator=generator, dtype=each.dtype)
    return module.requires_grad_(False).eval()


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


AXES = [(True, True, (2, 3)), (True, False, (3,)), (False, True, (2,))]


def roll(x, by, axes):
    return torch.roll(x, [by] * len(axes), axes)


@pytest.mark.parametrize(("x", "y", "axes"), AXES)
def test_a_rolled_input_gives_the_rolled_output(x, y, axes):
    net, image, tokens = Seamless(network(), x=x, y=y), randn(1, 3, 8, 12), randn(1, 5, 6)
    time = torch.tensor([10.0])
    there = net(roll(image, 2, axes), time, tokens)
    torch.testing.assert_close(there, roll(net(image, time, tokens), 2, axes), rtol=0, atol=1e-9)


@pytest.mark.parametrize(("x", "y", "axes"), AXES)
@pytest.mark.parametrize("patch", [1, 2])
def test_so_does_the_codec_both_ways(x, y, axes, patch):
    plain = codec(patch)
    torus = Seamless(plain, x=x, y=y)
    assert torus.factor == 2 * patch
    pixels = randn(1, 3, 8 * patch, 8 * patch)
    latents = torus.encode(pixels)
    torch.testing.assert_close(torus.encode(roll(pixels, 2 * patch, axes)), roll(latents, 1, axes), rtol=0, atol=1e-9)
    drawn = torus.decode(latents)
    torch.testing.assert_close(torus.decode(roll(latents, 1, axes)), roll(drawn, 2 * patch, axes), rtol=0, atol=1e-9)
    # Otherwise all of this would hold for a network that sees no edges.
    assert (plain.decode(roll(latents, 1, axes)) - roll(plain.decode(latents), 2 * patch, axes)).abs().max() > 1e-3


def test_the_other_axis_keeps_its_edges():
    net, image = Seamless(codec(), x=True, y=False), randn(1, 4, 8, 8)
    assert (net.decode(roll(image, 1, (2,))) - roll(net.decode(image), 4, (2,))).abs().max() > 1e-3


def test_nothing_is_left_behind_not_even_after_an_error():
    plain = codec()
    latents = randn(1, 4, 4, 4)
    before, state = plain.decode(latents), [dict(each.__dict__) for each in plain.modules()]
    Seamless(plain).decode(latents)
    with pytest.raises(RuntimeError), circular(plain):
        raise RuntimeError
    with pytest.raises(Exception):  # noqa: B017 (whatever torch says of two channels too many)
        Seamless(plain).decode(randn(1, 6, 4, 4))
    assert torch.equal(plain.decode(latents), before)
    assert [set(each) for each in state] == [set(each.__dict__) for each in plain.modules()]
    assert torch.equal(Seamless(plain, x=False, y=False).decode(latents), before)


def test_it_stands_where_the_network_stands():
    net = network()
    schedule = SCHEDULES["rectified-flow"]()
    sigma, x, tokens = torch.tensor([0.5], dtype=torch.float64), randn(1, 3, 4, 4), randn(1, 5, 6)
    from mindseye.diffusion.denoiser import Conditioning

    denoise = NetDenoiser(Seamless(net), schedule, "flow")
    rolled = denoise(torch.roll(x, 2, 3), sigma, Conditioning(tokens=tokens))
    torch.testing.assert_close(
        rolled, torch.roll(denoise(x, sigma, Conditioning(tokens=tokens)), 2, 3), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("padding", ["same", "valid", 2, (0, 1)])
def test_any_padding_of_a_convolution(padding):
    conv = nn.Conv2d(2, 2, 5, padding=padding).double().requires_grad_(False)
    image = randn(1, 2, 8, 8)
    plain = conv(image)
    with circular(conv):
        wrapped = conv(image)
        rolled = conv(torch.roll(image, 1, 3))
    assert wrapped.shape == plain.shape
    if padding in ("same", 2):
        torch.testing.assert_close(rolled, torch.roll(wrapped, 1, 3))
    torch.testing.assert_close(wrapped[..., 2:-2, 2:-2], plain[..., 2:-2, 2:-2])
