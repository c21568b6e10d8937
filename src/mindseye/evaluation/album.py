"""Pictures drawn for an evaluation, kept: one that was stopped after an hour goes on from there.

A picture is known by all that decides it: the conditions of the run (card, weights, options), the prompt, the seed and
the picture it started from. What it took to draw is kept inside the file, so seconds a picture survive a stop, too.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import final

from PIL import Image

from mindseye.pictures import check_folder, save_png

__all__ = ["Album"]

_SECONDS = "seconds"


@final
class Album:
    """A folder of pictures.

    Args:
        folder: Must be there. Pictures of several runs may share it.
        conditions: Whatever decides a picture besides its own prompt, seed and start.

    Raises:
        OutputError: The folder is missing, or may not be written to.
    """

    def __init__(self, folder: Path, conditions: Mapping[str, str | int | float]) -> None:
        check_folder(folder)
        self.folder = folder
        self._conditions = json.dumps(dict(conditions), sort_keys=True)

    def get(self, prompt: str, seed: int, start: Image.Image | None = None) -> tuple[Image.Image, float] | None:
        """The picture, and the seconds it took (nan where that was not measured); None when it is not there."""
        try:
            with Image.open(self._path(prompt, seed, start)) as found:
                found.load()
                seconds = float(found.info.get(_SECONDS, "nan"))
                return found.convert("RGB"), seconds
        except (OSError, ValueError, SyntaxError):  # what cannot be read is drawn again
            return None

    def put(
        self, picture: Image.Image, prompt: str, seed: int, start: Image.Image | None = None, seconds: float = math.nan
    ) -> None:
        """Keep a picture; one that was there is replaced."""
        save_png(picture, self._path(prompt, seed, start), {"prompt": prompt, _SECONDS: repr(seconds)})

    def _path(self, prompt: str, seed: int, start: Image.Image | None) -> Path:
        digest = hashlib.sha256(json.dumps([self._conditions, prompt, seed]).encode())
        if start is not None:
            digest.update(f"{start.size}".encode() + start.convert("RGB").tobytes())
        return self.folder / f"{digest.hexdigest()[:32]}.png"
