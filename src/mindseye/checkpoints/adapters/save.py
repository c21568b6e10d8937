"""Writing adapters that we trained, under the names by which everybody else knows the modules.

Ours are called by our own parameters; the rules that load checkpoints give the publishers' names. Where one of our
parameters is several of theirs (queries, keys and values in one), every one of them gets its own rows of ``up`` and the
whole of ``down``: the same change.
"""

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from torch import Tensor, nn, tensor

from mindseye.checkpoints.adapters.places import base_of, native_names

__all__ = ["save_adapter"]

ARCHITECTURES = {
    "sd1": "stable-diffusion-v1/lora",
    "sd2": "stable-diffusion-v2-512/lora",
    "sdxl": "stable-diffusion-xl-v1-base/lora",
}


def save_adapter(
    path: Path,
    parts: Mapping[str, nn.Module],
    factors: Mapping[str, Mapping[str, tuple[Tensor, Tensor]]],
    *,
    alpha: float,
    naming: Literal["kohya", "peft"] = "kohya",
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a LoRA, atomically.

    Args:
        path: The ``.safetensors`` to write.
        parts: The networks that it was trained on, by part: ``unet``, ``text``, ``text_2``.
        factors: Part -> our parameter's name -> (down, up): ``(r, in)`` and ``(out, r)``, of convolutions
            ``(r, in, k, k)`` and ``(out, r, 1, 1)``.
        alpha: The change is ``alpha / r up @ down``.
        naming: kohya's names, which everything reads; or diffusers' with PEFT's endings.
        metadata: More to say about it.

    Raises:
        ValueError: A parameter that has no public name.
    """
    from safetensors.torch import save

    state: dict[str, Tensor] = {}
    ranks: set[int] = set()
    config: dict[str, object] = {}
    for part, changes in factors.items():
        names = native_names(parts[part])
        for ours, (down, up) in changes.items():
            if ours not in names:
                raise ValueError(f"{part}: {ours} has no public name")
            ranks.add(len(down))
            for theirs, their_down, their_up in _split(names[ours], down, up):
                module = theirs.removesuffix(".weight")
                if naming == "kohya":
                    stem = f"{_kohya(part, parts)}{module.replace('.', '_')}"
                    state[f"{stem}.lora_down.weight"], state[f"{stem}.lora_up.weight"] = their_down, their_up
                    state[f"{stem}.alpha"] = tensor(float(alpha))
                else:
                    stem = f"{_PEFT[part]}.{module}"
                    state[f"{stem}.lora_A.weight"], state[f"{stem}.lora_B.weight"] = their_down, their_up
            config |= {f"{_PEFT[part]}.lora_alpha": alpha, f"{_PEFT[part]}.r": len(down)}
    about = {"format": "pt", "ss_network_alpha": str(alpha), "ss_network_dim": str(max(ranks, default=0))}
    if architecture := ARCHITECTURES.get(base_of(parts)):
        about["modelspec.architecture"] = architecture
    if naming == "peft":
        about["lora_adapter_metadata"] = json.dumps(config)
    state = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    part_file = path.with_name(f"{path.name}.part{os.getpid()}")
    try:
        with part_file.open("wb") as file:
            file.write(save(state, about | dict(metadata or {})))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part_file, path)
    finally:
        part_file.unlink(missing_ok=True)


_PEFT = {"unet": "unet", "text": "text_encoder", "text_2": "text_encoder_2"}


def _kohya(part: str, parts: Mapping[str, nn.Module]) -> str:
    if part == "text":
        return "lora_te1_" if "text_2" in parts else "lora_te_"
    return {"unet": "lora_unet_", "text_2": "lora_te2_"}[part]


def _split(rules: list, down: Tensor, up: Tensor) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Their weights that lie in one of ours, each with its factors."""
    for rule in rules:
        if rule.op.kind == "transpose":
            yield rule.theirs, up.t(), down.t()
        elif rule.op.kind == "same":
            yield rule.theirs, down.clone(), up.chunk(rule.op.of)[rule.op.part].clone()
        else:
            raise ValueError(f"{rule.theirs} lies in ours as {rule.op.kind}, which has no adapter")
