"""Names of guided-diffusion (OpenAI, and Crowson's fork) and of the secondary model beside it.

The U-Net is numbered straight through, as latent diffusion's, which took it from here (`compvis`): the attention after
a residual block is ``.1`` of the same number, a halving has a number of its own (``.0``: a residual block, or
``.0.op``), a doubling is the last part of the block it follows. The secondary model is a sequence with a sequence in
it, with a sequence in that, five deep: ``net.2.main.3.main.3...``.

Shapes do not say how attention is split into heads, nor in which order its projection lies; the published models are
known by their widths (`adm_config`), and whoever trained another one says so.
"""

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

from mindseye.checkpoints.layout import Rule
from mindseye.checkpoints.layouts.compvis import residual_rules
from mindseye.checkpoints.layouts.diffusers import layer

if TYPE_CHECKING:
    from mindseye.networks.adm import Config as ADMConfig
    from mindseye.networks.secondary import Config as SecondaryConfig

__all__ = ["adm_config", "adm_rules", "is_adm", "is_secondary", "secondary_config", "secondary_rules"]

Shapes = Mapping[str, tuple[int, ...]]


def _attention(theirs: str, ours: str) -> Iterator[Rule]:
    """One attention; the shapes are theirs already."""
    for their, our in (("norm", "norm"), ("qkv", "qkv"), ("proj_out", "out")):
        yield from layer(f"{theirs}.{their}", f"{ours}.{our}")


def adm_rules(config: "ADMConfig") -> Iterator[Rule]:
    """The U-Net, class-conditional or not, with either kind of resampling."""
    widths, attends, last = config.channels, config.attention.levels, len(config.channels) - 1
    for number in (0, 2):
        yield from layer(f"time_embed.{number}", f"time.{number}")
    if config.classes is not None:
        yield Rule("label_emb.weight", "label.weight")
    yield from layer("input_blocks.0.0", "conv_in")
    number = 1
    for level, width in enumerate(widths):
        for place in range(config.blocks):
            theirs, ours = f"input_blocks.{number}", f"down.{level}.stages.{place}"
            changes = place == 0 and widths[max(level - 1, 0)] != width
            yield from residual_rules(f"{theirs}.0", f"{ours}.residual", changes)
            if attends[level]:
                yield from _attention(f"{theirs}.1", f"{ours}.attention")
            number += 1
        if level < last:
            if config.residual:
                yield from residual_rules(f"input_blocks.{number}.0", f"down.{level}.resample", False)
            else:
                yield from layer(f"input_blocks.{number}.0.op", f"down.{level}.resample.conv")
            number += 1
    yield from residual_rules("middle_block.0", "before.residual", False)
    yield from _attention("middle_block.1", "before.attention")
    yield from residual_rules("middle_block.2", "after", False)
    number = 0
    for level in range(last, -1, -1):
        for place in range(config.blocks + 1):
            theirs, ours = f"output_blocks.{number}", f"up.{level}.stages.{place}"
            yield from residual_rules(f"{theirs}.0", f"{ours}.residual", True)
            if attends[level]:
                yield from _attention(f"{theirs}.1", f"{ours}.attention")
            if place == config.blocks and level > 0:
                behind = f"{theirs}.{2 if attends[level] else 1}"
                if config.residual:
                    yield from residual_rules(behind, f"up.{level}.resample", False)
                else:
                    yield from layer(f"{behind}.conv", f"up.{level}.resample.conv")
            number += 1
    yield from layer("out.0", "norm_out")
    yield from layer("out.2", "conv_out")


def is_adm(shapes: Shapes) -> bool:
    """Whether these are keys of such a U-Net: numbered blocks, and no attention to a text."""
    wanted = ("time_embed.0.weight", "input_blocks.0.0.weight", "middle_block.1.qkv.weight", "out.2.weight")
    return all(key in shapes for key in wanted) and "encoder_kv" not in " ".join(shapes)


def adm_config(
    shapes: Shapes,
    *,
    heads: int | None = None,
    head_dim: int | None = None,
    order: Literal["legacy", "new"] | None = None,
) -> dict[str, Any]:
    """A `mindseye.networks.adm.Config` as plain values, from shapes.

    Args:
        shapes: Of their tensors, by key.
        heads: Heads of every attention, where the user knows.
        head_dim: Channels a head, where the user knows.
        order: Of the fused projection, where the user knows.

    Raises:
        KeyError: Not such a U-Net.
        ValueError: One that varies within a level.
    """
    channels: list[int] = []
    levels: list[bool] = []
    blocks = [0]
    residual = True
    numbers = {int(key.split(".")[1]) for key in shapes if re.match(r"input_blocks\.\d{1,4}\.", key)}
    if not numbers or numbers != set(range(len(numbers))):
        raise KeyError("input_blocks")
    width = shapes["time_embed.0.weight"][1]
    for number in range(1, len(numbers)):
        block = f"input_blocks.{number}"
        if f"{block}.0.op.weight" in shapes:
            residual = False
            blocks.append(0)
            continue
        wide, attends = shapes[f"{block}.0.in_layers.2.weight"][0], f"{block}.1.qkv.weight" in shapes
        if blocks[-1] == 0:
            channels.append(wide)
            levels.append(attends)
        elif _halves(shapes, number, blocks[-1]):
            blocks.append(0)
            continue
        elif (channels[-1], levels[-1]) != (wide, attends):
            raise ValueError(f"its level {len(channels) - 1} changes within itself")
        blocks[-1] += 1
    if len(set(blocks)) != 1:
        raise ValueError("its levels have different numbers of blocks")
    film = shapes["middle_block.0.emb_layers.1.weight"][0] == 2 * shapes["middle_block.0.out_layers.3.weight"][0]
    if heads is None and head_dim is None:
        heads, head_dim = _heads(width, tuple(channels), film)
    return {
        "in_channels": shapes["input_blocks.0.0.weight"][1],
        "out_channels": shapes["out.2.weight"][0],
        "width": width,
        "channels": channels,
        "blocks": blocks[0],
        "attention": {
            "levels": levels,
            "heads": heads,
            "head_dim": head_dim,
            "order": order or ("new" if (width, blocks[0]) == (192, 3) else "legacy"),
        },
        "classes": shapes["label_emb.weight"][0] if "label_emb.weight" in shapes else None,
        "film": film,
        "residual": residual,
        "groups": 32,
        "patch": 1,
    }


def _halves(shapes: Shapes, number: int, done: int) -> bool:
    """Whether a residual block without attention is the halving after ``done`` blocks.

    It has the shapes of any other; but a U-Net has one more block a level on the way up, so the numbers tell: with b
    blocks and L levels, the way down has L (b + 1) numbers, and so has the way up.
    """
    ups = {int(key.split(".")[1]) for key in shapes if re.match(r"output_blocks\.\d{1,4}\.", key)}
    doubles = sum(
        1
        for at in ups
        if f"output_blocks.{at}.2.in_layers.2.weight" in shapes or f"output_blocks.{at}.1.in_layers.2.weight" in shapes
    )
    return done == len(ups) // (doubles + 1) - 1


def _heads(width: int, channels: tuple[int, ...], film: bool) -> tuple[int | None, int | None]:
    """Heads, or channels a head, of the published model with these widths."""
    if not film:
        return 1, None  # KaliYuga's
    if width == 128 or channels == (256, 256, 512, 768, 1024):
        return 4, None  # the portrait generator, ImageNet 128x128
    return None, 64


def _net(depth: int, place: int) -> str:
    """The name of a module of the secondary model's sequence ``depth`` levels down."""
    if depth == 0:
        return f"net.{place}"
    return "net.2.main" + ".3.main" * (depth - 1) + f".{place}"


def secondary_rules(config: "SecondaryConfig") -> Iterator[Rule]:
    """The secondary model."""
    last = len(config.channels) - 1
    yield Rule("timestep_embed.weight", "frequencies")
    for level in range(last + 1):
        # A level: halve (0, without weights; not on the finest), two convolutions, the next level, two convolutions.
        first = 0 if level == 0 else 1
        after = first + 2 if level == last else first + 3
        for place in range(2):
            yield from layer(f"{_net(level, first + place)}.0", f"down.{level}.{2 * place}")
        if level == 0:
            yield from layer(f"{_net(0, after)}.0", "up.0.0")
            yield from layer(_net(0, after + 1), "out")
            continue
        for place in range(2):
            yield from layer(f"{_net(level, after + place)}.0", f"up.{level}.{2 * place}")


def is_secondary(shapes: Shapes) -> bool:
    """Whether these are keys of a secondary model."""
    return "timestep_embed.weight" in shapes and "net.2.main.1.0.weight" in shapes


def secondary_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.secondary.Config` as plain values, from shapes.

    Raises:
        KeyError: No secondary model.
    """
    channels = [shapes["net.0.0.weight"][0]]
    while (key := f"{_net(len(channels), 1)}.0.weight") in shapes and len(channels) < 16:
        channels.append(shapes[key][0])
    return {"channels": channels, "planes": 2 * shapes["timestep_embed.weight"][0]}
