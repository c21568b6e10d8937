"""Who writes adapters how: one file a family, each a function from a key to the module it changes and the factor it is.

A **factor** is one tensor of a change under one name for all dialects (`mindseye.checkpoints.adapters.deltas` lists
them). A **module** is named as its publisher does, with every ``.`` turned into ``_``: kohya's files are written like
that, and it cannot be undone by splitting (``to_q``, ``proj_in`` and ``down_blocks`` have underscores of their own), so
everybody else's names are brought to the same form and looked up in a table made from the network itself.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from mindseye.checkpoints.adapters.dialects import diffusers, kohya
from mindseye.checkpoints.adapters.dialects.target import Target

__all__ = ["Parsed", "Target", "parse"]


class Parsed(NamedTuple):
    """A file's keys, sorted out.

    Attributes:
        dialect: The dialect of most of its keys.
        modules: Module -> factor -> key.
        left: Keys that no dialect knows.
    """

    dialect: str
    modules: Mapping[Target, Mapping[str, str]]
    left: tuple[str, ...]


def parse(keys: Iterable[str]) -> Parsed:
    """Sort out the keys of a file in which tensors are named by the modules they change.

    cloneofsimo's files number their modules instead: see `mindseye.checkpoints.adapters.dialects.cloneofsimo`.
    """
    modules: dict[Target, dict[str, str]] = {}
    votes: dict[str, int] = {}
    left = []
    for key in keys:
        found = kohya.parse(key) or diffusers.parse(key)
        if found is None:
            left.append(key)
            continue
        dialect, target, factor = found
        modules.setdefault(target, {})[factor] = key
        if factor != "alpha":
            votes[dialect] = votes.get(dialect, 0) + 1
    dialect = max(votes, key=lambda name: votes[name]) if votes else ""
    return Parsed(dialect, modules, tuple(left))
