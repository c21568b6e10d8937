"""What a class-conditional generator is told: kinds of thing where the corpus is learned, captions of a user's own."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mindseye.data.kinds import CLASSES, class_of
from mindseye.errors import DataError
from mindseye.training.recipe import Workshop

__all__ = ["MOST_CLASSES", "classified"]

MOST_CLASSES: Final = 64
"""Of a user's own pictures: so many different captions are classes."""


def classified(
    workshop: Workshop, captions: Sequence[str], labels: Sequence[str] = ()
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the classes, and the class of each picture, -1 for none.

    Args:
        workshop: Whose pictures they are.
        captions: One a picture.
        labels: Of a user's own pictures, the classes that are known already; empty = the captions say.

    Raises:
        DataError: A user's own pictures have too many different captions, or only one.
    """
    if workshop.data is None:
        found = [class_of(caption) for caption in captions]
        return tuple(CLASSES), np.array([-1 if place is None else place for place in found])
    labels = labels or sorted({caption.strip() for caption in captions})
    if not 2 <= len(labels) <= MOST_CLASSES:
        raise DataError(
            f"the pictures have {len(labels)} different captions, and a caption is a class here",
            hint=f"give each picture the name of its class as caption: 2 to {MOST_CLASSES} different ones",
        )
    places = {label: place for place, label in enumerate(labels)}
    return tuple(labels), np.array([places.get(caption.strip(), -1) for caption in captions])
