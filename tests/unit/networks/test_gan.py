"""Perceptrons and DCGANs: the public layouts, and a real file that draws digits."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from mindseye.checkpoints.layouts.dcgan import load_gan, release
from mindseye.checkpoints.manifest import read_manifest
from mindseye.checkpoints.save import from_json
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks.gan import DCGAN_64, POCKET, Config, DCGANDiscriminator, DCGANGenerator

SMALL = Config(z_dim=5, widths=(16, 8), grey=False)


def randomised(network):
    """Norms that do something."""
    torch.manual_seed(3)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            nn.init.normal_(module.bias)
    return network.eval()


def examples(z_dim, widths, channels, last=(4, 2, 1)):
    """pytorch/examples' generator, as a plain row of layers under its names."""
    layers, before = [], z_dim
    for place, width in enumerate(widths):
        stride = (1, 0) if place == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, width, 4, *stride, bias=False), nn.BatchNorm2d(width), nn.ReLU(True)]
        before = width
    kernel, stride, padding = last
    layers += [nn.ConvTranspose2d(before, channels, kernel, stride, padding, bias=False), nn.Tanh()]
    return randomised(nn.Sequential(*layers))


@pytest.mark.parametrize(
    ("widths", "channels", "last", "size"),
    [((16, 8), 3, (4, 2, 1), 16), ((32, 16, 8), 1, (4, 2, 1), 32), ((32, 16, 8, 8), 1, (1, 1, 2), 28)],
)
def test_generators_of_pytorch_examples(tmp_path, widths, channels, last, size):
    """Read from their names and shapes, and equal; 28x28 digits are cut out by a last layer of 1x1."""
    theirs = examples(5, widths, channels, last)
    torch.save({f"main.{key}": value for key, value in theirs.state_dict().items()}, tmp_path / "netG.pth")
    ours = load_gan(tmp_path / "netG.pth")
    assert ours.config == Config(z_dim=5, widths=widths, grey=channels == 1, last=last)
    z = torch.randn(3, 5)
    with torch.no_grad():
        assert torch.allclose(ours(z), theirs(z[:, :, None, None]).expand(-1, 3, -1, -1), atol=1e-6)
    assert ours(z).shape[-1] == ours.config.size == size


def test_discriminators_of_pytorch_examples(tmp_path):
    """Behind DataParallel's prefix, without counts of batches."""
    torch.manual_seed(0)
    theirs = randomised(
        nn.Sequential(
            nn.Conv2d(3, 8, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2),
            nn.Conv2d(8, 16, 4, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.LeakyReLU(0.2),
            nn.Conv2d(16, 1, 4, 1, 0, bias=False),
        )
    )
    state = {f"module.main.{k}": v for k, v in theirs.state_dict().items() if not k.endswith("batches_tracked")}
    torch.save(state, tmp_path / "netD.pth")
    ours = load_gan(tmp_path / "netD.pth")
    assert isinstance(ours, DCGANDiscriminator)
    pixels = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(ours(pixels), theirs(pixels).flatten(), atol=1e-6)


def test_generators_of_the_gan_zoo(tmp_path):
    """Other names, the same network."""
    theirs = examples(5, (16, 8), 3).state_dict()
    names = {"0": "formatLayer", "1": "main.batchNorm0", "3": "main.convTranspose1", "4": "main.batchNorm1"}
    names["6"] = "main.outlayer"
    state = {f"{names[key.split('.')[0]]}.{key.split('.')[1]}": value for key, value in theirs.items()}
    torch.save(state, tmp_path / "zoo.pth")
    torch.save({f"main.{key}": value for key, value in theirs.items()}, tmp_path / "netG.pth")
    z = torch.randn(2, 5)
    with torch.no_grad():
        assert torch.equal(load_gan(tmp_path / "zoo.pth")(z), load_gan(tmp_path / "netG.pth")(z))


def test_real_weights_draw_digits(material):
    """The public perceptrons: dark pictures with bright strokes in the middle, which their judge half believes."""
    folder = Path(material) / "gan_mnist"
    if not folder.is_dir():
        pytest.skip("the weights are not beside the project")
    generator, judge = load_gan(folder / "G--300.ckpt"), load_gan(folder / "D--300.ckpt")
    pixels = generator(torch.randn(256, 64, generator=torch.Generator().manual_seed(0)))
    assert pixels.shape == (256, 3, 28, 28) and torch.equal(pixels[:, 0], pixels[:, 2])
    frame = torch.ones(28, 28, dtype=torch.bool)
    frame[3:-3, 3:-3] = False
    assert pixels[:, 0, frame].mean() < -0.98
    bright = (pixels[:, 0] > 0).float().mean((1, 2))
    assert 0.05 < bright.mean() < 0.25 and bright.min() > 0.02
    # Strokes, no two alike, and nothing between black and white but their edges.
    assert (pixels[:, 0].abs() > 0.8).float().mean() > 0.85
    assert torch.cdist(pixels[:, 0].flatten(1), pixels[:, 0].flatten(1))[~torch.eye(256, dtype=torch.bool)].min() > 1
    believed = judge(pixels).sigmoid()
    assert 0.05 < believed.mean() < 0.6
    assert judge(torch.randn(64, 3, 28, 28).clamp(-1, 1)).sigmoid().mean() < believed.mean()


def test_known_by_their_tables_of_contents(tmp_path):
    """Generators are models; a discriminator is refused in words."""
    path = tmp_path / "netG.pth"
    torch.save({f"main.{key}": value for key, value in examples(5, (16, 8), 3).state_dict().items()}, path)
    found = release(path, read_manifest(path))
    assert (found.family, found.native, found.parts["generator"].layout) == ("gan", (16, 16), "dcgan")
    assert from_json(Config, json.loads(found.parts["generator"].config)) == load_gan(path).config
    torch.save({"0.weight": torch.zeros(4, 12), "0.bias": torch.zeros(4), "2.weight": torch.zeros(1, 4)}, path)
    assert release(path, read_manifest(path)) is None
    whole = {"0.weight": torch.zeros(4, 12), "0.bias": torch.zeros(4), "2.weight": torch.zeros(1, 4)}
    torch.save({**whole, "2.bias": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="discriminator"):
        release(path, read_manifest(path))


def test_what_is_no_gan(tmp_path):
    """A sentence each: other weights, no file, a file of code."""
    torch.save({"weight": torch.zeros(2, 2)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="no GAN"):
        load_gan(tmp_path / "a.pth")
    with pytest.raises(WeightsMissing):
        load_gan(tmp_path / "b.pth")
    torch.save(examples(5, (16, 8), 3), tmp_path / "whole.pth")
    with pytest.raises(WeightsError, match="code"):
        load_gan(tmp_path / "whole.pth")


def test_sizes():
    """The paper's, and the one that travels: below four million parameters."""
    with torch.device("meta"):
        assert sum(p.numel() for p in DCGANGenerator(DCGAN_64).parameters()) == 3_576_704
        assert sum(p.numel() for p in DCGANGenerator(POCKET).parameters()) < 4_000_000
    assert DCGAN_64.size == POCKET.size == 64
    assert DCGANDiscriminator(SMALL)(torch.zeros(2, 3, 16, 16)).shape == (2,)
