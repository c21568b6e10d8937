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

from mindseye.data.rendered import Rendered, render_examples
from mindseye.diffusion.denoiser import pooled_vector
from mindseye.diffusion.objective import LatentDiffusion
from mindseye.diffusion.schedule import RectifiedFlow
from mindseye.networks.clip import CLIP
from mindseye.networks.unet import POCKET, UNet
from mindseye.networks.vae import AutoencoderKL
from mindseye.objective import Batch
from mindseye.request import Request, Steps
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.vae import PICTURES

__all__ = ["PROMPTS", "unet_pocket"]

LENGTH = 32
"""Tokens that the U-Net reads: the corpus' longest caption has 30."""
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
    """Latents with the encodings of their captions."""

    def __init__(
        self,
        latents: NDArray[np.float16],
        tokens: NDArray[np.float16],
        vectors: NDArray[np.float16],
        caption: NDArray[np.int64],
        seed: int = 0,
    ) -> None:
        self.latents = latents
        self.tokens = tokens
        self.vectors = vectors
        self.caption = caption
        self.seed = seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"latents": B C h w, "tokens": B L D, "vector": B V}``."""
        rows = np.sort(order(step, size, len(self.latents), self.seed))
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
    rendered: Rendered = yield from render_examples(workshop.corpus, PICTURES)
    vae: AutoencoderKL = workshop.parts("vae-pocket")
    clip: CLIP = workshop.parts("clip-pocket")
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)
    folder = workshop.corpus / "encodings"
    folder.mkdir(exist_ok=True)

    def to_latents(start: int, stop: int) -> Tensor:
        return vae.encode(to_pixels(rendered.pictures[start:stop]))

    seen = fingerprint(workshop.part_files("vae-pocket"))
    latents = yield from encode_all(
        folder / f"latents-{PICTURES}-{seen}.npy", len(rendered), to_latents, stage="encode pictures"
    )
    captions, where = distinct(rendered.captions)
    read = fingerprint(workshop.part_files("clip-pocket"), workshop.part_files("bpe-pocket"))
    tokens = yield from encode_all(
        folder / f"tokens-{PICTURES}-{read}.npy",
        len(captions),
        lambda start, stop: encode_text(clip, tokenizer, captions[start:stop])[0],
        stage="encode captions",
    )
    vectors = yield from encode_all(
        folder / f"vectors-{PICTURES}-{read}.npy",
        len(captions),
        lambda start, stop: encode_text(clip, tokenizer, captions[start:stop])[1],
        stage="encode captions",
    )
    return EncodedFeed(latents, tokens, vectors, where)


def _objective(workshop: Workshop) -> LatentDiffusion:
    clip: CLIP = workshop.parts("clip-pocket")
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)
    with torch.no_grad():
        tokens, vector = encode_text(clip, tokenizer, [""])
    unet = UNet(POCKET).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    return LatentDiffusion(unet, RectifiedFlow(), "flow", null_tokens=tokens, null_vector=vector, levels="logit-normal")


def _samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    from PIL import Image

    from mindseye.noise import Noise
    from mindseye.pixels import to_images
    from mindseye.systems.stable_diffusion import StableDiffusion

    clip: CLIP = workshop.parts("clip-pocket")
    system = StableDiffusion(
        unet=next(iter(parts.values())),
        codec=workshop.parts("vae-pocket"),
        text=clip,
        tokenizer=Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH),
        prediction="flow",
    )
    sheet = Image.new("RGB", (8 * 128, 2 * 128 * 2))
    for i, prompt in enumerate(PROMPTS):
        request = Request(prompt=prompt, size=(128, 128), seed=0, steps=20, guidance=4.0, sampler="euler", count=2)
        steps = system.synthesize(request, system.Options(), Noise([0, 1]))
        try:
            while True:
                next(steps)
        except StopIteration as stop:
            for k, image in enumerate(to_images(stop.value)):
                sheet.paste(image, ((i % 8) * 128, ((i // 8) * 2 + k) * 128))
    return sheet


def unet_pocket() -> Recipe:
    """About 80 pictures a second on two cores; at least four hours; figures in docs/lineage/stable_diffusion.md."""
    return Recipe(
        name="unet-pocket",
        about="latent diffusion U-Net of stable-diffusion-pocket, rectified flow over vae-pocket's latents",
        objective=_objective,
        feed=_feed,
        steps=100_000,
        batch=64,
        optimizer=Optimizer(kind="muon", lr=1e-3, betas=(0.9, 0.99), weight_decay=0.01, warmup=300),
        ema=0.999,
        every=Every(sample=2000, checkpoint=500),
        samples=_samples,
    )
