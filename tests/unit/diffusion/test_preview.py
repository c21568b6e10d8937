import torch

from mindseye.diffusion.preview import Sketch, fit, preview


def test_fit_finds_the_map_there_is():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 5, generator=generator), torch.tensor([0.1, -0.2, 0.3])
    latents = torch.randn(8, 5, 4, 6, generator=generator)
    latents[:, 4] = 0  # a channel the codec never uses must not break it
    small = torch.einsum("rc,bchw->brhw", weight, latents) + bias.view(3, 1, 1)
    linear = fit(latents, small.repeat_interleave(8, 2).repeat_interleave(8, 3))
    torch.testing.assert_close(linear.weight[:, :4], weight[:, :4], rtol=0, atol=1e-4)
    torch.testing.assert_close(linear.bias, bias, rtol=0, atol=1e-4)
    torch.testing.assert_close(linear(latents), small, rtol=0, atol=1e-4)


def test_fit_is_least_squares_when_there_is_none():
    generator = torch.Generator().manual_seed(0)
    latents, pixels = torch.randn(4, 2, 4, 4, generator=generator), torch.randn(4, 3, 8, 8, generator=generator)
    linear = fit(latents, pixels)
    left_over = torch.nn.functional.avg_pool2d(pixels, 2) - linear(latents)
    # What is left over is orthogonal to everything the map can say.
    assert float(torch.einsum("bchw,brhw->rc", latents, left_over).abs().max()) < 1e-3
    assert float(left_over.sum((0, 2, 3)).abs().max()) < 1e-3


def test_small_latents_are_decoded_and_large_ones_sketched():
    linear = fit(torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 3, 8, 8))
    calls = []

    def decode(latents):
        calls.append(latents.shape)
        return torch.ones(len(latents), 3, 8, 8)

    assert preview(torch.zeros(1, 2, 4, 4), decode, linear).shape == (1, 3, 8, 8)
    assert preview(torch.zeros(1, 2, 40, 40), decode).shape == (1, 3, 8, 8)
    assert len(calls) == 2
    assert preview(torch.zeros(1, 2, 40, 40), decode, linear).shape == (1, 3, 40, 40)
    assert len(calls) == 2


def test_a_sketch_fits_itself_to_the_codec_once():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 4, generator=generator), torch.tensor([0.1, -0.2, 0.3])
    sides = []

    def decode(latents):
        sides.append(latents.shape[-1])
        return torch.einsum("rc,bchw->brhw", weight, latents).add(bias.view(3, 1, 1)).repeat_interleave(8, 2)

    look = Sketch(decode)
    assert look(torch.zeros(1, 4, 8, 8)).shape == (1, 3, 64, 8)  # small: the codec's own
    large = torch.randn(2, 4, 40, 48, generator=generator)
    wanted = torch.einsum("rc,bchw->brhw", weight, large) + bias.view(3, 1, 1)
    torch.testing.assert_close(look(large), wanted, rtol=0, atol=1e-3)
    look(large)
    # A picture of one colour says nothing about colours; the noise beside it does.
    torch.testing.assert_close(Sketch(decode)(torch.ones(1, 4, 40, 40)).mean((2, 3)), (weight.sum(1) + bias)[None])
    assert sides == [8, 16, 16]
