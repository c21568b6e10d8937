"""What recipes of networks that write tokens share: captions and pictures as ids, the loss, the figures and the sheet.

Next-token cross-entropy over the ids of a frozen codec, which are made once and cached, so that a step costs what the
network costs. One caption in ten is replaced by none, so that guidance has something to leave.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import torch

from mindseye.autoregression import NextToken
from mindseye.networks.clip import CLIP
from mindseye.nn.text_encoder import TextEncoder
from mindseye.noise import Noise
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Request, Scalar, Steps, drain
from mindseye.shapes import Ids
from mindseye.systems.writing import Spelling
from mindseye.text.plain_tokenizer import PlainTokenizer
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.tokens import Read, gather_tokens, token_scores

__all__ = ["CODEC", "WORDS", "Writing", "read_as"]

CODEC: Final = "vqgan-pocket"
"""Whose tokens are written; vit-vqgan-pocket has as many, of as many codes."""
WORDS: Final = 32
"""Ids of a caption: the corpus' longest has 30."""


@torch.no_grad()
def read_as(reader: TextEncoder, clip: CLIP) -> None:
    """Make a reader begin as a CLIP's text tower, which knows by which words pictures are told apart.

    Parti's encoder was warmed up on texts, and on pairs of text and picture, before it met a decoder. A CLIP's tower
    hides later words from earlier ones; the reader sees them all, and soon learns to.

    Raises:
        RuntimeError: They are of different shapes.
    """
    tower = clip.text_tower
    reader.embedding.load_state_dict(tower.embedding.state_dict())
    reader.positions.copy_(tower.positions[: reader.length])
    reader.stack.load_state_dict(tower.stack.state_dict())
    reader.norm.load_state_dict(tower.final_norm.state_dict())


@dataclass(frozen=True, kw_only=True)
class Writing:
    """A network that is taught to write pictures, and how it is looked at.

    Attributes:
        name: Of the part that it becomes.
        network: From what spells captions to the network.
        system: From network, codec and tokenizer to what draws with them.
        plain: Whether captions are neither opened nor closed.
        shrink: How many times smaller pictures are made before they are encoded.
        guidance: Of the pictures on the sheet.
        knobs: Of the same.
        warm: Whether the network's ``reader`` begins as clip-pocket's text tower.
    """

    name: str
    network: Callable[[Spelling], Any]
    system: Callable[..., Any]
    plain: bool = False
    shrink: int = 1
    guidance: float = 3.0
    knobs: Mapping[str, Scalar] = field(default_factory=dict)
    warm: bool = False

    def spelling(self, workshop: Workshop) -> Spelling:
        """The pocket tokenizer."""
        whole = Tokenizer.from_file(workshop.part_files("bpe-pocket"), WORDS)
        return PlainTokenizer.of(whole, WORDS) if self.plain else whole

    def read(self, workshop: Workshop) -> Read:
        """From texts to ids, what is too long left out."""
        spelling = self.spelling(workshop)

        def read(texts: Sequence[str]) -> Ids:
            return spelling.encode(texts)[0]

        return read

    def feed(self, workshop: Workshop) -> Steps[Feed]:
        """Training pictures and their captions."""
        return (yield from gather_tokens(workshop, CODEC, self.read(workshop), shrink=self.shrink))

    def objective(self, workshop: Workshop) -> NextToken:
        """The untrained network and its loss."""
        null_text = self.spelling(workshop).encode([""])[0]
        return NextToken(self.untrained(workshop), name=self.name, null_text=null_text, drop=0.1)

    def untrained(self, workshop: Workshop) -> Any:
        """The network as it begins."""
        network = self.network(self.spelling(workshop))
        if self.warm:
            read_as(network.reader, workshop.parts("clip-pocket"))
        return network

    def scores(self, workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
        """Held-out loss in bits a token, and what the text is worth of it."""
        return token_scores(workshop, parts[self.name], CODEC, self.read(workshop), shrink=self.shrink)

    def samples(self, workshop: Workshop, parts: Mapping[str, Any]) -> Any:
        """Two pictures of each prompt."""
        system = self.drawer(workshop, parts)
        return sheet([image for prompt in PROMPTS for image in self.drawn(system, prompt, 2)])

    def drawer(self, workshop: Workshop, parts: Mapping[str, Any]) -> Any:
        """The system, with the network as far as it is trained."""
        return self.system(network=parts[self.name], codec=workshop.parts(CODEC), tokenizer=self.spelling(workshop))

    def drawn(
        self, system: Any, prompt: str, count: int = 1, size: tuple[int, int] | None = None, **knobs: Scalar
    ) -> Sequence[Any]:
        """Pictures of a prompt.

        Args:
            system: Of `drawer`.
            prompt: What to draw.
            count: How many; their seeds are 0, 1 ...
            size: Width and height; the system's own when None.
            knobs: Besides those that it always has.
        """
        request = Request(prompt=prompt, size=size or system.native, seed=0, steps=1, guidance=self.guidance)
        options = system.Options(**{**self.knobs, **knobs})
        return to_images(drain(system.synthesize(request, options, Noise(list(range(count))))))

    def recipe(self, about: str, *, steps: int, optimizer: Optimizer, ema: float = 0.998) -> Recipe:
        """The recipe; whoever trains otherwise replaces its functions."""
        return Recipe(
            name=self.name,
            about=about,
            objective=self.objective,
            feed=self.feed,
            steps=steps,
            batch=16,
            optimizer=optimizer,
            ema=ema,
            every=Every(sample=1000, checkpoint=250),
            samples=self.samples,
            scores=self.scores,
        )
