"""A1111's infotext, and those who write the same: Forge, SD.Next, stable-diffusion.cpp, mindseye itself.

Text in PNG `parameters`, EXIF `UserComment`, a GIF's comment or hidden in the pixels; the grammar is in
`mindseye.metadata.infotext`. What is absent has a meaning: no `Clip skip` is 1, no `RNG` is the GPU's noise, no
`Schedule type` is the sampler's plain one, because versions that had a choice wrote it down.
"""

import math
from collections.abc import Callable, Mapping

from mindseye.metadata.found import MOST_LORAS, Found, Lora, gathered, lora_of, real, size_of, text_of, whole
from mindseye.metadata.infotext import Infotext, parse_infotext

_KNOWN = {
    "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model hash", "Model", "VAE", "Clip skip",
    "Denoising strength", "Variation seed", "Variation seed strength", "Hires upscale", "Hires resize", "Hires steps",
    "Hires upscaler", "Mask blur", "Tiling", "Emphasis", "RNG", "Lora hashes", "Version", "CFG Rescale", "Eta",
    "Eta DDIM", "Schedule", "Scheduler", "Masked content", "Inpaint area", "Masked area padding", "First pass size",
}  # fmt: skip

_DEFAULT_SCHEDULES: Mapping[str, str] = {
    "DPM++ 2M": "Karras",
    "DPM++ SDE": "Karras",
    "DPM++ 2S a": "Karras",
    "DPM2": "Karras",
    "DPM2 a": "Karras",
    "DPM++ 2M SDE": "Exponential",
    "DPM++ 2M SDE Heun": "Exponential",
    "DPM++ 3M SDE": "Exponential",
}
"""What "Automatic" stands for, since A1111 1.9."""


def read(chunks: Mapping[str, str]) -> Found | None:
    """A1111's account in a file's chunks."""
    text = chunks.get("parameters")
    if not text or text.lstrip()[:1] == "{":
        return None
    info = parse_infotext(text)
    # A comment of a camera or a painter is no account of anything.
    if not info.fields and "parameters" in chunks and text in (chunks.get("UserComment"), chunks.get("comment")):
        return None
    return of_infotext(info, text)


def of_infotext(info: Infotext, raw: str) -> Found:
    """An infotext in common terms."""
    get = info.fields.get
    sampler, schedule = get("Sampler"), get("Schedule type") or get("Schedule") or get("Scheduler")
    if schedule == "Automatic":
        schedule = _DEFAULT_SCHEDULES.get(sampler or "")
    size, hires, said = _passes(get)
    strength = real(get("Denoising strength"))
    fields = gathered(
        {
            "prompt": info.prompt,
            "negative": info.negative,
            "steps": whole(get("Steps")),
            "sampler": sampler,
            "schedule": schedule,
            "guidance": real(get("CFG scale")),
            "rescale": real(get("CFG Rescale")),
            "eta": real(get("Eta") or get("Eta DDIM")),
            "seed": whole(get("Seed")),
            "size": size,
            "model": text_of(get("Model")),
            "model_hash": text_of(get("Model hash")),
            "vae": text_of(get("VAE")),
            "clip_skip": whole(get("Clip skip")),
            "strength": None if hires else strength,
            "variation_seed": whole(get("Variation seed")),
            "variation_strength": real(get("Variation seed strength")),
            "hires": hires,
            "hires_steps": whole(get("Hires steps")) or None,
            "hires_strength": strength if hires else None,
            "hires_upscaler": text_of(get("Hires upscaler")),
            "mask_blur": real(get("Mask blur")),
            "masked": text_of(get("Masked content")),
            "only_masked": True if get("Inpaint area") == "Only masked" else None,
            "padding": whole(get("Masked area padding")),
            "seamless": "xy" if get("Tiling") == "True" else None,
            "emphasis": text_of(get("Emphasis")),
            "rng": text_of(get("RNG")),
            "loras": _loras(info),
            "version": text_of(get("Version")),
            "extra": {key: value for key, value in info.fields.items() if key not in _KNOWN and value},
        }
    )
    return Found(tool=_tool(info.fields), fields=fields, raw=raw, notices=said)


def _passes(get: Callable[[str], str | None]) -> tuple[tuple[int, int] | None, float | None, tuple[str, ...]]:
    """Size of the first pass, how many times larger the second is (None without one), and what cannot be so here."""
    size, hires = size_of(get("Size")), real(get("Hires upscale"))
    if hires is not None or size is None:
        return size, hires, ()
    if (first := get("First pass size")) is not None and (told := _sides(first)):  # until 2023 "Size" was the second's
        # 0x0 left it to the program: 512x512 of that shape, in steps of 64.
        scale = 512 / math.sqrt(size[0] * size[1])
        width, height = told if min(told) else tuple(math.ceil(scale * side / 64) * 64 for side in size)
        return (width, height), max(size[0] / width, size[1] / height), ()
    if (larger := _sides(get("Hires resize"))) and max(larger):
        ratios = [wanted / side for wanted, side in zip(larger, size, strict=True)]
        if min(larger) and round(size[0] * max(ratios)) * larger[1] != round(size[1] * max(ratios)) * larger[0]:
            cut = f"its second pass was cut to {larger[0]}x{larger[1]}, here the whole of it is kept"
            return size, max(ratios), (cut,)
        return size, max(ratios), ()
    return size, None, ()


def _sides(text: str | None) -> tuple[int, int] | None:
    """Width and height, either of which may be 0: as the other one makes it."""
    sides = [whole(side) for side in (text or "").split("x")]
    if len(sides) != 2 or any(side is None or not 0 <= side <= 100_000 for side in sides):
        return None
    return sides[0] or 0, sides[1] or 0


def _tool(fields: Mapping[str, str]) -> str:
    """Who wrote it, from the version and the habits of each."""
    version = fields.get("Version", "").lower()
    known = (
        ("mindseye", "mindseye"),
        ("comfyui", "ComfyUI"),
        ("fooocus", "Fooocus"),
        ("stable-diffusion.cpp", "stable-diffusion.cpp"),
        ("f0.", "Forge"),
        ("f1.", "Forge"),
        ("f2.", "Forge"),
        ("neo", "Forge"),
    )
    for start, tool in known:
        if version.startswith(start):
            return tool
    return "SD.Next" if fields.get("App", "").lower().startswith("sd.next") else "A1111"


def _loras(info: Infotext) -> tuple[Lora, ...]:
    """The hashes of the LoRAs that the prompt names; the weights are in the prompt, where they are read."""
    found: list[Lora] = []
    for each in info.fields.get("Lora hashes", "").split(",")[:MOST_LORAS]:
        name, colon, digest = each.rpartition(":")
        if colon and (made := lora_of(name, None, digest)):
            del made["weight"]
            found.append(made)
    return tuple(found)
