"""``config.json`` of diffusers' U-Nets and autoencoders, read and written.

A folder says what shapes cannot: how many heads, how many groups. What it asks for and our networks do not do is
refused by name, because ignoring it would draw something else.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mindseye.networks.unet import Config as UNetConfig
    from mindseye.networks.vae import Config as VAEConfig

__all__ = ["unet_config", "unet_json", "vae_config", "vae_json", "vae_shapes"]

FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "class_embed_type": (None,),
    "encoder_hid_dim": (None,),
    "dual_cross_attention": (False, None),
    "only_cross_attention": (False, None),
    "resnet_time_scale_shift": ("default",),
    "time_cond_proj_dim": (None,),
    "time_embedding_type": ("positional", None),
    "flip_sin_to_cos": (True,),
    "freq_shift": (0,),
    "norm_eps": (1e-5,),
    "center_input_sample": (False, None),
    "addition_embed_type": (None, "text_time"),
    "mid_block_type": ("UNetMidBlock2DCrossAttn",),
    "conv_in_kernel": (3,),
    "conv_out_kernel": (3,),
    "resnet_skip_time_act": (False, None),
    "resnet_out_scale_factor": (1.0, None),
}
"""What our U-Net does one way only, with the values that mean this way."""

VAE_FIXED: dict[str, tuple[Any, ...]] = {
    "act_fn": ("silu", "swish"),
    "in_channels": (3,),
    "out_channels": (3,),
    "mid_block_add_attention": (True,),
    "shift_factor": (None, 0),
}


def check(values: Mapping[str, Any], fixed: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse what our network does not do.

    Raises:
        ValueError: Naming the setting.
    """
    for name, possible in fixed.items():
        if name in values and values[name] not in possible:
            raise ValueError(f"{name} is {values[name]!r}, and only {possible[0]!r} is supported")


def unet_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A `mindseye.networks.unet.Config` as plain values, from ``unet/config.json``.

    ``attention_head_dim`` is, in spite of its name, the number of heads.

    Raises:
        KeyError, TypeError, ValueError: Not such a U-Net, or one that does what ours does not.
    """
    check(values, FIXED)
    channels = [int(width) for width in values["block_out_channels"]]
    levels = len(channels)
    kinds = values["down_block_types"]
    wanted = {"CrossAttnDownBlock2D", "DownBlock2D"}
    if len(kinds) != levels or not set(kinds) <= wanted:
        raise ValueError(
            f"its blocks are {', '.join(map(str, kinds))}; only {' and '.join(sorted(wanted))} are supported"
        )
    depths = _each(values.get("transformer_layers_per_block", 1), levels)
    heads = _each(values.get("num_attention_heads") or values.get("attention_head_dim", 8), levels)
    attends = [kind == "CrossAttnDownBlock2D" for kind in kinds]
    # The middle is as wide as the last level and takes its heads and depth.
    used = [(channels[i], heads[i]) for i in range(levels) if attends[i] or i == levels - 1]
    same = len({count for _, count in used}) == 1
    each = {width // count for width, count in used}
    if not same and len(each) != 1:
        raise ValueError(f"it has neither equally many nor equally wide heads at its levels ({heads})")
    as_number = same and not isinstance(values.get("attention_head_dim"), list)
    return {
        "in_channels": values["in_channels"],
        "out_channels": values["out_channels"],
        "channels": channels,
        "blocks": values.get("layers_per_block", 2),
        "transformers": {
            "depth": [depth if here else 0 for depth, here in zip(depths, attends, strict=True)],
            "middle": depths[-1],
            "context": values["cross_attention_dim"],
            "heads": heads[-1] if as_number or len(each) != 1 else None,
            "head_dim": None if as_number or len(each) != 1 else each.pop(),
            "linear": bool(values.get("use_linear_projection", False)),
        },
        "embedding": values.get("time_embedding_dim") or 4 * channels[0],
        "vector": values.get("projection_class_embeddings_input_dim") if values.get("addition_embed_type") else None,
        "groups": values.get("norm_num_groups", 32),
    }


def _each(value: Any, count: int) -> list[int]:
    """One number a level, from one for all or a list."""
    found = [int(item) for item in value] if isinstance(value, list | tuple) else [int(value)] * count
    if len(found) != count:
        raise ValueError(f"{len(found)} values for {count} levels")
    return found


def unet_json(config: "UNetConfig", sample: int) -> dict[str, Any]:
    """``unet/config.json`` of a U-Net; ``sample`` is the latents' native side."""
    attends, widths = config.transformers, config.channels
    kinds = ["CrossAttnDownBlock2D" if depth else "DownBlock2D" for depth in attends.depth]
    depths = [depth or 1 for depth in attends.depth]
    extra = {}
    if config.vector is not None:
        # Of its vector all but the pooled text are sinusoids: 6 numbers of 256 in XL's base, 5 in its refiner.
        extra = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256 if config.vector > 6 * 256 else 8,
            "projection_class_embeddings_input_dim": config.vector,
        }
    return {
        "_class_name": "UNet2DConditionModel",
        "act_fn": "silu",
        "attention_head_dim": attends.heads or [width // (attends.head_dim or width) for width in widths],
        "block_out_channels": list(widths),
        "center_input_sample": False,
        "cross_attention_dim": attends.context,
        "down_block_types": kinds,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "in_channels": config.in_channels,
        "layers_per_block": config.blocks,
        "norm_eps": 1e-5,
        "norm_num_groups": config.groups,
        "out_channels": config.out_channels,
        "sample_size": sample,
        "transformer_layers_per_block": [*depths[:-1], attends.middle],
        "up_block_types": [kind.replace("Down", "Up") for kind in reversed(kinds)],
        "use_linear_projection": attends.linear,
        **({} if config.embedding == 4 * widths[0] else {"time_embedding_dim": config.embedding}),
        **extra,
    }


def vae_config(values: Mapping[str, Any]) -> dict[str, Any]:
    """A `mindseye.networks.vae.Config` as plain values, from ``vae/config.json``.

    Raises:
        KeyError, TypeError, ValueError: Not such an autoencoder, or one that does what ours does not.
    """
    check(values, VAE_FIXED)
    channels = [int(width) for width in values["block_out_channels"]]
    if set(values.get("down_block_types", ())) - {"DownEncoderBlock2D"}:
        raise ValueError("its blocks attend, and only plain DownEncoderBlock2D are supported")
    blocks = int(values.get("layers_per_block", 1))
    quant = bool(values.get("use_quant_conv", True))
    if quant != bool(values.get("use_post_quant_conv", True)):
        raise ValueError("it has a convolution on one side of its latents only")

    def tower(count: int) -> dict[str, Any]:
        return {"channels": channels, "blocks": [count] * len(channels), "middle": True, "taper": False}

    return {
        "encoder": tower(blocks),
        "decoder": tower(blocks + 1),
        "latent_channels": values["latent_channels"],
        "patch": 1,
        "groups": values.get("norm_num_groups", 32),
        "quant_conv": quant,
    }


def vae_shapes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The same from the shapes of a file that lies alone, in today's names of the attention or the old ones.

    Raises:
        KeyError: Not such an autoencoder.
    """

    def tower(name: str, direction: str) -> dict[str, Any]:
        channels, blocks = [], []
        while f"{name}.{direction}.{len(channels)}.resnets.0.conv1.weight" in shapes:
            level = f"{name}.{direction}.{len(channels)}.resnets"
            channels.append(shapes[f"{level}.0.conv1.weight"][0])
            blocks.append(sum(key.startswith(f"{level}.") and key.endswith(".conv1.weight") for key in shapes))
        order = slice(None, None, -1 if name == "decoder" else 1)  # they count from the coarsest level here
        middle = f"{name}.mid_block.attentions.0.group_norm.weight" in shapes
        return {"channels": channels[order], "blocks": blocks[order], "middle": middle, "taper": False}

    return {
        "encoder": tower("encoder", "down_blocks"),
        "decoder": tower("decoder", "up_blocks"),
        "latent_channels": shapes["decoder.conv_in.weight"][1],
        "patch": 1,
        "groups": 32,
        "quant_conv": "quant_conv.weight" in shapes,
    }


def vae_json(config: "VAEConfig", scale: float, sample: int) -> dict[str, Any]:
    """``vae/config.json`` of an autoencoder; ``scale`` multiplies its latents, ``sample`` is the pictures' native side.

    Raises:
        ValueError: diffusers has no such autoencoder.
    """
    encoder, decoder = config.encoder, config.decoder
    blocks = encoder.blocks[0]
    as_theirs = (
        config.patch == 1
        and encoder.middle
        and decoder.middle
        and not (encoder.taper or decoder.taper)
        and set(encoder.blocks) == {blocks}
        and set(decoder.blocks) == {blocks + 1}
        and encoder.channels == decoder.channels
    )
    if not as_theirs:
        raise ValueError("this autoencoder has no counterpart in diffusers")
    levels = len(encoder.channels)
    return {
        "_class_name": "AutoencoderKL",
        "act_fn": "silu",
        "block_out_channels": list(encoder.channels),
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "in_channels": 3,
        "latent_channels": config.latent_channels,
        "layers_per_block": blocks,
        "norm_num_groups": config.groups,
        "out_channels": 3,
        "sample_size": sample,
        "scaling_factor": scale,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        **({} if config.quant_conv else {"use_quant_conv": False, "use_post_quant_conv": False}),
    }
