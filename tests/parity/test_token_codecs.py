"""Discrete VAEs and ViT-VQGAN against straight-line readings of their arithmetic, and the publishers' code where it is.

What stands for the publishers works on their names alone; the rules between the names are those that files are read by.
"""

import math

import pytest
import torch
from torch.nn import functional as F

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts.dalle_pytorch_dvae import vae_config, vae_rules
from mindseye.checkpoints.layouts.enhancing import vit_vqgan_config, vit_vqgan_rules
from mindseye.checkpoints.layouts.openai_dvae import dvae_config, dvae_rules
from mindseye.checkpoints.save import from_json
from mindseye.networks import discrete_vae, dvae, vit_vqgan
from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.nn.quantize import one_hot, relaxed

pytestmark = pytest.mark.parity

# The fact sheet's smallest of the publisher's own class: n_hid 64, vocab 512, n_init 8.
OPENAI = dvae.Config(channels=(64, 128, 256, 512), blocks=(2, 2, 2, 2), codes=512, code_channels=8)
SMALL = dvae.Config(channels=(8, 8, 16), blocks=(1, 2, 1), codes=20, code_channels=16, kernel=5)
_TOWER = vit_vqgan.Tower(width=128, layers=2, heads=2, hidden=48)
VIT = vit_vqgan.Config(encoder=_TOWER, decoder=_TOWER, codes=40, code_channels=6, patch=4, positive=True)


def with_names(kind, config, rules):
    """A random network of ours, and its weights under their names."""
    torch.manual_seed(0)
    ours = kind(config).eval().requires_grad_(False)
    for key, value in ours.state_dict().items():
        if value.ndim == 1:  # norms start at 1 and 0, biases at 0, which would hide a swap of them
            value.normal_(1.0 if "norm" in key and key.endswith("weight") else 0.0, 0.3)
    return ours, {key: value.clone() for key, value in restore(ours.state_dict(), rules(config)).items()}


def pictures(height=32, width=48):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


class StraightDVAE:
    """openai/DALL-E, group after group."""

    def __init__(self, weights):
        self.w = weights

    def conv(self, name, x):
        weight = self.w[f"{name}.w"]
        return F.conv2d(x, weight, self.w[f"{name}.b"], padding=weight.shape[-1] // 2)

    def block(self, name, x, layers):
        y = x
        for number in (1, 2, 3, 4):
            y = self.conv(f"{name}.res_path.conv_{number}", y.clamp_min(0))
        same = f"{name}.id_path.w" not in self.w
        return (x if same else self.conv(f"{name}.id_path", x)) + y / layers**2

    def run(self, half, x, between):
        names = sorted({key.rpartition(".res_path")[0] for key in self.w if half in key and ".res_path" in key})
        x, group = self.conv(f"{half}.blocks.input", x), None
        for name in names:
            if group not in (None, name.split(".")[2]):
                x = between(x)
            group = name.split(".")[2]
            x = self.block(name, x, len(names))
        return self.conv(f"{half}.blocks.output.conv", x.clamp_min(0))

    def logits(self, pixels):
        x = 0.8 * ((pixels + 1) / 2) + 0.1
        return self.run("encoder", x, lambda x: x.unfold(2, 2, 2).unfold(3, 2, 2).amax((-1, -2)))

    def decode(self, ids):
        shares = F.one_hot(ids, self.w["decoder.blocks.input.w"].shape[1]).permute(0, 3, 1, 2).float()
        stats = self.run("decoder", shares, lambda x: x.repeat_interleave(2, 2).repeat_interleave(2, 3))
        return stats, ((torch.sigmoid(stats[:, :3]) - 0.1) / 0.8) * 2 - 1


@pytest.mark.parametrize("config", [OPENAI, SMALL], ids=["published", "other"])
def test_dvae(config):
    ours, weights = with_names(DVAE, config, dvae_rules)
    assert from_json(dvae.Config, dvae_config({key: tuple(value.shape) for key, value in weights.items()})) == config
    straight, pixels = StraightDVAE(weights), pictures(16, 16)[:1]
    wanted = straight.logits(pixels)
    torch.testing.assert_close(ours.logits(pixels), wanted, atol=1e-5, rtol=1e-5)
    ids = wanted.argmax(1)
    assert torch.equal(ours.to_ids(pixels), ids.flatten(1))
    stats, painted = straight.decode(ids)
    mean, scale = ours.heads(one_hot(ids, config.codes))
    torch.testing.assert_close(torch.cat([mean, scale], 1), stats, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.from_ids(ids.flatten(1), tuple(ids.shape[1:])), painted, atol=1e-5, rtol=1e-5)


def test_dvae_against_openais_own(tmp_path):
    """Its package's modules, written as it wrote them, read as we read them."""
    encoder = pytest.importorskip("dall_e.encoder")
    decoder, utils = pytest.importorskip("dall_e.decoder"), pytest.importorskip("dall_e.utils")
    from mindseye.checkpoints.load import load_foreign
    from mindseye.checkpoints.releases import identify

    torch.manual_seed(0)
    halves = {
        "encoder": encoder.Encoder(n_hid=64, vocab_size=512),
        "decoder": decoder.Decoder(n_init=8, n_hid=64, vocab_size=512),
    }
    for half, whole in halves.items():
        for value in whole.parameters():
            if value.ndim == 1:
                value.data.normal_(0, 0.3)
        torch.save(whole, tmp_path / f"{half}.pkl")
    ours = load_foreign(identify(tmp_path).parts["codec"])
    assert ours.config == OPENAI
    pixels = pictures(16, 16)[:1]
    with torch.no_grad():
        wanted = halves["encoder"](utils.map_pixels((pixels + 1) / 2))
        torch.testing.assert_close(ours.logits(pixels), wanted, atol=1e-5, rtol=1e-5)
        shares = one_hot(wanted.argmax(1), 512)
        theirs = utils.unmap_pixels(torch.sigmoid(halves["decoder"](shares)[:, :3])) * 2 - 1
    # Theirs is clamped to what a picture may be.
    torch.testing.assert_close(ours.decode(shares).clamp(-1, 1), theirs, atol=1e-5, rtol=1e-5)


class StraightPlain:
    """DALLE-pytorch's DiscreteVAE, layer after layer, as its names number them."""

    def __init__(self, weights):
        self.w = weights

    def tower(self, name, x, up):
        number = 0
        while any(key.startswith(f"{name}.{number}.") for key in self.w):
            at = f"{name}.{number}"
            if f"{at}.0.weight" in self.w:
                run = F.conv_transpose2d if up else F.conv2d
                x = run(x, self.w[f"{at}.0.weight"], self.w[f"{at}.0.bias"], stride=2, padding=1).clamp_min(0)
            elif f"{at}.net.0.weight" in self.w:
                y = F.conv2d(x, self.w[f"{at}.net.0.weight"], self.w[f"{at}.net.0.bias"], padding=1).clamp_min(0)
                y = F.conv2d(y, self.w[f"{at}.net.2.weight"], self.w[f"{at}.net.2.bias"], padding=1).clamp_min(0)
                x = x + F.conv2d(y, self.w[f"{at}.net.4.weight"], self.w[f"{at}.net.4.bias"])
            else:
                x = F.conv2d(x, self.w[f"{at}.weight"], self.w[f"{at}.bias"])
            number += 1
        return x

    def logits(self, pixels):
        return self.tower("encoder", ((pixels + 1) / 2 - 0.5) / 0.5, up=False)

    def decode(self, ids):
        return self.tower("decoder", self.w["codebook.weight"][ids].permute(0, 3, 1, 2), up=True)


@pytest.mark.parametrize("blocks", [0, 2])
def test_lucidrains_dvae(blocks):
    config = discrete_vae.Config(layers=2, codes=32, code_channels=16, hidden=8, blocks=blocks)
    ours, weights = with_names(DiscreteVAE, config, vae_rules)
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    assert from_json(discrete_vae.Config, vae_config(shapes)) == config
    straight, pixels = StraightPlain(weights), pictures(16, 24)
    wanted = straight.logits(pixels)
    torch.testing.assert_close(ours.logits(pixels), wanted, atol=1e-5, rtol=1e-5)
    ids = wanted.argmax(1)
    painted = straight.decode(ids)
    torch.testing.assert_close(ours.from_ids(ids.flatten(1), (4, 6)), painted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.decode(one_hot(ids, 32)), painted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("blocks", [0, 1])
def test_lucidrains_dvae_against_its_own(dalle_pytorch, blocks):
    config = discrete_vae.Config(layers=2, codes=32, code_channels=16, hidden=8, blocks=blocks)
    ours, weights = with_names(DiscreteVAE, config, vae_rules)
    theirs = dalle_pytorch.DiscreteVAE(
        image_size=16, num_layers=2, num_tokens=32, codebook_dim=16, hidden_dim=8, num_resnet_blocks=blocks
    ).eval()
    theirs.load_state_dict(weights, strict=True)
    pixels = pictures(16, 16)
    with torch.no_grad():
        ids = theirs.get_codebook_indices((pixels + 1) / 2)
        assert torch.equal(ours.to_ids(pixels), ids)
        torch.testing.assert_close(ours.from_ids(ids), theirs.decode(ids), atol=1e-5, rtol=1e-5)


class StraightViT:
    """enhancing-transformers' ViTVQ, head after head."""

    def __init__(self, weights, grid):
        self.w, self.grid = weights, grid

    def linear(self, name, x):
        return torch.einsum("bnd,ed->bne", x, self.w[f"{name}.weight"]) + self.w.get(f"{name}.bias", 0)

    def norm(self, name, x):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def places(self, width):
        """Columns first, sines first."""
        table = torch.zeros(*self.grid, width, dtype=torch.float64)
        quarter = width // 4
        for row in range(self.grid[0]):
            for column in range(self.grid[1]):
                for i in range(quarter):
                    slow = 10_000 ** (i / quarter)
                    for first, place in ((0, column), (2 * quarter, row)):
                        table[row, column, first + i] = math.sin(place / slow)
                        table[row, column, first + quarter + i] = math.cos(place / slow)
        return table.flatten(0, 1).float()

    def transformer(self, name, x):
        x, number = x + self.places(x.shape[2]), 0
        while f"{name}.layers.{number}.0.norm.weight" in self.w:
            at = f"{name}.layers.{number}"
            qkv = self.linear(f"{at}.0.fn.to_qkv", self.norm(f"{at}.0.norm", x))
            q, k, v = qkv.unflatten(2, (3, -1, 64)).unbind(2)
            shares = (torch.einsum("bnhd,bmhd->bhnm", q, k) / 8).softmax(-1)
            x = x + self.linear(f"{at}.0.fn.to_out", torch.einsum("bhnm,bmhd->bnhd", shares, v).flatten(2))
            h = self.linear(f"{at}.1.fn.net.0", self.norm(f"{at}.1.norm", x)).tanh()
            x = x + self.linear(f"{at}.1.fn.net.2", h)
            number += 1
        return self.norm(f"{name}.norm", x)

    def encode(self, pixels):
        weight = self.w["encoder.to_patch_embedding.0.weight"]
        side = weight.shape[-1]
        cut = ((pixels + 1) / 2).unfold(2, side, side).unfold(3, side, side)
        x = torch.einsum("bcyxij,dcij->byxd", cut, weight) + self.w["encoder.to_patch_embedding.0.bias"]
        z = self.linear("pre_quant", self.transformer("encoder.transformer", x.flatten(1, 2)))
        return z / z.norm(dim=2, keepdim=True)

    def codes(self):
        codes = self.w["quantizer.embedding.weight"]
        return codes / codes.norm(dim=1, keepdim=True)

    def decode(self, ids):
        x = self.transformer("decoder.transformer", self.linear("post_quant", self.codes()[ids]))
        weight = self.w["decoder.to_pixel.1.weight"]
        x = torch.einsum("byxd,dcij->bcyixj", x.unflatten(1, self.grid), weight)
        return (x.flatten(4).flatten(2, 3) + self.w["decoder.to_pixel.1.bias"][:, None, None]) * 2 - 1


def test_vit_vqgan():
    ours, weights = with_names(ViTVQGAN, VIT, vit_vqgan_rules)
    weights["quantizer.embedding.weight"].normal_(generator=torch.Generator().manual_seed(3))
    ours.quantizer.weight.copy_(weights["quantizer.embedding.weight"])
    shapes = {key: tuple(value.shape) for key, value in weights.items()}
    assert from_json(vit_vqgan.Config, vit_vqgan_config(shapes)) == VIT
    pixels = pictures(8, 12)
    straight = StraightViT(weights, (2, 3))
    z = straight.encode(pixels)
    torch.testing.assert_close(ours.encode(pixels).flatten(2).transpose(1, 2), z, atol=1e-5, rtol=1e-5)
    ids = torch.einsum("bnc,kc->bnk", z, straight.codes()).argmax(2)
    assert torch.equal(ours.to_ids(pixels), ids)
    torch.testing.assert_close(ours.from_ids(ids, (2, 3)), straight.decode(ids), atol=2e-5, rtol=1e-5)


def test_relaxed_draws_against_torchs_own(monkeypatch):
    """The same noise in `torch.nn.functional.gumbel_softmax`, values and gradients."""
    logits = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    noise = torch.rand(logits.shape, generator=torch.Generator().manual_seed(7))
    # torch draws exponential numbers, whose negative logarithms are the noise.
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self, *_, **__: self.copy_(-noise.log()))
    pull = torch.randn(logits.shape, generator=torch.Generator().manual_seed(1))
    for hard in (False, True):
        wanted = F.gumbel_softmax(logits, tau=0.7, hard=hard, dim=1)
        found = relaxed(logits, temperature=0.7, generator=torch.Generator().manual_seed(7), hard=hard)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-5)
        gradients = [torch.autograd.grad((each * pull).sum(), logits)[0] for each in (found, wanted)]
        torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-5)
