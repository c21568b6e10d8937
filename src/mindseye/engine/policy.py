"""What a machine computes fastest in, found by measuring it, and what that means for a network.

Two processors with the same instruction for bfloat16 differ by a factor of four in what it gains: on AMD's Zen 4 it
doubles the speed, on an Intel Xeon without AMX it halves it, and on the float32 side the wide convolutions here need a
quarter of the products (`mindseye.nn.convolution`). So nothing is concluded from the processor's name; a large network
is preceded by a measurement of a few hundredths of a second, made once a process.
"""

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from mindseye.nn.convolution import convolve
from mindseye.nn.layers import Conv2d, Linear

__all__ = ["Policy", "arrange", "available", "choose", "half_is_faster", "reuse_memory"]

_LARGE = 50_000_000
"""Parameters from which on a measurement pays."""


@dataclass(frozen=True, kw_only=True)
class Policy:
    """How a network is to be held and run.

    Attributes:
        dtype: What it computes in.
        keep: Weights stay in the dtype of their file and every layer widens its own when it is called: a half-precision
            file then takes half-precision memory and loses nothing, for some time a step.
        memory_format: Of feature maps and of the weights of convolutions.
    """

    dtype: torch.dtype
    keep: bool
    memory_format: torch.memory_format

    @property
    def stored(self) -> torch.dtype | None:
        """What a loader turns weights into; None = nothing, as they are."""
        return None if self.keep else self.dtype


def choose(device: torch.device, *, parameters: int, dtype: torch.dtype | None = None) -> Policy:
    """The policy for a network of that many parameters.

    Args:
        device: Where it will run.
        parameters: How large it is; small networks are not worth a measurement, nor half precision.
        dtype: What to compute in, where somebody has said so.
    """
    if device.type != "cpu":
        fast = device.type == "cuda" and torch.cuda.is_bf16_supported()
        return Policy(
            dtype=dtype or (torch.bfloat16 if fast else torch.float32), keep=False, memory_format=torch.channels_last
        )
    if dtype is None:
        half = parameters >= _LARGE and half_is_faster()
        dtype = torch.bfloat16 if half else torch.float32
    room = available()
    short = room is not None and 2 * dtype.itemsize * parameters > room
    return Policy(dtype=dtype, keep=short and dtype == torch.float32, memory_format=torch.channels_last)


def arrange(network: nn.Module, policy: Policy) -> nn.Module:
    """The network, in place, as the policy wants it; tensor by tensor, so that there is never a second copy.

    Layers that were told to be so later (`mindseye.nn.layers.Later`) are left to it.

    Only `mindseye.nn.layers` widen their own weights, so in a network that keeps its dtypes everything else is widened
    here, and so is the layer of the first parameter, which is where callers look for what a network computes in.
    """
    first = next(network.parameters(), None)
    for module in network.modules():
        if getattr(module, "later", None) is not None:
            continue
        own = dict(module.named_parameters(recurse=False))
        narrow = (
            policy.keep and isinstance(module, (Conv2d, Linear)) and all(each is not first for each in own.values())
        )
        for parameter in own.values():
            wanted = parameter.dtype if narrow or not parameter.is_floating_point() else policy.dtype
            layout = policy.memory_format if parameter.ndim == 4 else torch.preserve_format
            parameter.data = parameter.data.to(dtype=wanted, memory_format=layout)
        exact = getattr(module, "exact", ())
        for name, buffer in module.named_buffers(recurse=False):
            if buffer.is_floating_point() and name not in exact:
                buffer.data = buffer.data.to(policy.dtype)
    return network


@lru_cache(maxsize=1)
def half_is_faster() -> bool:
    """Whether bfloat16 beats float32 by a tenth or more, in what fills the time of a U-Net: convolutions and products.

    Both take turns, three times, and the best of each counts, so that a busy machine does not decide.
    """
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    best: dict[torch.dtype, float] = {}
    with torch.inference_mode():
        work = {dtype: _work(dtype) for dtype in (torch.float32, torch.bfloat16)}
        for turn in range(4):
            for dtype, run in work.items():
                start = time.perf_counter()
                run()
                if turn:  # the first one builds kernels
                    best[dtype] = min(best.get(dtype, float("inf")), time.perf_counter() - start)
    return best[torch.bfloat16] < 0.9 * best[torch.float32]


def _work(dtype: torch.dtype) -> Callable[[], object]:
    """As many operations in a convolution as in linear layers."""
    x = torch.full((1, 128, 32, 32), 0.5, dtype=dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.full((128, 128, 3, 3), 0.01, dtype=dtype).contiguous(memory_format=torch.channels_last)
    rows, matrix = torch.full((512, 512), 0.5, dtype=dtype), torch.full((576, 512), 0.01, dtype=dtype)
    return lambda: (convolve(x, weight, padding=(1, 1)), F.linear(rows, matrix))


def available() -> int | None:
    """Bytes of memory that could be had without swapping; None where the system does not say."""
    info = Path("/proc/meminfo")
    if info.exists():
        for line in info.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    return None


def reuse_memory() -> bool:
    """Have glibc keep freed blocks of up to 1 GiB instead of handing each back to the system and fetching it again.

    Every large feature map otherwise comes as fresh pages, each of which the system clears when it is first touched.
    For the whole process; the peak stays as it is. Returns whether this system has that knob.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    trim, threshold = -1, -3  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
    return bool(mallopt(threshold, 2**30)) and bool(mallopt(trim, 2**31 - 1))
