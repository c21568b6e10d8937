"""How a step is made of a gradient: torch's optimisers by name, and two that are not in torch.

AdamP (Heo et al. 2021, arXiv:2006.08217) takes the radial part out of Adam's step where a weight's length does not
matter to the loss; Deep Daze uses it. DiffGrad (Dubey et al. 2020, arXiv:1909.11015) damps Adam's step where the
gradient hardly changes; Deep Daze primes with it. Both are written from their papers.

Here a parameter's first axis counts pictures, and what AdamP measures of a parameter it measures of each picture's.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, final

import torch
from torch import Tensor
from torch.optim import Adam, Adamax, AdamW, Optimizer, RAdam

from mindseye.errors import UnknownName

__all__ = ["OPTIMIZERS", "AdamP", "DiffGrad", "choose"]


class _Moments(Optimizer):
    """What AdamP and DiffGrad share with Adam: two averages of the gradient, corrected for their start at zero."""

    def __init__(
        self, params: Iterable[Tensor], lr: float, *, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step along the gradients there are."""
        for group in self.param_groups:
            first, second = group["betas"]
            for param in group["params"]:
                if param.grad is None:
                    continue
                state = self.state[param]
                if not state:
                    state.update(count=0, mean=torch.zeros_like(param), square=torch.zeros_like(param))
                state["count"] += 1
                state["mean"].lerp_(param.grad, 1 - first)
                state["square"].mul_(second).addcmul_(param.grad, param.grad, value=1 - second)
                scale = (state["square"] / (1 - second ** state["count"])).sqrt_().add_(group["eps"])
                update = state["mean"] / (1 - first ** state["count"]) / scale
                param.sub_(self.shaped(param, update, state), alpha=group["lr"])

    def shaped(self, param: Tensor, update: Tensor, state: dict[str, Any]) -> Tensor:
        """The step that is taken instead of Adam's."""
        raise NotImplementedError


@final
class AdamP(_Moments):
    """Adam without steps along a weight's own direction, where its length does not matter.

    A gradient that is nearly at right angles to the weights (cosine below ``delta / sqrt(n)``) tells that it does not:
    of each row of a picture's parameter first, of all of it together otherwise.

    Args:
        params: Pictures first.
        lr: Learning rate.
        delta: How near to a right angle.
    """

    def __init__(self, params: Iterable[Tensor], lr: float, *, delta: float = 0.1) -> None:
        super().__init__(params, lr)
        self.delta = delta

    def shaped(self, param: Tensor, update: Tensor, state: dict[str, Any]) -> Tensor:
        """Projected, picture by picture."""
        if param.ndim < 3 or param.grad is None:  # one vector a picture has no rows
            return update
        done = torch.zeros(len(param), dtype=torch.bool, device=param.device)
        projected = update
        for rows in (param.shape[1], 1):
            shape = (len(param), rows, -1)
            weight, grad, way = param.view(shape), param.grad.reshape(shape), update.view(shape)
            cosine = torch.cosine_similarity(grad, weight, dim=-1, eps=1e-8).abs().amax(1)
            free = (cosine < self.delta / math.sqrt(weight.shape[-1])) & ~done
            unit = weight / (weight.norm(dim=-1, keepdim=True) + 1e-8)
            flat = (way - (way * unit).sum(-1, keepdim=True) * unit).view_as(update)
            projected = torch.where(free.view(-1, *[1] * (param.ndim - 1)), flat, projected)
            done |= free
        return projected


@final
class DiffGrad(_Moments):
    """Adam with steps damped where the gradient stays what it was: by sigmoid(|change|), a half to one.

    Args:
        params: Any.
        lr: Learning rate.
    """

    def __init__(self, params: Iterable[Tensor], lr: float) -> None:
        super().__init__(params, lr)

    def shaped(self, param: Tensor, update: Tensor, state: dict[str, Any]) -> Tensor:
        """Damped, number by number."""
        grad = torch.zeros_like(param) if param.grad is None else param.grad
        before = state.get("before", torch.zeros_like(param))
        state["before"] = grad.clone()
        return update * (grad - before).abs_().sigmoid_()


OPTIMIZERS: Mapping[str, Callable[[Iterable[Tensor], float], Optimizer]] = {
    "adam": lambda params, lr: Adam(params, lr),
    "adamw": lambda params, lr: AdamW(params, lr),
    "adamax": lambda params, lr: Adamax(params, lr),
    "radam": lambda params, lr: RAdam(params, lr),
    "adamp": lambda params, lr: AdamP(params, lr),
    "diffgrad": lambda params, lr: DiffGrad(params, lr),
}
"""By the names that `--set optimizer=` takes."""


def choose(name: str, params: Iterable[Tensor], lr: float) -> Optimizer:
    """An optimiser by name.

    Raises:
        UnknownName: Not one of `OPTIMIZERS`.
    """
    if name not in OPTIMIZERS:
        raise UnknownName("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name](list(params), lr)
