"""The loop: render, listen, step, settle.

The picture is rendered once a step. The judge looks at it detached and answers with a gradient on its pixels, however
many cuts it took to find that out; only then does one backward pass run through the canvas. Memory holds the canvas's
graph and that of one chunk of cuts.
"""

import math
from functools import partial

import torch
from torch.optim import Optimizer

from mindseye.ascent.canvas import Canvas
from mindseye.ascent.optimizers import choose
from mindseye.critique.judge import Judge
from mindseye.noise import Noise
from mindseye.pixels import to_images
from mindseye.request import Progress, Steps
from mindseye.shapes import Pixels

__all__ = ["ascend"]


def ascend(
    canvas: Canvas,
    judge: Judge,
    noise: Noise,
    *,
    steps: int,
    lr: float,
    optimizer: str = "adam",
    stage: str = "paint",
    decay: float = 1.0,
) -> Steps[Pixels]:
    """Paint.

    Args:
        canvas: What is painted on; changed in place.
        judge: Whom it is to please.
        noise: One seed a picture, for the judge's cuts.
        steps: How many; 0 gives back what the canvas shows already.
        lr: The optimiser's learning rate.
        optimizer: A key of `mindseye.ascent.optimizers.OPTIMIZERS`.
        stage: What the user is told is going on.
        decay: The last step's share of the learning rate, reached along half a cosine; 1 = constant.

    Returns:
        The canvas's final pictures.

    Raises:
        UnknownName: No such optimiser.
    """
    stepper = choose(optimizer, canvas.parameters(), lr)
    look = partial(_show, canvas)
    for step in range(steps):
        share = step / steps
        for group in stepper.param_groups:
            group["lr"] = lr * (decay + (1 - decay) * (1 + math.cos(math.pi * share)) / 2)
        _step(canvas, judge, stepper, noise, share)
        yield Progress(stage, step + 1, steps, look)
    return canvas.final()


def _step(canvas: Canvas, judge: Judge, stepper: Optimizer, noise: Noise, share: float) -> None:
    """One step. A function and no part of the generator: a grad mode must not be held over a ``yield``."""
    with torch.enable_grad():
        pixels = canvas.render()
        own = canvas.terms()
    opinion = judge.opinion(pixels.detach(), noise, share)
    stepper.zero_grad(set_to_none=True)
    if own is None:
        torch.autograd.backward([pixels], [opinion.gradient.to(pixels)])
    else:
        torch.autograd.backward([pixels, own], [opinion.gradient.to(pixels), torch.ones_like(own)])
    stepper.step()
    with torch.no_grad():
        canvas.settle()


def _show(canvas: Canvas) -> tuple:
    return to_images(canvas.final())
