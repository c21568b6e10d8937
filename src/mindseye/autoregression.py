"""Pictures as sentences: a model says which code comes next, one is drawn, and it is asked again.

DALL-E (Ramesh et al. 2021, arXiv:2102.12092) writes a picture as 1,024 integers after its caption; minDALL-E, DALL-E
mini, Parti and NUWA differ in the network, not in this loop. A `TokenModel` reads the text once, keeps what it needs in
a state of its own, and answers one token a call. The loop owns everything else: guidance, filters, randomness, going on
from tokens that are given, and pictures to look at on the way.

- Randomness belongs to pictures: of each, one number a token is drawn beforehand, and a token is the place where that
  number falls in the distribution (the inverse of its cumulative sum). Seed n writes the same alone and in a batch, and
  a run that is resumed goes on as it would have; but for sums that round otherwise with another number of rows, whereby
  a number on the very border of two codes' shares may find the other.
- Guidance is ``null + s (cond - null)`` of the logits, both in one call of twice the rows, each row with a cache of its
  own. A model may leave out more than the text where it is told none (`Forgetful`).
- Filters come in minDALL-E's order: temperature, top-k, softmax, top-p. Ties at the k-th place are kept, as minDALL-E
  and min-dalle do (DALLE-pytorch keeps exactly k); top-p keeps the token that crosses it, so one is always left.
- Weights are laid out anew for as long as the loop runs (`mindseye.nn.packed`), whoever the model is.
- Pictures of one text share the reading of it: its state is made once, and its rows are then repeated.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Any, Protocol, TypeVar, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import Parameter
from torch.nn import functional as F

from mindseye.errors import WeightsError
from mindseye.nn.packed import packed
from mindseye.noise import Noise
from mindseye.objective import Batch, Loss, Objective
from mindseye.pixels import to_images
from mindseye.request import Progress, Steps
from mindseye.shapes import Ids, Pixels

__all__ = [
    "Forgetful",
    "NextToken",
    "Predictor",
    "Reader",
    "State",
    "TokenModel",
    "bits",
    "choose",
    "guided",
    "probabilities",
    "sample",
    "top_share",
]

S = TypeVar("S", bound="State")


@runtime_checkable
class State(Protocol):
    """What a model remembers of sequences that are being written; changed in place by `TokenModel.next`."""

    @property
    def written(self) -> int:
        """Image tokens that were read so far."""
        ...

    def select(self: S, rows: Int[Tensor, "R"]) -> S:
        """A state of these rows, each as often as it is named, that shares nothing which is written to."""
        ...


@runtime_checkable
class TokenModel(Protocol):
    """A network that continues a text with the codes of a picture."""

    @property
    def length(self) -> int:
        """Image tokens to write."""
        ...

    @property
    def codes(self) -> int:
        """Size of the image vocabulary."""
        ...

    def start(self, text: Int[Tensor, "B L"]) -> Any:
        """Read the text. Returns a `State` of one row a text."""
        ...

    def next(self, ids: Int[Tensor, "B"] | None, state: Any) -> Float[Tensor, "B K"]:
        """Read one token a row, and say how likely each code is to come next.

        Args:
            ids: What was drawn last; None before the first.
            state: From `start`.

        Returns:
            Logits.
        """
        ...


@runtime_checkable
class Reader(Protocol):
    """A `TokenModel` that reads many tokens in one call, where a picture is begun with given ones."""

    def read(self, ids: Int[Tensor, "B P"], state: Any) -> Float[Tensor, "B K"]:
        """As `TokenModel.next` with each of ``ids`` in turn, from the first token on; the last one's logits."""
        ...


@runtime_checkable
class Forgetful(Protocol):
    """A `TokenModel` that, where it is told no text, leaves out something else too, so that guidance leads to it."""

    def forget(self, untold: Bool[Tensor, "B"], state: Any) -> None:
        """Called once, before the first token, and only where there is guidance.

        Args:
            untold: Of each row, whether it stands for no text.
            state: From `TokenModel.start`.
        """
        ...


@torch.no_grad()
def sample(
    model: TokenModel,
    text: Int[Tensor, "T L"],
    null_text: Int[Tensor, "1 L"] | None,
    noise: Noise,
    *,
    guidance: float = 1.0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    prime: Int[Tensor, "#B P"] | None = None,
    look: Callable[[Ids], Pixels] | None = None,
    stage: str = "write",
) -> Steps[Int[Tensor, "B N"]]:
    """Write one picture a seed.

    Args:
        model: What writes.
        text: One row for all pictures, or one a picture.
        null_text: What stands for no text; needed where ``guidance`` is not 1.
        noise: One seed a picture; one number a token is drawn from it.
        guidance: 1 = the text alone, 0 = no text, more = away from no text.
        temperature: Logits are divided by it; 0 = the likeliest code, always.
        top_k: Draw from so many of the likeliest codes, and those that tie with the last; 0 = all.
        top_p: Draw from the likeliest codes that together reach this probability; 1 = all.
        prime: The first tokens of the pictures, of one for all or of each, as they were written before or taken from a
            picture: the loop goes on after them.
        look: From complete ids to pictures, for previews; what is not written yet is shown as the code that is
            likeliest to come next.
        stage: What the user is told is going on.

    Returns:
        Codes of each picture in the order they were written, N = ``model.length``.

    Raises:
        ValueError: Guidance without ``null_text``; neither one text nor as many as seeds; too many given tokens.
        WeightsError: The model gave numbers that are not finite.
    """
    count, length, device = len(noise.seeds), model.length, text.device
    if len(text) not in (1, count):
        raise ValueError(f"{len(text)} texts for {count} pictures")
    told = 0 if prime is None else prime.shape[1]
    if told > length:
        raise ValueError(f"{told} tokens are given of a picture of {length}")
    uniforms = noise.uniform(length).to(device)
    ids = torch.zeros(count, length, dtype=torch.long, device=device)
    if prime is not None:
        ids[:, :told] = prime.to(device)
    if told == length:
        return ids
    pair = guidance != 1
    if pair:
        if null_text is None:
            raise ValueError("guidance needs a text that stands for none")
        text = torch.cat([text, null_text.to(device)])
    rows = torch.arange(count, device=device) if len(text) - pair == count else ids.new_zeros(count)
    rows = torch.cat([rows, ids.new_full((count,), len(text) - 1)]) if pair else rows
    network = model if isinstance(model, nn.Module) else getattr(model, "network", None)
    with packed(network) if isinstance(network, nn.Module) else nullcontext():
        state = model.start(text)
        if pair and isinstance(model, Forgetful):
            model.forget(torch.arange(len(text), device=device) == len(text) - 1, state)
        if prime is None or not told:
            logits = model.next(None, state)[rows]
            state = _spread(state, rows, len(text))
        elif len(prime) == 1:
            logits = _read(model, ids[:1, :told].expand(len(text), -1), state)[rows]
            state = _spread(state, rows, len(text))
        else:
            state = _spread(state, rows, len(text))
            logits = _read(model, ids[:, :told].repeat(1 + pair, 1), state)
        for place in range(told, length):
            if place > told:
                last = ids[:, place - 1]
                logits = model.next(last.repeat(2) if pair else last, state)
            likely = guided(logits, guidance) if pair else logits.float()
            ids[:, place] = choose(probabilities(likely, temperature, top_k, top_p), uniforms[:, place])
            yield Progress(stage, place + 1, length, partial(_show, look, ids, place + 1, likely))
    return ids


def guided(logits: Float[Tensor, "R K"], guidance: float) -> Float[Tensor, "B K"]:
    """``null + s (cond - null)`` of logits whose first half was told the text and whose second half was not."""
    told, untold = logits.float().chunk(2)
    return torch.lerp(untold, told, guidance)


def probabilities(
    logits: Float[Tensor, "B K"], temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Tensor, "B K"]:
    """What is drawn from: temperature, then top-k, then softmax, then top-p.

    Args:
        logits: Of every code.
        temperature: Divides them; 0 leaves the likeliest code alone.
        top_k: Codes below the k-th likeliest go; those that tie with it stay. 0 = none goes.
        top_p: The likeliest codes stay up to the one whose probability reaches this sum. 1 = all stay.

    Returns:
        Not normalised where ``top_p`` takes codes away: `choose` does not need it.
    """
    if temperature <= 0:
        return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
    if temperature != 1:
        logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, -math.inf)
    likely = logits.softmax(-1)
    if top_p < 1:
        falling, order = likely.sort(descending=True, stable=True)
        before = falling.cumsum(-1) - falling
        # The first always stays: nothing comes before it, and rounding must not say otherwise.
        gone = (before >= top_p).index_fill(-1, order.new_zeros(1), False)
        likely = likely.masked_fill(torch.zeros_like(gone).scatter(-1, order, gone), 0)
    return likely


def choose(likely: Float[Tensor, "B K"], uniforms: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The code in whose share of [0, 1) each number falls; never one of probability 0.

    Args:
        likely: Probabilities, up to a factor.
        uniforms: In [0, 1).

    Raises:
        WeightsError: They are not finite.
    """
    reached = likely.double().cumsum(-1)
    total = reached[:, -1:]
    if not bool(torch.isfinite(total).all()):
        raise WeightsError(
            "the network gave numbers that are not finite", hint="its weights are damaged, or --guidance is too high"
        )
    found = torch.searchsorted(reached, uniforms[:, None].double() * total, right=True)[:, 0]
    return found.clamp(max=likely.shape[-1] - 1)


def top_share(threshold: float, vocabulary: int) -> int:
    """The ``top_k`` that DALLE-pytorch's ``filter_thres`` means: a share of the *whole* vocabulary, text included.

    Args:
        threshold: 0.9 keeps a tenth.
        vocabulary: Text and image codes together.
    """
    return max(int((1 - threshold) * vocabulary), 1)


def _spread(state: State, rows: Int[Tensor, "R"], have: int) -> State:
    """The state with these rows; itself where that changes nothing."""
    return state if rows.tolist() == list(range(have)) else state.select(rows)


def _read(model: TokenModel, ids: Int[Tensor, "B P"], state: State) -> Float[Tensor, "B K"]:
    """Read given tokens, in one call where the model can."""
    if isinstance(model, Reader):
        return model.read(ids, state)
    logits = model.next(None, state)
    for column in ids.unbind(1):
        logits = model.next(column, state)
    return logits


def _show(look: Callable[[Ids], Pixels] | None, ids: Ids, written: int, logits: Float[Tensor, "B K"]) -> tuple:
    """The picture as far as it is written, the rest in the code that was likeliest when it was."""
    if look is None:
        return ()
    with torch.no_grad():
        rest = logits.argmax(-1, keepdim=True).expand(-1, ids.shape[1] - written)
        return to_images(look(torch.cat([ids[:, :written], rest], 1)))


@runtime_checkable
class Predictor(Protocol):
    """What `NextToken` trains."""

    def __call__(
        self, text: Int[Tensor, "B L"], ids: Int[Tensor, "B N"]
    ) -> tuple[Float[Tensor, "B T V"] | None, Float[Tensor, "B N K"]]:
        """Logits of text tokens, each from those before it, and of image tokens, each from the text and those before.

        A network that does not predict its text gives None. One that does has a method ``targets(text)``, ``B T``: the
        ids that its text logits are about.
        """
        ...


@final
class NextToken(Objective):
    """Trains a network to continue texts with pictures, and texts with themselves: cross-entropy of each next token.

    Batches hold ``text`` (``B L``) and ``ids`` (``B N``).

    Args:
        network: A `Predictor` module.
        name: Of the part that it becomes.
        text_weight: What the mean loss of a text token counts.
        image_weight: What the mean loss of an image token counts; DALL-E has 1 : 7. The two are normalised to sum to 1,
            and a network that does not predict its text is trained on the picture alone.
        null_text: What stands for no text, ``1 L``.
        drop: Share of pictures whose text is replaced by that, so that guidance has something to leave.
        smoothing: Share of the target that is spread over all codes.
    """

    null_text: Tensor | None

    def __init__(
        self,
        network: nn.Module,
        *,
        name: str,
        text_weight: float = 1.0,
        image_weight: float = 7.0,
        null_text: Int[Tensor, "1 L"] | None = None,
        drop: float = 0.1,
        smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.text_weight, self.image_weight = text_weight, image_weight
        self.register_buffer("null_text", null_text, persistent=False)
        self.drop, self.smoothing = drop, smoothing

    def turns(self) -> Mapping[str, Iterable[Parameter]]:
        """One turn: "main"."""
        return {"main": self.network.parameters()}

    def tables(self) -> Iterable[Parameter]:
        """Embeddings, and the heads that tell codes."""
        for name, module in self.network.named_modules():
            if isinstance(module, nn.Embedding) or name.rpartition(".")[2] == "head":
                yield module.weight  # pyright: ignore[reportReturnType]

    def parts(self) -> Mapping[str, nn.Module]:
        """One part: the network."""
        return {self.name: self.network}

    def forward(self, batch: Batch, turn: str = "main") -> Loss:
        """Weighted cross-entropy in nats; its parts are in bits a token."""
        text, ids = batch["text"], batch["ids"].long()
        if self.drop and self.null_text is not None:
            dropped = torch.rand(len(text), generator=self.generator) < self.drop
            text = torch.where(dropped.to(text.device)[:, None], self.null_text.to(text), text)
        said, drawn = self.network(text, ids)
        total = image = _entropy(drawn, ids, self.smoothing)
        parts = {"image_bits": image.item() / math.log(2)}
        if said is not None:
            words = _entropy(said, self.network.targets(text), self.smoothing)  # pyright: ignore[reportCallIssue]
            total = (self.text_weight * words + self.image_weight * image) / (self.text_weight + self.image_weight)
            parts["text_bits"] = words.item() / math.log(2)
        return Loss(total, parts)


@torch.no_grad()
def bits(network: Predictor, text: Int[Tensor, "B L"], ids: Int[Tensor, "B N"]) -> Float[Tensor, "B"]:
    """How many bits an image token costs, the mean over each picture: the score of a model that writes them."""
    _, drawn = network(text, ids)
    return F.cross_entropy(drawn.float().transpose(1, 2), ids.long(), reduction="none").mean(1) / math.log(2)


def _entropy(logits: Float[Tensor, "B N K"], ids: Int[Tensor, "B N"], smoothing: float) -> Float[Tensor, ""]:
    return F.cross_entropy(logits.float().flatten(0, 1), ids.flatten(), label_smoothing=smoothing)
