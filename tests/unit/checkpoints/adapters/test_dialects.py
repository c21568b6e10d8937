"""Keys of every family of formats, by hand; the networks' own names are in the parity tests."""

import json

import pytest

from mindseye.checkpoints.adapters.dialects import Target, cloneofsimo, parse
from mindseye.errors import WeightsError

BLOCK = "down_blocks_0_attentions_0_transformer_blocks_0_attn1"
DOTTED = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
TEXT = "text_model_encoder_layers_3_self_attn"


@pytest.mark.parametrize(
    ("key", "dialect", "target", "factor"),
    [
        (f"lora_unet_{BLOCK}_to_q.lora_down.weight", "kohya", ("unet", f"{BLOCK}_to_q"), "down"),
        (f"lora_unet_{BLOCK}_to_out_0.lora_up.weight", "kohya", ("unet", f"{BLOCK}_to_out_0"), "up"),
        ("lora_unet_input_blocks_4_1_proj_in.alpha", "kohya", ("unet", "input_blocks_4_1_proj_in"), "alpha"),
        (f"lora_te_{TEXT}_q_proj.dora_scale", "kohya", ("text", f"{TEXT}_q_proj"), "magnitude"),
        (f"lora_te1_{TEXT}_q_proj.lora_mid.weight", "kohya", ("text", f"{TEXT}_q_proj"), "mid"),
        ("lora_te2_text_projection.lora_up.weight", "kohya", ("text_2", "text_projection"), "up"),
        ("lora_unet_conv_in.hada_w1_a", "lycoris", ("unet", "conv_in"), "hada_w1_a"),
        ("lora_unet_conv_in.lokr_t2", "lycoris", ("unet", "conv_in"), "lokr_t2"),
        ("lora_unet_conv_in.weight", "lycoris", ("unet", "conv_in"), "ia3"),
        ("lora_unet_conv_norm_out.w_norm", "lycoris", ("unet", "conv_norm_out"), "w_norm"),
        ("lycoris_conv_in.diff", "lycoris", ("", "conv_in"), "diff"),
        (f"unet.{DOTTED}.to_q.lora_A.weight", "peft", ("unet", f"{BLOCK}_to_q"), "down"),
        (f"base_model.model.{DOTTED}.to_out.0.lora_B.weight", "peft", ("", f"{BLOCK}_to_out_0"), "up"),
        (f"unet.{DOTTED}.to_v.lora_B.default.weight", "peft", ("unet", f"{BLOCK}_to_v"), "up"),
        (f"unet.{DOTTED}.to_v.lora_magnitude_vector", "peft", ("unet", f"{BLOCK}_to_v"), "output_magnitude"),
        (
            "text_encoder_2.text_model.encoder.layers.3.mlp.fc1.lora_A.weight",
            "peft",
            ("text_2", "text_model_encoder_layers_3_mlp_fc1"),
            "down",
        ),
        (f"unet.{DOTTED}.to_k.lora.up.weight", "diffusers", ("unet", f"{BLOCK}_to_k"), "up"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.q_proj.lora_linear_layer.down.weight",
            "diffusers",
            ("text", f"{TEXT}_q_proj"),
            "down",
        ),
        (f"unet.{DOTTED}.processor.to_q_lora.down.weight", "diffusers-old", ("unet", f"{BLOCK}_to_q"), "down"),
        (f"{DOTTED}.processor.to_out_lora.up.weight", "diffusers-old", ("", f"{BLOCK}_to_out_0"), "up"),
        (f"unet.{DOTTED}.processor.to_q_lora.alpha", "diffusers-old", ("unet", f"{BLOCK}_to_q"), "alpha"),
        (
            "text_encoder.text_model.encoder.layers.3.self_attn.to_out_lora.up.weight",
            "diffusers-old",
            ("text", f"{TEXT}_out_proj"),
            "up",
        ),
        (
            "diffusion_model.input_blocks.1.1.proj_in.lora_up.weight",
            "dotted",
            ("unet", "input_blocks_1_1_proj_in"),
            "up",
        ),
        (
            "text_encoders.clip_g.transformer.text_model.encoder.layers.3.mlp.fc1.lokr_w1",
            "dotted",
            ("text_2", "text_model_encoder_layers_3_mlp_fc1"),
            "lokr_w1",
        ),
    ],
)
def test_keys(key, dialect, target, factor):
    found = parse([key])
    assert not found.left
    assert found.modules == {Target(*target): {factor: key}}
    assert found.dialect == ("" if factor == "alpha" else dialect)


def test_what_no_dialect_knows_is_told():
    keys = ["model.diffusion_model.out.2.weight", "lora_unet_conv_in.lora_down.bias", "<s1>", ""]
    assert parse(keys).left == tuple(keys)


def test_order_of_numbered_modules():
    names = cloneofsimo.unet_order()
    assert len(names) == len(set(names)) == 16 * 9
    first = "down_blocks.0.attentions.0.transformer_blocks.0"
    assert names[:6] == (
        *(f"{first}.attn1.{layer}" for layer in ("to_q", "to_k", "to_v", "to_out.0")),
        f"{first}.ff.net.0.proj",
        f"{first}.attn2.to_q",
    )
    blocks = list(dict.fromkeys(name.split(".")[0] for name in names))
    assert blocks == ["down_blocks", "up_blocks", "mid_block"]
    assert len(cloneofsimo.unet_order(["CrossAttention"])) == 16 * 8
    assert cloneofsimo.text_order(12)[:4] == tuple(
        f"text_model.encoder.layers.0.self_attn.{letter}_proj" for letter in ("k", "v", "q", "out")
    )


def test_numbered_modules_of_unknown_classes_are_refused():
    keys = ["unet:0:up", "unet:0:down"]
    with pytest.raises(WeightsError, match="Transformer2DModel"):
        cloneofsimo.named(keys, {"unet": json.dumps(["Transformer2DModel"])})
    with pytest.raises(WeightsError, match="145 modules"):
        cloneofsimo.named(["unet:144:up"], {})
    with pytest.raises(WeightsError, match="no whole number of layers"):
        cloneofsimo.named(["text_encoder:48:up"], {})
    assert cloneofsimo.named(keys, {"unet": "not json"})  # then the trainer's usual classes are meant


def test_lists_are_told_by_length_and_shapes():
    text = cloneofsimo.listed([(768, 4), (4, 768)] * 48)
    assert list(text)[1] == Target("text", "text_model_encoder_layers_0_self_attn_v_proj")
    unet = cloneofsimo.listed([(320, 4), (4, 320)] * 143 + [(1280, 4), (4, 768)])
    assert len(unet) == 144
    assert next(iter(unet.values())) == {"up": "0", "down": "1"}
    for bad in ([], [(3, 4)], [(320, 4), (4, 320), (640, 4), (4, 320)], [(768,)] * 96):
        with pytest.raises(WeightsError):
            cloneofsimo.listed(bad)
