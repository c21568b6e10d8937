"""Seats for critics: what every system that paints by listening has, besides what it paints with.

A card brings one CLIP; `critics=NAME, NAME` (`mindseye.engine.calling`) seats others in its place or beside it, and
their opinions are added.
"""

from dataclasses import dataclass

from mindseye.critique.critic import ClipCritic, critics_of
from mindseye.networks.clip import CLIP
from mindseye.text.tokenizer import Tokenizer

__all__ = ["Listening"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Listening:
    """A system with three seats; abstract.

    Attributes:
        clip: The critic.
        tokenizer: Its tokenizer.
        clip_2: A second critic; their opinions are added.
        tokenizer_2: Its tokenizer.
        clip_3: A third.
        tokenizer_3: Its tokenizer.
    """

    clip: CLIP
    tokenizer: Tokenizer
    clip_2: CLIP | None = None
    tokenizer_2: Tokenizer | None = None
    clip_3: CLIP | None = None
    tokenizer_3: Tokenizer | None = None

    @property
    def critics(self) -> tuple[ClipCritic, ...]:
        """Who looks."""
        return critics_of((self.clip, self.tokenizer), (self.clip_2, self.tokenizer_2), (self.clip_3, self.tokenizer_3))
