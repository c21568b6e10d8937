"""Names of DALL-E mini and mega: Flax's own, min-dalle's in torch, and their VQGAN's in both.

*Flax* (``flax_model.msgpack`` of dalle-mini/dalle-mini, of dalle-mega, and of their VQGAN, vqgan_imagenet_f16_16384):
modules are numbered by kind in the order they were made, so a block's norms are ``LayerNorm_0`` to ``_3`` and its
attentions ``FlaxBartAttention_0`` and ``_1``; a linear layer's weight is a ``kernel`` with its axes exchanged, a
convolution's one with its channels last, a norm's a ``scale``. Of scanned layers the reader makes single ones
(`mindseye.checkpoints.flax`), so there is one naming.

*min-dalle* (kuprel/min-dalle): ``encoder.pt`` and ``decoder.pt``, the same converted to half precision under BART's
names, and ``detoker.pt``, the decoder's half of the VQGAN under taming-transformers' names.

The VQGAN works on pictures in [0, 1].
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import KERNEL, POINT, SAME, TRANSPOSE, Ignore, Op, Rule
from mindseye.checkpoints.layouts import compvis, taming

if TYPE_CHECKING:
    from mindseye.networks.bart import Config
    from mindseye.networks.vqgan import Config as VQGANConfig

__all__ = [
    "CODES", "IGNORE", "detoker_config", "detoker_rules", "flax_config", "flax_rules", "flax_vqgan_config",
    "flax_vqgan_rules", "is_detoker", "is_flax", "is_flax_vqgan", "is_min_dalle", "min_dalle_config", "min_dalle_rules",
]  # fmt: skip

Shapes = Mapping[str, tuple[int, ...]]

CODES = 16384
"""Of the VQGAN; tables of codes have more rows, for ids that mean something else."""
IGNORE = (Ignore(r".*(_layer_norm|\.ln[01]|final_ln)\.weight", "ones, where a norm only shifts"),)
"""What a min-dalle file may hold if it was written by the port itself, whose norms all have scales."""
_HEAD = 64
"""Channels of a head in every published model."""
_SETTINGS = {
    "use_bias": False, "use_glu": True, "ln_type": "layernorm", "ln_positions": "normformer", "use_head_scale": False,
    "use_cosine_attention": False, "use_absolute_position_embeddings": True, "use_swin_position_embeddings": False,
    "use_deepnet_scaling": False, "sinkhorn_iters": 1, "use_final_ln_encoder": True, "use_final_ln_decoder": True,
    "force_ln_scale": False, "scale_embedding": False, "activation_function": "gelu", "use_alibi": False,
}  # fmt: skip
"""What a configuration must say where it says anything: the one architecture that was published."""

_MIN_DALLE = {"q": "query", "k": "key", "v": "value", "out": "out"}
_GLU = (("fc0", "gate"), ("fc1", "up"), ("fc2", "down"))


def _sides(config: "Config") -> tuple[tuple[str, int, tuple[str, ...]], ...]:
    """Encoder and decoder: blocks, and which attentions a block has."""
    return ("encoder", config.encoder, ("own",)), ("decoder", config.decoder, ("own", "text"))


def min_dalle_rules(config: "Config") -> Iterator[Rule]:
    """``encoder.pt`` and ``decoder.pt``, each under the name of its half."""
    names = {"own": "self_attn", "text": "encoder_attn"}
    for side, blocks, attentions in _sides(config):
        yield Rule(f"{side}.embed_tokens.weight", f"{side}.tokens.weight")
        yield Rule(f"{side}.embed_positions.weight", f"{side}.positions.weight")
        for end in ("weight", "bias"):
            yield Rule(f"{side}.layernorm_embedding.{end}", f"{side}.norm_in.{end}")
        yield Rule(f"{side}.final_ln.bias", f"{side}.norm_out.bias")
        for number in range(blocks):
            theirs, ours = f"{side}.layers.{number}", f"{side}.blocks.{number}"
            for attention in attentions:
                name = names[attention]
                yield Rule(f"{theirs}.pre_{name}_layer_norm.bias", f"{ours}.{attention}.before.bias")
                for their, our in _MIN_DALLE.items():
                    yield Rule(f"{theirs}.{name}.{their}_proj.weight", f"{ours}.{attention}.{our}.weight")
                for end in ("weight", "bias"):
                    yield Rule(f"{theirs}.{name}_layer_norm.{end}", f"{ours}.{attention}.after.{end}")
            yield Rule(f"{theirs}.glu.ln0.bias", f"{ours}.feed.before.bias")
            yield Rule(f"{theirs}.glu.ln1.bias", f"{ours}.feed.between.bias")
            for their, our in _GLU:
                yield Rule(f"{theirs}.glu.{their}.weight", f"{ours}.feed.{our}.weight")
    yield Rule("decoder.lm_head.weight", "decoder.head.weight")


def flax_rules(config: "Config") -> Iterator[Rule]:
    """``flax_model.msgpack``, its layers unstacked."""
    for side, blocks, attentions in _sides(config):
        top = f"model.{side}"
        yield Rule(f"{top}.embed_tokens.embedding", f"{side}.tokens.weight")
        yield Rule(f"{top}.embed_positions.embedding", f"{side}.positions.weight")
        for their, our in (("scale", "weight"), ("bias", "bias")):
            yield Rule(f"{top}.layernorm_embedding.{their}", f"{side}.norm_in.{our}")
        yield Rule(f"{top}.final_ln.bias", f"{side}.norm_out.bias")
        for number in range(blocks):
            theirs = f"{top}.layers.FlaxBart{side.capitalize()}Layer_{number}"
            ours = f"{side}.blocks.{number}"
            for place, attention in enumerate(attentions):
                yield Rule(f"{theirs}.LayerNorm_{2 * place}.bias", f"{ours}.{attention}.before.bias")
                for their, our in _MIN_DALLE.items():
                    weight = f"{theirs}.FlaxBartAttention_{place}.{their}_proj.kernel"
                    yield Rule(weight, f"{ours}.{attention}.{our}.weight", TRANSPOSE)
                for their, our in (("scale", "weight"), ("bias", "bias")):
                    yield Rule(f"{theirs}.LayerNorm_{2 * place + 1}.{their}", f"{ours}.{attention}.after.{our}")
            yield Rule(f"{theirs}.GLU_0.LayerNorm_0.bias", f"{ours}.feed.before.bias")
            yield Rule(f"{theirs}.GLU_0.LayerNorm_1.bias", f"{ours}.feed.between.bias")
            for place, (_, our) in enumerate(_GLU):
                yield Rule(f"{theirs}.GLU_0.Dense_{place}.kernel", f"{ours}.feed.{our}.weight", TRANSPOSE)
    yield Rule("lm_head.kernel", "decoder.head.weight", TRANSPOSE)


def is_min_dalle(shapes: Shapes) -> bool:
    """Whether these are keys of min-dalle's two files, each under the name of its half."""
    return "encoder.layers.0.glu.fc0.weight" in shapes and "decoder.layers.0.encoder_attn.k_proj.weight" in shapes


def is_flax(shapes: Shapes) -> bool:
    """Whether these are keys of a ``flax_model.msgpack`` of DALL-E mini's kind."""
    return "model.encoder.embed_tokens.embedding" in shapes and "lm_head.kernel" in shapes


def min_dalle_config(shapes: Shapes, *, start: int | None = None) -> dict[str, Any]:
    """A `mindseye.networks.bart.Config` as plain values, from shapes.

    Args:
        shapes: Of both files' tensors, each under the name of its half.
        start: Row that decoding starts with, where somebody says it.

    Raises:
        KeyError: Not such a model.
        ValueError: One of another size than its halves can share.
    """
    ends = ("encoder.layers.{}.glu.fc0.weight", "decoder.layers.{}.glu.fc0.weight")
    hidden = [shapes[end.format(0)][0] for end in ends]
    tables = [f"{side}.embed_{what}.weight" for side in ("encoder", "decoder") for what in ("tokens", "positions")]
    return _config([shapes[name] for name in tables], [_count(shapes, end) for end in ends], hidden, start)


def flax_config(shapes: Shapes, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same from a ``flax_model.msgpack`` and the ``config.json`` beside it.

    Raises:
        KeyError: Not such a model.
        ValueError: One of the variants that were tried and not published.
    """
    for name, wanted in _SETTINGS.items():
        if settings.get(name, wanted) != wanted:
            raise ValueError(f"its {name} is {settings[name]!r:.40}; {wanted!r} is read here")
    ends = [
        f"model.{side.lower()}.layers.FlaxBart{side}Layer_{{}}.GLU_0.Dense_0.kernel" for side in ("Encoder", "Decoder")
    ]
    hidden = [shapes[end.format(0)][1] for end in ends]
    tables = [
        f"model.{side}.embed_{what}.embedding" for side in ("encoder", "decoder") for what in ("tokens", "positions")
    ]
    found = _config(
        [shapes[name] for name in tables],
        [_count(shapes, end) for end in ends],
        hidden,
        settings.get("decoder_start_token_id"),
    )
    heads = {settings.get(f"{side}_attention_heads", found["heads"]) for side in ("encoder", "decoder")}
    if len(heads) != 1:
        raise ValueError("its halves have different numbers of heads")
    return {**found, "heads": heads.pop()}


def _config(tables: list[tuple[int, ...]], blocks: list[int], hidden: list[int], start: Any) -> dict[str, Any]:
    (vocabulary, width), (text_length, _), (rows, other), (length, _) = tables
    if width != other or len(set(hidden)) != 1:
        raise ValueError("its halves have different widths")
    codes = min(CODES, rows - 1)
    if start is not None and not (type(start) is int and 0 <= start < rows):
        raise ValueError(f"it starts decoding at row {start!r:.20} of {rows}")
    return {
        "width": width, "heads": max(width // _HEAD, 1), "hidden": hidden[0], "encoder": blocks[0],
        "decoder": blocks[1], "vocabulary": vocabulary, "text_length": text_length, "pad": 1, "codes": codes,
        "rows": rows, "length": length, "start": codes if start is None else start,
    }  # fmt: skip


def _count(shapes: Shapes, name: str) -> int:
    """How many blocks there are."""
    count = 0
    while name.format(count) in shapes and count < 1000:
        count += 1
    return count


# -- the VQGAN ---------------------------------------------------------------------------------------------------------

_NUMBERED = re.compile(r"(?<!mid\.)\b(down|up|block|attn)_(\d+)\.")
_LEVELS = re.compile(r"\b(down|up|block|attn)\.(\d+)\.")
_ENDS = re.compile(r"(?P<norm>norm\w*\.)?(?P<end>kernel|scale|embedding)$")


def is_detoker(shapes: Shapes) -> bool:
    """Whether these are keys of a ``detoker.pt``."""
    return (
        "embedding.weight" in shapes and "decoder.conv_in.weight" in shapes and "encoder.conv_in.weight" not in shapes
    )


def is_flax_vqgan(shapes: Shapes) -> bool:
    """Whether these are keys of a VQGAN's ``flax_model.msgpack``."""
    return "quantize.embedding.embedding" in shapes and "decoder.conv_in.kernel" in shapes


def detoker_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.vqgan.Config` as plain values, from shapes.

    Raises:
        KeyError: No such decoder.
    """
    towers = compvis.vae_config(shapes)
    found = re.compile(r"decoder\.up\.(\d+)\.attn\.0\.q\.weight")
    codes, channels = shapes["embedding.weight"]
    return {
        "encoder": None,
        "decoder": towers["decoder"],
        "codes": codes,
        "code_channels": channels,
        "z_channels": towers["latent_channels"],
        "attention": sorted({int(seen[1]) for key in shapes if (seen := found.fullmatch(key))}),
        "positive": True,
    }


def detoker_rules(config: "VQGANConfig") -> Iterator[Rule]:
    """``detoker.pt``: taming-transformers' decoder, and the codes under a shorter name."""
    for rule in taming.vqgan_rules(config):
        yield replace(rule, theirs="embedding.weight") if rule.ours == "quantizer.weight" else rule


def flax_vqgan_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.vqgan.Config` as plain values, from shapes.

    Raises:
        KeyError: Not such a VQGAN.
        ValueError: One of another kind.
    """
    torchs: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        name = _ENDS.sub(lambda found: f"{found['norm'] or ''}weight", _NUMBERED.sub(r"\1.\2.", key))
        torchs[name] = (*shape[:1:-1], *shape[:2]) if len(shape) == 4 else shape
    return {**taming.vqgan_config(torchs), "positive": True}


def flax_vqgan_rules(config: "VQGANConfig") -> Iterator[Rule]:
    """A VQGAN's ``flax_model.msgpack``: taming-transformers' names with Flax's numbers and ends."""
    for rule in taming.vqgan_rules(config):
        name, _, end = _LEVELS.sub(r"\1_\2.", rule.theirs).rpartition(".")
        op: Op = SAME
        if end == "weight" and "norm" in name.rpartition(".")[2]:
            end = "scale"
        elif rule.ours == "quantizer.weight":
            end = "embedding"
        elif end == "weight":
            end, op = "kernel", POINT if rule.op.kind == "squeeze" else KERNEL
        yield Rule(f"{name}.{end}", rule.ours, op)
