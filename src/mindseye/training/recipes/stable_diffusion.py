"""unet-pocket: the U-Net of the default card, a rectified flow over the pocket autoencoder's latents.

Frozen clip-pocket gives the text as tokens (cross-attention) and as a pooled vector; the latents and both encodings are
made once and cached, so a step costs what the U-Net costs.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from mindseye.diffusion.denoiser import pooled_vector
from mindseye.diffusion.objective import LatentDiffusion
from mindseye.diffusion.schedule import RectifiedFlow
from mindseye.networks.clip import CLIP
from mindseye.networks.unet import POCKET, UNet
from mindseye.networks.vae import AutoencoderKL
from mindseye.noise import Noise
from mindseye.objective import Batch
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Steps, drain
from mindseye.systems.stable_diffusion import StableDiffusion
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import stream, training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop

__all__ = ["PROMPTS", "unet_pocket"]

LENGTH = 32
"""Tokens that the U-Net reads: the corpus' longest caption has 30."""
LEVEL_MEAN = 1.0
LEVEL_SPREAD = 1.4
"""Of the logarithm of sigma: latents hold something between a deviation of 10 (what is the same all over the picture)
and 0.2 (the finest differences between neighbours). Which thing has which colour and stands where is decided above 5:
with a mean of 0.6 one level in six was drawn there, and half of all things stood on the wrong side. 1.5 is for learning
that, 1.0 for everything else."""
PLAIN, RELATED = 1, 2
"""How often pictures of plain shapes, and of relations of them, are seen for each time that others are. First it was
three and six (`mindseye.training.pictures`), which teaches relations and leaves icons a third of the pictures; twice
keeps what was learned."""
PROMPTS = (
    "a red apple",
    "a blue heart",
    "an owl, glossy 3d",
    "a fox, simple flat cartoon",
    "a grinning face, noto style",
    "a green strawberry",
    "a red circle left of a blue square",
    "a yellow star above a purple ring",
    "an astronaut, outlined",
    "a birthday cake on a pink background",
    "a sailboat, flat",
    "two orange triangles",
    "a robot",
    "a house with garden",
    "a purple octopus on a yellow background",
    "three red hearts",
)
"""What sample sheets show."""


class EncodedFeed:
    """Latents with the encodings of their captions.

    Args:
        latents: One a picture.
        tokens: One sequence a caption.
        vectors: One a caption.
        caption: Which caption belongs to a picture.
        stream: The pictures of an epoch; one that stands there three times is seen three times.
        seed: Of the order.
    """

    def __init__(
        self,
        latents: NDArray[np.float16],
        tokens: NDArray[np.float16],
        vectors: NDArray[np.float16],
        caption: NDArray[np.int64],
        stream: NDArray[np.int64],
        seed: int = 0,
    ) -> None:
        self.latents = latents
        self.tokens = tokens
        self.vectors = vectors
        self.caption = caption
        self.stream = stream
        self.seed = seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"latents": B C h w, "tokens": B L D, "vector": B V}``."""
        rows = np.sort(self.stream[order(step, size, len(self.stream), self.seed)])
        words = self.caption[rows]
        arrays = {"latents": self.latents[rows], "tokens": self.tokens[words], "vector": self.vectors[words]}
        return {key: torch.from_numpy(np.asarray(value)).float() for key, value in arrays.items()}


def encode_text(
    clip: CLIP, tokenizer: Tokenizer, texts: list[str]
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B V"]]:
    """What the U-Net is told of texts: final tokens, and the pooled vector."""
    ids, _ = tokenizer.encode(texts)
    tokens, pooled = clip.text(ids)
    return tokens, pooled_vector(pooled)


def _feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    vae: AutoencoderKL = workshop.parts("vae-pocket")
    clip: CLIP = workshop.parts("clip-pocket")
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)
    folder = workshop.cache / "encodings"
    folder.mkdir(parents=True, exist_ok=True)

    def to_latents(start: int, stop: int) -> Tensor:
        return vae.encode(to_pixels(rendered.pictures[start:stop]))

    seen = fingerprint(workshop.part_files("vae-pocket"))
    latents = yield from encode_all(
        folder / f"latents-{rendered.name}-{seen}.npy", len(rendered), to_latents, stage="encode pictures"
    )
    captions, where = distinct(rendered.captions)
    read = fingerprint(workshop.part_files("clip-pocket"), workshop.part_files("bpe-pocket"))
    tokens = yield from encode_all(
        folder / f"tokens-{rendered.name}-{read}.npy",
        len(captions),
        lambda start, stop: encode_text(clip, tokenizer, captions[start:stop])[0],
        stage="encode captions",
    )
    vectors = yield from encode_all(
        folder / f"vectors-{rendered.name}-{read}.npy",
        len(captions),
        lambda start, stop: encode_text(clip, tokenizer, captions[start:stop])[1],
        stage="encode captions",
    )
    return EncodedFeed(latents, tokens, vectors, where, stream(captions, where, plain=PLAIN, related=RELATED))


def _objective(workshop: Workshop) -> LatentDiffusion:
    clip: CLIP = workshop.parts("clip-pocket")
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)
    with torch.no_grad():
        tokens, vector = encode_text(clip, tokenizer, [""])
    unet = UNet(POCKET).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return LatentDiffusion(
        unet,
        RectifiedFlow(),
        "flow",
        null_tokens=tokens,
        null_vector=vector,
        levels="logit-normal",
        level_mean=LEVEL_MEAN,
        level_spread=LEVEL_SPREAD,
        name="unet-pocket",
    )


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    clip: CLIP = workshop.parts("clip-pocket")
    system = StableDiffusion(
        unet=next(iter(parts.values())),
        codec=workshop.parts("vae-pocket"),
        text=clip,
        tokenizer=Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH),
        prediction="flow",
    )
    images: list[Any] = []
    for prompt in PROMPTS:
        request = Request(prompt=prompt, size=(128, 128), seed=0, steps=20, guidance=4.0, sampler="euler", count=2)
        images += to_images(drain(system.synthesize(request, system.Options(), Noise([0, 1]))))
    return sheet(images)


def unet_pocket() -> Recipe:
    """About 25 pictures a second on two AVX2 cores; many hours; figures in docs/lineage/stable_diffusion.md."""
    return Recipe(
        name="unet-pocket",
        about="latent diffusion U-Net of stable-diffusion-pocket, rectified flow over vae-pocket's latents",
        objective=_objective,
        feed=_feed,
        steps=100_000,
        batch=64,
        optimizer=Optimizer(kind="muon", lr=2e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=60),
        ema=0.999,
        every=Every(sample=1000, checkpoint=250),
        samples=_samples,
    )
