"""One model from any layout into any other, tensor by tensor: nothing is ever wholly in memory.

A rule is a view of one of our tensors (see `mindseye.checkpoints.layout`), so every layout is reached from every other
through ours: what is written are views of what is assembled from what is read. Dtypes stay unless asked otherwise.
Three layouts are written: ours (``card.json`` and a file a part), diffusers' folder, and the original single file.
Everything goes beside the target first and is moved there when it is whole.
"""

import dataclasses
import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

import torch
from torch import Tensor

from mindseye.checkpoints import folders, layouts, single_files
from mindseye.checkpoints.layout import Rule, ignorable
from mindseye.checkpoints.layouts import diffusers_json, transformers
from mindseye.checkpoints.load import DTYPES, Files, NotFinite, assemble, dtype_of, resolve_part
from mindseye.checkpoints.manifest import Entry, read_manifest
from mindseye.checkpoints.releases import PartFile, Release, identify
from mindseye.errors import OptionError, OutputError, WeightsError
from mindseye.request import Progress, Steps

__all__ = ["TARGETS", "Target", "convert"]

Target = Literal["mindseye", "diffusers", "original"]
TARGETS: tuple[Target, ...] = ("mindseye", "diffusers", "original")
NAMES = {dtype: name for name, dtype in DTYPES.items()}
FOLDERS = {"unet": "unet", "codec": "vae", "text": "text_encoder", "text_2": "text_encoder_2"}
"""Our parts -> diffusers' folders."""
LIBRARIES = {
    "unet": ["diffusers", "UNet2DConditionModel"],
    "codec": ["diffusers", "AutoencoderKL"],
    "text": ["transformers", "CLIPTextModel"],
    "text_2": ["transformers", "CLIPTextModelWithProjection"],
}
PIPELINES = {
    "sd1": "StableDiffusionPipeline",
    "sd1-inpaint": "StableDiffusionInpaintPipeline",
    "sd2": "StableDiffusionPipeline",
    "sd2-inpaint": "StableDiffusionInpaintPipeline",
    "sdxl": "StableDiffusionXLPipeline",
    "sdxl-inpaint": "StableDiffusionXLInpaintPipeline",
    "sdxl-refiner": "StableDiffusionXLImg2ImgPipeline",
}
CLIP_L, OPEN_CLIP = "transformers-clip-text", "open-clip-text"
PLACES: dict[str, dict[str, tuple[str, str]]] = {
    "sd1": {"text": ("cond_stage_model.transformer.", CLIP_L)},
    "sd2": {"text": ("cond_stage_model.model.", OPEN_CLIP)},
    "sdxl": {
        "text": ("conditioner.embedders.0.transformer.", CLIP_L),
        "text_2": ("conditioner.embedders.1.model.", OPEN_CLIP),
    },
    "sdxl-refiner": {"text_2": ("conditioner.embedders.0.model.", OPEN_CLIP)},
}
"""Where text encoders go in a single file, by family."""


@final
@dataclass(frozen=True)
class Item:
    """One tensor to be written.

    Attributes:
        name: Its key in the new file.
        shape: Its shape there.
        dtype: Its dtype there.
        make: Gives it, contiguous.
    """

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]


def convert(
    source: Path, target: Path, to: Target = "mindseye", *, dtype: torch.dtype | None = None
) -> Steps[tuple[str, ...]]:
    """Write a model in another layout.

    Args:
        source: What `identify` reads.
        target: The new folder; for "original" a ``.safetensors`` file. Must not exist.
        to: The layout.
        dtype: Of floating tensors; as they are when None. What our autoencoder normalises with stays float32.

    Yields:
        A `Progress` a tensor, stage "write".

    Returns:
        What was left out and why, a sentence each.

    Raises:
        WeightsError: The source is damaged, or has no counterpart in that layout.
        OptionError: No such layout.
        OutputError: The target exists, or cannot be written.
    """
    if to not in TARGETS:
        raise OptionError(f"there is no layout {to!r} to write; {', '.join(TARGETS)} are possible")
    if target.exists():
        raise OutputError(f"{target} exists; nothing is overwritten", hint="name another")
    release = identify(source)
    work = target.with_name(f"{target.name}.part{os.getpid()}")
    left: list[str] = []
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if to == "original":
            items, metadata = _original(release, dtype, left)
            yield from write(work, items, metadata)
        else:
            work.mkdir()
            plans = _ours(release, dtype, left) if to == "mindseye" else _diffusers(release, dtype, left, work)
            count = [0, sum(len(items) for _, items, _ in plans)]
            for name, items, metadata in plans:
                (work / name).parent.mkdir(exist_ok=True)
                yield from write(work / name, items, metadata, count)
            if to == "mindseye":
                _card(release, work)
        os.replace(work, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True) if work.is_dir() else work.unlink(missing_ok=True)
    return tuple(left)


def write(
    path: Path, items: list[Item], metadata: dict[str, str], count: list[int] | None = None
) -> Iterator[Progress]:
    """A safetensors file, one tensor in memory at a time.

    Raises:
        WeightsError: Numbers that are not finite.
    """
    count = count or [0, len(items)]
    table: dict[str, Any] = {"__metadata__": {"format": "pt", **metadata}}
    at = 0
    # Widest numbers first, then by name, as safetensors itself writes: so every tensor is aligned.
    items = sorted(items, key=lambda item: (-item.dtype.itemsize, item.name))
    for item in items:
        size = item.dtype.itemsize
        for side in item.shape:
            size *= side
        table[item.name] = {"dtype": NAMES[item.dtype], "shape": item.shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps(table, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        for item in items:
            try:
                tensor = item.make().contiguous()
            except NotFinite as error:
                raise WeightsError(f"{error} holds NaN or infinity", hint="download or copy it again") from None
            file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
            count[0] += 1
            yield Progress("write", count[0], count[1], tuple)
        file.flush()
        os.fsync(file.fileno())


def _read(part: PartFile, dtype: torch.dtype | None, left: list[str], name: str) -> tuple[Any, dict[str, Item]]:
    """The network's Config and each of its tensors, to be assembled when wanted; says what of the file is left out."""
    network, layout, manifest, places = resolve_part(part)
    config: Any = network.config
    state, values, files = network.state_dict(), dict(part.values), Files()
    reason_of = ignorable(layout.ignore(config))
    used = {entry.name for at in places.values() for _, entry in at}
    reasons: dict[str, int] = {}
    for key, entry in manifest.items():
        if entry.name not in used:
            reason = reason_of(key)
            reasons[reason] = reasons.get(reason, 0) + 1
    left += [f"{name}: {count} tensors left out ({reason})" for reason, count in reasons.items()]

    def item(key: str) -> Item:
        shape = tuple(state[key].shape)
        if key not in places:
            numbers = torch.tensor(values.get(key, (0.0,)), dtype=torch.float32)
            return Item(key, shape, torch.float32, lambda: numbers.expand(shape) if shape else numbers.view(()))
        at: list[tuple[Rule, Entry]] = places[key]
        wanted = dtype_of(at[0][1])
        for _, entry in at[1:]:
            wanted = torch.promote_types(wanted, dtype_of(entry))
        if wanted.is_floating_point and dtype is not None and not key.startswith("latents_"):
            wanted = dtype
        return Item(key, shape, wanted, lambda: assemble(at, shape, files, wanted))

    return config, {key: item(key) for key in state}


def _through(rules: list[Rule], ours: dict[str, Item], prefix: str = "") -> list[Item]:
    """Their tensors as views of ours."""
    items = []
    for rule in rules:
        source = ours[rule.ours]
        shape = rule.op.shape(source.shape)
        if shape is None:
            raise WeightsError(f"{rule.ours} of shape {list(source.shape)} has no counterpart in that layout")
        items.append(Item(prefix + rule.theirs, shape, source.dtype, lambda r=rule, s=source: r.op.view(s.make())))
    return items


Plan = tuple[str, list[Item], dict[str, str]]
"""File name, tensors, metadata."""


def _ours(release: Release, dtype: torch.dtype | None, left: list[str]) -> list[Plan]:
    """A file a part, each with its Config in the header, as `mindseye.checkpoints.save` writes them."""
    plans: list[Plan] = []
    for name, part in release.parts.items():
        config, items = _read(part, dtype, left, name)
        about = {
            "network": _network(part),
            "config": json.dumps(dataclasses.asdict(config)),
            "provenance": json.dumps({"name": name, "from": part.files[0].name, "layout": part.layout}),
        }
        plans.append((f"{name}.safetensors", list(items.values()), about))
    return plans


def _network(part: PartFile) -> str:
    """Name of the class it is for."""
    if part.layout == "mindseye":
        return read_manifest(part.files).metadata["network"]
    return layouts.find(part.layout).network


def _card(release: Release, folder: Path) -> None:
    """``card.json``, and the tokenizers' files."""
    card = {
        "format": folders.FORMAT,
        "family": release.family,
        "parts": {name: f"{name}.safetensors" for name in release.parts},
        "tokenizers": _tokenizers(release, folder),
        "facts": dict(release.facts),
        "native": list(release.native),
        "multiple": release.multiple,
        "defaults": dict(release.defaults),
        "notes": list(release.notes),
        "licence": release.licence,
    }
    (folder / folders.CARD).write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _tokenizers(release: Release, folder: Path) -> dict[str, str | None]:
    """Copies the tokenizers' folders."""
    copied: dict[str, str | None] = {}
    for name, at in release.tokenizers.items():
        copied[name] = None if at is None else name
        if at is not None:
            (folder / name).mkdir()
            for file in sorted(at.iterdir()) if at.is_dir() else _pair(at):
                if file.suffix in {".json", ".txt"} and file.is_file():
                    # Of two vocabularies in one folder, the one that is meant gets the usual name.
                    usual = file.name if at.is_dir() else f"{file.stem.partition('_')[0]}{file.suffix}"
                    shutil.copyfile(file, folder / name / usual)
    return copied


def _pair(vocabulary: Path) -> tuple[Path, Path]:
    """The two files of a vocabulary whose folder holds another, too."""
    return vocabulary, vocabulary.with_name(vocabulary.name.replace("vocab", "merges")).with_suffix(".txt")


def _diffusers(release: Release, dtype: torch.dtype | None, left: list[str], folder: Path) -> list[Plan]:
    """A folder a part; writes the small files at once."""
    if release.family not in PIPELINES:
        raise WeightsError(f"{release.family} is not written as a diffusers folder")
    index: dict[str, Any] = {"_class_name": PIPELINES[release.family], "_diffusers_version": "0.30.0"}
    plans: list[Plan] = []
    factor, net = 1, None
    for name, part in release.parts.items():
        config, items = _read(part, dtype, left, name)
        stem = "diffusion_pytorch_model" if name in ("unet", "codec") else "model"
        if name == "codec":
            factor = config.factor
            settings = _checked(lambda c=config, i=items: diffusers_json.vae_json(c, *_scale(i), release.native[0]))
            rules = layouts.find("diffusers-vae").rules(config)
        elif name == "unet":
            settings, rules = {}, layouts.find("diffusers-unet").rules(config)
        else:
            settings, rules = transformers.text_json(config), layouts.find(CLIP_L).rules(config)
        plans.append((f"{FOLDERS[name]}/{stem}.safetensors", _through(list(rules), items), {}))
        (folder / FOLDERS[name]).mkdir()
        if name != "unet":
            _put(folder / FOLDERS[name] / "config.json", settings)
        else:
            net = config
        index[FOLDERS[name]] = LIBRARIES[name]
        if name != "codec" and name != "unet" and config.embed is not None and name == "text":
            index[FOLDERS[name]] = LIBRARIES["text_2"]
    if net is not None:
        _put(folder / "unet" / "config.json", diffusers_json.unet_json(net, release.native[0] // factor))
    for name, at in _tokenizers(release, folder).items():
        index[name] = ["transformers", "CLIPTokenizer"]
        if at is None:
            _vocabulary(folder / name, release.facts.get(name.replace("tokenizer", "pad")))
    (folder / "scheduler").mkdir()
    _put(folder / "scheduler" / "scheduler_config.json", _scheduler(release))
    index["scheduler"] = ["diffusers", "EulerDiscreteScheduler" if "xl" in release.family else "DDIMScheduler"]
    if "xl" in release.family:
        index["force_zeros_for_empty_prompt"] = bool(release.facts.get("zeros_for_empty", False))
        for name in ("text_encoder", "tokenizer") if "text" not in release.parts else ():
            index[name] = [None, None]
        if release.family == "sdxl-refiner":
            index["requires_aesthetics_score"] = True
    else:
        index |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
    _put(folder / "model_index.json", index)
    return plans


def _vocabulary(folder: Path, pad: int | None) -> None:
    """The packaged vocabulary of CLIP as transformers wants it."""
    from mindseye.text.tokenizer import EOT, SOT, Tokenizer

    folder.mkdir()
    Tokenizer.packaged()._backend.model.save(str(folder))
    special = {"bos_token": SOT, "eos_token": EOT, "pad_token": EOT if pad is None else "!", "unk_token": EOT}
    _put(folder / "special_tokens_map.json", special)
    _put(folder / "tokenizer_config.json", {"model_max_length": 77, "tokenizer_class": "CLIPTokenizer", **special})


def _scheduler(release: Release) -> dict[str, Any]:
    """``scheduler_config.json``."""
    named = str(release.facts["schedule"])
    tables = {ours: theirs for theirs, ours in folders.SCHEDULE_NAMES.items()}
    kind, low, high = tables.get(named.removesuffix("-zero-snr"), ("scaled_linear", 0.00085, 0.012))
    predicts = {"eps": "epsilon", "v": "v_prediction", "x0": "sample"}[release.facts["prediction"]]
    zero = named.endswith("-zero-snr")
    return {
        "_class_name": "EulerDiscreteScheduler" if "xl" in release.family else "DDIMScheduler",
        "beta_schedule": kind,
        "beta_start": low,
        "beta_end": high,
        "num_train_timesteps": 1000,
        "prediction_type": predicts,
        "rescale_betas_zero_snr": zero,
        "timestep_spacing": "trailing" if zero else "leading",
        "steps_offset": 1,
        **({} if "xl" in release.family else {"clip_sample": False, "set_alpha_to_one": False}),
    }


def _put(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _scale(items: dict[str, Item]) -> tuple[float]:
    """What diffusers multiplies latents by.

    Raises:
        ValueError: Channels are not all normalised alike.
    """
    mean, std = items["latents_mean"].make().double(), items["latents_std"].make().double()
    if bool(mean.any()) or not bool((std == std.flatten()[0]).all()):
        raise ValueError("its latents are normalised by channel, which is not written")
    return (float(f"{1 / float(std.flatten()[0]):.6g}"),)  # of 1 / 0.18215 in float32, 0.18215


def _checked(call: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    try:
        return call()
    except ValueError as error:
        raise WeightsError(str(error)) from error


def _original(release: Release, dtype: torch.dtype | None, left: list[str]) -> tuple[list[Item], dict[str, str]]:
    """All parts in one file, configs in its header."""
    family = release.family.removesuffix("-inpaint")
    if family not in PLACES:
        raise WeightsError(f"{release.family} is not written as an original single file")
    places = {"unet": (single_files.UNET, "compvis-unet"), "codec": (single_files.CODEC, "compvis-vae")} | PLACES[
        family
    ]
    items: list[Item] = []
    configs: dict[str, Any] = {"native": release.native[0]}
    for name, part in release.parts.items():
        prefix, layout = places[name]
        config, ours = _read(part, dtype, left, name)
        given = [key for key in ours if key.startswith("latents_")]
        values = {key: ours[key].make().flatten().tolist() for key in given}
        configs[name] = {"config": dataclasses.asdict(config), "values": values}
        items += _through(list(layouts.find(layout).rules(config)), ours, prefix)
    predicts = release.facts["prediction"]
    empty = torch.zeros(0)
    if "xl" in family and predicts == "v":
        items.append(Item("v_pred", (0,), torch.float32, lambda: empty))
    if release.facts["schedule"].endswith("-zero-snr"):
        items.append(Item("ztsnr", (0,), torch.float32, lambda: empty))
    return items, {
        single_files.CONFIGS: json.dumps(configs),
        "modelspec.prediction_type": {"eps": "epsilon", "v": "v", "x0": "sample"}[predicts],
        "modelspec.license": release.licence,
    }
