"""From words to what a diffusion network is told: the text encoders of a system, read as their release reads them.

============  =====================================================  ==========================
system        tokens                                                 vector
============  =====================================================  ==========================
SD 1          CLIP-L, last block, final LayerNorm                    none
SD 2          OpenCLIP-H, last block but one, final LayerNorm        none
SD XL         CLIP-L beside OpenCLIP-bigG, last but one, no norm     bigG's pooled text, six sizes
XL refiner    OpenCLIP-bigG, last but one, no norm                   pooled text, four sizes, aesthetic score
LDM 2022      BERT                                                   none
pocket        the pocket CLIP, last block, final LayerNorm           its pooled text, at unit mean square
============  =====================================================  ==========================

SD 2's tower is loaded without its last block, which nothing reads, so that its last block is the last but one.

Texts longer than an encoder's window are read in chunks whose tokens stand one after the other, as AUTOMATIC1111's web
UI does it; weights in a text multiply its tokens afterwards. The pooled vector is the first chunk's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from mindseye.diffusion.denoiser import Conditioning, pooled_vector
from mindseye.networks.clip import CLIP, Inserts
from mindseye.nn.embeddings import sinusoidal
from mindseye.text.chunks import Chunks, Mode, chunk, pad_to, reweigh
from mindseye.text.prompt import Span, attention
from mindseye.text.tokenizer import Tokenizer

__all__ = ["Reader", "Tower", "Vector", "Words"]

Vector: TypeAlias = Literal["none", "pooled", "sizes", "aesthetic"]
"""What goes into the vector, by the last column of the module's table."""

Words: TypeAlias = Mapping[str, Mapping[str, Float[Tensor, "K D"]]]
"""Learned words: name -> field of the system that holds the tower ("text", "text_2") -> vectors."""

_SIZE_WIDTH = 256
_AESTHETIC = (6.0, 2.5)
"""The score a prompt asks for, and the one the negative prompt stands for; the release's defaults."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Tower:
    """One text encoder, and how it is read.

    Attributes:
        name: Field of the system: "text" or "text_2".
        network: CLIP, or any network with `text(ids) -> (tokens, pooled or None)`, as BERT.
        tokenizer: Its tokenizer.
        skip: Blocks left out at the end.
        final_norm: Whether tokens pass the final LayerNorm.
    """

    name: str
    network: Any
    tokenizer: Any
    skip: int = 0
    final_norm: bool = True

    @property
    def width(self) -> int:
        """Channels of its tokens."""
        return self.network.config.text.width if isinstance(self.network, CLIP) else self.network.config.width

    def chunks(self, text: str, emphasis: Mode, words: Words) -> Chunks:
        """The text as token chunks of the encoder's window."""
        if not isinstance(self.tokenizer, Tokenizer):  # BERT's has one window, and the release cut what was longer
            ids, _ = self.tokenizer.encode([text])
            return Chunks(ids, torch.ones(ids.shape), (), blank=ids[0])
        spans = (Span(text, 1.0),) if emphasis == "none" else attention(text)
        known = {name: len(vectors[self.name]) for name, vectors in words.items() if self.name in vectors}
        return chunk(self.tokenizer, spans, known)

    @torch.no_grad()
    def read(
        self, chunks: Chunks, *, emphasis: Mode, skip: int, words: Words, like: Tensor
    ) -> tuple[Float[Tensor, "1 KL D"], Float[Tensor, "1 E"] | None]:
        """Tokens of all chunks in a row, weighed; and the pooled vector of the first chunk."""
        ids = chunks.ids.to(like.device)
        if isinstance(self.network, CLIP):
            inserts = None
            if chunks.inserts:
                inserts = Inserts(
                    rows=torch.tensor([each.chunk for each in chunks.inserts], device=ids.device),
                    places=torch.tensor([each.position for each in chunks.inserts], device=ids.device),
                    vectors=torch.stack([words[i.name][self.name][i.vector_index] for i in chunks.inserts]).to(like),
                )
            tokens, pooled = self.network.text(
                ids, skip=max(skip, self.skip), final_norm=self.final_norm, inserts=inserts
            )
        else:
            tokens, pooled = self.network.text(ids)
        weights = chunks.weights.to(tokens)
        if bool((weights != 1).any()):
            tokens = reweigh(tokens, weights, emphasis)
        return tokens.flatten(0, 1)[None], None if pooled is None else pooled[:1]


@dataclass(frozen=True, kw_only=True, eq=False)
class Reader:
    """All encoders of a system, for one run.

    Attributes:
        towers: One or two; their tokens stand side by side in the channels.
        vector: What the network takes as its vector.
        silent: Whether an empty negative text is told as zeros (XL base) instead of being read.
        like: A weight of the diffusion network: device and dtype of the answer.
        size: Height and width of the picture.
        emphasis: How weights in the text count; "none" reads brackets as text.
        clip_skip: The layer that is read, counted from the end; 1 is the release's own choice.
        words: Learned words.
    """

    towers: Sequence[Tower]
    vector: Vector
    silent: bool
    like: Tensor
    size: tuple[int, int]
    emphasis: Mode = "mean"
    clip_skip: int = 1
    words: Words = field(default_factory=dict)

    def read(self, texts: Sequence[str], negatives: Sequence[str]) -> dict[tuple[bool, str], Conditioning]:
        """Every text's conditioning, of one row; all are equally long.

        Args:
            texts: What to go towards.
            negatives: What to go away from.

        Returns:
            By (whether it is negative, text).
        """
        wanted = [*((False, text) for text in dict.fromkeys(texts)), *((True, t) for t in dict.fromkeys(negatives))]
        cut = {
            text: [tower.chunks(text, self.emphasis, self.words) for tower in self.towers]
            for text in dict.fromkeys(text for _, text in wanted)
        }
        longest = max(chunks.count for each in cut.values() for chunks in each)
        return {key: self._told(key, [pad_to(chunks, longest) for chunks in cut[key[1]]]) for key in wanted}

    def _told(self, key: tuple[bool, str], chunks: Sequence[Chunks]) -> Conditioning:
        """One text through all towers."""
        negative, text = key
        read = [
            tower.read(each, emphasis=self.emphasis, skip=self.clip_skip - 1, words=self.words, like=self.like)
            for tower, each in zip(self.towers, chunks, strict=True)
        ]
        tokens = torch.cat([each for each, _ in read], dim=-1).to(self.like.dtype)
        pooled = read[-1][1]
        if self.silent and negative and not text.strip():
            tokens = torch.zeros_like(tokens)
            pooled = None if pooled is None else torch.zeros_like(pooled)
        return Conditioning(tokens=tokens, vector=self._vector(pooled, negative))

    def _vector(self, pooled: Float[Tensor, "1 E"] | None, negative: bool) -> Float[Tensor, "1 V"] | None:
        """What the network takes beside the tokens."""
        if self.vector == "none":
            return None
        if pooled is None:
            raise ValueError("this system's network takes a pooled text, and its text encoder has none")
        if self.vector == "pooled":
            return pooled_vector(pooled).to(self.like.dtype)
        height, width = map(float, self.size)
        if self.vector == "sizes":  # original size, crop, size now
            numbers = (height, width, 0.0, 0.0, height, width)
        else:
            numbers = (height, width, 0.0, 0.0, _AESTHETIC[negative])
        sizes = sinusoidal(torch.tensor(numbers, device=self.like.device), _SIZE_WIDTH).flatten()[None]
        return torch.cat([pooled.to(sizes.dtype), sizes], dim=-1).to(self.like.dtype)
