"""vqgan-pocket and vit-vqgan-pocket: pictures to 16x16 tokens and back, for VQGAN-CLIP and what models tokens.

As VQGAN (Esser et al. 2021, arXiv:2012.09841): a faithful picture (absolute and squared error, edges), one that looks
the same (features of a network that was trained on something else), and, for the later part of the run, one that a
patch discriminator takes for real. Where we deviate:

- The features are those of the image tower of our own CLIP, where LPIPS needs a classifier of a million photographs.
- How hard the adversary pushes is set by the ratio of gradients at the picture, where the paper has it at the last
  layer: the same idea, one backward pass less, since both gradients are wanted there anyway.
- The codebook follows its vectors and revives dead codes (`mindseye.nn.quantize.CodebookKeeper`), instead of being
  trained by gradient: models of tokens pay for codes that are never used.

ViT-VQGAN (Yu et al. 2022, arXiv:2110.04627) is trained on the same objective; its paper's logit-Laplace loss is
dvae-pocket's.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from mindseye.adversarial.losses import CONTESTS
from mindseye.networks import vit_vqgan
from mindseye.networks.clip import CLIP, VisionTransformer
from mindseye.networks.discriminator import PatchConfig, PatchGAN
from mindseye.networks.vit_vqgan import ViTVQGAN
from mindseye.networks.vqgan import POCKET, VQGAN
from mindseye.nn.quantize import CodebookKeeper, commitment, perplexity
from mindseye.objective import Batch, Loss, Objective
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Steps
from mindseye.shapes import Pixels
from mindseye.training.feeds import PictureFeed
from mindseye.training.pictures import training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.vae import held_out_pixels, psnr

__all__ = [
    "Tokenising", "Tokens", "appearance", "codec_recipe", "token_feed", "token_samples", "token_scores",
    "vit_vqgan_pocket", "vqgan_pocket",
]  # fmt: skip

PATCH = 4
"""Pixels a side that the discriminator folds into channels first."""


JUDGE = PatchConfig(channels=3 * PATCH**2, width=64, layers=1)
"""Sees 64x64 pixels."""
HINGE = CONTESTS["hinge"]


class Tokens(Protocol):
    """What tells how good a tokenizer is: its ids, what comes of them, and how many codes there are."""

    @property
    def config(self) -> Any:
        """Has ``codes``."""
        ...

    def to_ids(self, pixels: Pixels) -> Tensor:
        """Row by row."""
        ...

    def from_ids(self, ids: Tensor) -> Pixels:
        """Pictures of as many rows as columns."""
        ...


def appearance(clip: CLIP, pixels: Pixels, blocks: int = 2) -> list[Float[Tensor, "B N D"]]:
    """What the first transformer blocks of a CLIP's image tower see in every patch, each vector normalised.

    Raises:
        TypeError: Its image tower is no vision transformer.
    """
    tower, size = clip.image_tower, getattr(clip.config.image, "size", 0)
    if not isinstance(tower, VisionTransformer):
        raise TypeError("features are those of a vision transformer")
    shrunk = F.interpolate(pixels, size=(size, size), mode="area")
    x = tower.patches(shrunk).flatten(2).transpose(1, 2) + tower.positions[1:]
    x = tower.first_norm(torch.cat([(tower.summary + tower.positions[0]).expand(len(x), 1, -1), x], dim=1))
    seen = []
    for block in list(tower.stack.blocks)[:blocks]:
        x = block(x)
        seen.append(F.layer_norm(x, x.shape[-1:]))
    return seen


class Tokenising(Objective):
    """Reconstruction, appearance, commitment; and an adversary from ``start`` on.

    Args:
        network: What is trained: either of those whose codes lie in a space.
        name: Of the part it becomes.
        clip: Whose features are compared, frozen; None = none are.
        quantizer: "moving": the codebook follows its vectors; "gradient": it is trained, and only revived.
        beta: Weight of the commitment.
        edges: Weight of the absolute error of horizontal and vertical differences.
        looks: Weight of the features' squared error.
        adversary: Share of the adversary's gradient in the whole at the picture; 0 = none.
        start: Share of the run after which there is one.
    """

    def __init__(
        self,
        network: VQGAN | ViTVQGAN,
        clip: CLIP | None,
        *,
        name: str = "vqgan-pocket",
        quantizer: Literal["moving", "gradient"] = "moving",
        beta: float = 0.25,
        edges: float = 0.5,
        looks: float = 0.1,
        adversary: float = 0.1,
        start: float = 0.6,
    ) -> None:
        super().__init__()
        self.name = name
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.discriminator = PatchGAN(JUDGE).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        config = network.config
        self.keeper = CodebookKeeper(config.codes, config.code_channels, moves=quantizer == "moving")
        network.quantizer.weight.requires_grad_(quantizer == "gradient")
        self._clip = (clip,)
        self.beta, self.edges, self.looks, self.adversary, self.start = beta, edges, looks, adversary, start
        self._painted: Tensor | None = None

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """First who paints, then who judges what was painted."""
        return {"painter": self.network.parameters(), "judge": self.discriminator.parameters()}

    def parts(self) -> Mapping[str, nn.Module]:
        """The network."""
        return {self.name: self.network}

    def forward(self, batch: Batch, turn: str) -> Loss:
        """``batch["pixels"]``: ``B 3 H W`` in [-1, 1]."""
        return self._paint(batch["pixels"]) if turn == "painter" else self._judge(batch["pixels"])

    def judged(self, pixels: Pixels) -> Float[Tensor, "B 1 h w"]:
        """How real the discriminator finds every patch."""
        return self.discriminator(F.pixel_unshuffle(pixels, PATCH))

    @property
    def _adverse(self) -> bool:
        return self.adversary > 0 and self.share >= self.start

    def _paint(self, pixels: Pixels) -> Loss:
        z = self.network.encode(pixels)
        chosen = self.network.quantise(z)
        painted = self.network.decode(chosen.embeddings).float()
        # Codes are left in peace towards the end, when the decoder ought to learn what each of them means.
        weight = self.network.quantizer.weight
        dead = self.keeper.update(weight, z.detach(), chosen.ids, self.generator, revive=self.share < 0.8)
        self._painted = painted.detach()
        pull, parts = self._pull(painted.detach(), pixels)
        bound = self.beta * chosen.parts["commitment"]
        if weight.requires_grad:
            bound = commitment(chosen.parts, beta=self.beta)
        # The gradient at the picture is known: this has it, and the value of the loss that it is the gradient of.
        along = (painted * pull).sum()
        total = along - along.detach() + parts["faithful"] + bound
        parts |= {"commitment": chosen.parts["commitment"].item(), "dead": float(dead)}
        return Loss(total, {**parts, "perplexity": perplexity(chosen.ids, self.network.config.codes)})

    @torch.enable_grad()
    def _pull(self, painted: Pixels, pixels: Pixels) -> tuple[Pixels, dict[str, float]]:
        """The gradient of the loss at the picture, and what the loss is made of."""
        picture = painted.detach().requires_grad_()
        error = picture - pixels
        absolute, square = error.abs().mean(), error.square().mean()
        edges = (error[..., 1:] - error[..., :-1]).abs().mean() + (error[..., 1:, :] - error[..., :-1, :]).abs().mean()
        total = absolute + 2 * square + self.edges * edges
        parts = {"l1": absolute.item(), "mse": square.item(), "edges": edges.item()}
        clip = self._clip[0]
        if clip is not None and self.looks:
            with torch.no_grad():
                wanted = appearance(clip, pixels)
            pairs = zip(appearance(clip, picture), wanted, strict=True)
            looks = torch.stack([F.mse_loss(mine, theirs) for mine, theirs in pairs]).mean()
            total = total + self.looks * looks
            parts["looks"] = looks.item()
        (pull,) = torch.autograd.grad(total, picture)
        parts["faithful"] = total.item()
        if self._adverse:
            fooled = HINGE.generator(self.judged(picture))
            (push,) = torch.autograd.grad(fooled, picture)
            pull = pull + self.adversary * (pull.norm() / (push.norm() + 1e-12)) * push
            parts["fooled"] = fooled.item()
        return pull, parts

    def _judge(self, pixels: Pixels) -> Loss:
        """The hinge loss on what this step's other turn painted."""
        if not self._adverse or self._painted is None:
            return Loss(torch.stack([parameter.sum() for parameter in self.discriminator.parameters()]).sum() * 0, {})
        real, painted = self.judged(pixels), self.judged(self._painted)
        told = ((real > 0).float().mean() + (painted < 0).float().mean()) / 2
        return Loss((HINGE.real(real) + HINGE.fake(painted)) / 2, {"told": told.item()})


def token_scores(name: str, workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    """Fidelity, and what a model of tokens would ask: are codes used, and do a picture's own ids come back?"""
    network: Tokens = parts[name]
    pixels = held_out_pixels(workshop, 512)
    ids, again, painted = [], [], []
    for chunk in pixels.split(64):
        ids.append(network.to_ids(chunk))
        painted.append(network.from_ids(ids[-1]))
        again.append(network.to_ids(painted[-1].clamp(-1, 1)))
    every, picture = torch.cat(ids), torch.cat(painted)
    pooled = 10 * torch.log10(4 / (picture.clamp(-1, 1) - pixels).square().mean())
    return {
        "psnr": float(psnr(picture, pixels).mean()),
        "psnr_pooled": float(pooled),
        "perplexity": perplexity(every, network.config.codes),
        "used": len(every.unique()) / network.config.codes,
        "stable": float((torch.cat(again) == every).float().mean()),
    }


def token_samples(name: str, workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    """Held-out pictures, each beside what comes back of its tokens."""
    network: Tokens = parts[name]
    pixels = held_out_pixels(workshop, 24)
    return sheet(to_images(torch.stack([pixels, network.from_ids(network.to_ids(pixels))], dim=1).flatten(0, 1)))


def token_feed(workshop: Workshop) -> Steps[Feed]:
    """The corpus' pictures, or the user's own."""
    return PictureFeed((yield from training_pictures(workshop)).pictures)


def codec_recipe(
    name: str, about: str, objective: Callable[[Workshop], Objective], *, steps: int, optimizer: Optimizer
) -> Recipe:
    """A recipe of a codec of tokens: what it sees, how often it is looked at, and by which figures it is judged."""
    return Recipe(
        name=name,
        about=about,
        objective=objective,
        feed=token_feed,
        steps=steps,
        batch=16,
        optimizer=optimizer,
        ema=0.998,
        every=Every(sample=1000, checkpoint=500),
        samples=lambda workshop, parts: token_samples(name, workshop, parts),
        scores=lambda workshop, parts: token_scores(name, workshop, parts),
    )


def vqgan_pocket() -> Recipe:
    """Needs clip-pocket; held-out figures as recorded in the part's provenance."""
    return codec_recipe(
        "vqgan-pocket",
        "VQGAN, 128x128 pictures to 16x16 tokens of 1024 codes",
        lambda workshop: Tokenising(VQGAN(POCKET), workshop.parts("clip-pocket")),
        steps=8000,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-3, warmup=150),
    )


def vit_vqgan_pocket() -> Recipe:
    """Needs clip-pocket; held-out figures as recorded in the part's provenance."""
    name = "vit-vqgan-pocket"
    return codec_recipe(
        name,
        "ViT-VQGAN, 128x128 pictures to 16x16 tokens of 1024 codes",
        lambda workshop: Tokenising(ViTVQGAN(vit_vqgan.POCKET), workshop.parts("clip-pocket"), name=name),
        steps=8000,
        optimizer=Optimizer(kind="muon", lr=1e-3, betas=(0.9, 0.99), weight_decay=1e-3, warmup=300),
    )
