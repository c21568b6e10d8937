"""Names of DALLE-pytorch (lucidrains): ``dalle.pt``, a transformer with the codec it was trained over.

The file holds ``hparams``, ``vae_params`` and ``weights``. Layers are wrapped one in another, so that how many ``fn``
stand in a name depends on options and on the version; all that there have been are read. What is shared (layers,
embeddings that are the head's) stands there once for each user, and is taken from the first. Shapes tell most of a
configuration; heads, their width and what they see are in ``hparams`` alone.

Three codecs are possible: a VQGAN of taming-transformers under ``vae.model.``; DALLE-pytorch's own discrete
autoencoder under ``vae.`` (`mindseye.checkpoints.layouts.dalle_pytorch_dvae`); and OpenAI's, under ``vae.enc.`` and
``vae.dec.`` or as its two files beside this one (`mindseye.checkpoints.layouts.openai_dvae`).
"""

import json
import re
from collections.abc import Iterator, Mapping
from math import isqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Ignore, Rule
from mindseye.checkpoints.layouts import openai_dvae, taming
from mindseye.checkpoints.layouts.dalle_pytorch_dvae import vae_config
from mindseye.checkpoints.manifest import Manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError, WeightsMissing

if TYPE_CHECKING:
    from mindseye.networks.dalle import Config

__all__ = ["dalle_config", "dalle_rules", "ignored", "release"]

Shapes = Mapping[str, tuple[int, ...]]
LAYERS, CODEC = "transformer.layers.layers.", "vae.model."
CLIP_WORDS = 49_408
OPENAI = "OpenAIDiscreteVAE"
"""What the file calls a codec that may lie beside it."""
_CHAINS = tuple("fn." * count for count in range(2, 7))
_KNOWN = ("full", "axial_row", "axial_col", "conv_like")


def release(path: Path, manifest: Manifest) -> Release | None:
    """The model in a file as a release of the family "dalle"; None if there is none.

    Raises:
        WeightsError: One that is not supported.
    """
    shapes = manifest.shapes()
    if "to_logits.1.weight" not in shapes or not any(key.startswith("transformer.layers.") for key in shapes):
        return None
    try:
        told = json.loads(manifest.metadata["hparams"])
        config = dalle_config(shapes, told)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError, ZeroDivisionError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the DALL-E in {path} is not supported: {said}") from error
    codec, codes, factor = _codec(path, manifest)
    if codes != config["image_tokens"]:
        raise WeightsError(f"{path} writes {config['image_tokens']} codes, and its codec has {codes}")
    side = config["grid"] * factor
    words = _words(path, int(config["text_tokens"]))
    return Release(
        family="dalle",
        parts={
            "network": PartFile((path,), "dalle-pytorch", "", json.dumps(config)),
            "codec": codec,
        },
        tokenizers={"tokenizer": words},
        facts={"length": config["text_length"]},
        native=(side, side),
        multiple=1,
        notes=() if words else ("the file does not name its tokenizer: read as CLIP's by its size",),
    )


def _codec(path: Path, manifest: Manifest) -> tuple[PartFile, int, int]:
    """The codec in the file, how many codes it has, and how many times smaller a side of their grid is.

    Raises:
        WeightsMissing: There is none, neither in it nor beside it.
        WeightsError: There is one that is not read.
    """
    shapes = manifest.shapes()
    try:
        if f"{CODEC}decoder.conv_in.weight" in shapes:
            vqgan = taming.vqgan_config(manifest.under(CODEC).shapes())
            factor = 1 << (len(vqgan["encoder"]["channels"]) - 1)
            return PartFile((path,), "taming-vqgan", CODEC, json.dumps(vqgan)), vqgan["codes"], factor
        if "vae.codebook.weight" in shapes:
            own = vae_config(manifest.under("vae.").shapes())
            return PartFile((path,), "dalle-pytorch-dvae", "vae.", json.dumps(own)), own["codes"], 1 << own["layers"]
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the codec in {path} is not supported: {said}") from error
    if found := openai_dvae.release(path, manifest):
        return _openai(found)
    kind = manifest.metadata.get("vae_class_name")
    if kind not in (None, OPENAI):
        raise WeightsError(
            f"the DALL-E in {path} was trained over {kind:.40}, and that is not in it: with a VQGAN, its own dVAE or "
            "OpenAI's it is read"
        )
    if found := openai_dvae.folder(path.parent):
        return _openai(found)
    raise WeightsMissing(
        f"the DALL-E in {path} came without its codec" + (", OpenAI's discrete VAE" if kind else ""),
        hint=f"put OpenAI's {' and '.join(openai_dvae.FILES)} beside it, if it was trained over that",
    )


def _openai(found: Release) -> tuple[PartFile, int, int]:
    """OpenAI's dVAE as `_codec` answers."""
    part = found.parts["codec"]
    return part, json.loads(part.config)["codes"], found.multiple


def _words(path: Path, count: int) -> Path | None:
    """The tokenizer's file beside the model; None = CLIP's.

    Raises:
        WeightsError: It is another than CLIP's, and not there.
    """
    if count == CLIP_WORDS:
        return None
    beside = [path.with_suffix(".json"), *sorted(path.parent.glob("*bpe*.json")), path.parent / "tokenizer.json"]
    if found := next((file for file in beside if file.is_file()), None):
        return found
    raise WeightsError(
        f"{path} reads {count:,} different tokens: that is not CLIP's vocabulary of {CLIP_WORDS:,}, and its own is not "
        "in the file",
        hint=f"put its tokenizer, a .json of the tokenizers library, beside it as {path.with_suffix('.json').name}",
    )


def dalle_config(shapes: Shapes, told: Mapping[str, Any]) -> dict[str, Any]:
    """A `mindseye.networks.dalle.Config` as plain values.

    Args:
        shapes: The file's tensors.
        told: Its ``hparams``.

    Raises:
        KeyError: Something that it must hold is missing.
        ValueError: An option that is not supported.
    """
    if told.get("reversible"):
        raise ValueError("its layers are reversible")
    kinds = told.get("attn_types") or ["full"]
    kinds = kinds.split(",") if isinstance(kinds, str) else [str(kind) for kind in kinds]
    if unknown := [kind for kind in kinds if kind not in _KNOWN]:
        raise ValueError(f"there is no attention {unknown[0]!r:.40} here, but {', '.join(_KNOWN)}")
    total, width = shapes["to_logits.1.weight"]
    layers = 1 + max(int(found[1]) for key in shapes if (found := re.match(rf"{re.escape(LAYERS)}(\d+)\.", key)))
    length = int(told["text_seq_len"])
    words = int(told["num_text_tokens"])
    rotary = "transformer.pos_emb" in shapes
    if rotary:
        grid = isqrt(shapes["transformer.pos_emb"][-2] - length - 1)
    else:
        rows = next(shapes[name] for name in ("image_pos_emb.weights.0", "image_pos_emb.weights_0") if name in shapes)
        grid = rows[1]
    inner = next(shape[0] for key, shape in shapes.items() if key.endswith("to_qkv.weight")) // 3
    hidden = next(shape[1] for key, shape in shapes.items() if key.endswith("net.3.weight"))
    heads = int(told["heads"])
    if heads < 1 or inner % heads:
        raise ValueError(f"{inner} channels are not {heads} heads")
    shared = {name: tuple(told.get(f"shared_{name}_ids") or ()) for name in ("attn", "ff")}
    places = {name: _numbered(ids, layers) for name, ids in shared.items()}
    return {
        "width": width,
        "layers": layers,
        "heads": heads,
        "head_width": inner // heads,
        "text_tokens": words,
        "text_length": length,
        "image_tokens": total - words - length,
        "grid": grid,
        "attention": kinds,
        "rotary": rotary,
        "shift": bool(told.get("shift_tokens", False)),
        "extras": {
            "expansion": hidden // width,
            "sandwich": any(key.startswith(LAYERS) and ".norm_out." in key for key in shapes),
            "tied": "text_emb.weight" not in shapes,
            "stable": bool(told.get("stable", False)),
            "attention_ids": places["attn"],
            "feed_ids": places["ff"],
        },
    }


def _numbered(ids: tuple[Any, ...], layers: int) -> list[int]:
    """Names of what layers share, repeated over the depth, as numbers in the order of their first use."""
    if not ids:
        return []
    order: dict[str, int] = {}
    return [order.setdefault(str(ids[layer % len(ids)]), len(order)) for layer in range(layers)]


def dalle_rules(config: "Config") -> Iterator[Rule]:
    """The transformer; of what layers share the first one's."""
    extras, done = config.extras, set()
    for layer in range(config.layers):
        for place, (name, ids, parts) in enumerate(
            (
                ("attention", extras.attention_ids, (("to_qkv", "qkv", ()), ("to_out.0", "out", ("bias",)))),
                ("feed", extras.feed_ids, (("net.0", "up", ("bias",)), ("net.3", "down", ("bias",)))),
            )
        ):
            theirs, around = f"{LAYERS}{layer}.{place}.", f"around_{name}.{layer}."
            yield Rule(f"{theirs}scale", f"{around}scale")
            norms = (("norm", "norm"), ("norm_out", "after")) if extras.sandwich else (("norm", "norm"),)
            for their, our in norms:
                for end in ("weight", "bias"):
                    yield Rule(f"{theirs}fn.{their}.{end}", f"{around}{our}.{end}")
            number = ids[layer % len(ids)] if ids else layer
            if (name, number) in done:
                continue
            done.add((name, number))
            for their, our, more in parts:
                for end in ("weight", *more):
                    named = [f"{theirs}{chain}{their}.{end}" for chain in _CHAINS]
                    yield Rule(named[3], f"{name}s.{number}.{our}.{end}", also=(*named[:3], *named[4:]))
    for their, our in (("to_logits.0", "norm"), ("to_logits.1", "head")):
        for end in ("weight", "bias"):
            yield Rule(f"{their}.{end}", f"{our}.{end}")
    if not extras.tied:
        yield Rule("text_emb.weight", "text_embedding.weight")
        yield Rule("image_emb.weight", "image_embedding.weight")
    if not config.rotary:
        yield Rule("text_pos_emb.weight", "text_places.weight")
        for axis, our in enumerate(("rows", "columns")):
            yield Rule(f"image_pos_emb.weights.{axis}", our, also=(f"image_pos_emb.weights_{axis}",))


def ignored(config: "Config") -> tuple[Ignore, ...]:
    """What is not needed of such a file."""
    found = [
        Ignore(r"vae\..*", "the codec, which is a part of its own"),
        Ignore(r"transformer\.pos_emb|logits_mask", "computed from the configuration"),
        Ignore(r"(text|image)_emb\.linear\..*", "the head's own weights, once more"),
    ]
    for place, ids in enumerate((config.extras.attention_ids, config.extras.feed_ids)):
        layers = [layer for layer in range(config.layers) if ids and ids.index(ids[layer % len(ids)]) < layer]
        if layers:
            which = "|".join(map(str, layers))
            pattern = rf"{re.escape(LAYERS)}({which})\.{place}\.(fn\.)+(to_qkv|to_out|net)\..*"
            found.append(Ignore(pattern, "shared with an earlier layer"))
    return tuple(found)
