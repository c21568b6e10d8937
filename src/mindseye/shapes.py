"""One vocabulary of tensor shapes, used on every public signature.

The names are those of the papers; axes are named as in einops patterns. Checked at run time in the tests
(jaxtyping's import hook with beartype), free in production.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Pixels = Float[Tensor, "B 3 H W"]
"""Pictures in [-1, 1]."""
Latents = Float[Tensor, "B C h w"]
"""What a codec makes of pictures and what latent diffusion models."""
Ids = Int[Tensor, "B L"]
"""Token ids."""
Logits = Float[Tensor, "B L K"]
"""Unnormalised log probabilities over K tokens."""
Sigma = Float[Tensor, "B"]
"""One noise level a picture."""
Embedding = Float[Tensor, "B E"]
"""One vector a picture or text."""
TextTokens = Float[Tensor, "B L D"]
"""One vector a text token."""
TextMask = Bool[Tensor, "B L"]
"""True where a token counts."""


def check_sides(pixels: Pixels, factor: int) -> None:
    """Raise ValueError unless both sides of pictures are multiples of what a codec makes them smaller by."""
    height, width = pixels.shape[2:]
    if height % factor or width % factor:
        raise ValueError(f"sides must be multiples of {factor}, not {width}x{height}")
