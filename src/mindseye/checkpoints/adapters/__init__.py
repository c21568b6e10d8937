"""Adapters (LoRA and its kin) and learned words (textual inversion): reading, merging, taking out, writing."""

from mindseye.checkpoints.adapters.adapter import Adapter, read_adapter
from mindseye.checkpoints.adapters.attach import Attached, Report, Weights, attach, match
from mindseye.checkpoints.adapters.embeddings import Embedding, check_width, fits, read_embedding, read_embeddings
from mindseye.checkpoints.adapters.save import save_adapter

__all__ = [
    "Adapter",
    "Attached",
    "Embedding",
    "Report",
    "Weights",
    "attach",
    "check_width",
    "fits",
    "match",
    "read_adapter",
    "read_embedding",
    "read_embeddings",
    "save_adapter",
]
