"""Publishers' own code, where it is installed: what it imports and does not need here is stood in for."""

import importlib
import importlib.util
import sys
import types
import warnings

import pytest

NEEDED = (
    "axial_positional_embedding", "g_mlp_pytorch", "ftfy", "omegaconf", "pkg_resources", "rotary_embedding_torch",
    "taming", "taming.models", "taming.models.vqgan", "webdataset", "youtokentome",
)  # fmt: skip
"""What dalle-pytorch imports."""


class Stub(types.ModuleType):
    """Has everything, and none of it is of use."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return object


@pytest.fixture
def dalle_pytorch(monkeypatch):
    """The package dalle-pytorch."""
    if importlib.util.find_spec("dalle_pytorch") is None:
        pytest.skip("dalle-pytorch is not installed")
    for name in NEEDED:
        root = name.partition(".")[0]
        if isinstance(sys.modules.get(root), Stub) or importlib.util.find_spec(root) is None:
            monkeypatch.setitem(sys.modules, name, Stub(name))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("dalle_pytorch.dalle_pytorch")
    except ImportError as error:
        pytest.skip(f"dalle-pytorch cannot be imported: {error}")
