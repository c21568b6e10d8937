"""mindseye: text to pictures, every generation of it, under one roof.

    >>> import mindseye
    >>> result = mindseye.generate("a red apple", seed=7)
    >>> result.images[0].save("apple.png")

Importing the package is instant: torch is loaded by the first call that needs it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mindseye.engine.engine import Engine, Limits, generate, load, stream
    from mindseye.errors import MindseyeError
    from mindseye.request import Progress, Request, Result
    from mindseye.zoo import ZOO as models

__version__ = "0.1.0"

__all__ = [
    "Engine",
    "Limits",
    "MindseyeError",
    "Progress",
    "Request",
    "Result",
    "__version__",
    "generate",
    "load",
    "models",
    "stream",
]

_HOMES = {
    "Engine": ("mindseye.engine.engine", "Engine"),
    "Limits": ("mindseye.engine.engine", "Limits"),
    "MindseyeError": ("mindseye.errors", "MindseyeError"),
    "Progress": ("mindseye.request", "Progress"),
    "Request": ("mindseye.request", "Request"),
    "Result": ("mindseye.request", "Result"),
    "generate": ("mindseye.engine.engine", "generate"),
    "load": ("mindseye.engine.engine", "load"),
    "models": ("mindseye.zoo", "ZOO"),
    "stream": ("mindseye.engine.engine", "stream"),
}


def __getattr__(name: str) -> object:
    """Public names, imported when they are first used (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
