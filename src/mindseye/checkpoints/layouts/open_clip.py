"""OpenCLIP's text towers as the original files of Stable Diffusion 2 and XL carry them.

Stable Diffusion 2 reads what leaves the last block but one. As everywhere but in the original file, its tower is
therefore kept without its last block, projection and temperature, which nothing ever reads: with the config's ``embed``
None, that block's keys may be left out of the reading. XL needs all of bigG.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.layout import Ignore, Rule
from mindseye.checkpoints.layouts import openai_clip

if TYPE_CHECKING:
    from mindseye.networks.clip import Config

WHOLE = 24
"""Blocks of OpenCLIP-H's text tower."""

__all__ = ["ignored", "text_config", "text_rules"]


def text_rules(config: "Config") -> Iterator[Rule]:
    """The text tower; with a projection, also the temperature."""
    yield from openai_clip.text_tower_rules(config)
    if config.embed is not None:
        yield Rule("logit_scale", "logit_scale")


def ignored(config: "Config") -> tuple[Ignore, ...]:
    """What may be left out; more of it where the tower stops one block early."""
    if config.embed is not None:
        return openai_clip.IGNORE
    last = config.text.layers
    return (
        *openai_clip.IGNORE,
        Ignore(rf"transformer\.resblocks\.{last}\..*", "Stable Diffusion 2 reads the block before it"),
        Ignore(r"text_projection|logit_scale", "Stable Diffusion 2 reads tokens, not the projected text"),
    )


def text_config(shapes: Mapping[str, tuple[int, ...]], *, early: bool) -> dict[str, Any]:
    """A `mindseye.networks.clip.Config` as plain values, from shapes; 64 channels a head as in every release.

    Args:
        shapes: Of the tower's tensors, by OpenCLIP's names.
        early: Whether to stop one block early, as Stable Diffusion 2 does; files made from diffusers' folders have no
            projection and lack that block already.

    Raises:
        KeyError: Not such a tower.
    """
    vocabulary, width = shapes["token_embedding.weight"]
    layers = len({key.split(".")[2] for key in shapes if key.startswith("transformer.resblocks.")})
    early = early and ("text_projection" in shapes or layers == WHOLE)
    return {
        "text": {
            "vocabulary": vocabulary,
            "length": shapes["positional_embedding"][0],
            "width": width,
            "layers": layers - early,
            "heads": max(1, width // 64),
            "hidden": openai_clip.hidden_of(shapes, "transformer", width),
            "activation": "gelu",
        },
        "image": None,
        "embed": shapes["text_projection"][1] if "text_projection" in shapes and not early else None,
    }
