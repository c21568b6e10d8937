"""Programs that write a flat list of settings: Easy Diffusion, Draw Things, and whoever uses the same names.

Easy Diffusion writes a PNG chunk for each setting, or JSON (in EXIF or a file beside the picture) whose keys are either
those or the labels of its page. Draw Things writes JSON with one-letter keys, `c` being the prompt.
"""

from collections.abc import Mapping
from typing import Any

from mindseye.metadata.found import (
    MOST_LORAS,
    Fields,
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


def read(chunks: Mapping[str, str]) -> Found | None:
    """A flat list of settings, as chunks of their own or as one JSON object."""
    if "num_inference_steps" in chunks and "prompt" in chunks:
        return Found(tool="Easy Diffusion", fields=_settings(chunks), raw=_lines(chunks))
    raw = chunks.get("parameters", "")
    plain = parse_object(raw)
    if plain is None:
        return None
    if isinstance(plain.get("c"), str) and ("sampler" in plain or "seed" in plain):
        return Found(tool="Draw Things", fields=_draw_things(plain), raw=raw)
    values = {str(key).lower().replace(" ", "_"): value for key, value in plain.items()}
    if not isinstance(values.get("prompt"), str) or not ({"seed", "steps", "num_inference_steps"} & set(values)):
        return None
    tool = "Easy Diffusion" if {"num_inference_steps", "use_stable_diffusion_model"} & set(values) else "unknown"
    if "stable_diffusion_model" in values:
        tool = "Easy Diffusion"
    return Found(tool=tool, fields=_settings(values), raw=raw)


def _settings(values: Mapping[str, Any]) -> Fields:
    """Easy Diffusion's settings, and those of others who call them alike."""
    used: set[str] = set()

    def first(*names: str) -> Any:
        used.update(names)
        return next((values[name] for name in names if values.get(name) not in (None, "", "None")), None)

    model = text_of(
        first("use_stable_diffusion_model", "stable_diffusion_model", "model", "model_name", "model_weights")
    )
    tiling = text_of(first("tiling", "seamless_tiling", "tile_mode"))
    names, weights = first("use_lora_model", "lora_model"), first("lora_alpha", "lora_strength")
    names, weights = (each if isinstance(each, list) else [each] for each in (names, weights))
    loras: list[Lora] = []
    for number, name in enumerate(names[:MOST_LORAS]):
        if made := lora_of(name, weights[number] if number < len(weights) else None):
            loras.append(made)
    fields = {
        "prompt": text_of(first("prompt", "prompt_text")),
        "negative": text_of(first("negative_prompt", "negativeprompt")),
        "steps": whole(first("num_inference_steps", "steps")),
        "sampler": text_of(first("sampler_name", "sampler", "sampler_type", "scheduler")),
        "schedule": text_of(first("scheduler_name")),
        "guidance": real(first("guidance_scale", "cfg_scale", "prompt_strength_cfg", "cfg")),
        "seed": whole(first("seed")),
        "size": size_of((first("width"), first("height"))) or size_of(first("size")),
        "model": None if model is None else stem(model),
        "vae": text_of(first("use_vae_model", "vae_model")),
        "clip_skip": 2 if str(first("clip_skip")).lower() in ("true", "2") else None,
        "strength": real(first("prompt_strength")) if first("init_image") else None,
        "seamless": {"x": "x", "y": "y", "xy": "xy"}.get(tiling or ""),
        "loras": tuple(loras),
    }
    fields["extra"] = spread({key: value for key, value in values.items() if key not in used and key != "parameters"})
    return gathered(fields)


def _draw_things(plain: Mapping[str, Any]) -> Fields:
    """Draw Things' short keys."""
    more = plain.get("v2")
    more = more if isinstance(more, dict) else {}
    loras: list[Lora] = []
    listed = plain.get("lora") or more.get("loras")
    for each in listed[:MOST_LORAS] if isinstance(listed, list) else []:
        if isinstance(each, dict) and (made := lora_of(each.get("model") or each.get("file"), each.get("weight"))):
            loras.append(made)
    model = text_of(plain.get("model"))
    used = ("c", "uc", "steps", "sampler", "scale", "seed", "size", "model", "strength", "lora", "seed_mode", "v2")
    strength = real(plain.get("strength"))
    return gathered(
        {
            "prompt": text_of(plain["c"]),
            "negative": text_of(plain.get("uc")),
            "steps": whole(plain.get("steps")),
            "sampler": text_of(plain.get("sampler")),
            "guidance": real(plain.get("scale")),
            "seed": whole(plain.get("seed")),
            "size": size_of(plain.get("size")),
            "model": None if model is None else stem(model),
            "clip_skip": whole(more.get("clipSkip")),
            "strength": strength if strength is not None and strength < 1 else None,
            "rng": text_of(plain.get("seed_mode")),
            "loras": tuple(loras),
            "extra": spread({key: value for key, value in plain.items() if key not in used}),
        }
    )


def _lines(chunks: Mapping[str, str]) -> str:
    """The chunks as lines, for want of one text."""
    return "\n".join(f"{key}: {value}" for key, value in chunks.items() if len(value) < 10_000)
