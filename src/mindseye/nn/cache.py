"""Keys and values that attention has seen already, kept where the next step reads them.

A model that writes one token at a time needs of all earlier tokens only their keys and values. They lie in memory that
is taken once, for as many places as there will ever be, and each step writes its own beside them: nothing grows,
nothing is copied. Heads come before places, so that what one head reads for one query is one stretch of memory: on a
processor a step is bound by reading, and in this order it takes 0.6 to 0.8 of the time.

Cross-attention reads the same keys and values at every step: `KeyValues.of` holds what was computed once.
"""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["KeyValues"]


@final
class KeyValues:
    """Keys and values of one layer.

    Args:
        rows: Sequences.
        heads: Attention heads.
        places: Tokens there is room for.
        width: Channels of one head.
        like: The dtype and device of what will be kept.
    """

    def __init__(self, rows: int, heads: int, places: int, width: int, *, like: Tensor) -> None:
        self._keys = torch.empty(rows, heads, places, width, dtype=like.dtype, device=like.device)
        self._values = torch.empty_like(self._keys)
        self._filled = 0

    @classmethod
    def of(cls, k: Float[Tensor, "B M HD"], v: Float[Tensor, "B M HD"], *, heads: int) -> "KeyValues":
        """A cache that is full from the beginning: what cross-attention looks at."""
        made = cls(len(k), heads, k.shape[1], k.shape[2] // heads, like=k)
        made.append(k, v)
        return made

    @property
    def filled(self) -> int:
        """Places that are taken."""
        return self._filled

    @property
    def held(self) -> tuple[Float[Tensor, "B H M d"], Float[Tensor, "B H M d"]]:
        """What is kept so far, as views; `mindseye.nn.attention.attend` takes them as they are."""
        return self._keys[:, :, : self._filled], self._values[:, :, : self._filled]

    def append(
        self, k: Float[Tensor, "B N HD"], v: Float[Tensor, "B N HD"]
    ) -> tuple[Float[Tensor, "B H M d"], Float[Tensor, "B H M d"]]:
        """Write the next places, and give back `held`.

        Args:
            k: Keys as the projection gives them, ``B N (heads d)``.
            v: Values.

        Raises:
            ValueError: There is no room left for them.
        """
        start, end = self._filled, self._filled + k.shape[1]
        heads, places = self._keys.shape[1:3]
        if end > places:
            raise ValueError(f"there is room for {places} places, not for {end}")
        self._keys[:, :, start:end] = k.unflatten(-1, (heads, -1)).transpose(1, 2)
        self._values[:, :, start:end] = v.unflatten(-1, (heads, -1)).transpose(1, 2)
        self._filled = end
        return self.held

    def select(self, rows: Int[Tensor, "R"]) -> "KeyValues":
        """A cache of these rows, each as often as it is named; what is kept is copied, what comes is theirs alone."""
        _, heads, places, width = self._keys.shape
        made = KeyValues(len(rows), heads, places, width, like=self._keys)
        for mine, theirs in ((made._keys, self._keys), (made._values, self._values)):
            mine[:, :, : self._filled] = theirs[:, :, : self._filled].index_select(0, rows.to(theirs.device))
        made._filled = self._filled
        return made
