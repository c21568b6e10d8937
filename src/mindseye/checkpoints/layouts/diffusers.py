"""Names of the diffusers library (``unet/`` and ``vae/`` of its folders), for our U-Net and our KL autoencoder.

Its up blocks count from the coarsest level, ours are numbered by level like the way down. Autoencoders written before
diffusers 0.15 call the four layers of the attention ``query``, ``key``, ``value`` and ``proj_attn``: those are read,
and today's names written.
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from mindseye.checkpoints.layout import Rule

if TYPE_CHECKING:
    from mindseye.networks.unet import Config as UNetConfig
    from mindseye.networks.vae import Config as VAEConfig

__all__ = ["unet_rules", "vae_rules"]

BOTH = ("weight", "bias")
RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "time_emb_proj": "embedding",
    "norm2": "norm2",
    "conv2": "conv2",
}
PROJECTIONS = {"to_q": "query", "to_k": "key", "to_v": "value"}
OLD = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def layer(theirs: str, ours: str, ends: Iterable[str] = BOTH) -> Iterator[Rule]:
    """The tensors of one layer."""
    for end in ends:
        yield Rule(f"{theirs}.{end}", f"{ours}.{end}")


def block_rules(theirs: str, ours: str) -> Iterator[Rule]:
    """One transformer block of a U-Net, whose names diffusers took over from CompVis."""
    for number in (1, 2, 3):
        yield from layer(f"{theirs}.norm{number}", f"{ours}.norm{number}")
    for their, our in (("attn1", "attention"), ("attn2", "cross")):
        for name, own in PROJECTIONS.items():
            yield from layer(f"{theirs}.{their}.{name}", f"{ours}.{our}.{own}", ("weight",))
        yield from layer(f"{theirs}.{their}.to_out.0", f"{ours}.{our}.out")
    yield from layer(f"{theirs}.ff.net.0.proj", f"{ours}.feed_forward.proj")
    yield from layer(f"{theirs}.ff.net.2", f"{ours}.feed_forward.out")


def transformer_rules(theirs: str, ours: str, depth: int) -> Iterator[Rule]:
    """One spatial transformer, likewise."""
    for name in ("norm", "proj_in", "proj_out"):
        yield from layer(f"{theirs}.{name}", f"{ours}.{name}")
    for block in range(depth):
        yield from block_rules(f"{theirs}.transformer_blocks.{block}", f"{ours}.blocks.{block}")


def stage_rules(theirs: str, place: int, ours: str, depth: int, changes: bool) -> Iterator[Rule]:
    """A residual block and the transformer after it; ``changes`` is whether the width does."""
    for name, own in RESIDUAL.items():
        yield from layer(f"{theirs}.resnets.{place}.{name}", f"{ours}.residual.{own}")
    if changes:
        yield from layer(f"{theirs}.resnets.{place}.conv_shortcut", f"{ours}.residual.shortcut")
    if depth:
        yield from transformer_rules(f"{theirs}.attentions.{place}", f"{ours}.transformer", depth)


def unet_rules(config: "UNetConfig") -> Iterator[Rule]:
    """``UNet2DConditionModel`` of Stable Diffusion 1, 2 and XL, refiner and inpainting included."""
    widths, depths = config.channels, config.transformers.depth
    last = len(widths) - 1
    for theirs, ours in (("linear_1", "0"), ("linear_2", "2")):
        yield from layer(f"time_embedding.{theirs}", f"time.{ours}")
        if config.vector is not None:
            yield from layer(f"add_embedding.{theirs}", f"vector.{ours}")
    yield from layer("conv_in", "conv_in")
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        for place in range(config.blocks):
            changes = place == 0 and before != width
            ours = f"down.{level}.stages.{place}"
            yield from stage_rules(f"down_blocks.{level}", place, ours, depths[level], changes)
        if level < last:
            yield from layer(f"down_blocks.{level}.downsamplers.0.conv", f"down.{level}.resample.conv")
    yield from stage_rules("mid_block", 0, "middle.before", config.transformers.middle, False)
    yield from stage_rules("mid_block", 1, "middle.after", 0, False)
    for place, level in enumerate(range(last, -1, -1)):
        for number in range(config.blocks + 1):  # the skip connection makes every one of them change its width
            yield from stage_rules(f"up_blocks.{place}", number, f"up.{level}.stages.{number}", depths[level], True)
        if level > 0:
            yield from layer(f"up_blocks.{place}.upsamplers.0.conv", f"up.{level}.resample.conv")
    yield from layer("conv_norm_out", "norm_out")
    yield from layer("conv_out", "conv_out")


def vae_rules(config: "VAEConfig") -> Iterator[Rule]:
    """``AutoencoderKL``, with the attention's old names as second ones."""
    for name, tower in (("encoder", config.encoder), ("decoder", config.decoder)):
        for part in ("conv_in", "conv_out"):
            yield from layer(f"{name}.{part}", f"{name}.{part}")
        yield from layer(f"{name}.conv_norm_out", f"{name}.norm_out")
        last = len(tower.channels) - 1
        order = range(last + 1) if name == "encoder" else range(last, -1, -1)
        direction, resample = ("down", "downsamplers") if name == "encoder" else ("up", "upsamplers")
        width = tower.channels[order[0]]
        for place, level in enumerate(order):
            theirs, ours = f"{name}.{direction}_blocks.{place}", f"{name}.levels.{level}"
            for block in range(tower.blocks[level]):
                changes = block == 0 and width != tower.channels[level]
                yield from residual_rules(f"{theirs}.resnets.{block}", f"{ours}.blocks.{block}", changes)
            width = tower.channels[level]
            if place < last:
                yield from layer(f"{theirs}.{resample}.0.conv", f"{ours}.{direction}.conv")
        if tower.middle:
            yield from residual_rules(f"{name}.mid_block.resnets.0", f"{name}.middle.before", False)
            yield from residual_rules(f"{name}.mid_block.resnets.1", f"{name}.middle.after", False)
            attention, ours = f"{name}.mid_block.attentions.0", f"{name}.middle.attention"
            yield from layer(f"{attention}.group_norm", f"{name}.middle.norm")
            for new, own in (*PROJECTIONS.items(), ("to_out.0", "out")):
                for end in BOTH:
                    old = (f"{attention}.{OLD[new]}.{end}",)
                    yield Rule(f"{attention}.{new}.{end}", f"{ours}.{own}.{end}", also=old)
    if config.quant_conv:
        yield from layer("quant_conv", "quant_conv")
        yield from layer("post_quant_conv", "post_quant_conv")


def residual_rules(theirs: str, ours: str, changes: bool) -> Iterator[Rule]:
    """A residual block of the autoencoder: no time there."""
    for part in ("norm1", "conv1", "norm2", "conv2"):
        yield from layer(f"{theirs}.{part}", f"{ours}.{part}")
    if changes:
        yield from layer(f"{theirs}.conv_shortcut", f"{ours}.shortcut")
