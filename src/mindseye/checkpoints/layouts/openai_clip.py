"""Names of OpenAI's CLIP release, which OpenCLIP kept: both towers, residual ones included.

Queries, keys and values are one matrix here as there, and the projections into the common space multiply from the right
in both, so nothing but names changes. OpenCLIP's newer class puts ``text.`` before the text tower's names, which is
read and not written.
"""

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Ignore, Rule

if TYPE_CHECKING:
    from mindseye.networks.clip import Config

__all__ = ["IGNORE", "clip_config", "clip_rules", "hidden_of", "text_tower_rules"]

IGNORE = (
    Ignore(r"input_resolution|context_length|vocab_size", "sizes, which the shapes say too"),
    Ignore(r"(.*\.)?attn_mask", "the causal mask: no weights"),
)
BLOCK = {
    "attn.out_proj": "out",
    "ln_1": "attention_norm",
    "ln_2": "mlp_norm",
    "mlp.c_fc": "up",
    "mlp.c_proj": "down",
}
NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


HEADS = {1280: 80, 1408: 88, 1664: 104}
"""Channels a head of OpenCLIP's H, g and bigG image towers by their width; 64 everywhere else."""


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


def clip_config(
    shapes: Mapping[str, tuple[int, ...]],
    *,
    activation: str = "quick_gelu",
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> dict[str, Any]:
    """A `mindseye.networks.clip.Config` of a whole CLIP as plain values, from shapes.

    Args:
        shapes: Of all tensors, by these names.
        activation: No shape tells it: "quick_gelu" in OpenAI's own weights, "gelu" in most of OpenCLIP's.
        mean: Of the training pictures' colours; OpenAI's when None.
        std: Their deviation.

    Raises:
        KeyError: A tensor is missing that every such file has.
        ValueError: An image tower of another kind.
    """
    before = "text." if "text.token_embedding.weight" in shapes else ""
    vocabulary, width = shapes[f"{before}token_embedding.weight"]
    text = {
        "vocabulary": vocabulary,
        "length": shapes[f"{before}positional_embedding"][0],
        "width": width,
        "layers": _count(shapes, f"{before}transformer.resblocks."),
        "heads": max(1, width // 64),
        "hidden": hidden_of(shapes, f"{before}transformer", width),
        "activation": activation,
    }
    embed = shapes[f"{before}text_projection"][1]
    colours = {name: list(value) for name, value in (("mean", mean), ("std", std)) if value is not None}
    return {"text": text, "image": _image_config(shapes, activation), "embed": embed, **colours}


def hidden_of(shapes: Mapping[str, tuple[int, ...]], stack: str, width: int) -> int | None:
    """Channels inside a stack's perceptrons; None = four times the width, as usual."""
    hidden = shapes[f"{stack}.resblocks.0.mlp.c_fc.weight"][0]
    return None if hidden == 4 * width else hidden


def _image_config(shapes: Mapping[str, tuple[int, ...]], activation: str) -> dict[str, Any]:
    """The image tower: a vision transformer has a projection, a residual network a pool that attends."""
    if "visual.proj" in shapes:
        width, _, patch, _ = shapes["visual.conv1.weight"]
        return {
            "size": math.isqrt(shapes["visual.positional_embedding"][0] - 1) * patch,
            "patch": patch,
            "width": width,
            "layers": _count(shapes, "visual.transformer.resblocks."),
            "heads": max(1, width // HEADS.get(width, 64)),
            "hidden": hidden_of(shapes, "visual.transformer", width),
            "activation": activation,
        }
    if "visual.attnpool.positional_embedding" in shapes:
        width = shapes["visual.layer1.0.conv1.weight"][0]
        return {
            "size": math.isqrt(shapes["visual.attnpool.positional_embedding"][0] - 1) * 32,
            "width": width,
            "layers": [_count(shapes, f"visual.layer{stage}.") for stage in range(1, 5)],
            "heads": width * 32 // 64,
        }
    raise ValueError("its image tower is neither a vision transformer nor a residual network of CLIP's kind")


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """How many blocks there are."""
    return len({key[len(prefix) :].partition(".")[0] for key in shapes if key.startswith(prefix)})


def clip_rules(config: "Config") -> Iterator[Rule]:
    """All of a CLIP."""
    from mindseye.networks.clip import ResNet, ViT

    for rule in text_tower_rules(config):
        yield Rule(rule.theirs, rule.ours, rule.op, also=(f"text.{rule.theirs}",))
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
