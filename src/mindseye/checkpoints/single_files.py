"""Models as one file: the original releases' layout, told apart by keys and shapes (the questions' order matters).

Nothing in the weights says whether the U-Net predicts noise or velocities. It is looked for in a file of the same name
with ``.yaml`` or ``.json``, in marks that newer training tools leave (tensors ``v_pred``, ``ztsnr``), in the header's
``modelspec.prediction_type`` and, for Stable Diffusion 2, in the number of training steps; else it is assumed, with a
note that says so.
"""

import dataclasses
import json
import re
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mindseye.checkpoints.folders import LOGIT_SCALE
from mindseye.checkpoints.layout import KeysMismatch, ignorable
from mindseye.checkpoints.layouts import compvis, diffusers_json, open_clip, transformers
from mindseye.checkpoints.manifest import Manifest, read_manifest
from mindseye.checkpoints.releases import FAMILIES, PREDICTIONS, PartFile, Release
from mindseye.errors import WeightsError

__all__ = ["CODEC", "CONFIGS", "UNET", "codec", "identify"]

Shapes = Mapping[str, tuple[int, ...]]
UNET = "model.diffusion_model."
CODEC = "first_stage_model."
CONFIGS = "mindseye.configs"
"""Where our own exports keep what shapes cannot tell, in the header."""

TEXTS: tuple[tuple[str, str, str, str], ...] = (
    ("conditioner.embedders.1.model.", "ln_final.weight", "text_2", "open-clip-text"),
    ("conditioner.embedders.0.model.", "ln_final.weight", "text_2", "open-clip-text"),
    ("conditioner.embedders.0.transformer.", "text_model.final_layer_norm.weight", "text", "transformers-clip-text"),
    ("cond_stage_model.model.", "ln_final.weight", "text", "open-clip-text"),
    ("cond_stage_model.transformer.", "text_model.final_layer_norm.weight", "text", "transformers-clip-text"),
    ("cond_stage_model.transformer.", "final_layer_norm.weight", "text", "transformers-clip-text"),
    ("cond_stage_model.transformer.", "token_emb.weight", "text", "ldm-bert"),
)
"""Where text encoders lie, what shows it, which part it is and whose names it has."""

SAID = ("prediction", "prediction_type", "parameterization")
"""Keys of a .json beside a file."""

STRANGERS: tuple[tuple[str, str], ...] = (
    (r"(^|\.)(lora_(up|down|A|B|te)|lora_unet|hada_w1_a|lokr_w1|oft_blocks|diff_b$)|_lora\.", "a LoRA, not a model"),
    (r"^(emb_params|string_to_param.*|clip_[lg]|<.*>)$", "a textual inversion embedding, not a model"),
    (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet, not a model"),
    (r"(^|\.)double_blocks\.\d+\.img_attn\.", "a model of the FLUX family"),
    (r"(^|\.)joint_blocks\.\d+\.", "Stable Diffusion 3"),
    (r"(^|\.)transformer_blocks\.\d+\.attn\.add_[qkv]_proj\.", "a model of the FLUX or Stable Diffusion 3 family"),
    (r"(^|\.)encoder\.block\.\d+\.layer\.\d+\.SelfAttention\.", "a T5 text encoder"),
    (r"(^|\.)time_stack\.|(^|\.)time_mixer\.", "Stable Video Diffusion"),
    (r"^model\.layers\.\d+\.self_attn\.", "a language model"),
    (r"^(down_blocks|up_blocks|mid_block)\.", "a U-Net in diffusers' names, on its own"),
    (r"^(encoder|decoder)\.(down|up|mid)(_blocks|_block)?\.", "an autoencoder on its own"),
    (r"^(text_model|vision_model)\.", "a CLIP on its own"),
    (r"^input_blocks\.", "a U-Net on its own"),
)
"""Keys of files that people take for models, and what they are."""


def identify(path: Path) -> Release:
    """What a single file holds.

    Raises:
        WeightsMissing: It is not there.
        WeightsError: It is damaged, or something else than a model of a known family.
    """
    manifest = read_manifest(path)
    unet = manifest.under(UNET).shapes()
    if "input_blocks.0.0.weight" not in unet or "out.2.weight" not in unet:
        from mindseye.checkpoints.early import identify_early

        if (early := identify_early(path, manifest)) is not None:
            return early
        raise stranger(path, manifest)
    notes: list[str] = []
    parts = {"unet": _part(path, UNET, "compvis-unet", unet, compvis.unet_config)}
    decoder = manifest.under(CODEC).shapes()
    texts = _texts(path, manifest)
    family = _family(path, json.loads(parts["unet"].config), texts)
    if decoder:
        parts["codec"] = _codec(path, CODEC, decoder, FAMILIES[family].scale)
    else:
        notes.append("the file holds no autoencoder; give one")
    parts |= texts
    wanted = {name.replace("tokenizer", "text") for name in FAMILIES[family].pads}
    missing = sorted(wanted - set(texts))
    if missing:
        notes.append(f"the file holds no text encoder ({', '.join(missing)}); give one")

    prediction, schedule = _prediction(path, manifest, family, notes)
    facts: dict[str, Any] = {"prediction": prediction, "schedule": schedule}
    facts |= {name.replace("tokenizer", "pad"): pad for name, pad in FAMILIES[family].pads.items()}
    if family in ("sdxl", "sdxl-inpaint"):
        facts["zeros_for_empty"] = True
    if family.startswith("sd2"):
        facts["skip"] = 0
    side = 512 if family == "sd2" and prediction == "eps" else FAMILIES[family].native
    parts, side = _as_exported(manifest, parts, side)
    _unexplained(path, manifest, parts)
    return Release(
        family=family,
        parts=parts,
        tokenizers=dict.fromkeys(FAMILIES[family].pads),
        facts=facts,
        native=(side, side),
        defaults={"steps": 30, "guidance": FAMILIES[family].guidance, "sampler": "dpm++-2m"},
        notes=tuple(notes),
        licence=_printable(manifest.metadata.get("modelspec.license", "")) or FAMILIES[family].licence,
    )


def codec(path: Path, scale: float) -> PartFile:
    """An autoencoder on its own in a file, or the one inside a whole model.

    Raises:
        WeightsError: There is none.
    """
    manifest = read_manifest(path)
    for prefix in ("", "vae.", CODEC):
        shapes = manifest.under(prefix).shapes()
        if "encoder.down.0.block.0.norm1.weight" in shapes:
            return _codec(path, prefix, shapes, scale)
        if "encoder.down_blocks.0.resnets.0.norm1.weight" in shapes:
            part = _part(path, prefix, "diffusers-vae", shapes, diffusers_json.vae_shapes)
            return dataclasses.replace(part, values=_normalisation(scale))
    raise stranger(path, manifest, "no autoencoder of Stable Diffusion's kind")


def stranger(path: Path, manifest: Manifest, wanted: str = "no model of a known family") -> WeightsError:
    """The error for a file of something else, naming what it is where that shows, and some of its keys."""
    what = next((what for pattern, what in STRANGERS if any(re.search(pattern, key) for key in manifest)), "")
    keys = ", ".join(_printable(key)[:100] for key in sorted(manifest)[:5])
    also = "the families are " + ", ".join(FAMILIES)
    hint = "adapters and embeddings are used beside a model" if "not a model" in what else also
    return WeightsError(f"{path} is {what or wanted} ({len(manifest)} tensors: {keys})", hint=hint)


def _printable(text: str) -> str:
    """A stranger's words, unable to steer a terminal."""
    return "".join(mark if mark.isprintable() else "?" for mark in text)[:200]


def _part(path: Path, prefix: str, layout: str, shapes: Shapes, config: Callable[[Shapes], dict[str, Any]]) -> PartFile:
    try:
        found = config(shapes)
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"what {path} holds under {prefix or 'no prefix'} is not supported: {said}") from error
    return PartFile((path,), layout, prefix, json.dumps(found))


def _codec(path: Path, prefix: str, shapes: Shapes, scale: float) -> PartFile:
    part = _part(path, prefix, "compvis-vae", shapes, compvis.vae_config)
    return dataclasses.replace(part, values=_normalisation(scale))


def _normalisation(scale: float) -> tuple[tuple[str, tuple[float, ...]], ...]:
    """What no file says of latents."""
    return ("latents_mean", (0.0,)), ("latents_std", (1 / scale,))


def _texts(path: Path, manifest: Manifest) -> dict[str, PartFile]:
    """The text encoders, by part."""
    found: dict[str, PartFile] = {}
    for prefix, mark, name, layout in TEXTS:
        if f"{prefix}{mark}" not in manifest or name in found:
            continue
        shapes = manifest.under(prefix).shapes()
        if layout == "open-clip-text":
            early = prefix.startswith("cond_stage_model.")
            part = _part(path, prefix, layout, shapes, lambda s, early=early: open_clip.text_config(s, early=early))
        elif layout == "ldm-bert":
            part = _part(path, prefix, layout, shapes, _bert)
        else:
            part = _part(path, prefix, layout, shapes, transformers.text_shapes)
        # A text encoder's own values; the tower of Latent Diffusion has no such thing.
        found[name] = part if layout == "ldm-bert" else dataclasses.replace(part, values=(LOGIT_SCALE,))
    return found


def _bert(shapes: Shapes) -> dict[str, Any]:
    from mindseye.checkpoints.layouts.ldm_bert import config

    found = config(shapes)
    if found is None:
        raise ValueError("its text tower is not Latent Diffusion's")
    return dataclasses.asdict(found)


def _family(path: Path, config: Mapping[str, Any], texts: Mapping[str, PartFile]) -> str:
    """Detection by shape, then by where the text encoders lie."""
    channels, context, vector = config["in_channels"], config["transformers"]["context"], config["vector"]
    refused = {5: "a depth-guided model", 7: "the x4 upscaler", 8: "InstructPix2Pix"}
    if channels in refused:
        raise WeightsError(f"{path} is {refused[channels]} ({channels} channels go in), which is not supported")
    inpaint = "-inpaint" if channels == 9 else ""
    if vector is not None:
        if vector in (1536, 2048) and "text_2" not in texts:
            raise WeightsError(f"{path} is Stable unCLIP (it is told a vector of {vector}), which is not supported")
        refiner = "text_2" in texts and "text" not in texts if texts else vector == 2560
        return "sdxl-refiner" if refiner else f"sdxl{inpaint}"
    layout = texts["text"].layout if "text" in texts else ""
    if layout == "ldm-bert" or (not layout and context == 1280):
        return "ldm-text2img"
    second = layout == "open-clip-text" if layout else config["transformers"]["linear"]
    return f"{'sd2' if second else 'sd1'}{inpaint}"


def _prediction(path: Path, manifest: Manifest, family: str, notes: list[str]) -> tuple[str, str]:
    """What the U-Net predicts, and the noise table."""
    schedule = "scaled-linear-zero-snr" if "ztsnr" in manifest or _dark(manifest) else "scaled-linear"
    said, where = _sidecar(path), "the file beside it"
    if not said and "v_pred" in manifest:
        said, where = "v", "the mark v_pred"
    if not said:
        said, where = PREDICTIONS.get(manifest.metadata.get("modelspec.prediction_type", ""), ""), "its header"
    if said:
        notes.append(f"predicts {said}, says {where}")
        return said, schedule
    override = 'if pictures are brown or noisy, put a .json of the same name beside it that says {"prediction": '
    if family == "sd2":
        if manifest.metadata.get("global_step") == "875000":
            notes.append(f'taken for 2.0-base (eps) by its 875,000 training steps; {override}"v"}}')
            return "eps", schedule
        notes.append(
            f'nothing says what it predicts: taken for a 768-pixel one (v); {override}"eps"}}, as the 512-pixel '
            "releases do"
        )
        return "v", schedule
    if schedule != "scaled-linear":
        notes.append("its noise table ends in pure noise, so it is taken to predict v")
        return "v", schedule
    return "eps", schedule


def _dark(manifest: Manifest) -> bool:
    """Whether the file's own noise table ends in pure noise; read from safetensors only."""
    entry = manifest.get("alphas_cumprod")
    if entry is None or entry.offset is None or entry.dtype != "F32" or not entry.numbers:
        return False
    with entry.file.open("rb") as file:
        file.seek(entry.offset + entry.bytes - 4)
        return struct.unpack("<f", file.read(4))[0] < 1e-6


def _sidecar(path: Path) -> str:
    """What a .yaml or .json of the same name says; empty when there is none, or nothing in it."""
    for suffix in (".yaml", ".yml", ".json"):
        beside = path.with_suffix(suffix)
        try:
            if not beside.is_file() or beside.stat().st_size > 1_000_000:
                continue
            text = beside.read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        said = ""
        if suffix == ".json":
            try:
                told = json.loads(text)
                said = next((str(told[key]) for key in SAID if key in told), "")
            except (ValueError, TypeError, RecursionError):
                continue
        else:
            found = re.search(
                r"""^[ \t]*(?:parameterization|prediction_type):[ \t]*["']?([\w-]+)""", text, re.MULTILINE
            )
            said = "" if found is None else found[1]
        if said in PREDICTIONS:
            return PREDICTIONS[said]
        if re.search(r"denoiser_scaling\.V(Edm)?Scaling", text):
            return "v"
        if "denoiser_scaling.EpsScaling" in text:
            return "eps"
    return ""


def _as_exported(manifest: Manifest, parts: dict[str, PartFile], side: int) -> tuple[dict[str, PartFile], int]:
    """Configs and values that our own export wrote into the header replace what was inferred from shapes."""
    try:
        told = json.loads(manifest.metadata.get(CONFIGS, "{}"))
        for name, part in parts.items():
            config, values = told[name]["config"], told[name]["values"]
            kept = tuple((key, tuple(map(float, numbers))) for key, numbers in values.items())
            parts[name] = dataclasses.replace(part, config=json.dumps(config), values=kept or part.values)
        return parts, int(told.get("native", side))
    except (KeyError, TypeError, ValueError, AttributeError):
        return parts, side


def _unexplained(path: Path, manifest: Manifest, parts: Mapping[str, PartFile]) -> None:
    """Refuse keys outside of every part that nothing explains."""
    ignored = ignorable(compvis.FILE_IGNORE)
    prefixes = tuple(part.prefix for part in parts.values())
    left = sorted(key for key in manifest if not key.startswith(prefixes) and not ignored(key))
    if any(key.startswith(("depth_model.", "embedder.", "noise_augmentor.")) for key in left):
        raise WeightsError(f"{path} has an encoder for pictures ({left[0]}); such models are not supported")
    if left:
        raise KeysMismatch(f"{path} holds more than a model", unknown=[_printable(key) for key in left])
