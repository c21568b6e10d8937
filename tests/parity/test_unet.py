"""The U-Net against diffusers' on tiny random weights, and every public key at full size."""

import pytest
import torch

from mindseye.checkpoints.layout import convert
from mindseye.checkpoints.layouts.diffusers import unet_rules
from mindseye.networks.unet import SD1, SD2, SDXL, Config, Transformers, UNet
from mindseye.nn.embeddings import sinusoidal

pytestmark = pytest.mark.parity


def theirs_for(config: Config, **more):
    diffusers = pytest.importorskip("diffusers")
    attends = config.transformers
    kinds = ["CrossAttn" if depth else "" for depth in attends.depth]
    if attends.heads is not None:
        heads = attends.heads
    else:
        heads = tuple(width // attends.head_dim for width in config.channels)
    # A level without attention has a depth there too, which nothing reads; the last is the middle's as well.
    depth = tuple(depth or 1 for depth in attends.depth[:-1]) + (attends.middle,)
    return diffusers.UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        layers_per_block=config.blocks,
        attention_head_dim=heads,  # their name for the number of heads
        cross_attention_dim=attends.context,
        transformer_layers_per_block=depth,
        use_linear_projection=attends.linear,
        norm_num_groups=config.groups,
        **more,
    )


def xl(sizes: int, vector: int) -> dict:
    return {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": sizes,
        "projection_class_embeddings_input_dim": vector,
    }


TINY = {
    "sd1": Config(
        in_channels=4,
        out_channels=4,
        channels=(8, 16, 16),
        blocks=2,
        transformers=Transformers(depth=(1, 1, 0), middle=1, context=12, heads=2, linear=False),
        embedding=32,
        groups=4,
    ),
    "sd2": Config(
        in_channels=5,
        out_channels=4,
        channels=(8, 16, 16),
        blocks=2,
        transformers=Transformers(depth=(1, 1, 0), middle=1, context=12, head_dim=4),
        embedding=32,
        groups=4,
    ),
    "sdxl": Config(
        in_channels=4,
        out_channels=4,
        channels=(8, 16, 24),
        blocks=1,
        transformers=Transformers(depth=(0, 1, 3), middle=3, context=12, head_dim=8),
        embedding=32,
        vector=10 + 6 * 8,
        groups=4,
    ),
}


@torch.no_grad()
@pytest.mark.parametrize("size", [(8, 8), (9, 6)])
@pytest.mark.parametrize("name", TINY)
def test_equals_diffusers(name, size):
    config = TINY[name]
    torch.manual_seed(0)
    theirs = theirs_for(config, **(xl(8, config.vector) if config.vector else {})).eval()
    for parameter in theirs.parameters():  # norms start at 1 and 0, which would hide a swap of them
        torch.nn.init.normal_(parameter, std=0.3) if parameter.ndim == 1 else None
    ours = UNet(config).eval()
    ours.load_state_dict(convert(theirs.state_dict(), unet_rules(config)), strict=True)

    x, tokens = torch.randn(3, config.in_channels, *size), torch.randn(3, 7, 12)
    timesteps = torch.tensor([1.0, 500.25, 999.0])
    vector, added = None, None
    if config.vector is not None:
        pooled, sizes = torch.randn(3, 10), torch.tensor([[1024.0, 768.0, 0.0, 13.0, 1024.0, 512.0]] * 3)
        added = {"text_embeds": pooled, "time_ids": sizes}
        vector = torch.cat([pooled, sinusoidal(sizes, 8).flatten(1)], dim=1)
    truth = theirs(x, timesteps, tokens, added_cond_kwargs=added).sample
    assert truth.std() > 0.05
    torch.testing.assert_close(ours(x, timesteps, tokens, vector), truth, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("config", "more"), [(SD1, {}), (SD2, {}), (SDXL, xl(256, 2816))], ids=["sd1", "sd2", "sdxl"])
def test_public_keys_are_all_mapped_at_full_size(config, more):
    with torch.device("meta"):
        theirs, ours = theirs_for(config, **more), UNet(config)
    shapes = {key: value.shape for key, value in convert(theirs.state_dict(), unet_rules(config)).items()}
    assert shapes == {key: value.shape for key, value in ours.state_dict().items()}
    # At ordinary sizes of numbers no output shows these, so they are compared themselves.
    modules, own = dict(theirs.named_modules()), dict(ours.named_modules())
    pairs = {(rule.theirs.rpartition(".")[0], rule.ours.rpartition(".")[0]) for rule in unet_rules(config)}
    norms = [(modules[name].eps, own[name2].eps) for name, name2 in pairs if hasattr(modules[name], "eps")]
    assert len(norms) > 50
    assert all(eps == eps2 for eps, eps2 in norms)
