"""diffusers and PEFT, through the years, and whoever else writes modules with their dots.

==========================  =======================================================================================
``peft``                    ``unet.down_blocks.0....to_q.lora_A.weight`` / ``lora_B``; also ``base_model.model.`` first
``diffusers``               ``unet.....to_q.lora.down.weight``, ``text_encoder.....lora_linear_layer.up.weight``
``diffusers-old``           ``unet.....attn1.processor.to_q_lora.down.weight``, the text encoder's layers likewise
``dotted``                  ``diffusion_model.input_blocks.1.1....lora_up.weight``: kohya's endings, as ComfyUI saves
==========================  =======================================================================================

Scales are not among PEFT's tensors: see `mindseye.checkpoints.adapters.adapter`.
"""

from mindseye.checkpoints.adapters.dialects import kohya
from mindseye.checkpoints.adapters.dialects.target import Target

__all__ = ["parse"]

WRAPPERS = ("base_model.model.", "lora_unet.", "model.")
PREFIXES = {
    "unet.": "unet",
    "diffusion_model.": "unet",
    "text_encoder.": "text",
    "text_encoder_2.": "text_2",
    "text_encoders.clip_l.transformer.": "text",
    "text_encoders.clip_h.transformer.": "text",
    "text_encoders.clip_g.transformer.": "text_2",
}
PEFT = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_A.default.weight": "down",
    "lora_B.default.weight": "up",
    "lora_magnitude_vector": "output_magnitude",
    "lora_magnitude_vector.weight": "output_magnitude",
    "lora_magnitude_vector.default.weight": "output_magnitude",
}
MID = {
    "lora.down.weight": "down",
    "lora.up.weight": "up",
    "lora.alpha": "alpha",
    "lora_linear_layer.down.weight": "down",
    "lora_linear_layer.up.weight": "up",
    "lora_linear_layer.alpha": "alpha",
}
OLD = {"down.weight": "down", "up.weight": "up", "alpha": "alpha"}
ENDINGS = (
    *(("peft", ending, factor) for ending, factor in PEFT.items()),
    *(("diffusers", ending, factor) for ending, factor in MID.items()),
    *(("dotted", ending, factor) for ending, factor in (kohya.FACTORS | kohya.LYCORIS).items() if ending != "weight"),
)
LAYERS = {"to_q_lora": "to_q", "to_k_lora": "to_k", "to_v_lora": "to_v", "to_out_lora": "to_out.0"}
TEXT_LAYERS = {"to_q_lora": "q_proj", "to_k_lora": "k_proj", "to_v_lora": "v_proj", "to_out_lora": "out_proj"}


def parse(key: str) -> tuple[str, Target, str] | None:
    """Dialect, module and factor of a key, or None when it is not of this family."""
    for dialect, ending, factor in ENDINGS:
        if key.endswith(f".{ending}"):
            name = key[: -len(ending) - 1]
            last = name.rpartition(".")[2]
            if last not in LAYERS:
                return dialect, _target(name), factor
    for ending, factor in OLD.items():
        head, _, last = key[: -len(ending) - 1].rpartition(".")
        if key.endswith(f".{ending}") and last in LAYERS:
            if head.endswith(".processor"):
                return "diffusers-old", _target(f"{head.removesuffix('.processor')}.{LAYERS[last]}"), factor
            layers = TEXT_LAYERS if head.endswith(".self_attn") else LAYERS
            return "diffusers-old", _target(f"{head}.{layers[last]}"), factor
    return None


def _target(name: str) -> Target:
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    for prefix, part in PREFIXES.items():
        if name.startswith(prefix):
            return Target(part, name[len(prefix) :].replace(".", "_"))
    return Target("", name.replace(".", "_"))
