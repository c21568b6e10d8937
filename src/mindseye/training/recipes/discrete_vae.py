"""discrete-vae-pocket: DALLE-pytorch's discrete VAE, 128x128 pictures to 16x16 of 1024 codes.

As DALLE-pytorch trains its own (lucidrains): codes are drawn by their likelihoods, relaxed by the Gumbel-softmax, and
the decoder paints from shares of them by the squared error; its temperature falls from 1 to a half, and it has no pull
to equal likelihoods unless it is asked for one.

Where we deviate, as with dvae-pocket (`mindseye.training.recipes.dvae`): the decoder sees one code a place with the
mixture's gradient, which DALLE-pytorch offers (``straight_through``), for that is what it is given in use; the
information that a code carries has a weight of its own; and codes begin as what the encoder sees at places of some
pictures, or few of them would ever be used in a run as short as ours.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from mindseye.networks.discrete_vae import POCKET, DiscreteVAE
from mindseye.shapes import Pixels
from mindseye.training.recipe import Optimizer, Recipe
from mindseye.training.recipes.dvae import Relaxing, begun
from mindseye.training.recipes.vqgan import codec_recipe

__all__ = ["by_squares", "discrete_vae_pocket"]


def by_squares(
    network: DiscreteVAE, shares: Float[Tensor, "B K h w"], pixels: Pixels
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The squared error of what the decoder paints; twice, for it is the loss and its own measure."""
    square = F.mse_loss(network.decode(shares).float(), pixels)
    return square, square.detach()


def discrete_vae_pocket() -> Recipe:
    """Needs nothing; held-out figures as recorded in the part's provenance."""
    name = "discrete-vae-pocket"
    return codec_recipe(
        name,
        "DALLE-pytorch's discrete VAE, 128x128 pictures to 16x16 tokens of 1024 codes",
        lambda workshop: Relaxing(
            begun(DiscreteVAE(POCKET), workshop),
            name=name,
            error=by_squares,
            kl=0.0,
            inform=0.01,
            coldest=0.5,
            hard=True,
        ),
        steps=8_000,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4, warmup=150),
    )
