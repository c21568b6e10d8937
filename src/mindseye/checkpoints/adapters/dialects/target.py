"""What an adapter changes."""

from typing import NamedTuple

__all__ = ["Target"]


class Target(NamedTuple):
    """One module of a base.

    Attributes:
        part: ``unet``, ``text``, ``text_2``; empty where the file does not say.
        name: The publisher's name, with ``_`` for every ``.``.
    """

    part: str
    name: str

    def __str__(self) -> str:
        return f"{self.part or 'part unknown'}: {self.name}"
