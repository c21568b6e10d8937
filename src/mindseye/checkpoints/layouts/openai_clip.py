"""Names of OpenAI's CLIP release, which OpenCLIP kept: both towers, residual ones included.

Queries, keys and values are one matrix here as there, and the projections into the common space multiply from the right
in both, so nothing but names changes.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mindseye.checkpoints.layout import Ignore, Rule

if TYPE_CHECKING:
    from mindseye.networks.clip import Config

__all__ = ["IGNORE", "clip_rules", "text_tower_rules"]

IGNORE = (
    Ignore(r"input_resolution|context_length|vocab_size", "sizes, which the shapes say too"),
    Ignore(r"attn_mask", "the causal mask: no weights"),
)
BLOCK = {
    "attn.out_proj": "out",
    "ln_1": "attention_norm",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def layer(theirs: str, ours: str, ends: tuple[str, ...] = ("weight", "bias")) -> Iterator[Rule]:
    """The tensors of one layer."""
    for end in ends:
        yield Rule(f"{theirs}.{end}", f"{ours}.{end}")


def stack_rules(theirs: str, ours: str, layers: int) -> Iterator[Rule]:
    """Transformer blocks."""
    for number in range(layers):
        block, own = f"{theirs}.resblocks.{number}", f"{ours}.blocks.{number}"
        for end in ("weight", "bias"):
            yield Rule(f"{block}.attn.in_proj_{end}", f"{own}.qkv.{end}")
        for their, our in BLOCK.items():
            yield from layer(f"{block}.{their}", f"{own}.{our}")


def text_tower_rules(config: "Config") -> Iterator[Rule]:
    """The text tower; its projection where the config has a common space."""
    yield Rule("positional_embedding", "text_tower.positions")
    yield Rule("token_embedding.weight", "text_tower.embedding.weight")
    yield from stack_rules("transformer", "text_tower.stack", config.text.layers)
    yield from layer("ln_final", "text_tower.final_norm")
    if config.embed is not None:
        yield Rule("text_projection", "text_tower.projection")


def clip_rules(config: "Config") -> Iterator[Rule]:
    """All of a CLIP."""
    from mindseye.networks.clip import ResNet, ViT

    yield from text_tower_rules(config)
    yield Rule("logit_scale", "logit_scale")
    if isinstance(config.image, ViT):
        yield Rule("visual.conv1.weight", "image_tower.patches.weight")
        yield Rule("visual.class_embedding", "image_tower.summary")
        yield Rule("visual.positional_embedding", "image_tower.positions")
        yield from layer("visual.ln_pre", "image_tower.first_norm")
        yield from stack_rules("visual.transformer", "image_tower.stack", config.image.layers)
        yield from layer("visual.ln_post", "image_tower.final_norm")
        yield Rule("visual.proj", "image_tower.projection")
    elif isinstance(config.image, ResNet):
        yield from resnet_rules(config.image.layers)


def resnet_rules(layers: tuple[int, ...]) -> Iterator[Rule]:
    """The residual image tower."""

    def conv_norm(conv: str, norm: str, ours: str) -> Iterator[Rule]:
        yield Rule(f"{conv}.weight", f"{ours}.conv.weight")
        yield from layer(norm, f"{ours}.norm", NORM)

    for number in range(3):
        yield from conv_norm(f"visual.conv{number + 1}", f"visual.bn{number + 1}", f"image_tower.stem.{number}")
    count = 0
    for stage, blocks in enumerate(layers, start=1):
        for number in range(blocks):
            block, ours = f"visual.layer{stage}.{number}", f"image_tower.blocks.{count}"
            for place, name in enumerate(("reduce", "spatial", "expand"), start=1):
                yield from conv_norm(f"{block}.conv{place}", f"{block}.bn{place}", f"{ours}.{name}")
            if number == 0:
                yield from conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", f"{ours}.shortcut")
            count += 1
    yield Rule("visual.attnpool.positional_embedding", "image_tower.pool.positions")
    for letter, name in {"q": "query", "k": "key", "v": "value", "c": "out"}.items():
        yield from layer(f"visual.attnpool.{letter}_proj", f"image_tower.pool.{name}")
