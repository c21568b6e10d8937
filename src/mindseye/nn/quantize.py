"""Vectors to codes: the nearest one, one drawn by Gumbel noise, a codebook that follows its vectors, and the gradients.

A codebook is a table of ``K`` vectors; a map of vectors becomes a map of integers, which a transformer can model or an
optimiser search (VQ-VAE: van den Oord et al. 2017, arXiv:1711.00937; VQGAN: Esser et al. 2021, arXiv:2012.09841).
Choosing has no gradient, so one is put in its place: `straight_through` gives the chosen vector's value and the
vector's own gradient.

Where we deviate from taming-transformers:

- The nearest code is found by ``|e|^2 - 2 z.e`` in float32 at least, without the ``|z|^2`` that all codes share: fewer
  roundings, so codes that are equally near to within them may be told apart otherwise. Compare vectors, not ids.
- `commitment` weighs the codebook's pull on the encoder by ``beta``, as the paper says. taming's first class had the
  two terms exchanged, and releases were trained that way: ``legacy=True``. It matters in training only.
- `GumbelQuantizer` draws nothing unless it is given a generator; taming's draws even when it is not training, so that
  a picture encoded twice has two encodings.
"""

import math
from typing import Any, Final, NamedTuple, final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from mindseye.nn.layers import Conv2d

__all__ = [
    "CodebookKeeper",
    "GumbelQuantizer",
    "NearestQuantizer",
    "Quantised",
    "as_grid",
    "clamp_with_gradient",
    "commitment",
    "divergence",
    "gumbel",
    "look_up",
    "nearest",
    "one_hot",
    "perplexity",
    "relaxed",
    "snap",
    "straight_through",
]

_CHUNK: Final = 1 << 24
"""Distances held at a time: 64 MB."""


class Quantised(NamedTuple):
    """What a quantizer makes of a map of vectors.

    Attributes:
        embeddings: ``B C h w``, the chosen codes, with a gradient to the vectors they were chosen for.
        ids: ``B h w``, which they are.
        parts: What a loss is made of, unweighted: "codebook" and "commitment" (see `commitment`), or "kl".
    """

    embeddings: Float[Tensor, "B C h w"]
    ids: Int[Tensor, "B h w"]
    parts: dict[str, Float[Tensor, ""]]


class _ValueFrom(torch.autograd.Function):
    """Value of one, gradient to the other. (a + (b - a).detach() would be b only to rounding.)"""

    @staticmethod
    def forward(ctx: Any, value: Tensor, carrier: Tensor) -> Tensor:
        ctx.shape = carrier.shape
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor]:
        return None, grads[0].sum_to_size(ctx.shape)


class _Clamp(torch.autograd.Function):
    """A clamp whose gradient is stopped only where a step against it would leave the range further."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor, high: Tensor) -> Tensor:
        ctx.save_for_backward(x, low, high)
        return x.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None, None]:
        x, low, high = ctx.saved_tensors
        grad = grads[0]
        return grad * (grad * (x - x.clamp(low, high)) >= 0), None, None


def straight_through(value: Float[Tensor, "*S"], carrier: Float[Tensor, "*T"]) -> Float[Tensor, "*S"]:
    """The value of ``value``, to the bit; its gradient goes to ``carrier``, which broadcasts to its shape."""
    return _ValueFrom.apply(value, carrier)  # pyright: ignore[reportReturnType]


def clamp_with_gradient(
    x: Float[Tensor, "*S"], low: float | Float[Tensor, "*T"], high: float | Float[Tensor, "*U"]
) -> Float[Tensor, "*S"]:
    """``x`` within ``low`` and ``high``, with a gradient outside of them too where descent leads back in.

    A plain clamp has no gradient outside: what has once left the range stays out. Here it is stopped only where a step
    down it would lead further away (Crowson's VQGAN+CLIP notebook).

    Args:
        x: Anything.
        low: A number, or numbers that broadcast to ``x``; they get no gradient.
        high: The same.
    """
    low, high = (torch.as_tensor(each, dtype=x.dtype, device=x.device) for each in (low, high))
    return _Clamp.apply(x, low, high)  # pyright: ignore[reportReturnType]


@torch.no_grad()
def nearest(z: Float[Tensor, "B C h w"], codebook: Float[Tensor, "K C"]) -> Int[Tensor, "B h w"]:
    """Which code is nearest to each vector; the first of equally near ones. Memory does not grow with the map.

    In float32 at least, under autocast as well: near codes differ by less than what half precision can tell.
    """
    wide = torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)
    rows = z.permute(0, 2, 3, 1).flatten(0, 2).to(wide)
    codes = codebook.to(wide)
    norms = codes.square().sum(1)
    with torch.autocast(z.device.type, enabled=False):
        chunks = rows.split(max(1, _CHUNK // len(codes)))
        ids = [torch.addmm(norms, chunk, codes.T, alpha=-2).argmin(1) for chunk in chunks]
    return torch.cat(ids).view(z.shape[0], *z.shape[2:])


def look_up(ids: Int[Tensor, "B h w"], codebook: Float[Tensor, "K C"]) -> Float[Tensor, "B C h w"]:
    """The codes of these ids; a gradient goes to the codebook."""
    return F.embedding(ids, codebook).permute(0, 3, 1, 2)


def as_grid(ids: Int[Tensor, "B N"], grid: tuple[int, int] | None = None) -> Int[Tensor, "B h w"]:
    """Ids in a row as rows and columns.

    Args:
        ids: Row by row.
        grid: Rows and columns; a square when None.

    Raises:
        ValueError: As many ids are no such grid.
    """
    count = ids.shape[1]
    rows, columns = grid or (math.isqrt(count), math.isqrt(count))
    if rows * columns != count:
        raise ValueError(f"{count} ids are no grid of {rows} rows and {columns} columns")
    return ids.unflatten(1, (rows, columns))


def one_hot(ids: Int[Tensor, "B h w"], codes: int, dtype: torch.dtype = torch.float32) -> Float[Tensor, "B K h w"]:
    """All of each place to its one code."""
    empty = torch.zeros(ids.shape[0], codes, *ids.shape[1:], dtype=dtype, device=ids.device)
    return empty.scatter_(1, ids[:, None], 1.0)


def gumbel(logits: Float[Tensor, "B K h w"], generator: torch.Generator | None) -> Float[Tensor, "B K h w"]:
    """Logits with Gumbel noise added: their largest is a code drawn by its likelihood.

    Args:
        logits: Of the codes.
        generator: Of the draw, on the CPU; None = none is added, and the largest is the likeliest code.
    """
    if generator is None:
        return logits
    # Of uniform numbers, which come six times as fast as exponential ones.
    noise = torch.rand(logits.shape, generator=generator).log_().neg_().log_()
    return logits - noise.to(logits)


def relaxed(
    logits: Float[Tensor, "B K h w"],
    *,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    hard: bool = False,
) -> Float[Tensor, "B K h w"]:
    """A draw of codes that has a gradient: shares of all codes at every place, the more of one the colder it is.

    Jang et al. 2017 and Maddison et al. 2017 (arXiv:1611.01144, 1611.00712).

    Args:
        logits: Of the codes.
        temperature: At 0 a single code would have everything, and no gradient was left.
        generator: Of the draw, on the CPU; None = nothing is drawn.
        hard: Whether the value is a single code's, and only the gradient the shares'.
    """
    scores = gumbel(logits, generator)
    shares = (scores / temperature).softmax(1)
    return straight_through(one_hot(scores.argmax(1), scores.shape[1], shares.dtype), shares) if hard else shares


def divergence(logits: Float[Tensor, "B K h w"]) -> Float[Tensor, ""]:
    """How far likelihoods are from equal ones: the Kullback-Leibler divergence, in nats a place."""
    likely = logits.log_softmax(1)
    return (likely.exp() * (likely + math.log(logits.shape[1]))).sum(1).mean()


def snap(z: Float[Tensor, "B C h w"], codebook: Float[Tensor, "K C"]) -> Float[Tensor, "B C h w"]:
    """The nearest code of each vector, with the gradient straight to the vector and none to the codebook.

    What searches a codebook from outside wants (VQGAN-CLIP), of Gumbel codebooks as well, whose own way of choosing
    needs an encoder's output.
    """
    return straight_through(look_up(nearest(z, codebook), codebook.detach()), z)


def commitment(parts: dict[str, Float[Tensor, ""]], *, beta: float = 0.25, legacy: bool = False) -> Float[Tensor, ""]:
    """The loss of `NearestQuantizer`: codes towards vectors, and ``beta`` times vectors towards codes.

    Args:
        parts: As in `Quantised`.
        beta: Weight of the commitment.
        legacy: Weigh the codebook's term by it instead, as taming-transformers did before it was noticed.
    """
    codebook, encoder = parts["codebook"], parts["commitment"]
    return encoder + beta * codebook if legacy else codebook + beta * encoder


def perplexity(ids: Int[Tensor, "*S"], codes: int) -> float:
    """How many codes are in use: the exponential of the entropy of their shares, ``codes`` when all are equally."""
    shares = torch.bincount(ids.flatten(), minlength=codes).double()
    shares = shares / shares.sum()
    return float(torch.exp(-torch.special.xlogy(shares, shares).sum()))


@final
class NearestQuantizer(nn.Module):
    """Each vector to its nearest code.

    Args:
        codes: How many.
        channels: Of each.
        unit: Whether codes have length 1: nearest is then most alike in direction (Yu et al. 2022, arXiv:2110.04627),
            and the vectors are expected to have length 1 as well.
    """

    def __init__(self, codes: int, channels: int, *, unit: bool = False) -> None:
        super().__init__()
        self.unit = unit
        self.weight = nn.Parameter(torch.empty(codes, channels))
        # taming's: about as far from each other as from the origin.
        nn.init.uniform_(self.weight, -1 / codes, 1 / codes)

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """The codes as they are compared and given out."""
        return F.normalize(self.weight, dim=1) if self.unit else self.weight

    def forward(self, z: Float[Tensor, "B C h w"]) -> Quantised:
        """Choose; ``parts`` has "codebook" (gradient to the codes) and "commitment" (gradient to ``z``)."""
        ids = nearest(z, self.codebook)
        # Only what was chosen is in the graph: the table itself may be written to before the backward pass.
        chosen = look_up(ids, self.weight).to(z.dtype)
        chosen = F.normalize(chosen, dim=1) if self.unit else chosen
        parts = {"codebook": F.mse_loss(chosen, z.detach()), "commitment": F.mse_loss(z, chosen.detach())}
        return Quantised(straight_through(chosen.detach(), z), ids, parts)


@final
class GumbelQuantizer(nn.Module):
    """Each vector to the code that a linear layer finds most likely, or to one drawn by its likelihoods.

    Jang et al. 2017 (arXiv:1611.01144). The gradient is that of the mixture of all codes.

    Args:
        codes: How many.
        channels: Of each, and of the vectors.
    """

    def __init__(self, codes: int, channels: int) -> None:
        super().__init__()
        self.projection = Conv2d(channels, codes, 1)
        self.weight = nn.Parameter(torch.randn(codes, channels))

    @property
    def codebook(self) -> Float[Tensor, "K C"]:
        """The codes."""
        return self.weight

    def forward(
        self, z: Float[Tensor, "B C h w"], *, temperature: float = 1.0, generator: torch.Generator | None = None
    ) -> Quantised:
        """Choose; ``parts`` has "kl", the divergence of the likelihoods from equal ones, in nats a vector.

        Args:
            z: Vectors.
            temperature: How far a drawn mixture is from one code alone; without a generator, only the gradient's.
            generator: Of the draw, on the CPU; None = the most likely code.
        """
        logits = self.projection(z)
        scores = gumbel(logits, generator)
        ids = scores.argmax(1)
        codebook = self.codebook.to(z.dtype)
        kl = divergence(logits)
        if not torch.is_grad_enabled():
            return Quantised(look_up(ids, codebook), ids, {"kl": kl})
        shares = relaxed(scores, temperature=temperature, hard=True)
        return Quantised(torch.einsum("bkhw,kc->bchw", shares, codebook), ids, {"kl": kl})


@final
class CodebookKeeper(nn.Module):
    """Keeps a codebook in use while its encoder learns: it counts, it moves codes, it revives those nobody chooses.

    Moving averages of how often each code is chosen, and of the vectors that chose it, make the codebook their k-means
    centres (VQ-VAE, appendix A.1: no gradient, no learning rate). A code whose count falls below a share of the mean
    is dead: nothing would ever pull it back. It is put onto a random vector of the batch (Jukebox: Dhariwal et al.
    2020, arXiv:2005.00341). Counts start at zero, so the first batches fill the codebook.

    It belongs to the training, not to the network: it is saved with the run, never with the part. One process only:
    counts of several are not added up.

    Args:
        codes: How many.
        channels: Of each.
        decay: Of the averages, a batch.
        moves: Whether codes follow their vectors; otherwise they are the optimizer's, and only revived here.
        dead: Share of the mean count below which a code is dead; 0 revives none.
    """

    counts: Tensor
    sums: Tensor

    def __init__(
        self, codes: int, channels: int, *, decay: float = 0.97, moves: bool = True, dead: float = 0.1
    ) -> None:
        super().__init__()
        self.decay, self.moves, self.dead = decay, moves, dead
        self.register_buffer("counts", torch.zeros(codes))
        self.register_buffer("sums", torch.zeros(codes, channels))

    @torch.no_grad()
    def update(
        self,
        weight: Float[Tensor, "K C"],
        z: Float[Tensor, "B C h w"],
        ids: Int[Tensor, "B h w"],
        generator: torch.Generator,
        *,
        revive: bool = True,
    ) -> int:
        """Take a batch into account, and write to the codebook; after the forward pass that chose from it.

        Args:
            weight: The codebook, written to in place.
            z: The vectors of the batch.
            ids: What they chose.
            generator: CPU; which vectors the dead are put onto.
            revive: Whether they are; a codebook should be left in peace at the end of a training.

        Returns:
            How many codes were dead.
        """
        rows = z.permute(0, 2, 3, 1).flatten(0, 2).to(self.sums)
        chosen = ids.flatten()
        counts = torch.bincount(chosen, minlength=len(self.counts)).to(self.counts)
        self.counts.lerp_(counts, 1 - self.decay)
        self.sums.lerp_(torch.zeros_like(self.sums).index_add_(0, chosen, rows), 1 - self.decay)
        mean = len(rows) / len(self.counts)
        if self.moves:
            used = self.counts > 1e-3 * mean
            weight[used] = (self.sums[used] / self.counts[used, None]).to(weight)
        if not (revive and self.dead):
            return 0
        dead = (self.counts < self.dead * mean).nonzero()[:, 0]
        order = torch.randperm(len(rows), generator=generator)[: len(dead)].to(rows.device)
        dead = dead[: len(order)]  # with fewer vectors than dead codes, the others wait for the next batch
        weight[dead] = rows[order].to(weight)
        # As if it had been chosen as often as any, so that it has time to be found.
        self.counts[dead] = mean
        self.sums[dead] = rows[order] * mean
        return len(dead)
