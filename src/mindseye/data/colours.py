"""The named colours of the corpus: few, far apart, and the same for painting, captions and checking."""

from typing import Final

__all__ = ["COLOURS", "hex_of"]

COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "red": (222, 40, 45),
    "orange": (246, 140, 24),
    "yellow": (250, 214, 40),
    "green": (52, 160, 60),
    "cyan": (52, 200, 215),
    "blue": (38, 92, 210),
    "purple": (128, 58, 178),
    "pink": (246, 132, 186),
    "brown": (124, 78, 44),
    "black": (22, 22, 24),
    "gray": (140, 142, 146),
    "white": (255, 255, 255),
}
"""Name to sRGB bytes."""


def hex_of(colour: str) -> str:
    """``"red"`` to ``"#de282d"``."""
    return "#" + bytes(COLOURS[colour]).hex()
