"""The knobs of latent diffusion: what `--set` and every form offer for Stable Diffusion and its relatives.

Where the field has a habit, the name and the meaning are the habit's: clip skip counts from 1 as in AUTOMATIC1111's web
UI, the second pass is the hires fix, a variation seed is the sub-seed.
"""

from dataclasses import dataclass

from mindseye.diffusion.schedule import SPACINGS
from mindseye.systems import regions
from mindseye.systems.base import option
from mindseye.text.chunks import Mode

__all__ = ["Options"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The knobs of the method."""

    # How noise falls.
    spacing: str = option("trailing", "which noise levels the steps visit", choices=tuple(SPACINGS))
    offset: int = option(0, "added to the timesteps of spacing 'leading'; Stable Diffusion 1 used 1", low=0, high=100)
    final: str = option("zero", "where the last step lands", choices=("zero", "minimum"))
    shift: float = option(1.0, "above 1 spends more steps on noise; rectified flows only", low=0.01, high=100)
    noise_scale: str = option(
        "unit", "how the first noise is scaled: 'sigma' is what A1111's samplers start from", choices=("unit", "sigma")
    )
    eta: float = option(-1.0, "fresh noise at every step, 0 to 1; -1 leaves it to the sampler", low=-1, high=1)

    # How the text pulls.
    rescale: float = option(0.0, "pulls contrast back under strong guidance", low=0, high=1)
    guidance_low: float = option(0.0, "guide only above this time, 0 being clean; faster, not exact", low=0, high=1)
    guidance_high: float = option(1.0, "guide only up to this time, 1 being noise; faster, not exact", low=0, high=1)
    threshold: float = option(0.0, "most a latent may reach, in standard deviations; 0 is no limit", low=0, high=100)
    emphasis: Mode = option(
        "mean",
        "(words:1.2): 'mean' weighs and restores the mean, 'plain' only weighs, 'none' reads brackets as text",
        choices=("mean", "plain", "none"),
    )
    clip_skip: int = option(1, "layer of the text encoder that is read, counted from the end", low=1, high=12)
    toward: str = option("", "a second prompt to go towards")
    toward_amount: float = option(0.0, "how far to go towards it", low=0, high=1)

    # Where the noise comes from.
    variation_seed: int = option(0, "seed of the variation", low=0, high=2**63 - 1)
    variation_strength: float = option(0.0, "how far to go from the seed's noise to the variation's", low=0, high=1)
    variation_of: int = option(
        -1, "seed that all pictures are variations of, each by its own seed; -1 is none", low=-1, high=2**63 - 1
    )

    # The second, larger pass.
    hires: float = option(1.0, "draw again, so many times larger, from the small picture", low=1, high=8)
    hires_steps: int = option(0, "steps of the larger pass, all run; 0 is as many as of the first", low=0, high=1000)
    hires_strength: float = option(0.6, "how far the larger pass may go from the small picture", low=0, high=1)
    hires_upscaler: str = option(
        "latent",
        "what is enlarged: the latents, or the pixels by Lanczos",
        choices=(*regions.ENLARGEMENTS, "pixels"),
    )

    # What is kept of a picture.
    paste: bool = option(True, "keep the start picture's own pixels outside the mask")
    mask_blur: float = option(0.0, "softens the mask's edge by so many pixels", low=0, high=256)
    mask_grow: int = option(0, "grows the mask by so many pixels", low=0, high=256)
    masked: str = option("original", "what the masked part starts as", choices=regions.CONTENTS)
    only_masked: bool = option(False, "draw only the masked part, at full size, and set it back")
    padding: int = option(32, "surroundings that only_masked sees, in pixels", low=0, high=1024)
    extend_left: int = option(0, "outpaint: pixels added on the left", low=0, high=4096)
    extend_right: int = option(0, "outpaint: pixels added on the right", low=0, high=4096)
    extend_up: int = option(0, "outpaint: pixels added above", low=0, high=4096)
    extend_down: int = option(0, "outpaint: pixels added below", low=0, high=4096)
    canvas: str = option("stretch", "outpaint: what the new part starts as", choices=regions.CANVASES)
    feather: int = option(16, "outpaint: how far the new part reaches into the old, in pixels", low=0, high=512)

    # The frame.
    preview: str = option("", "a small autoencoder (TAESD) for previews only, by its name in your library")
    vae: str = option("", "another autoencoder, by its name in your library; its pictures differ in fine detail")
    seamless: str = option("", "edges that meet when tiled: x, y or xy", choices=("", "x", "y", "xy"))
    tile: int = option(0, "decode in tiles of so many pixels, for large pictures; 0 decodes whole", low=0, high=4096)
