"""InvokeAI, through its three ages.

`invokeai_metadata` (since 3): JSON with a field each. `sd-metadata` (2): JSON with an `image` object and the negative
prompt in brackets inside the prompt. `Dream` (1): the command line that was typed, `"a prompt" -s 50 -S 42 -A k_lms`.
"""

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
    text_of,
    whole,
)

_READ = {
    "positive_prompt", "negative_prompt", "width", "height", "seed", "rand_device", "cfg_scale", "steps", "scheduler",
    "cfg_rescale_multiplier", "model", "loras", "lora", "vae", "strength", "clip_skip", "seamless_x", "seamless_y",
    "app_version", "hrf_enabled", "hrf_strength", "hrf_method", "hrf_width", "hrf_height", "positive_style_prompt",
    "negative_style_prompt",
}  # fmt: skip

_FLAGS: Mapping[str, str] = {
    "-s": "steps", "--steps": "steps", "-S": "seed", "--seed": "seed", "-W": "width", "--width": "width",
    "-H": "height", "--height": "height", "-C": "cfg_scale", "--cfg_scale": "cfg_scale", "-A": "sampler",
    "--sampler": "sampler", "-f": "strength", "--strength": "strength",
}  # fmt: skip


def read(chunks: Mapping[str, str]) -> Found | None:
    """InvokeAI's account in a file's chunks, the newest first."""
    if "invokeai_metadata" in chunks:
        return _modern(chunks["invokeai_metadata"])
    if "sd-metadata" in chunks:
        return _second(chunks["sd-metadata"])
    if "Dream" in chunks or "dream" in chunks:
        return _dream(chunks.get("Dream") or chunks.get("dream") or "")
    return None


def _damaged(raw: str) -> Found:
    """It is InvokeAI's, and that is all that can be said."""
    return Found(tool="InvokeAI", raw=raw, dialect="compel", notices=("what InvokeAI wrote into it is damaged",))


def _modern(raw: str) -> Found:
    """`invokeai_metadata`."""
    plain = parse_object(raw)
    if plain is None:
        return _damaged(raw)
    model = plain.get("model")
    model = model if isinstance(model, dict) else {}
    vae = plain.get("vae")
    skip = whole(plain.get("clip_skip"))
    size = size_of((plain.get("width"), plain.get("height")))
    hires = None
    if plain.get("hrf_enabled") is True and size:
        # The stored size is what came out; the first pass was smaller where it says so.
        first = size_of((plain.get("hrf_width"), plain.get("hrf_height")))
        if first and first != size:
            hires, size = size[0] / first[0], first
    fields = {
        "prompt": _styled(plain, "positive"),
        "negative": _styled(plain, "negative"),
        "steps": whole(plain.get("steps")),
        "sampler": text_of(plain.get("scheduler")),
        "guidance": real(plain.get("cfg_scale")),
        "rescale": real(plain.get("cfg_rescale_multiplier")) or None,
        "seed": whole(plain.get("seed")),
        "size": size,
        "model": text_of(model.get("name")) or text_of(model.get("model_name")),
        "model_hash": text_of(model.get("hash")),
        "vae": (text_of(vae.get("name")) or text_of(vae.get("model_name"))) if isinstance(vae, dict) else None,
        # InvokeAI counts the layers that are left out.
        "clip_skip": skip + 1 if skip else None,
        "strength": real(plain.get("strength")),
        "hires": hires,
        "hires_strength": real(plain.get("hrf_strength")) if hires else None,
        "seamless": "".join(axis for axis in "xy" if plain.get(f"seamless_{axis}") is True),
        "rng": text_of(plain.get("rand_device")),
        "loras": _loras(plain.get("loras")),
        "version": text_of(plain.get("app_version")),
        "extra": spread({key: value for key, value in plain.items() if key not in _READ}),
    }
    return Found(tool="InvokeAI", fields=gathered(fields), raw=raw, dialect="compel")


def _styled(plain: Mapping[str, Any], which: str) -> str | None:
    """A prompt, with the style prompt that SDXL may have beside it."""
    prompt, style = text_of(plain.get(f"{which}_prompt")), text_of(plain.get(f"{which}_style_prompt"))
    return prompt if style is None or style == prompt else f"{prompt or ''} {style}".strip()


def _loras(listed: object) -> tuple[Lora, ...]:
    """The adapters of any 3.x version, which nested their names in three different ways."""
    found: list[Lora] = []
    for each in listed[:MOST_LORAS] if isinstance(listed, list) else []:
        if not isinstance(each, dict):
            continue
        inner = next((each[key] for key in ("model", "lora") if isinstance(each.get(key), dict)), each)
        named = text_of(inner.get("name")) or text_of(inner.get("model_name"))
        if made := lora_of(named, each.get("weight"), inner.get("hash")):
            found.append(made)
    return tuple(found)


def _second(raw: str) -> Found:
    """`sd-metadata`."""
    plain = parse_object(raw)
    if plain is None:
        return _damaged(raw)
    image = plain.get("image")
    image = image if isinstance(image, dict) else {}
    stored, notices = image.get("prompt"), ()
    if isinstance(stored, list):
        texts = [text for each in stored[:100] if isinstance(each, dict) and (text := text_of(each.get("prompt")))]
        notices = () if len(texts) < 2 else ("its prompt was several that were blended: they are read as one",)
        stored = ", ".join(texts)
    prompt, negative = bracketed(text_of(stored) or "")
    fields = {
        "prompt": prompt,
        "negative": negative,
        "steps": whole(image.get("steps")),
        "sampler": text_of(image.get("sampler")),
        "guidance": real(image.get("cfg_scale")),
        "seed": whole(image.get("seed")),
        "size": size_of((image.get("width"), image.get("height"))),
        "model": text_of(plain.get("model_weights")),
        "model_hash": text_of(plain.get("model_hash")),
        "strength": real(image.get("strength")),
        "seamless": "xy" if image.get("seamless") is True else None,
        "rng": "cpu",
        "version": text_of(plain.get("app_version")),
        "extra": spread(
            {key: image.get(key) for key in ("variations", "postprocessing", "hires_fix") if image.get(key)}
        ),
    }
    return Found(tool="InvokeAI", fields=gathered(fields), raw=raw, notices=notices, dialect="compel")


def _dream(raw: str) -> Found:
    """The command that was typed: the prompt in quotes, then flags."""
    text = raw.strip()
    prompt, rest = text, ""
    if text[:1] == '"':
        end = 1
        while end < len(text) and text[end] != '"':
            end += 2 if text[end] == "\\" else 1
        prompt, rest = text[1:end].replace('\\"', '"'), text[end + 1 :]
    elif (flags := text.find(" -")) != -1:
        prompt, rest = text[:flags], text[flags:]
    words = rest.split()
    values: dict[str, str] = {}
    for flag, value in zip(words, words[1:], strict=False):
        if name := _FLAGS.get(flag):
            values[name] = value
        elif flag[:2] in _FLAGS and flag[2:3].isdigit():  # -s50
            values[_FLAGS[flag[:2]]] = flag[2:]
    if words and words[-1][:2] in _FLAGS and words[-1][2:3].isdigit():
        values[_FLAGS[words[-1][:2]]] = words[-1][2:]
    positive, negative = bracketed(prompt)
    fields = {
        "prompt": positive,
        "negative": negative,
        "steps": whole(values.get("steps")),
        "sampler": text_of(values.get("sampler")),
        "guidance": real(values.get("cfg_scale")),
        "seed": whole(values.get("seed")),
        "size": size_of((values.get("width"), values.get("height"))),
        "strength": real(values.get("strength")),
        "rng": "cpu",
    }
    return Found(tool="InvokeAI", fields=gathered(fields), raw=raw, dialect="compel")


def bracketed(prompt: str) -> tuple[str, str]:
    """A prompt without its `[negative]` parts, and those parts, as InvokeAI 1 and 2 had them."""
    kept: list[str] = []
    negative: list[str] = []
    at = 0
    while (start := prompt.find("[", at)) != -1:
        end = prompt.find("]", start)
        if end == -1:
            break
        kept.append(prompt[at:start])
        negative.append(prompt[start + 1 : end].strip())
        at = end + 1
    kept.append(prompt[at:])
    return "".join(kept).strip(), ", ".join(part for part in negative if part)
