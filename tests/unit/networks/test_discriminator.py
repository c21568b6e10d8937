"""Judges: what they are told, what they see of a batch, how far a patch reaches."""

import pytest
import torch

from mindseye.networks.discriminator import Config, Discriminator, PatchConfig, PatchGAN

TOLD = Config(size=16, widths=(8, 16), told=5, group=1)


def test_the_projection_is_linear_in_what_is_told():
    """D(x, y) - D(x, 0) is an inner product with y: Miyato and Koyama's equation."""
    torch.manual_seed(0)
    judge, pixels = Discriminator(TOLD), torch.randn(3, 3, 16, 16)
    a, b = torch.randn(2, 3, 5)
    with torch.no_grad():
        nothing = judge(pixels, torch.zeros(3, 5))
        parts = [judge(pixels, told) - nothing for told in (a, b, 2 * a + b)]
    assert torch.allclose(2 * parts[0] + parts[1], parts[2], atol=1e-5)
    assert parts[0].abs().max() > 1e-4


def test_a_look_serves_many_texts():
    """`compare(look)` is the call."""
    torch.manual_seed(0)
    judge, pixels, told = Discriminator(TOLD), torch.randn(3, 3, 16, 16), torch.randn(3, 5)
    with torch.no_grad():
        assert torch.equal(judge.compare(judge.look(pixels), told), judge(pixels, told))
    with pytest.raises(ValueError, match="must be told"):
        judge(pixels)
    with pytest.raises(ValueError, match="told nothing"):
        Discriminator(Config(size=16, widths=(8, 16)))(pixels, told)


def test_pictures_that_are_all_alike_are_seen():
    """Without the deviation a judge scores each picture alone; with it, a batch of one picture looks different."""
    torch.manual_seed(0)
    one = torch.randn(1, 3, 16, 16)
    alike, mixed = one.expand(4, -1, -1, -1), torch.cat([one, torch.randn(3, 3, 16, 16)])
    with torch.no_grad():
        alone = Discriminator(Config(size=16, widths=(8, 16), group=1))
        assert torch.allclose(alone(alike)[0], alone(mixed)[0], atol=1e-6)
        grouped = Discriminator(Config(size=16, widths=(8, 16), group=4))
        assert (grouped(alike)[0] - grouped(mixed)[0]).abs() > 1e-4
        # Any number of pictures makes groups of some size.
        assert grouped(torch.randn(3, 3, 16, 16)).shape == (3,)


@pytest.mark.parametrize(("layers", "reach"), [(1, 16), (3, 70)])
def test_how_far_a_patch_reaches(layers, reach):
    """70x70 pixels with three strided layers, as the paper counts."""
    judge = PatchGAN(PatchConfig(width=4, layers=layers, norm="none"))
    pixels = torch.randn(1, 3, 128, 128, requires_grad=True)
    out = judge(pixels)
    out[0, 0, out.shape[2] // 2, out.shape[3] // 2].backward()
    rows = pixels.grad[0].abs().sum((0, 2)).nonzero().flatten()
    assert int(rows[-1] - rows[0]) + 1 == reach


def test_norms_of_patches():
    """Instance norms leave a picture's logits to itself; batch norms do not."""
    torch.manual_seed(0)
    pixels = torch.randn(3, 6, 32, 32)
    with torch.no_grad():
        for norm, alone in (("instance", True), ("batch", False)):
            judge = PatchGAN(PatchConfig(channels=6, width=4, layers=2, norm=norm))
            assert torch.allclose(judge(pixels)[:1], judge(pixels[:1]), atol=1e-5) == alone
