"""cloneofsimo/lora, the first LoRA for Stable Diffusion: modules have numbers instead of names.

The number is the module's place when diffusers 0.7 and transformers walked the networks: every linear layer below an
attention or a gated feed-forward, in the order in which their constructors made them. Down blocks come before up
blocks and the middle last; inside a transformer block the feed-forward stands between the two attentions; the text
encoder's attention makes keys and values before queries. Shapes in the files of that time confirm the first two, the
size of what was learned the third (values and outputs move more than keys and queries).

``.safetensors`` files name the parts and the classes that were searched (``unet:{i}:up``); a ``.pt`` is a bare list up,
down, up, down, ... of one part.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from mindseye.checkpoints.adapters.dialects.target import Target
from mindseye.errors import WeightsError

__all__ = ["is_named", "listed", "named", "text_order", "unet_order"]

Shape = Sequence[int]

KEY = re.compile(r"(unet|text_encoder):(\d{1,6}):(up|down)", re.ASCII)
PARTS = {"unet": "unet", "text_encoder": "text"}
UNET = ("CrossAttention", "Attention", "GEGLU")
TEXT = ("CLIPAttention",)
ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
ORDER = (("attn1", ATTENTION), ("ff", ("net.0.proj",)), ("attn2", ATTENTION))
RESIDUAL = ("conv1", "time_emb_proj", "conv2")


def unet_order(classes: Sequence[str] = UNET) -> tuple[str, ...]:
    """Names of the modules that the trainer found below ``classes`` in a U-Net of SD 1 or 2, in its order."""
    return tuple(name for kind, name in _unet() if kind in classes)


def text_order(layers: int, classes: Sequence[str] = TEXT) -> tuple[str, ...]:
    """The same for a CLIP text encoder of ``layers`` layers."""
    names = []
    for layer in range(layers):
        block = f"text_model.encoder.layers.{layer}"
        if "CLIPAttention" in classes or "CLIPEncoderLayer" in classes:
            names += [f"{block}.self_attn.{name}_proj" for name in ("k", "v", "q", "out")]
        if "CLIPMLP" in classes or "CLIPEncoderLayer" in classes:
            names += [f"{block}.mlp.fc1", f"{block}.mlp.fc2"]
    return tuple(names)


def _unet() -> Iterator[tuple[str, str]]:
    """(class, module) of everything that any version of the trainer can adapt, in the walk's order."""
    widths = (320, 640, 1280, 1280)
    for level in range(4):
        changes = [level > 0 and widths[level] != widths[level - 1], False]
        yield from _block(f"down_blocks.{level}", level < 3, changes)
    for level in range(4):
        yield from _block(f"up_blocks.{level}", level > 0, [True] * 3)
    yield from _block("mid_block", True, [False, False], attentions=1)


def _block(
    name: str, attends: bool, changes: Sequence[bool], attentions: int | None = None
) -> Iterator[tuple[str, str]]:
    """One block: its attentions first, then its residual blocks."""
    for place in range(attentions or len(changes)) if attends else ():
        prefix = f"{name}.attentions.{place}.transformer_blocks.0"
        for part, layers in ORDER:
            for layer in layers:
                yield "GEGLU" if part == "ff" else "CrossAttention", f"{prefix}.{part}.{layer}"
    for place, change in enumerate(changes):
        for layer in (*RESIDUAL, *(("conv_shortcut",) if change else ())):
            yield "ResnetBlock2D", f"{name}.resnets.{place}.{layer}"


def is_named(key: str) -> bool:
    """Whether this is a key of the ``.safetensors`` form."""
    return KEY.fullmatch(key) is not None


def named(keys: Sequence[str], metadata: Mapping[str, str]) -> dict[Target, dict[str, str]]:
    """Modules and factors of the ``.safetensors`` form.

    Raises:
        WeightsError: The classes that were searched are missing or not known, or there are more modules than that.
    """
    modules: dict[Target, dict[str, str]] = {}
    count = dict.fromkeys(PARTS, 0)
    for key in keys:
        if found := KEY.fullmatch(key):
            count[found[1]] = max(count[found[1]], int(found[2]) + 1)
    orders = {}
    for part, most in count.items():
        if most:
            orders[part] = _order(part, _classes(part, metadata), most)
    for key in keys:
        if found := KEY.fullmatch(key):
            part, number, factor = found.groups()
            target = Target(PARTS[part], orders[part][int(number)].replace(".", "_"))
            modules.setdefault(target, {})[factor] = key
    return modules


def listed(shapes: Sequence[Shape]) -> dict[Target, dict[str, str]]:
    """Modules and factors of the list form; the keys are places in the list.

    Which part and which classes it was made for is told by the number of pairs and by their widths.

    Raises:
        WeightsError: It is not such a list.
    """
    pairs = len(shapes) // 2
    if not pairs or len(shapes) % 2 or any(len(shape) not in (2, 4) for shape in shapes):
        raise WeightsError("a list of tensors that are not pairs of matrices: not an adapter")
    if len({(up[0], down[1]) for up, down in zip(shapes[::2], shapes[1::2], strict=True)}) == 1 and pairs % 4 == 0:
        part, names = "text", text_order(pairs // 4)
    else:
        known = (UNET, ("CrossAttention", "Attention"), ("ResnetBlock2D", *UNET))
        orders = {len(unet_order(classes)): unet_order(classes) for classes in known}
        if pairs not in orders:
            raise WeightsError(
                f"a list of {pairs} pairs, but lists of this kind have {', '.join(map(str, sorted(orders)))} for a "
                "U-Net, or pairs of one and the same shape for a text encoder"
            )
        part, names = "unet", orders[pairs]
    return {
        Target(part, name.replace(".", "_")): {"up": str(2 * i), "down": str(2 * i + 1)} for i, name in enumerate(names)
    }


def _classes(part: str, metadata: Mapping[str, str]) -> tuple[str, ...]:
    try:
        classes = json.loads(metadata[part])
        return tuple(str(name) for name in classes)
    except (KeyError, ValueError, TypeError, RecursionError):
        return UNET if part == "unet" else TEXT


def _order(part: str, classes: Sequence[str], most: int) -> tuple[str, ...]:
    known = ("CrossAttention", "Attention", "GEGLU", "ResnetBlock2D", "CLIPAttention", "CLIPMLP", "CLIPEncoderLayer")
    if strange := sorted(set(classes) - set(known)):
        raise WeightsError(f"the {part} adapter was made for modules below {strange[0]}, whose order is not known here")
    if part == "unet":
        order = unet_order(classes)
    else:
        each = len(text_order(1, classes))
        if not each or most % each or most // each > 64:
            raise WeightsError(f"the text adapter has {most} modules, which is no whole number of layers")
        order = text_order(most // each, classes)
    if most > len(order):
        raise WeightsError(f"the {part} adapter has {most} modules, but a U-Net of SD 1 or 2 has {len(order)}")
    return order
