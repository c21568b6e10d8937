"""Disco Diffusion's settings files: JSON beside the pictures, read into a request and written from one.

Keys are those of the 5.x notebooks. What they call percent or steps of skipping is our strength, thousands of
``clip_guidance_scale`` are our guidance, and the grammar of prompts (``words:weight``) and of schedules is the same.
Steps skipped where nothing is named to start from are skipped all the same there: it starts from grey under noise.
What has no key there is written under ``mindseye``, which the notebook does not look at.

Values are strangers': of the wrong kind they are left out and said, never evaluated. Schedules are kept as text; the
system reads them with its own grammar.
"""

import json
from collections.abc import Mapping
from typing import Any

from mindseye.errors import ImageError
from mindseye.metadata.found import Found, gathered, parse_object, real, size_of, spread, text_of, whole
from mindseye.request import LONGEST_PROMPT, SEEDS, Request, Scalar

__all__ = ["DEFAULTS", "is_settings", "prompts_of", "read", "to_request", "to_settings"]

DEFAULTS: Mapping[str, Any] = {
    "text_prompts": {}, "image_prompts": {}, "clip_guidance_scale": 5000, "tv_scale": 0, "range_scale": 150,
    "sat_scale": 0, "cutn_batches": 4, "max_frames": 1, "interp_spline": "Linear", "init_image": None,
    "init_scale": 1000, "skip_steps": 10, "frames_scale": 1500, "frames_skip_steps": "60%", "perlin_init": False,
    "perlin_mode": "mixed", "skip_augs": False, "randomize_class": True, "clip_denoised": False, "clamp_grad": True,
    "clamp_max": 0.05, "seed": 0, "fuzzy_prompt": False, "rand_mag": 0.05, "eta": 0.8, "width": 1280, "height": 768,
    "diffusion_model": "512x512_diffusion_uncond_finetune_008100", "use_secondary_model": True, "steps": 250,
    "diffusion_steps": 1000, "diffusion_sampling_mode": "ddim", "cut_overview": "[12]*400+[4]*600",
    "cut_innercut": "[4]*400+[12]*600", "cut_ic_pow": "[1]*1000", "cut_icgray_p": "[0.2]*400+[0]*600",
    "key_frames": True, "angle": "0:(0)", "zoom": "0: (1), 10: (1.05)", "translation_x": "0: (0)",
    "translation_y": "0: (0)", "translation_z": "0: (10.0)", "rotation_3d_x": "0: (0)", "rotation_3d_y": "0: (0)",
    "rotation_3d_z": "0: (0)", "near_plane": 200, "far_plane": 10000, "fov": 40, "animation_mode": "None",
    "use_vertical_symmetry": False, "use_horizontal_symmetry": False, "transformation_percent": [0.09],
}  # fmt: skip
"""What the 5.7 notebook writes when nothing is changed; clips and video aside."""

_PLAIN: tuple[tuple[str, str, float, float], ...] = (
    ("tv_scale", "smooth", 0, 1e6),
    ("range_scale", "range", 0, 1e6),
    ("sat_scale", "saturation", 0, 1e6),
    ("eta", "eta", -1, 1),
)
"""Numbers of theirs that are options of ours: least and greatest."""
_SCHEDULES = (
    ("cut_overview", "overview"), ("cut_innercut", "inner"), ("cut_ic_pow", "power"), ("cut_icgray_p", "grey"),
)  # fmt: skip
_CLOUDS = {"mixed": "mixed", "color": "colour", "gray": "grey"}
_CLIPS = ("ViT", "RN")
_READ = frozenset(DEFAULTS) | {"mindseye"}
_LONGEST = 10_000


def is_settings(plain: Mapping[str, Any]) -> bool:
    """Whether a JSON object is such a settings file."""
    return "text_prompts" in plain and "clip_guidance_scale" in plain


def read(chunks: Mapping[str, str]) -> Found | None:
    """A settings file's account, as `mindseye.metadata.reader` wants it."""
    for raw in (chunks.get("parameters"), chunks.get("prompt"), chunks.get("Comment")):
        plain = parse_object(raw)
        if plain is not None and is_settings(plain):
            break
    else:
        return None
    try:
        request, notices = to_request(plain)
    except ImageError as error:
        return Found(tool="Disco Diffusion", raw=raw or "", notices=(error.message,))
    fields = {
        "prompt": request.prompt,
        "negative": request.negative,
        "steps": request.steps,
        "sampler": request.sampler,
        "guidance": request.guidance,
        "seed": request.seed,
        "size": request.size,
        "strength": request.strength if _starts(plain, request.options) else None,
        "model": text_of(plain.get("diffusion_model")),
        "extra": spread({str(key): value for key, value in plain.items() if key not in _READ and value is not False}),
    }
    return Found(tool="Disco Diffusion", fields=gathered(fields), raw=raw or "", notices=notices)


def prompts_of(plain: Mapping[str, Any]) -> dict[int, str]:
    """The prompts of each keyframe, in our grammar: weights behind colons, divided by ``|``."""
    given = plain.get("text_prompts")
    if isinstance(given, list):
        given = {"0": given}
    found: dict[int, str] = {}
    for key, texts in list(given.items())[:1000] if isinstance(given, dict) else ():
        frame = whole(key)
        texts = [texts] if isinstance(texts, str) else texts
        if frame is None or frame < 0 or not isinstance(texts, list):
            continue
        # Their prompts may hold our divider, which means nothing there.
        words = [text.replace("|", " ").strip() for text in texts[:100] if isinstance(text, str)]
        if any(words):
            found[frame] = "|".join(word for word in words if word)[:LONGEST_PROMPT]
    return dict(sorted(found.items()))


def to_request(plain: Mapping[str, Any], *, model: str | None = None) -> tuple[Request, tuple[str, ...]]:
    """A request for the first frame.

    Args:
        plain: The JSON of a settings file.
        model: The card to draw with; None = as the file says, by its name there.

    Returns:
        The request, and one sentence for each thing that cannot be done as it was.

    Raises:
        ImageError: It has no prompt.
    """
    prompts = prompts_of(plain)
    if not prompts:
        raise ImageError("the settings have no text prompts", hint="give a prompt")
    notices: list[str] = []
    filled: dict[str, Any] = {"prompt": next(iter(prompts.values()))}
    own = plain.get("mindseye")
    own = own if isinstance(own, dict) else {}
    filled["negative"] = text_of(own.get("negative")) or ""
    filled["model"] = model or text_of(own.get("model")) or text_of(plain.get("diffusion_model"))
    filled["size"] = size_of((plain.get("width"), plain.get("height")))
    filled["seed"] = seed % SEEDS if (seed := whole(plain.get("seed"))) is not None else None
    filled["steps"] = steps if (steps := whole(plain.get("steps"))) and steps > 0 else None
    filled["sampler"] = {"ddim": "ddim", "plms": "plms"}.get(str(plain.get("diffusion_sampling_mode", "")).lower())
    filled["sampler"] = text_of(own.get("sampler")) or filled["sampler"]
    scale = real(plain.get("clip_guidance_scale"))
    filled["guidance"] = None if scale is None or not 0 <= scale <= 1e6 else scale / 1000
    options = _options(plain, notices)
    skipped = whole(plain.get("skip_steps"))
    if filled["steps"] and (skipped or 0) > 0 and not _starts(plain, options):
        options["start"] = "grey"
    if filled["steps"] and skipped is not None and _starts(plain, options):
        filled["strength"] = max(0.0, min(1.0, 1 - skipped / filled["steps"]))
    kept = own.get("options")
    if isinstance(kept, dict):
        options |= {str(key): one for key, one in list(kept.items())[:100] if isinstance(one, (str, int, float))}
    filled["options"] = options
    notices += _lost(plain, prompts)
    return Request(**{name: value for name, value in filled.items() if value is not None}), tuple(notices)


def _starts(plain: Mapping[str, Any], options: Mapping[str, Scalar]) -> bool:
    """Whether it starts from anything but noise."""
    return text_of(plain.get("init_image")) is not None or "perlin" in options or options.get("start") == "grey"


def _options(plain: Mapping[str, Any], notices: list[str]) -> dict[str, Scalar]:
    """The knobs."""
    options: dict[str, Scalar] = {}
    for theirs, ours, low, high in _PLAIN:
        if theirs not in plain:
            continue
        value = real(plain[theirs])
        if value is None or not low <= value <= high:
            notices.append(f"its {theirs} of {plain[theirs]!r:.40} cannot be read: it is left out")
        else:
            options[ours] = value
    for theirs, ours in _SCHEDULES:
        value = plain.get(theirs)
        if isinstance(value, (str, int, float)) and not isinstance(value, bool) and len(str(value)) <= _LONGEST:
            options[ours] = str(value)
        elif isinstance(value, list) and len(value) <= _LONGEST and all(real(one) is not None for one in value):
            options[ours] = _packed([float(one) for one in value])
        elif value is not None:
            notices.append(f"its {theirs} is no schedule: it is left out")
    batches = whole(plain.get("cutn_batches"))
    if batches is not None and 1 <= batches <= 256:
        options["batches"] = batches
    limit = real(plain.get("clamp_max"))
    if plain.get("clamp_grad") is False:
        options["clamp"] = 0.0
    elif limit is not None and limit >= 0:
        options["clamp"] = limit
    if plain.get("fuzzy_prompt") is True:
        amount = real(plain.get("rand_mag", DEFAULTS["rand_mag"]))
        if amount is None or not 0 <= amount <= 100:
            notices.append(f"its rand_mag of {plain['rand_mag']!r:.40} cannot be read: its prompts are not made fuzzy")
        else:
            options["fuzz"] = amount
    for theirs, ours, turned in (("skip_augs", "augment", True), ("clip_denoised", "clip", False)):
        if isinstance(plain.get(theirs), bool):
            options[ours] = plain[theirs] is not turned
    if isinstance(plain.get("use_secondary_model"), bool):
        options["through"] = "secondary" if plain["use_secondary_model"] else "network"
    if plain.get("perlin_init") is True:
        options["perlin"] = _CLOUDS.get(str(plain.get("perlin_mode", "")), "mixed")
    mirrored = ("x" if plain.get("use_horizontal_symmetry") is True else "") + (
        "y" if plain.get("use_vertical_symmetry") is True else ""
    )
    if mirrored:
        options["symmetry"] = mirrored
        shares = plain.get("transformation_percent")
        shares = [real(one) for one in (shares if isinstance(shares, list) else [shares])[:100]]
        if shares and all(share is not None and 0 <= share <= 1 for share in shares):
            options["mirror_at"] = ",".join(f"{share:g}" for share in shares)
    likeness = real(plain.get("init_scale"))
    if text_of(plain.get("init_image")) is not None and likeness is not None and 0 <= likeness <= 1e6:
        options["likeness"] = likeness
    return options


def _packed(values: list[float]) -> str:
    """A list as a schedule with its repetitions counted."""
    runs: list[tuple[float, int]] = []
    for value in values:
        if runs and runs[-1][0] == value:
            runs[-1] = (value, runs[-1][1] + 1)
        else:
            runs.append((value, 1))
    return "+".join(f"[{value:g}]*{times}" for value, times in runs)


def _lost(plain: Mapping[str, Any], prompts: Mapping[int, str]) -> list[str]:
    """What a request cannot say."""
    said = []
    if image := text_of(plain.get("init_image")):
        said.append(f"it started from the picture {image[:200]}: name it with --image")
    if plain.get("image_prompts"):
        said.append("it went towards other pictures, which are not kept: name them with --set images=FILE:WEIGHT")
    if len(prompts) > 1:
        said.append(f"it has prompts for {len(prompts)} frames: the first is drawn")
    if (mode := text_of(plain.get("animation_mode"))) and mode.lower() != "none":
        said.append(f"it is a frame of an animation ({mode[:20]}): the picture alone is drawn")
    clips = [key for key, value in plain.items() if key.startswith(_CLIPS) and value is True]
    if clips:
        said.append(f"its critics were {', '.join(clips)[:200]}: here they are the card's")
    return said


def to_settings(request: Request, *, prompts: Mapping[int, str] | None = None) -> dict[str, Any]:
    """What Disco Diffusion would have written for this request, ready for `json.dumps`.

    Args:
        request: Of a Disco card, resolved or not.
        prompts: Of an animation, by frame; the request's own at frame 0 when None.
    """
    settings = json.loads(json.dumps(DEFAULTS))
    told = prompts or {0: request.prompt}
    settings["text_prompts"] = {
        str(frame): [part.strip() for part in text.split("|") if part.strip()] for frame, text in told.items()
    }
    options = dict(request.options)
    for theirs, ours, _, _ in _PLAIN:
        if ours in options:
            settings[theirs] = options.pop(ours)
    for theirs, ours in _SCHEDULES:
        if ours in options:
            settings[theirs] = str(options.pop(ours))
    if "batches" in options:
        settings["cutn_batches"] = options.pop("batches")
    if "clamp" in options:
        limit = options.pop("clamp")
        settings["clamp_grad"] = bool(limit)
        settings["clamp_max"] = limit or DEFAULTS["clamp_max"]
    if "fuzz" in options:
        amount = options.pop("fuzz")
        settings["fuzzy_prompt"] = bool(amount)
        settings["rand_mag"] = amount or DEFAULTS["rand_mag"]
    if "augment" in options:
        settings["skip_augs"] = not options.pop("augment")
    if "clip" in options:
        settings["clip_denoised"] = bool(options.pop("clip"))
    if options.get("through") in ("secondary", "network"):
        settings["use_secondary_model"] = options.pop("through") == "secondary"
    if (clouds := options.pop("perlin", "no")) != "no":
        settings["perlin_init"] = True
        settings["perlin_mode"] = {ours: theirs for theirs, ours in _CLOUDS.items()}[str(clouds)]
    mirrored = str(options.pop("symmetry", ""))
    settings["use_horizontal_symmetry"], settings["use_vertical_symmetry"] = "x" in mirrored, "y" in mirrored
    if mirrored and "mirror_at" in options:
        parts = [real(part) for part in str(options.pop("mirror_at")).strip("[] ").split(",")]
        settings["transformation_percent"] = [part for part in parts if part is not None]
    if request.image is not None:
        settings["init_image"] = str(request.image.info.get("path", "")) or "image"
        settings["init_scale"] = options.pop("likeness", 0)
    plain: dict[str, Any] = {"seed": request.seed, "steps": request.steps}
    plain |= {} if request.size is None else {"width": request.size[0], "height": request.size[1]}
    plain |= {} if request.guidance is None else {"clip_guidance_scale": _short(request.guidance * 1000)}
    settings |= {name: value for name, value in plain.items() if value is not None}
    steps = settings["steps"]
    settings["diffusion_steps"] = 1000 // steps * steps if 0 < steps < 1000 else steps
    grey = options.pop("start", "noise") == "grey"
    starts = request.image is not None or settings["perlin_init"] or grey
    settings["skip_steps"] = steps - int(steps * request.strength + 1e-6) if starts else 0
    if request.sampler in ("ddim", "plms"):
        settings["diffusion_sampling_mode"] = request.sampler
    own: dict[str, Any] = {"model": request.model, "negative": request.negative, "options": options}
    if request.sampler and request.sampler not in ("ddim", "plms"):
        own["sampler"] = request.sampler
    settings["mindseye"] = {name: value for name, value in own.items() if value}
    return settings


def _short(number: float) -> float | int:
    """Whole where it is nearly whole."""
    return round(number) if abs(number - round(number)) < 1e-6 else number
