"""SwarmUI: `parameters` is JSON with `sui_image_params`, beside it `sui_extra_data` and `sui_models` with hashes."""

from collections.abc import Mapping
from typing import Any

from mindseye.metadata.found import (
    MOST_LORAS,
    Found,
    Lora,
    gathered,
    lora_of,
    parse_object,
    real,
    size_of,
    spread,
    stem,
    text_of,
    whole,
)

_READ = {
    "prompt", "negativeprompt", "steps", "sampler", "comfyuisampler", "scheduler", "comfyuischeduler", "cfgscale",
    "seed", "width", "height", "model", "vae", "clipstopatlayer", "initimagecreativity", "variationseed",
    "variationseedstrength", "seamlesstileable", "loras", "loraweights", "swarm_version",
}  # fmt: skip


def read(chunks: Mapping[str, str]) -> Found | None:
    """SwarmUI's account in a file's chunks."""
    raw = chunks.get("parameters", "")
    plain = parse_object(raw) if "sui_image_params" in raw else None
    values = plain.get("sui_image_params") if plain else None
    if plain is None or not isinstance(values, dict):
        return None
    get = values.get
    model, hashes = text_of(get("model")), _hashes(plain.get("sui_models"))
    stop = whole(get("clipstopatlayer"))
    tile = {"true": "xy", "x-only": "x", "y-only": "y"}.get(str(get("seamlesstileable", ""))[:9].lower())
    fields = {
        "prompt": text_of(get("prompt")),
        "negative": text_of(get("negativeprompt")),
        "steps": whole(get("steps")),
        "sampler": text_of(get("sampler") or get("comfyuisampler")),
        "schedule": text_of(get("scheduler") or get("comfyuischeduler")),
        "guidance": real(get("cfgscale")),
        "seed": whole(get("seed")),
        "size": size_of((get("width"), get("height"))),
        "model": None if model is None else stem(model),
        "model_hash": hashes.get(stem(model)) if model else None,
        "vae": text_of(get("vae")),
        "clip_skip": -stop if stop is not None and stop < -1 else None,
        "strength": real(get("initimagecreativity")),
        "variation_seed": whole(get("variationseed")),
        "variation_strength": real(get("variationseedstrength")),
        "seamless": tile,
        "loras": _loras(get("loras"), get("loraweights"), hashes),
        "version": text_of(get("swarm_version")),
        "extra": spread({key: value for key, value in values.items() if key not in _READ}),
    }
    return Found(tool="SwarmUI", fields=gathered(fields), raw=raw, dialect="comfy")


def _hashes(models: object) -> dict[str, str]:
    """sha256 of each model's tensors, by name."""
    found: dict[str, str] = {}
    for each in models[:MOST_LORAS] if isinstance(models, list) else []:
        if isinstance(each, dict) and (name := text_of(each.get("name"))) and (digest := text_of(each.get("hash"))):
            found[stem(name)] = digest.removeprefix("0x")
    return found


def _loras(names: Any, weights: Any, hashes: Mapping[str, str]) -> tuple[Lora, ...]:
    """Two lists side by side, or two texts with commas."""
    names, weights = (each.split(",") if isinstance(each, str) else each for each in (names, weights))
    if not isinstance(names, list):
        return ()
    weights = weights if isinstance(weights, list) else []
    found: list[Lora] = []
    for number, name in enumerate(names[:MOST_LORAS]):
        weight = weights[number] if number < len(weights) else None
        if made := lora_of(name, weight, hashes.get(stem(name)) if isinstance(name, str) else None):
            found.append(made)
    return tuple(found)
