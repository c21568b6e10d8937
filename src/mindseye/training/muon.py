"""Muon: momentum whose matrices are made orthogonal before they are applied.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon): the momentum of each weight matrix is replaced by the
nearest orthogonal matrix, found by five Newton-Schulz iterations, so that every direction of the matrix learns at the
same rate. Scaled as in Liu et al. 2025 (arXiv:2502.16982), so that learning rate and weight decay mean what they mean
in AdamW. Filters are matrices of ``out x (in * h * w)``; vectors, whatever has a side of one, and groups that ask for
it are left to AdamW. Vocabularies ask for it: a word that one batch in ten says has a tenth of the momentum's length,
and would learn at a tenth of the rate.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Muon", "orthogonal"]


def orthogonal(matrix: Float[Tensor, "M N"], iterations: int = 5) -> Float[Tensor, "M N"]:
    """About the nearest semi-orthogonal matrix: singular values end between 0.7 and 1.2.

    The quintic's coefficients maximise its slope at zero, which is what a few iterations need.
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x = matrix if wide else matrix.T
    x = x / (x.norm() + 1e-7)
    x = _iterate_small(x, iterations) if x.shape[1] > 2 * x.shape[0] else _iterate(x, iterations)
    return x if wide else x.T


A, B, C = 3.4445, -4.7750, 2.0315


def _iterate(x: Float[Tensor, "M N"], iterations: int) -> Float[Tensor, "M N"]:
    for _ in range(iterations):
        gram = x @ x.T
        x = A * x + (B * gram + C * gram @ gram) @ x
    return x


def _iterate_small(x: Float[Tensor, "M N"], iterations: int) -> Float[Tensor, "M N"]:
    """The same polynomials, applied to the ``M x M`` Gram matrix and multiplied out once at the end.

    Every factor is a polynomial in the one symmetric Gram matrix, so they commute. Filters are some nine times wider
    than high, and then this is 2.5 times less work. Not for half precision: a Gram matrix of low rank is rounded to one
    with negative eigenvalues there, which grow without end (tried: no number is left after sixty steps), and the plain
    iteration in bfloat16 takes as long as this in float32.
    """
    gram = x @ x.T
    eye = torch.eye(len(x), dtype=x.dtype, device=x.device)
    product = eye
    for k in range(iterations):
        factor = A * eye + B * gram + C * gram @ gram
        product = factor @ product
        if k < iterations - 1:
            gram = factor @ gram @ factor
    return product @ x


class Muon(torch.optim.Optimizer):
    """Muon for the matrices, AdamW for the rest.

    Args:
        params: parameters, or groups of them; a group's ``weight_decay`` and ``lr`` count for both halves, and one
            whose ``orthogonal`` is false is AdamW's.
        lr: learning rate, on AdamW's scale.
        betas: AdamW's; Muon's momentum is ``momentum``.
        momentum: Nesterov momentum of the matrices.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(
            params,
            {"lr": lr, "betas": betas, "momentum": momentum, "weight_decay": weight_decay, "orthogonal": True},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        # Runs of an earlier version know no groups that are AdamW's.
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("orthogonal", True)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                if group["orthogonal"] and parameter.ndim >= 2 and min(parameter.shape[0], parameter[0].numel()) > 1:
                    self._matrix(parameter, parameter.grad, group)
                else:
                    self._vector(parameter, parameter.grad, group)

    def _matrix(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum = state["momentum"]
        momentum.lerp_(grad, 1 - group["momentum"])
        update = grad.lerp(momentum, group["momentum"]).flatten(1)
        update = orthogonal(update) * (0.2 * max(update.shape) ** 0.5)
        parameter.add_(update.view(parameter.shape), alpha=-group["lr"])

    def _vector(self, parameter: Tensor, grad: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state.update(step=0, mean=torch.zeros_like(parameter), square=torch.zeros_like(parameter))
        state["step"] += 1
        first, second = group["betas"]
        state["mean"].lerp_(grad, 1 - first)
        state["square"].lerp_(grad.square(), 1 - second)
        denominator = (state["square"] / (1 - second ** state["step"])).sqrt_().add_(1e-8)
        parameter.addcdiv_(state["mean"], denominator, value=-group["lr"] / (1 - first ** state["step"]))
