"""How the factors of a change become numbers to add to a weight.

=============  ================================================================================================
low rank       ``s up @ down``, s = alpha / rank (Hu et al. 2021, arXiv:2106.09685); convolutions with the kernel in
               ``down``, or in ``mid`` between two 1x1 ones (Tucker form, LyCORIS arXiv:2309.14859)
Hadamard       LoHa: ``s (w1_a @ w1_b) * (w2_a @ w2_b)`` (Hyeon-Woo et al. 2021, arXiv:2108.06098)
Kronecker      LoKr: ``s kron(w1, w2)``, each whole or a product, w2 also in Tucker form
full           ``diff``, ``diff_b``; norms as ``w_norm``, ``b_norm``
IA3            ``W * w`` along outputs or inputs (Liu et al. 2022, arXiv:2205.05638)
generalised    GLoRA: ``s (W a1 @ a2 + b1 @ b2)`` (Chavan et al. 2023, arXiv:2306.07967), as LyCORIS has it
rotation       diagonal OFT: ``(R' - 1) W``, R the Cayley transform of a skew block (Qiu et al. 2023, arXiv:2306.07280);
               in stages that mix outputs ever further apart: BOFT (Liu et al. 2023, arXiv:2311.06243)
DoRA           around any of the first three: ``m (W + D) / |W + D| - W``, norms by output or by input
               (Liu et al. 2024, arXiv:2402.09353)
=============  ================================================================================================

Everything is computed in float32 from the *original* weight, so changes add up in any order. A strength other than 1
multiplies the whole change; for DoRA and OFT, where trainers differ, that means going a part of the way in a straight
line, as ComfyUI does. Without an alpha, or with 0, the scale is 1.
"""

import math
from collections.abc import Collection, Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["bias_change", "change", "extent", "kind_of", "misfit", "rank_of"]

Shapes = Mapping[str, Sequence[int]]

_REQUIRED = {
    "low rank": ({"up", "down"},),
    "hadamard": ({"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"},),
    "kronecker": (
        {"lokr_w1", "lokr_w2"},
        {"lokr_w1_a", "lokr_w1_b", "lokr_w2"},
        {"lokr_w1", "lokr_w2_a", "lokr_w2_b"},
        {"lokr_w1_a", "lokr_w1_b", "lokr_w2_a", "lokr_w2_b"},
    ),
    "full": ({"diff"},),
    "norm": ({"w_norm"},),
    "ia3": ({"ia3"},),
    "rotation": ({"oft_blocks"},),
    "generalised": ({"a1.weight", "a2.weight", "b1.weight", "b2.weight"},),
    "bias": ({"diff_b"}, {"b_norm"}),
}


def kind_of(factors: Collection[str]) -> str | None:
    """Which of the module's table a set of factors is; None when a factor is missing or no kind has them."""
    names = set(factors)
    return next((kind for kind, ways in _REQUIRED.items() for way in ways if way <= names), None)


def rank_of(shapes: Shapes) -> int | None:
    """The rank that alpha is divided by; None where there is none, and alpha has no meaning."""
    if "down" in shapes:
        return int(shapes["down"][0])
    if "a2.weight" in shapes:
        return min(shapes["a2.weight"][:2])
    for name in ("hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if name in shapes:
            return int(shapes[name][0])
    return None


def misfit(shapes: Shapes, weight: Sequence[int]) -> str:
    """Why factors cannot change a weight of that shape; empty when they can."""
    if kind_of(shapes) is None:
        return f"{', '.join(sorted(shapes)) or 'nothing'} is no kind of change that is known"
    rows, columns = weight[0], math.prod(weight[1:])
    try:
        fitting = extent(shapes)
    except ValueError as error:
        return str(error)
    if fitting is not None and fitting != (rows, columns):
        return f"made for a weight of {fitting[0]} x {fitting[1]}, and here it is {rows} x {columns}"
    sizes = {rows} if "output_magnitude" in shapes else {rows, weight[1] if len(weight) > 1 else rows}
    for name in ("magnitude", "output_magnitude", "ia3"):
        if name in shapes and math.prod(shapes[name]) not in sizes:
            return f"{name} has {math.prod(shapes[name])} numbers, and the weight is {rows} x {columns}"
    if kind_of(shapes) == "rotation":
        blocks = shapes["oft_blocks"]
        if len(blocks) not in (3, 4) or blocks[-1] != blocks[-2]:
            return f"blocks of {list(blocks)} turn nothing"
        count, size = blocks[-3:-1]
        if count * size != rows or ("rescale" in shapes and math.prod(shapes["rescale"]) != rows):
            return f"turns {count * size} outputs, and here there are {rows}"
        if len(blocks) == 4 and (size % 2 or rows % (2 ** blocks[0] * (size // 2))):
            return f"{blocks[0]} stages of blocks of {size} do not divide {rows} outputs"
    if kind_of(shapes) == "generalised" and not _generalised(shapes, weight):
        sizes = ", ".join(f"{name[:2]} {list(shapes[name])}" for name in sorted(_REQUIRED["generalised"][0]))
        return f"{sizes} do not fit a weight of {list(weight)}"
    return ""


def _generalised(shapes: Shapes, weight: Sequence[int]) -> bool:
    """Whether GLoRA's four factors fit: each as LyCORIS has stored it since 2.0, or as before, the other way about."""
    out, inside, kernel = weight[0], weight[1] if len(weight) > 1 else 1, math.prod(weight[2:])
    a1, a2, b1, b2 = ((s[0], math.prod(s[1:])) for s in (shapes[f"{n}.weight"] for n in ("a1", "a2", "b1", "b2")))
    rank = a2[0]
    if a1 == (inside, rank) and a2[1] == inside and b1 == (out, b2[0]) and b2[1] == inside * kernel:
        return True
    return a1[1] == inside == a2[0] and a1[0] == a2[1] and b2 == (out, b1[0]) and b1[1] == inside * kernel


def extent(shapes: Shapes) -> tuple[int, int] | None:
    """Rows of the weight that fits, and the product of its other axes; None where any weight would do.

    Raises:
        ValueError: The factors do not fit each other.
    """
    kind = kind_of(shapes)
    if kind == "low rank":
        up, down = shapes["up"], shapes["down"]
        middle = shapes.get("mid")
        if len(up) not in (2, 4) or len(down) not in (2, 4) or math.prod(up[1:]) != (middle or down)[0]:
            raise ValueError(f"up {list(up)} does not fit down {list(down)}")
        if middle is None:
            return up[0], math.prod(down[1:])
        if middle[1] != down[0]:
            raise ValueError(f"mid {list(middle)} does not fit down {list(down)}")
        return up[0], down[1] * math.prod(middle[2:])
    if kind == "hadamard":
        halves = [
            _half(shapes[f"hada_w{n}_a"], shapes[f"hada_w{n}_b"], shapes.get(f"hada_t{n}"), "hada") for n in (1, 2)
        ]
        if halves[0] != halves[1]:
            raise ValueError(f"the halves {halves[0]} and {halves[1]} differ")
        return halves[0]
    if kind == "kronecker":
        sides = []
        for n in (1, 2):
            if f"lokr_w{n}" in shapes:
                whole = shapes[f"lokr_w{n}"]
                sides.append((whole[0], math.prod(whole[1:])))
            else:
                sides.append(
                    _half(shapes[f"lokr_w{n}_a"], shapes[f"lokr_w{n}_b"], shapes.get(f"lokr_t{n}"), f"lokr_w{n}")
                )
        return sides[0][0] * sides[1][0], sides[0][1] * sides[1][1]
    if kind in ("full", "norm"):
        whole = shapes["diff" if kind == "full" else "w_norm"]
        return whole[0], math.prod(whole[1:])
    return None


def _half(a: Sequence[int], b: Sequence[int], core: Sequence[int] | None, name: str) -> tuple[int, int]:
    """Extent of ``a @ b``, or of a Tucker core between them."""
    if core is not None:
        if len(a) != 2 or len(b) != 2 or (a[0], b[0]) != (core[0], core[1]):
            raise ValueError(f"{name}: {list(a)} and {list(b)} do not fit the core {list(core)}")
        return a[1], b[1] * math.prod(core[2:])
    if math.prod(a[1:]) != b[0]:
        raise ValueError(f"{name}: {list(a)} does not fit {list(b)}")
    return a[0], math.prod(b[1:])


def change(
    factors: Mapping[str, Tensor], weight: Tensor, strength: float = 1.0, scale: float | None = None
) -> Tensor | None:
    """What to add to a weight.

    Args:
        factors: Tensors by factor, any floating dtype; ``alpha`` is one of them.
        weight: The original weight, float32, any shape; read where the kind needs it.
        strength: How much of the change.
        scale: What stands for alpha / rank, where it is told outside the factors.

    Returns:
        float32 in the weight's shape; None for a change of the bias alone.

    Raises:
        ValueError: The factors are no kind that is known.
    """
    kind = kind_of(factors)
    f = {name: tensor.to(torch.float32) for name, tensor in factors.items()}
    rank = rank_of({name: tensor.shape for name, tensor in f.items()})
    alpha = float(f["alpha"].flatten()[0]) if "alpha" in f else 0.0
    if scale is None:
        scale = alpha / rank if alpha and rank else 1.0
    if "scalar" in f:
        scale *= float(f["scalar"].flatten()[0])
    magnitude, by_output = f.get("output_magnitude"), True
    if magnitude is None and "magnitude" in f:
        # kohya and LyCORIS say by the vector's shape along which axis it goes; a tie is a column, that is outputs.
        magnitude, by_output = f["magnitude"], f["magnitude"].shape[0] == weight.shape[0]
    scale *= strength if magnitude is None else 1.0
    if kind == "low rank":
        delta = _low_rank(f["up"], f["down"] * scale, f.get("mid"))
    elif kind == "hadamard":
        delta = _product(f["hada_w1_a"] * scale, f["hada_w1_b"], f.get("hada_t1"))
        delta *= _product(f["hada_w2_a"], f["hada_w2_b"], f.get("hada_t2"))
    elif kind == "kronecker":
        delta = _kronecker(f, scale)
    elif kind == "full":
        delta = f["diff"] * scale
    elif kind == "norm":
        delta = f["w_norm"] * scale
    elif kind == "ia3":
        by_input = bool(f["on_input"].any()) if "on_input" in f else False
        return weight * _along(f["ia3"] * strength, weight, 1 if by_input else 0)
    elif kind == "rotation":
        return _rotation(f["oft_blocks"], f.get("rescale"), weight, alpha) * strength
    elif kind == "generalised":
        delta = _around(f, weight) * scale
    elif kind == "bias":
        return None
    else:
        raise ValueError(f"{', '.join(sorted(factors))} are the factors of no kind that is known")
    delta = delta.reshape(weight.shape)
    return delta if magnitude is None else _decomposed(delta, weight, magnitude, by_output) * strength


def bias_change(factors: Mapping[str, Tensor]) -> Tensor | None:
    """What to add to a bias for a strength of 1; None when it stays."""
    found = factors.get("diff_b", factors.get("b_norm"))
    return None if found is None else found.to(torch.float32)


def _low_rank(up: Tensor, down: Tensor, mid: Tensor | None) -> Tensor:
    if mid is None:
        return up.flatten(1) @ down.flatten(1)
    inner = torch.einsum("ijkl,jr->irkl", mid, down.flatten(1))
    return torch.einsum("pi,irkl->prkl", up.flatten(1), inner)


def _product(a: Tensor, b: Tensor, core: Tensor | None) -> Tensor:
    """``a @ b``, or ``core`` taken through both (then ``a`` is transposed, as LyCORIS stores it)."""
    if core is None:
        return a.flatten(1) @ b.flatten(1)
    return torch.einsum("ip,irkl->prkl", a, torch.einsum("ijkl,jr->irkl", core, b)).flatten(1)


def _kronecker(f: Mapping[str, Tensor], scale: float) -> Tensor:
    first = (f["lokr_w1"] if "lokr_w1" in f else f["lokr_w1_a"] @ f["lokr_w1_b"]) * scale
    second = f["lokr_w2"] if "lokr_w2" in f else _product(f["lokr_w2_a"], f["lokr_w2_b"], f.get("lokr_t2"))
    # With the kernel's axes behind the inputs' in one axis this is the product over the first two axes alone.
    return torch.kron(first.flatten(1), second.flatten(1))


def _decomposed(delta: Tensor, weight: Tensor, magnitude: Tensor, by_output: bool) -> Tensor:
    """DoRA's change: the direction of the changed weight at a learned length."""
    changed = weight + delta
    axis = 0 if by_output else 1
    others = [i for i in range(weight.ndim) if i != axis]
    norms = torch.linalg.vector_norm(changed, dim=others, keepdim=True)
    return changed * (_along(magnitude, weight, axis) / norms.clamp_min(1e-12)) - weight


def _along(vector: Tensor, weight: Tensor, axis: int) -> Tensor:
    """A vector shaped to multiply one axis of a weight."""
    return vector.reshape([-1 if i == axis else 1 for i in range(weight.ndim)])


def _around(f: Mapping[str, Tensor], weight: Tensor) -> Tensor:
    """GLoRA's change: something of the weight itself, taken through a low rank of its inputs, and something new."""
    a1, a2, b1, b2 = (f[f"{name}.weight"].flatten(1) for name in ("a1", "a2", "b1", "b2"))
    if a1.shape[0] != weight.shape[1] or b1.shape[0] != weight.shape[0]:  # stored the other way about
        a1, a2, b1, b2 = a2, a1, b2, b1
    own = torch.einsum("oi...,ir,rj->oj...", weight, a1, a2)
    return own + (b1 @ b2).reshape(weight.shape)


def _rotation(blocks: Tensor, rescale: Tensor | None, weight: Tensor, alpha: float) -> Tensor:
    """OFT's change: groups of outputs are turned by ``(1 + Q) (1 - Q)^-1`` of a skew ``Q`` of bounded size."""
    size = blocks.shape[-1]
    skew = blocks - blocks.mT
    if alpha > 0:
        bound, length = alpha * weight.shape[0], skew.norm() + 1e-8
        skew = skew * (bound / length).clamp_max(1)
    eye = torch.eye(size)
    rotation = (eye + skew) @ torch.linalg.inv(eye - skew)
    if blocks.ndim == 3:
        turned = (rotation.mT @ weight.reshape(len(blocks), size, -1)).reshape(weight.shape)
    else:  # butterfly: stage s brings together outputs that lie 2**s half blocks apart
        turned = weight.reshape(len(weight), -1)
        for stage, turns in enumerate(rotation):
            apart = 2**stage * (size // 2)
            pairs = turned.reshape(-1, 2, apart, turned.shape[-1]).transpose(1, 2)
            mixed = (turns @ pairs.reshape(-1, size, turned.shape[-1])).reshape(pairs.shape)
            turned = mixed.transpose(1, 2).reshape(turned.shape)
        turned = turned.reshape(weight.shape)
    if rescale is not None:
        turned = turned * _along(rescale, weight, 0)
    return turned - weight
