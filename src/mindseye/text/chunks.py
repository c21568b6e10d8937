"""Weighted text to the chunks of ids that a text encoder reads, and the weights back onto what it gives.

CLIP reads 77 ids. Longer prompts are cut into chunks of 75, each opened, closed and padded as a text of its own,
encoded alone and laid end to end: what AUTOMATIC1111's web interface does, and what most shared prompts count on. Three
details of it matter for getting the same picture:

    - every span is tokenized by itself, so `cat(s)` is two words;
    - a chunk that is full gives what follows its last comma to the next one, if that is 20 ids at most;
    - weights multiply what the encoder gives, token by token, and the whole chunk is then scaled back to the mean it
      had ("mean"), so that a weighted prompt is not a brighter one.

Where we deviate: embeddings are found by whole words of the text, the longest name first; the reference compares ids.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, TypeAlias, final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mindseye.errors import PromptError
from mindseye.text.attention_syntax import Break, Spans
from mindseye.text.tokenizer import Tokenizer

BACKTRACK: Final = 20
"""How many ids may go to the next chunk for the sake of a comma."""
PLACEHOLDER: Final = 0
"""The id where a vector will be put; whatever the encoder makes of it is replaced."""

Mode: TypeAlias = Literal["mean", "plain", "none"]
"""How weights act: with the mean restored, without, or not at all."""

_PIECES = re.compile(r"\w+|[^\w\s]|\s+")
_ESCAPED = re.compile(r"\\([()\[\]\\])")


@final
@dataclass(frozen=True)
class Insert:
    """A vector of an embedding in the place of a token.

    Attributes:
        chunk: Which chunk.
        position: Which id in it; 0 is the one that opens it.
        name: Of the embedding, as it was given.
        vector_index: Which of its vectors.
    """

    chunk: int
    position: int
    name: str
    vector_index: int


@final
@dataclass(frozen=True, eq=False)
class Chunks:
    """One text as K chunks of L ids.

    Attributes:
        ids: What the text encoder reads, a row a chunk: opening id, text, closing id, padding.
        weights: How much each counts; 1 for all that is not text.
        inserts: Where vectors go instead of ids, in order.
        blank: A chunk without text, to pad with.
    """

    ids: Int[Tensor, "K L"]
    weights: Float[Tensor, "K L"]
    inserts: tuple[Insert, ...]
    blank: Int[Tensor, "L"]

    @property
    def count(self) -> int:
        """K."""
        return len(self.ids)


def chunk(
    tokenizer: Tokenizer, spans: Spans, embeddings: Mapping[str, int] | None = None, *, backtrack: int = BACKTRACK
) -> Chunks:
    """Cuts weighted text into chunks.

    A plain text that fits into one has the ids of `Tokenizer.encode`.

    Args:
        tokenizer: Of the text encoder; its length is that of a chunk.
        spans: From `attention`.
        embeddings: How many vectors each embedding has, by name. A name in the text, in any case and as a whole word,
            stands for its vectors, and takes as many places.
        backtrack: How many ids may go to the next chunk to leave this one at a comma; 0 cuts where it is full.

    Raises:
        PromptError: An embedding has more vectors than a chunk has places.
    """
    names = _Names(embeddings or {}, tokenizer.length - 2)
    filling = _Filling(tokenizer, backtrack)
    texts: list[str | tuple[str, int] | None] = []
    weights: list[float] = []
    for span in spans:
        if isinstance(span, Break):
            texts.append(None)
            weights.append(1.0)
            continue
        for part in names.split(span.text):
            texts.append(part)
            weights.append(span.weight)
    found = iter(tokenizer.pieces([text for text in texts if isinstance(text, str)]))
    for text, weight in zip(texts, weights, strict=True):
        if text is None:
            filling.close()
        elif isinstance(text, str):
            filling.add(next(found), weight)
        else:
            filling.insert(*text, weight)
    return filling.done()


def called(prompt: str, names: Iterable[str]) -> set[str]:
    """Those of the names that stand in a prompt: in any case, as whole words, the longest first, as `chunk` has it."""
    text = _ESCAPED.sub(r"\1", prompt)
    return {part[0] for part in _Names(dict.fromkeys(names, 1), 1).split(text) if not isinstance(part, str)}


def pad_to(chunks: Chunks, count: int) -> Chunks:
    """The same followed by chunks without text, so that there are `count`; unchanged if there are as many already."""
    short = count - chunks.count
    if short <= 0:
        return chunks
    return replace(
        chunks,
        ids=torch.cat([chunks.ids, chunks.blank.expand(short, -1)]),
        weights=torch.cat([chunks.weights, torch.ones(short, chunks.weights.shape[1])]),
    )


def reweigh(
    tokens: Float[Tensor, "K L D"], weights: Float[Tensor, "K L"], mode: Mode = "mean"
) -> Float[Tensor, "K L D"]:
    """Lets weights act on what a text encoder made of chunks.

    Args:
        tokens: One vector an id, each chunk encoded by itself. With two encoders (Stable Diffusion XL), weigh what each
            gives before they are joined; pooled vectors are not weighed.
        weights: Of `Chunks`.
        mode: "mean" multiplies and scales each chunk so that the mean of all its numbers (L x D) is what it was
            (AUTOMATIC1111's "Original"), "plain" multiplies ("No norm"), "none" does nothing ("Ignore").

    Returns:
        Of the dtype of `tokens`; a chunk whose weights are all 1 is unchanged to the last bit.
    """
    if mode == "none" or bool((weights == 1).all()):
        return tokens
    exact = tokens.float()
    weighed = exact * weights.to(exact)[:, :, None]
    if mode == "mean":
        before, now = exact.mean(dim=(1, 2), keepdim=True), weighed.mean(dim=(1, 2), keepdim=True)
        # A mean of 0 cannot be scaled to another one.
        weighed = weighed * torch.where(now == 0, torch.ones_like(now), before / torch.where(now == 0, 1.0, now))
    return weighed.to(tokens.dtype)


class _Filling:
    """Chunks in the making."""

    def __init__(self, tokenizer: Tokenizer, backtrack: int) -> None:
        self.tokenizer, self.backtrack = tokenizer, backtrack
        self.room = tokenizer.length - 2
        self.rows: list[tuple[list[int], list[float]]] = []
        self.inserts: list[Insert] = []
        self._begin()

    def _begin(self) -> None:
        self.ids: list[int] = []
        self.weights: list[float] = []
        self.comma = -1  # where the last one stands

    def close(self) -> None:
        """Ends the chunk, however full."""
        self.rows.append((self.ids, self.weights))
        self._begin()

    def add(self, ids: list[int], weight: float) -> None:
        """Adds ids, a new chunk wherever one is full."""
        for token in ids:
            if token == self.tokenizer.comma:
                self._make_room(may_move=False)
                self.comma = len(self.ids)
            else:
                self._make_room()
            self.ids.append(token)
            self.weights.append(weight)

    def insert(self, name: str, count: int, weight: float) -> None:
        """Adds the vectors of an embedding; they stay together."""
        self._make_room()
        if len(self.ids) + count > self.room:
            self.close()
        for vector in range(count):
            self.inserts.append(Insert(len(self.rows), len(self.ids) + 1, name, vector))
            self.ids.append(PLACEHOLDER)
            self.weights.append(weight)

    def _make_room(self, may_move: bool = True) -> None:
        """Begins a new chunk if this one is full, with what follows the last comma if that is not far back."""
        if len(self.ids) < self.room:
            return
        kept = self.comma + 1
        if not may_move or self.comma < 0 or not 0 <= len(self.ids) - self.comma <= self.backtrack:
            self.close()
            return
        ids, weights = self.ids[kept:], self.weights[kept:]
        del self.ids[kept:], self.weights[kept:]
        here = len(self.rows)
        for index in range(len(self.inserts) - 1, -1, -1):
            insert = self.inserts[index]
            if insert.chunk != here or insert.position <= kept:
                break
            self.inserts[index] = replace(insert, chunk=here + 1, position=insert.position - kept)
        self.close()
        self.ids, self.weights = ids, weights

    def done(self) -> Chunks:
        """Opens, closes and pads them all."""
        if self.ids or not self.rows:
            self.close()
        tokenizer, length = self.tokenizer, self.tokenizer.length
        ids = torch.full((len(self.rows), length), tokenizer.pad, dtype=torch.long)
        weights = torch.ones(len(self.rows), length)
        for row, (own, theirs) in enumerate(self.rows):
            ids[row, : len(own) + 2] = torch.tensor([tokenizer.sot, *own, tokenizer.eot])
            weights[row, 1 : len(own) + 1] = torch.tensor(theirs)
        blank = torch.full((length,), tokenizer.pad, dtype=torch.long)
        blank[:2] = torch.tensor([tokenizer.sot, tokenizer.eot])
        return Chunks(ids, weights, tuple(self.inserts), blank)


class _Names:
    """Finds names in a text, the longest first: a tree of the words and signs that they are made of."""

    def __init__(self, embeddings: Mapping[str, int], room: int) -> None:
        self.tree: dict[str | None, Any] = {}
        for name, count in embeddings.items():
            if count > room:
                raise PromptError(
                    f"the embedding {name!r} has {count} vectors, but a chunk of this text encoder has {room} places"
                )
            node = self.tree
            for piece in _PIECES.findall(name.lower()):
                node = node.setdefault(piece, {})
            if node is not self.tree:
                node[None] = (name, count)

    def split(self, text: str) -> list[str | tuple[str, int]]:
        """Text, (name, vectors) and text by turns."""
        if not self.tree:
            return [text]
        pieces = _PIECES.findall(text)
        parts: list[str | tuple[str, int]] = []
        begun = index = 0
        while index < len(pieces):
            node, longest, end, after = self.tree, None, index, index
            while after < len(pieces) and (child := node.get(pieces[after].lower())) is not None:
                node, after = child, after + 1
                if None in node:
                    longest, end = node[None], after
            if longest is None:
                index += 1
                continue
            if begun < index:
                parts.append("".join(pieces[begun:index]))
            parts.append(longest)
            begun = index = end
        if begun < len(pieces):
            parts.append("".join(pieces[begun:]))
        return parts
