import math

import pytest
import torch

from mindseye.evaluation.seams import ratio, seam_ratio, seam_steps


def noise(height, width):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_noise_has_no_seams():
    assert seam_ratio(noise(64, 512), 64, 8).sub(1).abs().max() < 0.1
    assert seam_ratio(noise(128, 128), 64).sub(1).abs().max() < 0.1


def test_patches_of_other_brightness_have():
    pixels = 0.1 * noise(64, 256)
    pixels[..., 64:128] += 0.3
    assert (seam_ratio(pixels, 64, 8) > 2).all()
    down = 0.1 * noise(128, 64)
    down[1, :, 64:] += 0.3
    near, far = seam_ratio(down, 64, 8)
    assert abs(near - 1) < 0.15 and far > 2


def test_a_smear_is_below_one():
    pixels = noise(64, 256)
    pixels[..., 64] = pixels[..., 63]
    assert seam_ratio(pixels, 64).max() < 0.75


def test_lines_at_every_token_are_no_seams():
    steps = torch.rand(1, 3, 8, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pixels = steps.repeat_interleave(8, 2).repeat_interleave(8, 3)
    assert abs(float(seam_ratio(pixels, 32, 8)) - 1) < 0.15
    # Between any two pixels: a seam line is always at a token's border, most other lines are not.
    assert seam_ratio(pixels, 32) > 5


def test_flat_pictures():
    flat = torch.zeros(1, 3, 8, 16)
    assert seam_ratio(flat, 8).tolist() == [1]
    flat[..., 8:] = 1
    assert seam_ratio(flat, 8).tolist() == [math.inf]


def test_of_several_pictures_together_the_quiet_ones_count_less():
    pixels = torch.cat([noise(16, 64), 0.01 * noise(16, 64)])
    pixels[2:, :, :, 32:] += 0.02
    each, together = seam_ratio(pixels, 16), ratio(seam_steps(pixels, 16))
    assert each[2] > 1.2 and abs(together - float(each[:2].mean())) < 0.05


def test_what_has_no_seams_is_refused():
    with pytest.raises(ValueError, match="a single patch"):
        seam_ratio(torch.zeros(1, 3, 8, 8), 8)
    for size, patch, token in (((8, 12), 8, 1), ((8, 16), 8, 3), ((8, 16), 8, 8)):
        with pytest.raises(ValueError, match="is no canvas"):
            seam_ratio(torch.zeros(1, 3, *size), patch, token)
