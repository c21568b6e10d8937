"""Names of the transformers library for CLIP: its text encoder alone (``text_encoder/`` in diffusers), or whole.

Queries, keys and values are three layers there and one here. From version 5.6 on the library leaves the ``text_model.``
off when it writes a text encoder without projection, as the oldest single files did; every public file has it. Both are
read, and the name with it is written.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import TRANSPOSE, Ignore, Rule, fuse

if TYPE_CHECKING:
    from mindseye.networks.clip import Config

__all__ = ["IGNORE", "clip_rules", "clip_text_rules", "text_config", "text_json", "text_shapes"]

IGNORE = (Ignore(r"(.*\.)?position_ids", "the numbers 0 to 76: no weights"),)
BLOCK = {
    "self_attn.out_proj": "out",
    "layer_norm1": "attention_norm",
    "layer_norm2": "mlp_norm",
    "mlp.fc1": "up",
    "mlp.fc2": "down",
}


def tower_rules(tower: str, pairs: dict[str, str], ours: str, layers: int) -> Iterator[Rule]:
    """What lies below ``text_model.`` or ``vision_model.``; the names without that are read as well."""
    for their, our in pairs.items():
        yield Rule(f"{tower}.{their}", our, also=(their,))
    for layer in range(layers):
        block, own = f"encoder.layers.{layer}", f"{ours}.stack.blocks.{layer}"
        for end in ("weight", "bias"):
            for letter, op in zip("qkv", fuse(3), strict=True):
                name = f"{block}.self_attn.{letter}_proj.{end}"
                yield Rule(f"{tower}.{name}", f"{own}.qkv.{end}", op, also=(name,))
            for their, our in BLOCK.items():
                name = f"{block}.{their}.{end}"
                yield Rule(f"{tower}.{name}", f"{own}.{our}.{end}", also=(name,))


def clip_text_rules(config: "Config") -> Iterator[Rule]:
    """``CLIPTextModel``, or ``CLIPTextModelWithProjection`` where the config has a common space (``embed``)."""
    names = {
        "embeddings.token_embedding.weight": "text_tower.embedding.weight",
        "embeddings.position_embedding.weight": "text_tower.positions",
        "final_layer_norm.weight": "text_tower.final_norm.weight",
        "final_layer_norm.bias": "text_tower.final_norm.bias",
    }
    yield from tower_rules("text_model", names, "text_tower", config.text.layers)
    if config.embed is not None:
        yield Rule("text_projection.weight", "text_tower.projection", TRANSPOSE)


def clip_rules(config: "Config") -> Iterator[Rule]:
    """``CLIPModel``: both towers. There are no residual image towers in that library."""
    from mindseye.networks.clip import ViT

    if not isinstance(config.image, ViT):
        raise ValueError("only CLIPs with a vision transformer have names in transformers")
    yield from clip_text_rules(config)
    names = {
        "embeddings.patch_embedding.weight": "image_tower.patches.weight",
        "embeddings.class_embedding": "image_tower.summary",
        "embeddings.position_embedding.weight": "image_tower.positions",
        "pre_layrnorm.weight": "image_tower.first_norm.weight",  # their spelling
        "pre_layrnorm.bias": "image_tower.first_norm.bias",
        "post_layernorm.weight": "image_tower.final_norm.weight",
        "post_layernorm.bias": "image_tower.final_norm.bias",
    }
    # Without the tower's name the two towers' blocks would be called alike: here only the full names exist.
    for rule in tower_rules("vision_model", names, "image_tower", config.image.layers):
        yield Rule(rule.theirs, rule.ours, rule.op)
    yield Rule("visual_projection.weight", "image_tower.projection", TRANSPOSE)
    yield Rule("logit_scale", "logit_scale")


def text_config(values: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """A `mindseye.networks.clip.Config` as plain values, from ``text_encoder/config.json`` and the weights' shapes.

    Whether there is a projection is not in every ``config.json``; the weights say it.

    Raises:
        KeyError, TypeError, ValueError: Not such an encoder, or one that does what ours does not.
    """
    values = values.get("text_config", values) if "hidden_size" not in values else values
    width = int(values["hidden_size"])
    hidden = int(values["intermediate_size"])
    if values.get("hidden_act", "quick_gelu") not in ("quick_gelu", "gelu"):
        raise ValueError(f"its activation is {values['hidden_act']}; quick_gelu and gelu are supported")
    return {
        "text": {
            "vocabulary": _vocabulary(shapes, values),
            "length": int(values["max_position_embeddings"]),
            "width": width,
            "layers": int(values["num_hidden_layers"]),
            "heads": int(values["num_attention_heads"]),
            "hidden": None if hidden == 4 * width else hidden,
            "activation": values.get("hidden_act", "quick_gelu"),
        },
        "image": None,
        "embed": shapes["text_projection.weight"][0] if "text_projection.weight" in shapes else None,
    }


def _vocabulary(shapes: Mapping[str, tuple[int, ...]], values: Mapping[str, Any]) -> int:
    """As many rows as the weights have: tokens may have been added since the config was written."""
    for prefix in ("text_model.", ""):
        found = shapes.get(f"{prefix}embeddings.token_embedding.weight")
        if found is not None:
            return found[0]
    return int(values["vocab_size"])


def text_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The same from shapes alone, for the text encoder inside a single file, which is OpenAI's CLIP-L.

    Raises:
        KeyError: Not such an encoder.
    """
    prefix = "text_model." if "text_model.final_layer_norm.weight" in shapes else ""
    width = shapes[f"{prefix}final_layer_norm.weight"][0]
    layers = {key.split(".layers.")[1].split(".")[0] for key in shapes if ".layers." in f".{key}"}
    hidden = shapes.get(f"{prefix}encoder.layers.0.mlp.fc1.weight", (4 * width,))[0]
    return {
        "text": {
            "vocabulary": shapes[f"{prefix}embeddings.token_embedding.weight"][0],
            "length": shapes[f"{prefix}embeddings.position_embedding.weight"][0],
            "width": width,
            "layers": len(layers),
            "heads": max(1, width // 64),
            "hidden": None if hidden == 4 * width else hidden,
            "activation": "quick_gelu",
        },
        "image": None,
        "embed": shapes["text_projection.weight"][0] if "text_projection.weight" in shapes else None,
    }


def text_json(config: "Config") -> dict[str, Any]:
    """``text_encoder/config.json``."""
    text = config.text
    kind = "CLIPTextModel" if config.embed is None else "CLIPTextModelWithProjection"
    return {
        "architectures": [kind],
        "attention_dropout": 0.0,
        # The library's own oddity: ids of an older vocabulary, which make it find the end by the largest id.
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 1,
        "hidden_act": text.activation,
        "hidden_size": text.width,
        "intermediate_size": text.hidden or 4 * text.width,
        "layer_norm_eps": 1e-5,
        "max_position_embeddings": text.length,
        "model_type": "clip_text_model",
        "num_attention_heads": text.heads,
        "num_hidden_layers": text.layers,
        "projection_dim": config.embed or text.width,
        "vocab_size": text.vocabulary,
    }
