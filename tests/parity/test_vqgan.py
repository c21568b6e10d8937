"""VQGAN against a straight-line reading of taming's arithmetic, and against taming-transformers itself where it is."""

import pytest
import torch
from torch.nn import functional as F

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts.taming import vqgan_config, vqgan_rules
from mindseye.checkpoints.save import from_json
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import F16, GUMBEL_F8, VQGAN, Config
from mindseye.nn.quantize import commitment

pytestmark = pytest.mark.parity

# The fact sheet's smallest: attention at a level, a shortcut, both resamplings.
TINY = {
    "encoder": Tower(channels=(32, 64), blocks=(2, 2)),
    "decoder": Tower(channels=(32, 64), blocks=(3, 3)),
    "codes": 40,
    "code_channels": 16,
    "z_channels": 16,
    "attention": (1,),
}
CONFIGS = [Config(**TINY), Config(**TINY, quantizer="gumbel")]
DDCONFIG = {
    "double_z": False, "z_channels": 16, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32, "ch_mult": [1, 2],
    "num_res_blocks": 2, "attn_resolutions": [16], "dropout": 0.0,
}  # fmt: skip


def with_names(config: Config):
    """A random network of ours, and its weights under taming's names."""
    torch.manual_seed(0)
    ours = VQGAN(config).eval().requires_grad_(False)
    for key, value in ours.state_dict().items():
        if value.ndim == 1:  # norms start at 1 and 0, which would hide a swap of them
            value.normal_(1.0 if "norm" in key and key.endswith("weight") else 0.0, 0.3)
    ours.quantizer.weight.normal_(std=0.5)
    return ours, {key: value.clone() for key, value in restore(ours.state_dict(), vqgan_rules(config)).items()}


class Straight:
    """The arithmetic, from the names of a state dict alone."""

    def __init__(self, weights):
        self.w = weights

    def conv(self, name, x, **settings):
        return F.conv2d(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"], **settings)

    def norm(self, name, x):
        return F.group_norm(x, 32, self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-6)

    def curve(self, name, x):
        x = self.norm(name, x)
        return x * torch.sigmoid(x)

    def block(self, name, x):
        h = self.conv(f"{name}.conv1", self.curve(f"{name}.norm1", x), padding=1)
        h = self.conv(f"{name}.conv2", self.curve(f"{name}.norm2", h), padding=1)
        return h + (self.conv(f"{name}.nin_shortcut", x) if f"{name}.nin_shortcut.weight" in self.w else x)

    def attend(self, name, x):
        h = self.norm(f"{name}.norm", x)
        q, k, v = (self.conv(f"{name}.{each}", h).flatten(2) for each in "qkv")
        shares = (torch.bmm(q.transpose(1, 2), k) * q.shape[1] ** -0.5).softmax(2)
        return x + self.conv(f"{name}.proj_out", torch.bmm(v, shares.transpose(1, 2)).view(x.shape))

    def level(self, name, x):
        number = 0
        while f"{name}.block.{number}.conv1.weight" in self.w:
            x = self.block(f"{name}.block.{number}", x)
            if f"{name}.attn.{number}.q.weight" in self.w:
                x = self.attend(f"{name}.attn.{number}", x)
            number += 1
        return x

    def middle(self, name, x):
        x = self.attend(f"{name}.mid.attn_1", self.block(f"{name}.mid.block_1", x))
        return self.block(f"{name}.mid.block_2", x)

    def encode(self, x):
        x = self.conv("encoder.conv_in", x, padding=1)
        for number in range(2):
            x = self.level(f"encoder.down.{number}", x)
            if number == 0:
                x = self.conv("encoder.down.0.downsample.conv", F.pad(x, (0, 1, 0, 1)), stride=2)
        x = self.conv("encoder.conv_out", self.curve("encoder.norm_out", self.middle("encoder", x)), padding=1)
        return self.conv("quant_conv", x)

    def decode(self, z):
        x = self.conv("decoder.conv_in", self.conv("post_quant_conv", z), padding=1)
        x = self.level("decoder.up.1", self.middle("decoder", x))
        x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
        x = self.level("decoder.up.0", self.conv("decoder.up.1.upsample.conv", x, padding=1))
        return self.conv("decoder.conv_out", self.curve("decoder.norm_out", x), padding=1)

    def quantise(self, z):
        if "quantize.proj.weight" in self.w:
            ids = self.conv("quantize.proj", z).argmax(1)
            return self.w["quantize.embed.weight"][ids].permute(0, 3, 1, 2)
        codes = self.w["quantize.embedding.weight"]
        distances = (z.permute(0, 2, 3, 1)[..., None, :] - codes).square().sum(-1)
        return codes[distances.argmin(-1)].permute(0, 3, 1, 2)


def spread(z):
    """Vectors of this shape that choose many codes, as those of a random network do not."""
    return torch.randn(z.shape, generator=torch.Generator().manual_seed(2))


def assert_near(ours, theirs):
    """Within 1e-5 of the largest number: float32, by other kernels."""
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.abs().max()


@pytest.fixture
def pixels():
    """Not square."""
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.quantizer)
def test_the_same_as_straight_lines(config, pixels) -> None:
    ours, theirs = with_names(config)
    ours, pixels = ours.double(), pixels.double()
    straight = Straight({key: value.double() for key, value in theirs.items()})
    z = straight.encode(pixels)
    torch.testing.assert_close(ours.encode(pixels), z, atol=1e-10, rtol=1e-8)
    z = spread(z).double()
    quantised = ours.quantise(z)
    torch.testing.assert_close(quantised.embeddings, straight.quantise(z), atol=0, rtol=0)
    assert len(quantised.ids.unique()) > 5
    torch.testing.assert_close(
        ours.decode(quantised.embeddings), straight.decode(quantised.embeddings), atol=1e-10, rtol=1e-8
    )
    painted = ours.from_ids(quantised.ids.flatten(1), (16, 24))
    torch.testing.assert_close(painted, ours.decode(quantised.embeddings), atol=0, rtol=0)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.quantizer)
def test_the_same_as_the_original(config, pixels) -> None:
    model = pytest.importorskip("taming.modules.diffusionmodules.model")
    quantize = pytest.importorskip("taming.modules.vqvae.quantize")
    ours, theirs = with_names(config)

    def filled(module, prefix):
        weights = {key.removeprefix(prefix): value for key, value in theirs.items() if key.startswith(prefix)}
        module.load_state_dict(weights, strict=True)
        return module.eval().requires_grad_(False)

    encoder, decoder = filled(model.Encoder(**DDCONFIG), "encoder."), filled(model.Decoder(**DDCONFIG), "decoder.")
    z = F.conv2d(encoder(pixels), theirs["quant_conv.weight"], theirs["quant_conv.bias"])
    assert_near(ours.encode(pixels), z)
    z = spread(z)
    if config.quantizer == "gumbel":
        # Theirs draws always; what it draws by is what ours takes the likeliest of.
        quantizer = filled(quantize.GumbelQuantize(16, 16, 40, kl_weight=1.0), "quantize.")
        _, kl, _, logits = quantizer(z, return_logits=True)
        found = ours.quantise(z)
        assert torch.equal(found.ids, logits.argmax(1))
        assert torch.equal(found.embeddings, theirs["quantize.embed.weight"][found.ids].permute(0, 3, 1, 2))
        torch.testing.assert_close(kl, found.parts["kl"], atol=1e-5, rtol=1e-5)
        embeddings = found.embeddings
    else:
        z.requires_grad_()
        for legacy in (True, False):
            quantizer = filled(quantize.VectorQuantizer2(40, 16, 0.25, legacy=legacy), "quantize.")
            quantizer.embedding.weight.requires_grad_()
            ours.quantizer.weight.requires_grad_()
            embeddings, loss, (_, _, ids) = quantizer(z)
            found = ours.quantise(z)
            assert torch.equal(found.ids.flatten(), ids)
            torch.testing.assert_close(found.embeddings, embeddings, atol=1e-6, rtol=1e-6)
            mine = commitment(found.parts, beta=0.25, legacy=legacy)
            torch.testing.assert_close(mine, loss, atol=1e-6, rtol=1e-5)
            # Of the loss, and of something about the chosen codes that goes straight through.
            wanted = torch.autograd.grad(loss + embeddings.sin().sum(), (z, quantizer.embedding.weight))
            given = torch.autograd.grad(mine + found.embeddings.sin().sum(), (z, ours.quantizer.weight))
            for one, other in zip(given, wanted, strict=True):
                torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        embeddings = embeddings.detach()
    back = decoder(F.conv2d(embeddings, theirs["post_quant_conv.weight"], theirs["post_quant_conv.bias"]))
    assert_near(ours.decode(embeddings), back)


@pytest.mark.parametrize(
    ("config", "sizes"),
    [(F16, {"encoder": (29_298_176, 144), "decoder": (42_449_795, 194)}), (GUMBEL_F8, {})],
    ids=["f16", "gumbel-f8"],
)
def test_full_size(config, sizes) -> None:
    with torch.device("meta"):
        network = VQGAN(config)
    for name, (count, tensors) in sizes.items():
        tower = network.get_submodule(name)
        assert (sum(value.numel() for value in tower.parameters()), len(tower.state_dict())) == (count, tensors)
    theirs = {key: tuple(value.shape) for key, value in restore(network.state_dict(), vqgan_rules(config)).items()}
    assert from_json(Config, vqgan_config(theirs)) == config
    last = len(config.encoder.channels) - 1
    assert theirs[f"encoder.down.{last}.attn.1.q.weight"] == (512, 512, 1, 1)
    assert theirs[f"decoder.up.{last}.attn.2.proj_out.weight"] == (512, 512, 1, 1)
    assert theirs["encoder.conv_out.weight"] == (256, 512, 3, 3)
