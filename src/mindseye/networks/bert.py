"""The text tower of Latent Diffusion text2img-large: a transformer of BERT's size, trained with the diffusion model.

Rombach et al. 2022 (arXiv:2112.10752, https://github.com/CompVis/latent-diffusion). It borrows BERT's word pieces and
nothing else: pre-norm blocks (with x-transformers as their code), 32 of them, 1280 channels, eight heads of 64, so that
attention happens in 512 channels; exact GELU; learned absolute positions; one norm at the end. Texts are padded to 77
ids and the padding is attended to: the U-Net was trained on that, so there is no mask.

Deviations: query, key and value are one fused projection, as in `mindseye.nn.transformer`, whose blocks cannot be used
here because their heads fill the width and their projections have biases. The release's unused `to_logits` is left out.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.attention import attend
from mindseye.shapes import Ids, TextTokens

__all__ = ["TEXT2IMG_LARGE", "Bert", "Config"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `Bert`; the defaults are those of text2img-large.

    Attributes:
        vocabulary: Different token ids.
        length: Most tokens a text can have.
        width: Channels.
        layers: Transformer blocks.
        heads: Attention heads.
        head: Channels of a head; heads need not fill the width.
        hidden: Channels inside the perceptrons.
    """

    vocabulary: int = 30522
    length: int = 77
    width: int = 1280
    layers: int = 32
    heads: int = 8
    head: int = 64
    hidden: int = 5120


TEXT2IMG_LARGE = Config()
"""The release's: 542,895,360 parameters."""


@final
class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x)), the attention in fewer channels than the rest."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        inner = config.heads * config.head
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(config.width)
        self.qkv = nn.Linear(config.width, 3 * inner, bias=False)
        self.out = nn.Linear(inner, config.width)
        self.mlp_norm = nn.LayerNorm(config.width)
        self.up = nn.Linear(config.width, config.hidden)
        self.down = nn.Linear(config.hidden, config.width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """One step of refinement; every place sees every place."""
        q, k, v = self.qkv(self.attention_norm(x)).chunk(3, dim=-1)
        x = x + self.out(attend(q, k, v, heads=self.heads))
        return x + self.down(F.gelu(self.up(self.mlp_norm(x))))


@final
class Bert(nn.Module):
    """Word-piece ids to one vector a token."""

    def __init__(self, config: Config = TEXT2IMG_LARGE) -> None:
        super().__init__()
        self.config = config
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.final_norm = nn.LayerNorm(config.width)
        for table in (self.token_embedding, self.position_embedding):
            nn.init.normal_(table.weight, std=0.02)

    def text(self, ids: Ids) -> tuple[TextTokens, None]:
        """Reads texts.

        Args:
            ids: `B L`, L up to the tower's length; the release always fills all 77 places.

        Returns:
            tokens `B L D`; and None where CLIP's tower has one vector a text, so that callers may treat both alike.

        Raises:
            ValueError: More tokens than the tower's length.
        """
        if ids.shape[1] > self.config.length:
            raise ValueError(f"{ids.shape[1]} tokens do not fit a text tower of {self.config.length}")
        x = self.token_embedding(ids) + self.position_embedding.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.final_norm(x), None
