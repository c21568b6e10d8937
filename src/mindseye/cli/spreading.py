"""From one order to the orders it stands for: styles put around it, dynamic prompts drawn for every picture."""

import secrets
from dataclasses import replace
from pathlib import Path

from mindseye.errors import LimitError
from mindseye.request import SEEDS, Request

__all__ = ["spread", "styled"]

MOST = 1000
"""Texts of one template that are drawn."""


def styled(request: Request, names: list[str], file: Path | None) -> Request:
    """The request with styles around its prompts.

    Args:
        request: What was asked.
        names: Of the styles, in order.
        file: A `styles.csv`; the one in the user's mindseye folder when None.

    Raises:
        DataError: No such file, or no table of styles.
        UnknownName: No such style; with the nearest.
    """
    if not names:
        return request
    from mindseye.checkpoints.library import home
    from mindseye.text.styles import apply_styles, read_styles

    styles = read_styles(file or home() / "styles.csv")
    prompt, negative = apply_styles(names, styles, request.prompt, request.negative)
    return replace(request, prompt=prompt, negative=negative)


def spread(request: Request, wildcards: Path | None, *, every: bool) -> list[Request]:
    """The requests that a dynamic prompt stands for.

    Picture i of a request has seed + i, and that seed says what its text becomes, too: any picture can be had again.

    Args:
        request: With templates for prompts.
        wildcards: Folder of lists.
        every: All combinations of the prompt, instead of one for every picture.

    Raises:
        PromptError: A template that cannot be read.
        LimitError: Too many combinations.
    """
    from mindseye.text.dynamic import combinations, expand
    from mindseye.text.wildcards import Wildcards

    lists = None if wildcards is None else Wildcards(wildcards)
    seed = secrets.randbelow(2**32) if request.seed is None else request.seed
    if every:
        prompts = combinations(request.prompt, MOST, seed=seed, wildcards=lists)
        if len(prompts) * request.count > MOST:
            raise LimitError(f"{len(prompts)} texts of {request.count} pictures each are too many; {MOST} are possible")
        negative = expand(request.negative, seed=seed, wildcards=lists)
        return [replace(request, prompt=prompt, negative=negative, seed=seed) for prompt in prompts]
    requests: list[Request] = []
    for number in range(min(request.count, MOST)):
        own = (seed + number) % SEEDS
        prompt, negative = (expand(text, seed=own, wildcards=lists) for text in (request.prompt, request.negative))
        last = requests[-1] if requests else None
        if last is not None and (prompt, negative) == (last.prompt, last.negative):
            requests[-1] = replace(last, count=last.count + 1)
        else:
            requests.append(replace(request, prompt=prompt, negative=negative, seed=own, count=1))
    return requests
