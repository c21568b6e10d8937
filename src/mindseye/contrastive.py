"""CLIP's loss: every picture must find its caption among all captions of the batch, and every caption its picture.

Radford et al. 2021 (arXiv:2103.00020, figure 3). Features are gathered over all ranks, with their gradient, so that the
batch is that of the whole job, as OpenCLIP does (Cherti et al. 2022, arXiv:2212.07143).

Deviation: small corpora repeat captions. A caption that stands twice in the batch is one answer and not a wrong one, so
its places share the target evenly (as in UniCL, Yang et al. 2022, arXiv:2204.03610).
"""

import math
from typing import Any, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed
from torch.nn import functional as F

from mindseye.shapes import Embedding

CEILING = math.log(100)
"""Largest `logit_scale`: cosines are never multiplied by more than 100."""


def contrastive_loss(
    image: Embedding, text: Embedding, logit_scale: Float[Tensor, ""], captions: Int[Tensor, "B L"] | None = None
) -> Float[Tensor, ""]:
    """Symmetric InfoNCE over the batches of all ranks.

    Averaging its gradients over ranks, as DDP does, gives the gradient of the whole job's batch.

    Args:
        image: features of B pictures, of any length.
        text: features of their captions.
        logit_scale: logarithm of the factor on cosines. Clamped in place to `CEILING`, so that a step beyond it can be
            taken back.
        captions: token ids of the captions; equal rows are equal captions. None = all differ. Ranks must agree on B
            and L.

    Returns:
        mean of the two cross-entropies, in nats.
    """
    with torch.no_grad():
        logit_scale.clamp_(max=CEILING)
    image, text = gather(F.normalize(image.float(), dim=1)), gather(F.normalize(text.float(), dim=1))
    logits = logit_scale.exp() * image @ text.T
    if captions is None:
        target = torch.arange(len(logits), device=logits.device)
    else:
        same = alike(gather(captions)).float()
        target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def alike(captions: Int[Tensor, "B L"]) -> Bool[Tensor, "B B"]:
    """True where two rows are equal."""
    _, names = torch.unique(captions, dim=0, return_inverse=True)
    return names[:, None] == names[None, :]


def gather(x: Tensor) -> Tensor:
    """Rows of all ranks in their order, the gradient flowing back to where each came from; `x` itself without ranks."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    if not x.requires_grad:
        rows = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(rows, x.contiguous())
        return torch.cat(rows)
    return cast(Tensor, _Gathered.apply(x))


class _Gathered(torch.autograd.Function):
    """The rows of every process, and the way back of each to whom it came from."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rows = [torch.empty_like(x) for _ in range(distributed.get_world_size())]
        distributed.all_gather(rows, x.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].clone(memory_format=torch.contiguous_format)  # it is summed in place
        distributed.all_reduce(whole)
        return whole.chunk(distributed.get_world_size())[distributed.get_rank()]
