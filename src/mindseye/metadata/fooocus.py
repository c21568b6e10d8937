"""Fooocus: `parameters` is JSON or A1111's text, as `fooocus_scheme` says; versions before 2.2 wrote JSON `Comment`s.

What the network saw is not the prompt that was typed but `full_prompt`, the styles' and the expansion's texts, each
encoded on its own and put one after the other: in A1111's grammar, texts with BREAK between them.
"""

from collections.abc import Mapping
from typing import Any

from mindseye.metadata import a1111
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
    text_of,
    whole,
)
from mindseye.metadata.infotext import parse_infotext

_READ = {
    "prompt", "negative_prompt", "full_prompt", "full_negative_prompt", "steps", "sampler", "scheduler", "seed",
    "guidance_scale", "resolution", "base_model", "base_model_hash", "vae", "loras", "version", "metadata_scheme",
    "clip_skip",
}  # fmt: skip


def read(chunks: Mapping[str, str]) -> Found | None:
    """Fooocus' account in a file's chunks."""
    scheme = chunks.get("fooocus_scheme")
    raw = chunks.get("parameters", "")
    if scheme == "a1111":
        found = a1111.of_infotext(parse_infotext(raw), raw)
        return Found(tool="Fooocus", fields=found.fields, raw=raw)
    plain = parse_object(raw)
    if plain is None or "base_model" not in plain:
        plain = parse_object(raw := chunks.get("Comment") or chunks.get("parameters", ""))
    if plain is None:
        said = ("what Fooocus wrote into it is damaged",)
        return Found(tool="Fooocus", raw=raw, notices=said) if scheme == "fooocus" else None
    # Older versions used the labels of their page as keys.
    plain = {str(key).lower().replace(" ", "_"): value for key, value in plain.items()}
    is_ours = "base_model" in plain or "fooocus" in str(plain.get("version", ""))[:40].lower()
    if scheme != "fooocus" and not (is_ours and "prompt" in plain):
        return None
    return _of(plain, raw)


def _of(plain: Mapping[str, Any], raw: str) -> Found:
    """The JSON scheme in common terms."""
    typed, shown = text_of(plain.get("prompt")), _full(plain.get("full_prompt"))
    notices: tuple[str, ...] = ()
    if shown and shown != typed:
        notices = ("its styles and its prompt expansion are written out in the prompt, as the network saw them",)
    vae = text_of(plain.get("vae"))
    fields = {
        "prompt": shown or typed,
        "negative": _full(plain.get("full_negative_prompt")) or text_of(plain.get("negative_prompt")),
        "steps": whole(plain.get("steps")),
        "sampler": text_of(plain.get("sampler")),
        "schedule": text_of(plain.get("scheduler")),
        "guidance": real(plain.get("guidance_scale")),
        "seed": whole(plain.get("seed")),
        "size": size_of(plain.get("resolution")) or size_of((plain.get("width"), plain.get("height"))),
        "model": text_of(plain.get("base_model")),
        "model_hash": text_of(plain.get("base_model_hash")),
        "vae": None if vae == "Default (model)" else vae,
        # 2 is how SDXL, the only model it knows, is always read.
        "clip_skip": skip if (skip := whole(plain.get("clip_skip"))) != 2 else None,
        "loras": _loras(plain),
        "version": text_of(plain.get("version")),
        "extra": {"typed prompt": typed or "", **spread({k: v for k, v in plain.items() if k not in _READ})},
    }
    return Found(tool="Fooocus", fields=gathered(fields), raw=raw, notices=notices)


def _full(texts: object) -> str | None:
    """The texts that were encoded one by one."""
    kept = [text for each in (texts[:100] if isinstance(texts, list) else []) if (text := text_of(each))]
    return " BREAK ".join(kept) or None


def _loras(plain: Mapping[str, Any]) -> tuple[Lora, ...]:
    """`loras` as [name, weight, hash]; before that, `lora_combined_1` as "name : weight"."""
    found: list[Lora] = []
    listed = plain.get("loras")
    for each in listed[:MOST_LORAS] if isinstance(listed, list) else []:
        if isinstance(each, list) and len(each) >= 2 and (made := lora_of(*each[:3])):
            found.append(made)
    for key, value in plain.items():
        if key.startswith("lora_combined") and isinstance(value, str) and len(found) < MOST_LORAS:
            name, _, weight = value.rpartition(" : ")
            if made := lora_of(name, weight):
                found.append(made)
    return tuple(found)
