"""Others' names for samplers and noise schedules, in our words.

Everybody calls the same dozen methods something else: "DPM++ 2M Karras", "k_dpmpp_2m", "dpmpp_2m"/"karras",
"dpmpp_2m_k". A name is brought to one spelling, its schedule taken off its end, and looked up. Methods that we do not
have come with the one of ours that is most like them: deterministic solvers all tend to the same picture as steps grow,
and the ones that add noise to the same distribution.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mindseye.errors import nearest
from mindseye.request import Scalar

_SAMPLERS: Mapping[str, str] = {
    "ddpm": "ddpm",
    "ddim": "ddim",
    "plms": "plms",
    "pndm": "plms",
    "euler": "euler",
    "euler_a": "euler-ancestral",
    "euler_ancestral": "euler-ancestral",
    "heun": "heun",
    "lms": "lms",
    "dpm2": "dpm2",
    "dpm_2": "dpm2",
    "kdpm_2": "dpm2",
    "dpm2_a": "dpm2-ancestral",
    "dpm_2_a": "dpm2-ancestral",
    "kdpm_2_a": "dpm2-ancestral",
    "dpm2_ancestral": "dpm2-ancestral",
    "dpm_2_ancestral": "dpm2-ancestral",
    "dpmpp_2s_a": "dpm++-2s-ancestral",
    "dpmpp_2s_ancestral": "dpm++-2s-ancestral",
    "dpmpp_sde": "dpm++-sde",
    "dpmpp_2m": "dpm++-2m",
    "dpm_solver_multistep": "dpm++-2m",
    "dpmpp_2m_sde": "dpm++-2m-sde",
    "unipc": "unipc",
    "uni_pc": "unipc",
    "uni_pc_bh2": "unipc",
    "lcm": "lcm",
}
"""Normalised name -> key of `mindseye.diffusion.samplers.SAMPLERS`; a test holds the two together."""

_LIKE: Mapping[str, str] = {
    "ipndm": "lms",
    "ipndm_v": "lms",
    "heunpp2": "heun",
    "restart": "heun",
    "dpmpp_2s": "dpm++-2m",
    "dpmpp_2m_sde_heun": "dpm++-2m-sde",
    "dpmpp_3m": "dpm++-2m",
    "dpmpp_3m_sde": "dpm++-2m-sde",
    "er_sde": "dpm++-2m-sde",
    "sa_solver": "dpm++-2m-sde",
    "seeds_2": "dpm++-2m-sde",
    "seeds_3": "dpm++-2m-sde",
    "dpm_fast": "dpm++-2m",
    "dpm_adaptive": "dpm++-2m",
    "dpm_solver_stability": "dpm++-2m",
    "deis": "dpm++-2m",
    "res_multistep": "dpm++-2m",
    "res_multistep_ancestral": "euler-ancestral",
    "gradient_estimation": "euler",
    "euler_cfg_pp": "euler",
    "euler_ancestral_cfg_pp": "euler-ancestral",
    "ddim_cfg_pp": "ddim",
    "dpmpp_2m_cfg_pp": "dpm++-2m",
    "euler_smea": "euler",
    "euler_dy": "euler",
    "tcd": "lcm",
}
"""Methods we do not have -> what is most like them."""

_SCHEDULES: Mapping[str, Mapping[str, Scalar]] = {
    "karras": {"spacing": "karras"},
    "exponential": {"spacing": "exponential"},
    "polyexponential": {"spacing": "exponential"},  # at its own default, rho = 1
    "normal": {"spacing": "linspace"},
    "uniform": {"spacing": "linspace"},
    "sgm_uniform": {"spacing": "linspace-open"},
    "simple": {"spacing": "trailing"},
    "trailing": {"spacing": "trailing"},
    "leading": {"spacing": "leading", "offset": 1},
    "ddim_uniform": {"spacing": "leading", "offset": 1},
    "ddim": {"spacing": "leading", "offset": 1},
    "native": {"spacing": "linspace"},
}
"""Normalised name -> options; the values of spacing are keys of `mindseye.diffusion.schedule.SPACINGS`."""

_LIKE_SCHEDULES: Mapping[str, str] = {
    "beta": "normal",
    "beta57": "normal",
    "linear_quadratic": "normal",
    "kl_optimal": "karras",
    "align_your_steps": "karras",
    "align_your_steps_gits": "karras",
    "ays": "karras",
    "ays_sdxl": "karras",
    "gits": "karras",
    "turbo": "trailing",
    "sgm": "sgm_uniform",
}

_PREFIXES = ("sample_", "k_", "ksampler_", "nai_")
_SUFFIXES = ("_gpu", "_rf", "_test", "_substep")
_ENDINGS: Mapping[str, str] = {
    "_sgm_uniform": "sgm_uniform",
    "_simple": "simple",
    "_normal": "normal",
    "_karras": "karras",
    "_exponential": "exponential",
    "_trailing": "trailing",
    "_ays": "ays",
    "_k": "karras",
    "_sgm": "sgm_uniform",
}


@dataclass(frozen=True, kw_only=True)
class Named:
    """A sampler in our words.

    Attributes:
        sampler: Key of `SAMPLERS`; None where nothing is like it.
        schedule: The schedule that was part of the name, normalised; "" if none was.
        notices: What differs.
    """

    sampler: str | None
    schedule: str = ""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Spaced:
    """A noise schedule in our words.

    Attributes:
        options: Of `StableDiffusion.Options`.
        notices: What differs.
    """

    options: Mapping[str, Scalar] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def sampler(name: str) -> Named:
    """Our sampler for anybody's name of one."""
    plain = normal(name)
    schedule = ""
    for prefix in _PREFIXES:
        plain = plain.removeprefix(prefix)
    for suffix in _SUFFIXES:
        plain = plain.removesuffix(suffix)
    if plain not in _SAMPLERS and plain not in _LIKE:
        for ending, meant in _ENDINGS.items():
            if plain.endswith(ending):
                plain, schedule = plain[: -len(ending)], meant
                break
    if ours := _SAMPLERS.get(plain):
        return Named(sampler=ours, schedule=schedule)
    shown = name.strip()[:60]
    if ours := _LIKE.get(plain):
        said = f"there is no sampler {shown!r} here: {ours!r}, the one most like it, is used"
        return Named(sampler=ours, schedule=schedule, notices=(said,))
    near = nearest(plain[:60], [*_SAMPLERS, *_LIKE])
    ours = None if near is None else _SAMPLERS.get(near) or _LIKE[near]
    said = f"the sampler {shown!r} is not known here: " + (f"{ours!r} is used" if ours else "the model's own is used")
    return Named(sampler=ours, schedule=schedule, notices=(said,))


def spacing(name: str) -> Spaced:
    """Our options for anybody's name of a noise schedule."""
    plain = normal(name)
    if plain in _SCHEDULES:
        return Spaced(options=_SCHEDULES[plain])
    shown = name.strip()[:60]
    if like := _LIKE_SCHEDULES.get(plain) or nearest(plain[:60], _SCHEDULES):
        options = _SCHEDULES[like]
        said = f"there is no schedule {shown!r} here: spacing {options['spacing']!r}, the one most like it, is used"
        return Spaced(options=options, notices=(said,))
    return Spaced(notices=(f"the schedule {shown!r} is not known here: the model's own is used",))


def upscaler(name: str) -> tuple[str, str]:
    """Our `hires_upscaler` for anybody's, and a sentence if it is another."""
    plain = normal(name)
    if plain.startswith("latent"):
        # Longest first: "nearest_exact" holds "nearest".
        kinds = ("nearest_exact", "nearest", "bicubic_antialiased", "bicubic", "antialiased")
        kind = next((kind for kind in kinds if kind in plain), "")
        return (f"latent-{kind.replace('_', '-')}" if kind else "latent"), ""
    if "lanczos" in plain:
        return "pixels", ""
    return "pixels", f"it was enlarged by {name.strip()[:60]!r}, which is not here: it is enlarged plainly"


def normal(name: str) -> str:
    """One spelling: lower case, "pp" for "++", underscores for whatever separates."""
    plain = name.strip()[:80].lower().replace("++", "pp").replace("dpm_pp", "dpmpp").replace("dpm pp", "dpmpp")
    plain = "".join(mark if mark.isalnum() else "_" for mark in plain)
    return "_".join(part for part in plain.split("_") if part)
