import torch
from torch.nn import functional as F

from mindseye.checkpoints.save import load_part, save_part
from mindseye.networks.wdsr import PARTI, WDSR, Config


def test_at_first_it_repeats_pixels_and_later_it_is_the_papers_arithmetic(tmp_path):
    torch.manual_seed(0)
    network = WDSR(Config(width=4, layers=2, factor=3)).requires_grad_(False)
    pixels = torch.rand(2, 3, 5, 6, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert torch.equal(network(pixels), pixels.repeat_interleave(3, 2).repeat_interleave(3, 3))
    w = network.state_dict()
    for value in w.values():
        value.normal_(std=0.3)

    def conv(name, x, padding=1):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=padding)

    x = conv("head", pixels)
    for layer in range(2):
        x = x + conv(f"blocks.{layer}.narrow", conv(f"blocks.{layer}.wide", x).clamp(min=0))
    fine = (conv("tail", x) + conv("around", pixels, 2)).view(2, 3, 3, 3, 5, 6)
    wanted = fine.permute(0, 1, 4, 2, 5, 3).reshape(2, 3, 15, 18)
    torch.testing.assert_close(network(pixels), wanted, atol=1e-5, rtol=1e-5)
    save_part(tmp_path / "part.safetensors", network)
    assert torch.equal(load_part(tmp_path / "part.safetensors")(pixels), network(pixels))


def test_it_weighs_about_what_the_paper_says():
    with torch.device("meta"):
        network = WDSR(PARTI)
    assert 14e6 < sum(value.numel() for value in network.parameters()) < 15e6
