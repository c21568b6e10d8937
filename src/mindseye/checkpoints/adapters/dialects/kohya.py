"""kohya-ss/sd-scripts, and KohakuBlueleaf/LyCORIS, which writes more kinds of change under the same names.

A key is ``lora_unet_<module>.<factor>``: the module's name has underscores for dots, so the first dot ends it. SD 1 and
2 write the text encoder as ``lora_te_``, XL its two as ``lora_te1_`` and ``lora_te2_``. XL's U-Net comes under
diffusers' block names or, from most trainers, the original ones (``input_blocks_4_1_...``): that is for the table of
the network to know, not for this file.
"""

from mindseye.checkpoints.adapters.dialects.target import Target

__all__ = ["FACTORS", "LYCORIS", "parse"]

PREFIXES = {
    "lora_unet_": "unet",
    "lora_te_": "text",
    "lora_te1_": "text",
    "lora_te2_": "text_2",
    "lycoris_": "",
}
FACTORS = {
    "lora_down.weight": "down",
    "lora_up.weight": "up",
    "lora_mid.weight": "mid",
    "alpha": "alpha",
    "dora_scale": "magnitude",
}
LYCORIS = {
    name: name
    for name in (
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2"),
        *("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"),
        *("diff", "diff_b", "w_norm", "b_norm", "oft_blocks", "oft_diag", "rescale", "scalar", "on_input"),
        *("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
    )
} | {"weight": "ia3"}


def parse(key: str) -> tuple[str, Target, str] | None:
    """Dialect, module and factor of a key, or None when it is not of this family."""
    for prefix, part in PREFIXES.items():
        if key.startswith(prefix):
            name, _, ending = key[len(prefix) :].partition(".")
            if ending in FACTORS:
                return "kohya", Target(part, name), FACTORS[ending]
            if ending in LYCORIS:
                return "lycoris", Target(part, name), LYCORIS[ending]
    return None
