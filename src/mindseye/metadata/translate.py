"""From what a picture says to a request for the same picture, and a sentence for everything that cannot be the same.

What a program leaves unsaid is part of what it means. A1111's k-diffusion samplers start from noise times the greatest
sigma where the model was trained on a shade more; its UniPC and DDIM have time grids of their own; its noise comes from
the GPU unless it says otherwise. The options that stand for these are set here, by tool and sampler.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from mindseye.errors import ImageError
from mindseye.metadata import disco, names
from mindseye.metadata.dialects import to_a1111
from mindseye.metadata.found import Fields, Found, parse_object, real, stem
from mindseye.request import DEFAULT, LONGEST_PROMPT, SEEDS, Request, Scalar, from_json

__all__ = ["Drawer", "to_request"]

_TIMESTEP = ("ddim", "plms", "unipc", "lcm")
"""Samplers that A1111 runs outside k-diffusion."""

_SLOPES = ("euler", "euler-ancestral", "heun", "lms", "dpm2", "dpm2-ancestral")
"""Samplers that diffusers, and so InvokeAI, starts from the greatest sigma, with time grids that hold both ends."""

_FEWER = ("ddim", "plms", "unipc")
"""Of those, the ones whose last step A1111 leaves out where a pass starts from a picture."""

_STOCHASTIC = (
    "euler-ancestral", "dpm2-ancestral", "dpm++-2s-ancestral", "dpm++-sde", "dpm++-2m-sde", "lcm", "ddpm",
)  # fmt: skip

_RANGES: Mapping[str, tuple[float, float]] = {
    "clip_skip": (1, 12),
    "rescale": (0, 1),
    "eta": (0, 1),
    "hires": (1, 8),
    "hires_steps": (0, 1000),
    "hires_strength": (0, 1),
    "mask_blur": (0, 256),
    "padding": (0, 1024),
    "variation_seed": (0, SEEDS - 1),
    "variation_strength": (0, 1),
}
"""Of the options; a test holds them to `mindseye.systems.knobs.Options`."""

_MASKED = {"fill": "fill", "original": "original", "latent noise": "noise", "latent nothing": "nothing"}

_LOST = (
    ("ControlNet", "it followed a ControlNet, which is not kept"),
    ("ADetailer", "faces were drawn again by ADetailer, which is not here"),
    ("Face restoration", "faces were restored by another network, which is not here"),
    ("Refiner", "a second model refined it, which is not done"),
    ("refiner_model", "a second model refined it, which is not done"),
    ("Seed resize from", "its noise was cut from another size's, which is not done"),
    ("Token merging ratio", "tokens were merged to save time: without that it differs a little"),
    ("Conditional mask weight", "it was drawn with an inpainting model's conditional mask weight, which is not kept"),
    ("Hypernet", "it used a hypernetwork, which is not here"),
    ("NGMS", "guidance was left out of some steps to save time: without that it differs a little"),
    ("Dynamic thresholding enabled", "it used the extension for dynamic thresholding, which is not read"),
    ("ipAdapters", "it followed other pictures, which are not kept"),
    ("variations", "it was a variation of another picture, which is not read"),
)
"""What no request can say, by the start of a leftover field's name."""

_PASTED = ("A1111", "Forge", "SD.Next", "stable-diffusion.cpp")
"""Programs whose text names every setting that is not usual: what of it is not understood is said."""

_HARMLESS = (
    "Version", "User", "App", "Backend", "Pipeline", "Operations", "Batch", "VAE hash", "Hashes", "TI hashes",
    "Init image", "X ", "Y ", "Z ", "Fixed ", "Script", "Pad conds", "Civitai", "Created", "Generation", "Template",
    "Negative Template", "Wildcard",
)  # fmt: skip
"""Leftover fields that say nothing of how the picture looks, by the start of their names."""

_NOTHING = ("None", "False", "0", "0.0", "Automatic", "Use same sampler", "Use same scheduler", "Use same checkpoint",
            "Use same choices")  # fmt: skip
"""Values of leftover fields by which nothing was changed."""


@dataclass(frozen=True, kw_only=True)
class Drawer:
    """A card, as far as a translation must know it.

    Attributes:
        name: What the user types.
        native: Width and height it was trained at.
        hashes: sha256 of its files, whole or the first ten digits.
        samplers: The names it takes; None if any.
        options: The options it has; None if any.
        flow: Whether it predicts a rectified flow, which has noise levels of its own.
        skips: Whether A1111 heeds a clip skip with it: OpenCLIP's towers, those of the second generation and of XL, it
            always reads in the same layer.
    """

    name: str
    native: tuple[int, int] | None = None
    hashes: tuple[str, ...] = ()
    samplers: Sequence[str] | None = None
    options: Sequence[str] | None = None
    flow: bool = False
    skips: bool = True


def to_request(
    found: Found, *, cards: Sequence[Drawer] = (), model: str | None = None, vaes: Collection[str] = ()
) -> tuple[Request, tuple[str, ...]]:
    """A request for the same picture, as far as it can be the same.

    Args:
        found: What the picture says.
        cards: What can draw here, the default first.
        model: The card to draw with; None looks for the picture's own among `cards`, by hash, then by name.
        vaes: Names of autoencoders that the option `vae` takes.

    Returns:
        The request, of one picture, with None wherever nothing was said; and one sentence for each thing that cannot be
        done as it was.

    Raises:
        ImageError: It says nothing of a prompt.
        OptionError: Of a picture of ours, a stored request that this version cannot read.
    """
    if found.account is not None:
        return _again(found)
    fields = found.fields
    if "prompt" not in fields:
        raise ImageError(f"it was made by {found.tool} and does not say by which words", hint="give a prompt")
    card, own = _choose(fields, cards, model)
    if found.tool == "Disco Diffusion":
        return _disco(found, card, own)
    notices = [*found.notices, *_about_model(found, card, own)]
    filled: dict[str, Any] = {"model": card.name, **_words(found, notices)}
    filled |= _numbers(fields, notices)
    filled["size"] = _size(fields.get("size"), card, own, notices)
    options = _options(found, card, notices)
    sampler, walked = _sampler(found, card, notices)
    if sampler is not None:
        filled["sampler"] = sampler
    _from_a_picture(found, sampler, filled, notices)
    options |= _vae(found, card, vaes, notices)
    filled["options"] = _allowed(options | walked, card, notices)
    notices += _lost(found, sampler)
    request = Request(**{name: value for name, value in filled.items() if value is not None})
    return request, tuple(dict.fromkeys(notices))


def _again(found: Found) -> tuple[Request, tuple[str, ...]]:
    """One picture of ours: all is known but the pictures it started from."""
    account = found.account
    stored = {} if account is None else dict(account.request)
    notices = [
        f"it was drawn from the {what} {shown}: name it again with --{flag}"
        for flag, what in (("image", "picture"), ("mask", "mask"))
        if (image := stored.pop(flag, None)) is not None
        for shown in [str(image.get("path") or "of no name")[:200] if isinstance(image, dict) else "of no name"]
    ]

    def never(path: str, digest: str) -> Any:
        raise ImageError(f"it was drawn from the picture {path}")

    request = from_json(stored | {"count": 1, "seed": found.fields.get("seed")}, never)
    return request, tuple(notices)


def _disco(found: Found, card: Drawer, own: bool) -> tuple[Request, tuple[str, ...]]:
    """Disco Diffusion's settings name the same knobs as our Disco has; they mean nothing elsewhere."""
    told, said = disco.to_request(parse_object(found.raw) or {}, model=card.name)
    notices = [*said, *_about_model(found, card, own)]
    if card.options is None or "inner" in card.options:
        options = _allowed(dict(told.options), card, notices)
    else:
        notices.append(f"{card.name} is no Disco Diffusion: its words, size and seed are kept, not its knobs")
        told, options = replace(told, guidance=None, sampler=None, steps=None, strength=Request(prompt="").strength), {}
    return replace(told, size=_size(told.size, card, own, notices), options=options), tuple(dict.fromkeys(notices))


def _choose(fields: Fields, cards: Sequence[Drawer], model: str | None) -> tuple[Drawer, bool]:
    """The card to draw with, and whether it is the one that drew it."""
    digest = fields.get("model_hash", "").lower().removeprefix("0x").removeprefix("sha256:")
    named = _plain(stem(fields.get("model", "")))
    own = [card for card in cards if len(digest) >= 8 and any(_same(digest, one) for one in card.hashes)]
    own = own or [card for card in cards if named and _plain(card.name) == named]
    if model is None:
        return (own[0], True) if own else (cards[0] if cards else Drawer(name=DEFAULT), False)
    card = next((card for card in cards if card.name == model), Drawer(name=model))
    return card, card in own


def _same(digest: str, other: str) -> bool:
    """Whether one is the beginning of the other."""
    other = other.lower()
    return len(other) >= 8 and (digest.startswith(other) or other.startswith(digest))


def _plain(name: str) -> str:
    """A name without what people vary in names."""
    return "".join(mark for mark in name.lower() if mark.isalnum())


def _about_model(found: Found, card: Drawer, own: bool) -> list[str]:
    """Whose model it was, if it is another."""
    name, digest = found.fields.get("model"), found.fields.get("model_hash")
    if own or name == card.name:
        return []
    if name or digest:
        which = " ".join(part for part in (name, f"({digest[:10]})" if digest else None) if part)
        return [f"it was drawn with the model {which[:120]}, here with {card.name}: the picture will be another"]
    return [f"{found.tool} does not say which model drew it: it is drawn with {card.name}"]


def _words(found: Found, notices: list[str]) -> dict[str, str]:
    """Prompt and negative prompt in our grammar, adapters as tags."""
    # Cut before as well: nobody waits for the translation of what is not read.
    told = {"prompt": found.fields.get("prompt", ""), "negative": found.fields.get("negative", "")}
    made = {which: to_a1111(text[:LONGEST_PROMPT], found.dialect) for which, text in told.items()}
    for lora in found.fields.get("loras", ()):
        # A1111's tags stand in the prompt already; its list only holds their hashes.
        if "weight" in lora and "name" in lora:
            made["prompt"] += f" <lora:{lora['name']}:{lora['weight']:g}>"
    for which, text in made.items():
        if max(len(text), len(told[which])) > LONGEST_PROMPT:
            made[which] = text[:LONGEST_PROMPT]
            notices.append(f"its {which} has {len(told[which]):,} characters: {LONGEST_PROMPT:,} are read")
    words = made["prompt"] + made["negative"]
    if found.dialect == "compel" and any(call in words for call in (".and(", ".blend(", ".swap(")):
        notices.append("InvokeAI's .and(), .blend() and .swap() are not understood here: they are read as words")
    if found.dialect == "novelai" and "::" in words:
        notices.append("NovelAI's weights of the form 1.5::words:: are not understood here: they are read as words")
    if found.dialect == "comfy" and found.tool == "ComfyUI" and any(f":{digit}" in words for digit in "012"):
        notices.append("ComfyUI weighs words against an empty prompt, A1111's way is used here: weighted words differ")
    return made


def _numbers(fields: Fields, notices: list[str]) -> dict[str, Any]:
    """The fields that are plain numbers, where a request can hold them."""
    filled: dict[str, Any] = {}
    if (seed := fields.get("seed")) is not None:
        filled["seed"] = seed % SEEDS
        if filled["seed"] != seed:
            notices.append(f"its seed {seed} is out of range here: {filled['seed']} is used")
    if (steps := fields.get("steps")) is not None and steps >= 1:
        filled["steps"] = steps
    if (guidance := fields.get("guidance")) is not None and 0 <= guidance <= 1000:
        filled["guidance"] = guidance
    if (strength := fields.get("strength")) is not None and 0 <= strength <= 1:
        filled["strength"] = strength
        notices.append("it was drawn from another picture, which the file does not hold: name it with --image")
    return filled


def _from_a_picture(found: Found, sampler: str | None, filled: dict[str, Any], notices: list[str]) -> None:
    """How many steps A1111 runs where a pass starts from a picture: one more than a share of them, or one fewer."""
    starts = "strength" in filled or "hires" in found.fields
    if found.tool not in ("A1111", "Forge") or not starts:
        return
    if sampler in _FEWER:
        notices.append(f"{found.tool}'s {sampler} left out a step where it started from a picture: it differs a little")
    elif filled.get("strength") and (steps := filled.get("steps")):
        filled["strength"] = min(1.0, (int(min(filled["strength"], 0.999) * steps) + 1) / steps)


def _vae(found: Found, card: Drawer, vaes: Collection[str], notices: list[str]) -> dict[str, Scalar]:
    """The autoencoder it was decoded by, if the user has it."""
    vae = found.fields.get("vae")
    if vae is None or vae in _NOTHING:
        return {}
    own = next((name for name in vaes if _plain(name) == _plain(stem(vae))), None)
    if own is not None and (card.options is None or "vae" in card.options):
        return {"vae": own}
    notices.append(f"it was decoded by the VAE {vae[:60]}, here by the model's own")
    return {}


def _size(size: tuple[int, int] | None, card: Drawer, own: bool, notices: list[str]) -> tuple[int, int] | None:
    """Its size; on a model that draws far larger or smaller pictures, its shape at the size of that one's."""
    if size is None or card.native is None or own:
        return size
    ratio = (card.native[0] * card.native[1] / (size[0] * size[1])) ** 0.5
    if 0.5 < ratio < 2:
        return size
    fitted = (max(1, round(size[0] * ratio)), max(1, round(size[1] * ratio)))
    native = "x".join(map(str, card.native))
    notices.append(f"it was {size[0]}x{size[1]}, and {card.name} draws {native}: its shape is kept, not its size")
    return fitted


def _options(found: Found, card: Drawer, notices: list[str]) -> dict[str, Scalar]:
    """The knobs that do not depend on the sampler."""
    fields = found.fields
    names_alike = ("clip_skip", "rescale", "eta", "hires", "hires_steps", "hires_strength", "mask_blur", "padding")
    plain: dict[str, Any] = {name: fields.get(name) for name in (*names_alike, "seamless", "only_masked")}
    if fields.get("variation_strength"):
        plain |= {name: fields.get(name) for name in ("variation_seed", "variation_strength")}
    if plain["clip_skip"] == 1 or (found.tool == "A1111" and not card.skips):
        del plain["clip_skip"]
    plain["masked"] = _MASKED.get(fields.get("masked", ""))
    emphasis = fields.get("emphasis", "").lower()
    plain["emphasis"] = {"none": "none", "ignore": "none", "no norm": "plain"}.get(emphasis)
    if emphasis == "ignore":
        notices.append("its prompt's weights were ignored: here its brackets are read as text")
    if "hires" in fields and "hires_upscaler" in fields:
        plain["hires_upscaler"], said = names.upscaler(fields["hires_upscaler"])
        notices += [said] if said else []
    if found.tool == "mindseye" and card.options:
        alike = {key.lower().replace(" ", "_"): value for key, value in fields.get("extra", {}).items()}
        plain |= {name: value for name, value in alike.items() if name in card.options}
    for name, (low, high) in _RANGES.items():
        value = plain.get(name)
        if isinstance(value, (int, float)) and not low <= value <= high:
            del plain[name]
            notices.append(f"its {name.replace('_', ' ')} of {value} is out of range here: it is left out")
    return {name: value for name, value in plain.items() if value is not None}


def _sampler(found: Found, card: Drawer, notices: list[str]) -> tuple[str | None, dict[str, Scalar]]:
    """Our sampler, and the options that make it walk as theirs did."""
    asked, options = found.fields.get("sampler"), {}
    if asked is None:
        return None, {}
    named = names.sampler(asked)
    notices += named.notices
    sampler = named.sampler
    if sampler is None or (card.samplers is not None and sampler not in card.samplers):
        if sampler is not None:
            notices.append(f"{card.name} has no sampler {sampler!r}: its own is used")
        return None, {}
    if card.flow:
        notices.append(f"{card.name} is a rectified flow, with noise levels of its own: its schedule is not taken over")
        return sampler, {}
    schedule = found.fields.get("schedule") or named.schedule
    if schedule and sampler != "lcm":
        spaced = names.spacing(schedule)
        options |= spaced.options
        notices += spaced.notices
    if "spacing" not in options and found.tool != "mindseye":
        options |= _unsaid(found.tool, sampler)
    if found.tool in ("A1111", "Forge") and sampler == "unipc":
        notices.append(f"{found.tool}'s UniPC is of another order than the one here: the picture differs a little")
    discards = ("dpm2", "dpm2-ancestral", *(("unipc",) if found.tool in ("ComfyUI", "SwarmUI") else ()))
    if found.tool in ("A1111", "Forge", "ComfyUI", "SwarmUI") and sampler in discards:
        notices.append("it left out the last noise level but one, which is not done here: the picture differs a little")
    by_sigma = found.tool in ("A1111", "Forge") and sampler not in _TIMESTEP
    if by_sigma or (found.tool == "InvokeAI" and sampler in _SLOPES):
        options["noise_scale"] = "sigma"
    return sampler, options


def _unsaid(tool: str, sampler: str) -> dict[str, Scalar]:
    """The noise levels of a program's sampler when it names no schedule."""
    if sampler == "lcm":
        return {"spacing": "lcm"}
    if sampler in ("ddim", "plms", "ddpm"):
        return {"spacing": "leading", "offset": 1, "final": "minimum"}
    if tool == "InvokeAI":
        # diffusers' own: even in time, with both ends for slopes in sigma and without the last for solvers in lambda.
        return {"spacing": "linspace" if sampler in _SLOPES else "linspace-open"}
    if sampler == "unipc":
        return {"spacing": "linspace-open", "final": "minimum"}
    return {"spacing": "linspace"}


def _allowed(options: dict[str, Scalar], card: Drawer, notices: list[str]) -> dict[str, Scalar]:
    """Without the options that the card does not have."""
    if card.options is None:
        return options
    for name in options.keys() - set(card.options):
        del options[name]
        if name not in ("offset", "final", "noise_scale"):
            notices.append(f"{card.name} has no option {name}: it is left out")
    return options


def _lost(found: Found, sampler: str | None) -> list[str]:
    """What no request can say."""
    fields = found.fields
    extra = fields.get("extra", {})
    said = [
        sentence
        for start, sentence in _LOST
        if any(name.startswith(start) and value not in ("None", "False", "0") for name, value in extra.items())
    ]
    rng = fields.get("rng", "")
    if found.tool in ("A1111", "Forge") and rng in ("", "GPU", "NV"):
        said.append("its noise was a GPU's, and no CPU draws the same: the picture will be laid out differently")
    elif found.tool == "InvokeAI" and rng.startswith(("cuda", "mps")):
        said.append("its noise was a GPU's, and no CPU draws the same: the picture will be laid out differently")
    elif found.tool == "Draw Things" and "cpu" not in rng.lower():
        said.append("its noise was Draw Things' own: the picture will be laid out differently")
    elif found.tool in ("NovelAI", "Fooocus", "Easy Diffusion"):
        said.append(f"where {found.tool} drew its noise is not said: the picture may be laid out differently")
    elif sampler in _STOCHASTIC:
        said.append("its sampler added noise at every step, which is not the same here: the picture will differ")
    if sampler in _STOCHASTIC and extra.get("ENSD", "0") != "0":
        said.append(f"the noise of its steps had a seed of its own (ENSD {extra['ENSD'][:20]}), which is not done")
    if found.tool in _PASTED and (unknown := _unknown(extra, fields.get("guidance"))):
        more = f" and {len(unknown) - 12} more" if len(unknown) > 12 else ""
        said.append(f"of its settings, nothing here does what these say: {', '.join(unknown[:12])}{more}")
    return said


def _unknown(extra: Mapping[str, str], guidance: float | None) -> list[str]:
    """Settings that are not understood, each as it was written."""
    spoken = (*_HARMLESS, *(start for start, _ in _LOST), "ENSD")
    return [
        f"{name} {value[:40].strip()!r}" if not value.replace(".", "").isalnum() else f"{name} {value[:40]}"
        for name, value in extra.items()
        if not name.startswith(spoken)
        and value not in _NOTHING
        and not (name == "Hires CFG Scale" and real(value) == guidance)
    ]
