"""NUWA (Wu et al. 2021, arXiv:2111.12417): pictures and clips as one grid of frames, rows and columns of tokens.

An encoder reads the text, a decoder writes a VQGAN's tokens; a picture is a clip of one frame. What is special is that
a place sees of what is written only its neighbourhood in time and space (3D nearby attention, `mindseye.nn.nearby`), so
that a clip costs in proportion to its length. The text is a grid of its own, one row of tokens, which every place sees
whole.

No weights and no code were published. Read from the paper are the attention, the places by frame, row and column, and
the sizes where it gives them: 870 million parameters, which 12 blocks that read and 24 that write have at a width of
1,280. Chosen here: what the neighbourhood is while the grid is being written (see `mindseye.nn.nearby`), an extent of 3
as 3 places to either side, and that sketches and given videos are not read as conditions; a given beginning of the grid
is simply its beginning.
"""

from dataclasses import dataclass
from typing import final

from jaxtyping import Float, Int
from torch import Tensor, nn

from mindseye.networks.parti import POCKET_TEXT, Text
from mindseye.nn.raster import RasterDecoder, Writing
from mindseye.shapes import Ids

__all__ = ["NUWA", "NUWA_870M", "POCKET", "Config"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Shape of a `NUWA`.

    Attributes:
        text: The encoder.
        codes: Size of the pictures' vocabulary.
        grid: Most frames, and the rows and columns of a frame's tokens.
        reach: How many frames, rows and columns away the decoder's self-attention sees.
        width: Channels, of both halves.
        layers: Blocks of the decoder.
        heads: Attention heads, of both halves.
        hidden: Channels inside the perceptrons, of both halves.
    """

    text: Text
    codes: int
    grid: tuple[int, int, int]
    reach: tuple[int, int, int] = (3, 3, 3)
    width: int
    layers: int
    heads: int
    hidden: int


NUWA_870M = Config(
    text=Text(vocabulary=49_408, length=77),
    codes=12_288,
    grid=(10, 21, 21),
    width=1280,
    layers=24,
    heads=20,
    hidden=5120,
)
"""Pictures of 336 x 336, clips of ten frames."""

POCKET = Config(
    text=POCKET_TEXT,
    codes=1024,
    grid=(4, 8, 8),
    width=192,
    layers=5,
    heads=6,
    hidden=512,
)
"""Over the pocket VQGAN's tokens: clips of four frames of 64 x 64, as many tokens as a picture of 128 x 128."""


@final
class NUWA(nn.Module):
    """Text to the tokens of a picture or a clip.

    `frames` gives a view of it that satisfies `mindseye.autoregression.TokenModel`.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        sizes = {"width": config.width, "heads": config.heads, "hidden": config.hidden}
        self.reader = config.text.encoder(**sizes)
        self.writer = RasterDecoder(config.codes, config.grid, config.reach, layers=config.layers, **sizes)

    def forward(self, text: Ids, ids: Int[Tensor, "B N"]) -> tuple[None, Float[Tensor, "B N K"]]:
        """Nothing of the text, and logits of each token from the text and the tokens before it.

        Args:
            text: Ids, padded with ``config.text.pad``.
            ids: The first N tokens, frame by frame and row by row.

        Raises:
            ValueError: More of either than the network has room for.
        """
        return None, self.writer(ids, *self.reader(text))

    def frames(self, count: int) -> "Clip":
        """The network as a writer of clips of so many frames.

        Raises:
            ValueError: More frames than it was made for, or none.
        """
        return Clip(self, count)


@final
@dataclass(frozen=True, eq=False)
class Clip:
    """A writer of clips; of pictures, where there is one frame.

    Attributes:
        network: What writes.
        frames: How many.
    """

    network: NUWA
    frames: int

    def __post_init__(self) -> None:
        most = self.network.config.grid[0]
        if not 1 <= self.frames <= most:
            raise ValueError(f"a clip has 1 to {most} frames, not {self.frames}")

    @property
    def length(self) -> int:
        """Tokens of a clip."""
        _, rows, columns = self.network.config.grid
        return self.frames * rows * columns

    @property
    def codes(self) -> int:
        """Different tokens."""
        return self.network.config.codes

    def start(self, text: Ids) -> Writing:
        """Read the text and begin clips."""
        return self.network.writer.begin(*self.network.reader(text), length=self.length)

    def next(self, ids: Int[Tensor, "B"] | None, state: Writing) -> Float[Tensor, "B K"]:
        """Logits of the next token.

        Args:
            ids: The tokens just written; None before the first.
            state: Of `start`; goes one token further.
        """
        return self.network.writer.step(ids, state)

    def read(self, ids: Int[Tensor, "B P"], state: Writing) -> Float[Tensor, "B K"]:
        """As `next` with each of the first P tokens in turn, in one call."""
        return self.network.writer.read(ids, state)
