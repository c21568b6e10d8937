"""Names of the original code (CompVis, Stability AI): U-Net and KL autoencoder of the single-file checkpoints.

The U-Net is numbered straight through: ``input_blocks.0`` is the first convolution, then every residual block (``.0``,
its transformer ``.1``) and every halving (``.0.op``) has the next number; ``output_blocks`` likewise from the coarsest
level up, where the doubling is the last part of the block it follows, so at ``.2`` behind a transformer and at ``.1``
without. What the transformers hold is called alike in diffusers, which took it over. The autoencoder's attention is
1x1 convolutions there and linear layers here.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import SAME, SQUEEZE, Ignore, Rule
from mindseye.checkpoints.layouts.diffusers import layer, transformer_rules

if TYPE_CHECKING:
    from mindseye.networks.unet import Config as UNetConfig
    from mindseye.networks.vae import Config as VAEConfig

__all__ = ["FILE_IGNORE", "VAE_IGNORE", "unet_config", "unet_rules", "vae_config", "vae_rules"]

VAE_IGNORE = (Ignore(r"loss\..*", "the critic that the autoencoder was trained against"),)
FILE_IGNORE = (
    Ignore(r"model_ema\..*", "a second, averaged copy of the U-Net, under names without dots"),
    Ignore(
        r"betas|alphas_cumprod(_prev)?|sqrt_.*|log_one_minus_.*|posterior_.*|logvar|lvlb_weights|denoiser\..*"
        r"|scale_factor",
        "the table of noise levels, which is computed here",
    ),
    Ignore(r"v_pred|ztsnr", "an empty mark that says what the U-Net predicts"),
    Ignore(r"(.*\.)?position_ids", "the numbers 0 to 76: no weights"),
    Ignore(
        r"(cond_stage_model|conditioner\.embedders\.\d)\.(logit_scale|text_projection(\.weight)?)",
        "copied there by merging tools, read by nothing",
    ),
)
"""What a whole file holds beside its parts."""

RESIDUAL = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "embedding",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
}


def residual_rules(theirs: str, ours: str, changes: bool) -> Iterator[Rule]:
    """A residual block of the U-Net; ``changes`` is whether its width does."""
    for their, our in RESIDUAL.items():
        yield from layer(f"{theirs}.{their}", f"{ours}.{our}")
    if changes:
        yield from layer(f"{theirs}.skip_connection", f"{ours}.shortcut")


def unet_rules(config: "UNetConfig") -> Iterator[Rule]:
    """The U-Net of Stable Diffusion 1, 2 and XL, refiner and inpainting included, and of Latent Diffusion."""
    widths, depths = config.channels, config.transformers.depth
    last = len(widths) - 1
    for number in (0, 2):
        yield from layer(f"time_embed.{number}", f"time.{number}")
        if config.vector is not None:
            yield from layer(f"label_emb.0.{number}", f"vector.{number}")
    yield from layer("input_blocks.0.0", "conv_in")
    number = 1
    for level, width in enumerate(widths):
        for place in range(config.blocks):
            theirs, ours = f"input_blocks.{number}", f"down.{level}.stages.{place}"
            changes = place == 0 and widths[max(level - 1, 0)] != width
            yield from residual_rules(f"{theirs}.0", f"{ours}.residual", changes)
            if depths[level]:
                yield from transformer_rules(f"{theirs}.1", f"{ours}.transformer", depths[level])
            number += 1
        if level < last:
            yield from layer(f"input_blocks.{number}.0.op", f"down.{level}.resample.conv")
            number += 1
    middle = config.transformers.middle
    yield from residual_rules("middle_block.0", "middle.before.residual", False)
    if middle:
        yield from transformer_rules("middle_block.1", "middle.before.transformer", middle)
    yield from residual_rules(f"middle_block.{2 if middle else 1}", "middle.after.residual", False)
    number = 0
    for level in range(last, -1, -1):
        for place in range(config.blocks + 1):
            theirs, ours = f"output_blocks.{number}", f"up.{level}.stages.{place}"
            yield from residual_rules(f"{theirs}.0", f"{ours}.residual", True)
            if depths[level]:
                yield from transformer_rules(f"{theirs}.1", f"{ours}.transformer", depths[level])
            if place == config.blocks and level > 0:
                yield from layer(f"{theirs}.{2 if depths[level] else 1}.conv", f"up.{level}.resample.conv")
            number += 1
    yield from layer("out.0", "norm_out")
    yield from layer("out.2", "conv_out")


def vae_rules(config: "VAEConfig") -> Iterator[Rule]:
    """The KL autoencoder."""
    for name, tower in (("encoder", config.encoder), ("decoder", config.decoder)):
        for part in ("conv_in", "norm_out", "conv_out"):
            yield from layer(f"{name}.{part}", f"{name}.{part}")
        direction, resample = ("down", "downsample") if name == "encoder" else ("up", "upsample")
        last = len(tower.channels) - 1
        for level, width in enumerate(tower.channels):
            theirs, ours = f"{name}.{direction}.{level}", f"{name}.levels.{level}"
            before = level - 1 if name == "encoder" else level + 1
            changes = tower.channels[min(max(before, 0), last)] != width
            for block in range(tower.blocks[level]):
                yield from vae_residual(f"{theirs}.block.{block}", f"{ours}.blocks.{block}", changes and not block)
            if level < last if name == "encoder" else level > 0:
                yield from layer(f"{theirs}.{resample}.conv", f"{ours}.{direction}.conv")
        if tower.middle:
            yield from vae_residual(f"{name}.mid.block_1", f"{name}.middle.before", False)
            yield from vae_residual(f"{name}.mid.block_2", f"{name}.middle.after", False)
            yield from layer(f"{name}.mid.attn_1.norm", f"{name}.middle.norm")
            for their, our in (("q", "query"), ("k", "key"), ("v", "value"), ("proj_out", "out")):
                for end, op in (("weight", SQUEEZE), ("bias", SAME)):
                    yield Rule(f"{name}.mid.attn_1.{their}.{end}", f"{name}.middle.attention.{our}.{end}", op)
    if config.quant_conv:
        yield from layer("quant_conv", "quant_conv")
        yield from layer("post_quant_conv", "post_quant_conv")


def vae_residual(theirs: str, ours: str, changes: bool) -> Iterator[Rule]:
    """A residual block of the autoencoder."""
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield from layer(f"{theirs}.{part}", f"{ours}.{part}")
    if changes:
        yield from layer(f"{theirs}.nin_shortcut", f"{ours}.shortcut")


def unet_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """A `mindseye.networks.unet.Config` as plain values, from shapes.

    Shapes do not say heads: releases with 1x1 convolutions around the transformers have eight of them, those with
    linear layers 64 channels each. GroupNorms have 32 groups.

    Raises:
        KeyError: Not such a U-Net.
        ValueError: One that varies within a level.
    """
    depth: list[int] = []
    channels: list[int] = []
    blocks: list[int] = [0]
    numbers = {int(key.split(".")[1]) for key in shapes if key.startswith("input_blocks.")}
    for number in range(1, len(numbers)):
        block = f"input_blocks.{number}"
        if f"{block}.0.op.weight" in shapes:
            blocks.append(0)
            continue
        width, deep = shapes[f"{block}.0.in_layers.2.weight"][0], _depth(shapes, f"{block}.1")
        if blocks[-1] == 0:
            channels.append(width)
            depth.append(deep)
        elif (channels[-1], depth[-1]) != (width, deep):
            raise ValueError(f"its level {len(channels) - 1} changes within itself")
        blocks[-1] += 1
    if len(set(blocks)) != 1:
        raise ValueError("its levels have different numbers of blocks")
    attends = [key for key in shapes if key.endswith(".transformer_blocks.0.attn2.to_k.weight")]
    projections = [key for key in shapes if key.endswith(".1.proj_in.weight")]
    if not attends:
        raise ValueError("it attends to no text")
    linear = len(shapes[projections[0]]) == 2
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "channels": channels,
        "blocks": blocks[0],
        "transformers": {
            "depth": depth,
            "middle": _depth(shapes, "middle_block.1"),
            "context": shapes[attends[0]][1],
            "heads": None if linear else 8,
            "head_dim": 64 if linear else None,
            "linear": linear,
        },
        "embedding": shapes["time_embed.0.weight"][0],
        "vector": shapes["label_emb.0.0.weight"][1] if "label_emb.0.0.weight" in shapes else None,
        "groups": 32,
    }


def _depth(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """Transformer blocks below a prefix."""
    count = 0
    while f"{prefix}.transformer_blocks.{count}.norm1.weight" in shapes:
        count += 1
    return count


def vae_config(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """A `mindseye.networks.vae.Config` as plain values, from shapes.

    Raises:
        KeyError: Not such an autoencoder.
    """

    def tower(name: str, direction: str) -> dict[str, Any]:
        channels, blocks = [], []
        while f"{name}.{direction}.{len(channels)}.block.0.conv1.weight" in shapes:
            level = f"{name}.{direction}.{len(channels)}.block"
            channels.append(shapes[f"{level}.0.conv1.weight"][0])
            count = 0
            while f"{level}.{count}.conv1.weight" in shapes:
                count += 1
            blocks.append(count)
        middle = f"{name}.mid.attn_1.q.weight" in shapes
        return {"channels": channels, "blocks": blocks, "middle": middle, "taper": False}

    return {
        "encoder": tower("encoder", "down"),
        "decoder": tower("decoder", "up"),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "patch": 1,
        "groups": 32,
        "quant_conv": "quant_conv.weight" in shapes,
    }
