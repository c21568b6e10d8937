"""CLIP: one space for pictures and texts, the judge that everything else here listens to.

Radford et al. 2021, "Learning Transferable Visual Models From Natural Language Supervision" (arXiv:2103.00020). An
image tower (vision transformer or residual network) and a causal text transformer end in vectors of the same length,
trained so that a picture and its caption point the same way. Diffusion models read the text tower's whole sequence.

Deviations from the release, none of which changes what its weights compute:
    - pictures come in [-1, 1] like everywhere in mindseye; the release's mean and deviation are applied here;
    - texts shorter than the context are allowed (the release fails on them): positions are sliced;
    - the image transformer starts with the scheme that the release uses for text, all biases at zero.
"""

import math
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.networks.clip_resnet import ModifiedResNet
from mindseye.nn.transformer import Activation, Stack
from mindseye.shapes import Embedding, Ids, Pixels, TextTokens

Pooled = Float[Tensor, "B E"]
"""One vector a text, of another length than its tokens."""


@dataclass(frozen=True, eq=False)
class Inserts:
    """Vectors that stand in for tokens' embeddings: learned words of textual inversion (arXiv:2208.01618).

    Attributes:
        rows: Which text.
        places: Which of its tokens.
        vectors: What is read there instead.
    """

    rows: Int[Tensor, "N"]
    places: Int[Tensor, "N"]
    vectors: Float[Tensor, "N D"]


OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
"""Mean colour of the release's training pictures, in [0, 1]."""
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
"""Deviation of the same."""
HALF = (0.5, 0.5, 0.5)
"""As mean and as deviation: [-1, 1] goes in as it is."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """The text tower.

    Attributes:
        vocabulary: different token ids.
        length: most tokens a text can have.
        width: channels.
        layers: transformer blocks.
        heads: attention heads.
        hidden: channels inside the perceptrons; 4 x `width` if None.
        activation: `quick_gelu` in OpenAI's weights, `gelu` in most of OpenCLIP's.
    """

    vocabulary: int = 49408
    length: int = 77
    width: int = 512
    layers: int = 12
    heads: int = 8
    hidden: int | None = None
    activation: Activation = "quick_gelu"


@dataclass(frozen=True, kw_only=True)
class ViT:
    """A vision transformer (Dosovitskiy et al. 2020, arXiv:2010.11929) as image tower.

    Attributes:
        size: pixels a side of the pictures it reads.
        patch: pixels a side of one token; divides `size`.
        width: channels.
        layers: transformer blocks.
        heads: attention heads.
        hidden: channels inside the perceptrons; 4 x `width` if None (OpenCLIP's g and bigG differ).
        activation: as for the text tower.
    """

    size: int = 224
    patch: int = 32
    width: int = 768
    layers: int = 12
    heads: int = 12
    hidden: int | None = None
    activation: Activation = "quick_gelu"


@dataclass(frozen=True, kw_only=True)
class ResNet:
    """A `ModifiedResNet` as image tower.

    Attributes:
        size: pixels a side of the pictures it reads, a multiple of 32.
        width: channels after the stem.
        layers: bottlenecks in each of the four stages.
        heads: heads of the attention pool.
    """

    size: int = 224
    width: int = 64
    layers: tuple[int, int, int, int] = (3, 4, 6, 3)
    heads: int = 32


@dataclass(frozen=True, kw_only=True)
class Config:
    """Both towers.

    Attributes:
        text: the text tower.
        image: the image tower; None for a text encoder alone, as Stable Diffusion ships.
        embed: channels of the common space; None where the text tower has no projection (Stable Diffusion 1 and 2).
        mean: what is subtracted from pictures in [0, 1], by channel.
        std: what they are divided by then.
    """

    text: Text = Text()
    image: ResNet | ViT | None = ViT()
    embed: int | None = 512
    mean: tuple[float, float, float] = OPENAI_MEAN
    std: tuple[float, float, float] = OPENAI_STD


VIT_B_32 = Config()
"""OpenAI's ViT-B/32: 151,277,313 parameters."""
RN50 = Config(image=ResNet(), embed=1024)
"""OpenAI's RN50: 102,007,137 parameters."""

POCKET_TEXT = Text(vocabulary=1536, length=48, width=192, layers=3, heads=6, activation="gelu")
POCKET = Config(
    text=POCKET_TEXT,
    image=ViT(size=64, patch=8, width=160, layers=4, heads=5, activation="gelu"),
    embed=192,
    mean=HALF,
    std=HALF,
)
"""The small one that travels with the package: pictures of 64 x 64, 2.99M parameters. Exact GELU: torch fuses it."""
POCKET_RESNET = Config(
    text=POCKET_TEXT, image=ResNet(size=128, width=16, layers=(1, 1, 2, 2), heads=8), embed=192, mean=HALF, std=HALF
)
"""The same with a residual image tower and pictures of 128 x 128, 3.43M parameters: a judge that errs differently."""


def _normal(*shape: int, std: float) -> Tensor:
    """Normal numbers, drawn by `nn.init`, which costs nothing where parts are built on `meta` to be filled."""
    return nn.init.normal_(torch.empty(*shape), std=std)


@final
class VisionTransformer(nn.Module):
    """Pictures to one vector: patches and a class token through a transformer.

    Args:
        config: the tower's shape.
        embed: channels of the answer.
    """

    def __init__(self, config: ViT, embed: int) -> None:
        super().__init__()
        scale = config.width**-0.5
        self.patches = nn.Conv2d(3, config.width, config.patch, stride=config.patch, bias=False)
        self.summary = nn.Parameter(_normal(config.width, std=scale))
        self.positions = nn.Parameter(_normal((config.size // config.patch) ** 2 + 1, config.width, std=scale))
        self.first_norm = nn.LayerNorm(config.width)
        self.stack = Stack(config.width, config.layers, config.heads, config.hidden, config.activation)
        self.final_norm = nn.LayerNorm(config.width)
        self.projection = nn.Parameter(_normal(config.width, embed, std=scale))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B E"]:
        """Embeds pictures that are already normalised."""
        # A product and not a convolution: the same numbers; on CPUs, gradients on pixels 3 to 9 times as fast.
        size = self.patches.kernel_size[0]
        x = x.unflatten(3, (-1, size)).unflatten(2, (-1, size)).permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        x = F.linear(x, self.patches.weight.flatten(1))
        x = torch.cat([self.summary.to(x.dtype).expand(len(x), 1, -1), x], dim=1) + self.positions.to(x.dtype)
        # Only the class token is looked at afterwards: the last block need not answer for the others.
        x, _ = self.stack(self.first_norm(x), last=1)
        return self.final_norm(x[:, 0]) @ self.projection


@final
class TextTransformer(nn.Module):
    """Ids to one vector a token and one for the whole.

    Args:
        config: the tower's shape.
        embed: channels of the whole's vector; None = unprojected.
    """

    def __init__(self, config: Text, embed: int | None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = nn.Parameter(_normal(config.length, config.width, std=0.01))
        self.stack = Stack(config.width, config.layers, config.heads, config.hidden, config.activation)
        self.final_norm = nn.LayerNorm(config.width)
        scale = config.width**-0.5
        self.projection = None if embed is None else nn.Parameter(_normal(config.width, embed, std=scale))
        nn.init.normal_(self.embedding.weight, std=0.02)

    def forward(
        self, ids: Ids, skip: int = 0, final_norm: bool = True, inserts: Inserts | None = None
    ) -> tuple[TextTokens, Pooled]:
        """See `CLIP.text`."""
        if ids.shape[1] > len(self.positions):
            raise ValueError(f"{ids.shape[1]} tokens, but this text tower reads at most {len(self.positions)}")
        x = self.embedding(ids)
        if inserts is not None:
            x = x.index_put((inserts.rows, inserts.places), inserts.vectors.to(x))
        x = x + self.positions[: ids.shape[1]]
        last, early = self.stack(x, causal=True, skip=skip)
        ends = self.final_norm(last[torch.arange(len(ids), device=ids.device), ids.argmax(dim=1)])
        tokens = self.final_norm(early) if final_norm else early
        return tokens, ends if self.projection is None else ends @ self.projection


@final
class CLIP(nn.Module):
    """Both towers and the temperature that compares them.

    Args:
        config: what to build.

    Attributes:
        config: as given.
        logit_scale: logarithm of the factor on cosines, 1 / 0.07 at the start.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        image = config.image
        if image is not None and config.embed is None:
            raise ValueError("two towers need a common space: `embed` is None")
        self.text_tower = TextTransformer(config.text, config.embed)
        self.image_tower: VisionTransformer | ModifiedResNet | None = None
        if isinstance(image, ViT):
            self.image_tower = VisionTransformer(image, config.embed or 0)
        elif isinstance(image, ResNet):
            self.image_tower = ModifiedResNet(image.size, image.width, image.layers, image.heads, config.embed or 0)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def text(
        self, ids: Ids, *, skip: int = 0, final_norm: bool = True, inserts: Inserts | None = None
    ) -> tuple[TextTokens, Pooled]:
        """Reads texts.

        Stable Diffusion 1 takes the tokens with the defaults ("clip skip 2" is `skip=1`), 2 with `skip=1`, XL with
        `skip=1, final_norm=False`.

        Args:
            ids: `B L`, L up to the tower's length; every text closed by the largest id it holds.
            skip: blocks left out at the end, for the tokens only.
            final_norm: whether the tokens pass the final LayerNorm.
            inserts: learned vectors that replace the embeddings of some tokens.

        Returns:
            tokens `B L D`; and `B E`, not normalised: the fully processed token at the first largest id, after the
            final LayerNorm, projected into the common space (E = D where there is no projection).

        Raises:
            ValueError: more tokens than the tower's length, or more blocks skipped than there are.
        """
        return self.text_tower(ids, skip, final_norm, inserts)

    def image(self, pixels: Pixels) -> Embedding:
        """Looks at pictures.

        Args:
            pixels: `B 3 S S` in [-1, 1], S the tower's `size`.

        Returns:
            `B E`, not normalised.

        Raises:
            ValueError: another size, or this CLIP has no image tower.
        """
        tower, image = self.image_tower, self.config.image
        if tower is None or image is None:
            raise ValueError("this CLIP is a text encoder alone: it cannot look at pictures")
        if pixels.shape[-2:] != (image.size, image.size):
            height, width = pixels.shape[-2:]
            raise ValueError(f"pictures of {width} x {height}, but this image tower reads {image.size} x {image.size}")
        if (self.config.mean, self.config.std) != (HALF, HALF):
            # From the config and not from buffers: no checkpoint holds them, and parts are built on `meta` and filled.
            mean, std = (pixels.new_tensor(values).view(3, 1, 1) for values in (self.config.mean, self.config.std))
            pixels = (pixels - (2 * mean - 1)) / (2 * std)
        return tower(pixels)
