"""Models as folders: diffusers' (a folder a part, each with its config.json) and our own (``card.json``)."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mindseye.checkpoints.layouts import diffusers_json, transformers
from mindseye.checkpoints.manifest import Manifest, read_manifest
from mindseye.checkpoints.releases import FAMILIES, PREDICTIONS, SCHEDULE_NAMES, PartFile, Release
from mindseye.errors import WeightsError, WeightsMissing

__all__ = ["CARD", "codec", "diffusers", "native", "read_json", "weights"]

CARD = "card.json"
"""What makes a folder one of ours."""
FORMAT = 1
"""Of `CARD`; grows when an older mindseye could not read it."""

LOGIT_SCALE = ("logit_scale", (4.6052,))
"""Temperature of the text towers that are published without one: nothing that draws reads it."""

_FILE = re.compile(r"(diffusion_pytorch_model|pytorch_model|model)\b(.*)")


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        WeightsMissing: Not there.
        WeightsError: Something else is under that name.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise WeightsMissing(f"{path} cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is no JSON") from error
    if text.startswith("version https://git-lfs"):
        raise WeightsError(f"{path} is a Git LFS pointer, not the file it stands for", hint="git lfs pull")
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no JSON: {error}", hint="download it again") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{path} should hold a JSON object, not {type(found).__name__}")
    return found


def weights(folder: Path, notes: list[str]) -> Manifest:
    """The weights of one part: safetensors before pickles, the plain file before its variants, whole before sharded.

    Args:
        folder: ``unet/`` and the like.
        notes: Told when a variant was taken because there was nothing else.

    Raises:
        WeightsMissing: No weights, or a shard is missing.
    """
    ranked = []
    if folder.is_dir():
        for path in folder.iterdir():
            found = _FILE.fullmatch(path.name)
            pieces = [piece for piece in (found[2].split(".") if found else []) if piece]
            kind = next((piece for piece in pieces if piece in ("safetensors", "bin")), "")
            index = "index" in pieces
            if not kind or re.search(r"-\d+-of-\d+", path.name) or pieces[-1] != ("json" if index else kind):
                continue
            variant = ".".join(piece for piece in pieces if piece not in (kind, "index", "json"))
            ranked.append((kind != "safetensors", variant != "", variant != "fp16", index, path.name, path, variant))
    if not ranked:
        shards = folder.is_dir() and any(re.search(r"-\d+-of-\d+\.", path.name) for path in folder.iterdir())
        raise WeightsMissing(
            f"{folder} holds {'shards without their index' if shards else 'no weights'} "
            "(diffusion_pytorch_model or model, as .safetensors or .bin)",
            hint="folders of configs alone, and those for ONNX or Flax, cannot be drawn with",
        )
    *_, path, variant = min(ranked)
    if variant:
        notes.append(f"{folder.name}: the {variant} variant is read, there is no other")
    return read_manifest(path)


def diffusers(folder: Path) -> Release:
    """A folder that diffusers wrote.

    Raises:
        WeightsMissing: A part or a file is not there.
        WeightsError: A pipeline, or a part of one, that is not supported.
    """
    index = read_json(folder / "model_index.json") if (folder / "model_index.json").is_file() else {}
    kind = str(index.get("_class_name", "StableDiffusionPipeline"))
    if not (folder / "unet").is_dir():
        raise WeightsError(f"{folder} holds a {kind}, which is not supported: it has no U-Net")
    notes: list[str] = []
    unet = _part(folder / "unet", "diffusers-unet", notes, lambda values, _: diffusers_json.unet_config(values))
    config = json.loads(unet.config)
    ldm = (folder / "bert").is_dir()
    text, text_2 = (_text(folder, name, index, notes) for name in ("text_encoder", "text_encoder_2"))
    family = _family(kind, config, refiner=text is None, ldm=ldm)
    parts = {"unet": unet}
    parts["codec"] = codec(folder / ("vqvae" if ldm else "vae"), FAMILIES[family].scale, notes)
    if ldm:
        text = _part(folder / "bert", "ldm-bert-diffusers", notes, _bert)
    parts |= {name: part for name, part in (("text", text), ("text_2", text_2)) if part is not None}

    prediction, schedule = _scheduler(folder / "scheduler", notes)
    tokenizers, pads = {}, {}
    for name, pad in FAMILIES[family].pads.items():
        tokenizers[name], pads[name.replace("tokenizer", "pad")] = _tokenizer(folder / name, pad)
    facts = {"prediction": prediction, "schedule": schedule, **pads}
    if family in ("sdxl", "sdxl-inpaint"):
        facts["zeros_for_empty"] = bool(index.get("force_zeros_for_empty_prompt", True))
    if family.startswith("sd2"):
        facts["skip"] = 0
    sample = read_json(folder / "unet" / "config.json").get("sample_size")
    factor = 2 ** (len(json.loads(parts["codec"].config)["encoder"]["channels"]) - 1)
    side = int(sample) * factor if isinstance(sample, int) else FAMILIES[family].native
    return Release(
        family=family,
        parts=parts,
        tokenizers=tokenizers,
        facts=facts,
        native=(side, side),
        multiple=factor,
        defaults={"steps": 30, "guidance": FAMILIES[family].guidance, "sampler": "dpm++-2m"},
        notes=tuple(notes),
        licence=FAMILIES[family].licence,
    )


def _family(kind: str, config: Mapping[str, Any], *, refiner: bool, ldm: bool) -> str:
    if ldm:
        return "ldm-text2img"
    refused = {5: "a depth-guided model", 7: "the x4 upscaler", 8: "InstructPix2Pix"}
    channels = config["in_channels"]
    if channels in refused:
        raise WeightsError(f"a {kind} with {channels} channels is {refused[channels]}, which is not supported")
    inpaint = "-inpaint" if channels == 9 else ""
    if config["vector"] is not None:
        return "sdxl-refiner" if refiner else f"sdxl{inpaint}"
    return f"{'sd2' if config['transformers']['linear'] else 'sd1'}{inpaint}"


def _part(
    folder: Path,
    layout: str,
    notes: list[str],
    config: Callable[[Mapping[str, Any], Mapping[str, tuple[int, ...]]], dict[str, Any]],
    values: tuple[tuple[str, tuple[float, ...]], ...] = (),
) -> PartFile:
    """A part from its folder."""
    settings = read_json(folder / "config.json")
    manifest = weights(folder, notes)
    try:
        inner = config(settings, manifest.shapes())
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        said = f"it does not say {error}" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"{folder / 'config.json'} describes a network that is not supported: {said}") from error
    return PartFile(manifest.files, layout, "", json.dumps(inner), values)


def _text(folder: Path, name: str, index: Mapping[str, Any], notes: list[str]) -> PartFile | None:
    """A text encoder, where the pipeline has it."""
    listed = index.get(name, [None, None])
    if not (folder / name).is_dir():
        if isinstance(listed, list) and listed and listed[0] is not None:
            raise WeightsMissing(f"{folder} is incomplete: {name}/ is not there")
        return None
    return _part(folder / name, "transformers-clip-text", notes, transformers.text_config, (LOGIT_SCALE,))


def _bert(settings: Mapping[str, Any], _: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    import dataclasses

    from mindseye.checkpoints.layouts.ldm_bert import config_of

    return dataclasses.asdict(config_of(settings))


def codec(folder: Path, scale: float | None = None, notes: list[str] | None = None) -> PartFile:
    """``vae/`` of a diffusers folder."""
    settings = read_json(folder / "config.json")
    mean, std = settings.get("latents_mean"), settings.get("latents_std")
    factor = float(settings.get("scaling_factor") or scale or 0.18215)
    # XL derivatives give mean and deviation; what is scaled there is what is left after them.
    values = (
        ("latents_mean", tuple(map(float, mean)) if mean else (0.0,)),
        ("latents_std", tuple(float(each) / factor for each in std) if std else (1 / factor,)),
    )
    told = [] if notes is None else notes
    return _part(folder, "diffusers-vae", told, lambda found, _: diffusers_json.vae_config(found), values)


def _scheduler(folder: Path, notes: list[str]) -> tuple[str, str]:
    """Prediction and noise table."""
    if not (folder / "scheduler_config.json").is_file():
        notes.append("nothing says what the U-Net predicts; noise (eps) is assumed")
        return "eps", "scaled-linear"
    settings = read_json(folder / "scheduler_config.json")
    asked = str(settings.get("prediction_type") or "epsilon")
    if asked not in PREDICTIONS:
        raise WeightsError(f"its U-Net predicts {asked!r}; {', '.join(sorted(set(PREDICTIONS)))} are known")
    table = (settings.get("beta_schedule"), settings.get("beta_start"), settings.get("beta_end"))
    name = next((ours for theirs, ours in SCHEDULE_NAMES.items() if theirs == table), "")
    if table[0] == "squaredcos_cap_v2":
        name = "cosine"
    if not name or settings.get("trained_betas") is not None:
        raise WeightsError(f"its noise table (beta_schedule {table[0]}, {table[1]} to {table[2]}) is not known here")
    if settings.get("rescale_betas_zero_snr"):
        name += "-zero-snr"
    if name == "linear-zero-snr" or name == "cosine-zero-snr":
        raise WeightsError(f"its noise table {name} is not known here")
    return PREDICTIONS[asked], name


def _tokenizer(folder: Path, usual: int | None) -> tuple[Path | None, int | None]:
    """Folder of a vocabulary, and the id that it pads with."""
    if not any((folder / name).is_file() for name in ("vocab.json", "tokenizer.json", "vocab.txt")):
        return None, usual
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (folder / name).is_file():
            token = read_json(folder / name).get("pad_token")
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                if token == "<|endoftext|>":
                    return folder, None
                if (folder / "vocab.json").is_file():
                    return folder, read_json(folder / "vocab.json").get(token, usual)
    return folder, usual


def native(folder: Path) -> Release:
    """A folder that `mindseye.checkpoints.convert` wrote.

    Raises:
        WeightsMissing: A part that the card names is not there.
        WeightsError: The card cannot be read.
    """
    card = read_json(folder / CARD)
    if card.get("format") != FORMAT:
        raise WeightsError(f"{folder / CARD} has format {card.get('format')!r}; this mindseye reads {FORMAT}")
    try:
        parts = {}
        for name, file in card["parts"].items():
            manifest = read_manifest(inside(folder, file))
            parts[name] = PartFile(manifest.files, "mindseye", "", manifest.metadata["config"])
        tokenizers = {name: None if at is None else inside(folder, at) for name, at in card["tokenizers"].items()}
        family, (width, height) = card["family"], card["native"]
        if family not in FAMILIES:
            raise ValueError(f"family {family}")
        return Release(
            family=family,
            parts=parts,
            tokenizers=tokenizers,
            facts=dict(card["facts"]),
            native=(int(width), int(height)),
            multiple=int(card["multiple"]),
            defaults=dict(card["defaults"]),
            notes=tuple(map(str, card["notes"])),
            licence=str(card["licence"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{folder / CARD} is damaged: {error}") from error


def inside(folder: Path, name: Any) -> Path:
    """A file of the folder's own.

    Raises:
        ValueError: The name leads elsewhere.
    """
    if not isinstance(name, str) or Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"{name!r} is no file of this folder")
    return folder / name
