"""Names of the text tower of Latent Diffusion text2img-large: the original checkpoint, and diffusers' ``bert`` folder.

In the original (below ``cond_stage_model.transformer.``) attention and perceptron are layers of equal rank: layer 2i
attends, layer 2i + 1 is the perceptron of the same block. The head that predicted words is in both, and used by nobody.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Ignore, Rule, fuse

if TYPE_CHECKING:
    from mindseye.networks.bert import Config

__all__ = ["IGNORE", "PREFIX", "bert_rules", "config", "config_of", "original_rules"]

PREFIX = "cond_stage_model.transformer."
"""What comes before every name in the original checkpoint."""
IGNORE = (Ignore(r"to_logits\.(weight|bias)", "a head that predicts words, which nothing uses"),)
BOTH = ("weight", "bias")
HEAD = 64
"""Channels of a head wherever no file says: nothing in the shapes tells heads apart."""


def original_rules(config: "Config") -> Iterator[Rule]:
    """The original checkpoint, without `PREFIX`."""
    yield Rule("token_emb.weight", "token_embedding.weight")
    yield Rule("pos_emb.emb.weight", "position_embedding.weight")
    for block in range(config.layers):
        attention, mlp, ours = (
            f"attn_layers.layers.{2 * block}",
            f"attn_layers.layers.{2 * block + 1}",
            f"blocks.{block}",
        )
        for letter, op in zip("qkv", fuse(3), strict=True):
            yield Rule(f"{attention}.1.to_{letter}.weight", f"{ours}.qkv.weight", op)
        for end in BOTH:
            yield Rule(f"{attention}.0.{end}", f"{ours}.attention_norm.{end}")
            yield Rule(f"{attention}.1.to_out.{end}", f"{ours}.out.{end}")
            yield Rule(f"{mlp}.0.{end}", f"{ours}.mlp_norm.{end}")
            yield Rule(f"{mlp}.1.net.0.0.{end}", f"{ours}.up.{end}")
            yield Rule(f"{mlp}.1.net.2.{end}", f"{ours}.down.{end}")
    for end in BOTH:
        yield Rule(f"norm.{end}", f"final_norm.{end}")


def bert_rules(config: "Config") -> Iterator[Rule]:
    """diffusers' ``LDMBertModel``."""
    yield Rule("model.embed_tokens.weight", "token_embedding.weight")
    yield Rule("model.embed_positions.weight", "position_embedding.weight")
    for block in range(config.layers):
        theirs, ours = f"model.layers.{block}", f"blocks.{block}"
        for letter, op in zip("qkv", fuse(3), strict=True):
            yield Rule(f"{theirs}.self_attn.{letter}_proj.weight", f"{ours}.qkv.weight", op)
        for end in BOTH:
            yield Rule(f"{theirs}.self_attn_layer_norm.{end}", f"{ours}.attention_norm.{end}")
            yield Rule(f"{theirs}.self_attn.out_proj.{end}", f"{ours}.out.{end}")
            yield Rule(f"{theirs}.final_layer_norm.{end}", f"{ours}.mlp_norm.{end}")
            yield Rule(f"{theirs}.fc1.{end}", f"{ours}.up.{end}")
            yield Rule(f"{theirs}.fc2.{end}", f"{ours}.down.{end}")
    for end in BOTH:
        yield Rule(f"model.layer_norm.{end}", f"final_norm.{end}")


def config(shapes: Mapping[str, tuple[int, ...]]) -> "Config | None":
    """The tower that keys (without `PREFIX`) and shapes describe; None when they are another network's."""
    from mindseye.networks.bert import Config

    original = "token_emb.weight" in shapes
    names = (
        (
            "token_emb.weight",
            "pos_emb.emb.weight",
            "attn_layers.layers.0.1.to_q.weight",
            "attn_layers.layers.1.1.net.2.weight",
        )
        if original
        else (
            "model.embed_tokens.weight",
            "model.embed_positions.weight",
            "model.layers.0.self_attn.q_proj.weight",
            "model.layers.0.fc2.weight",
        )
    )
    if any(len(shapes.get(name, ())) != 2 for name in names):
        return None
    tokens, positions, query, down = (shapes[name] for name in names)
    start = "attn_layers.layers." if original else "model.layers."
    places = {key[len(start) :].partition(".")[0] for key in shapes if key.startswith(start)}
    if query[0] % HEAD:
        return None
    return Config(
        vocabulary=tokens[0],
        length=positions[0],
        width=tokens[1],
        layers=len(places) // 2 if original else len(places),
        heads=query[0] // HEAD,
        head=HEAD,
        hidden=down[1],
    )


def config_of(settings: Mapping[str, Any]) -> "Config":
    """The tower that ``config.json`` of diffusers' ``bert`` folder describes; what it leaves out is the release's."""
    from mindseye.networks.bert import Config

    names = {
        "vocabulary": "vocab_size",
        "length": "max_position_embeddings",
        "width": "d_model",
        "layers": "encoder_layers",
        "heads": "encoder_attention_heads",
        "head": "head_dim",
        "hidden": "encoder_ffn_dim",
    }
    return Config(**{ours: int(settings[theirs]) for ours, theirs in names.items() if theirs in settings})
