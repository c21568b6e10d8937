"""Merging and taking out: what changes, what comes back, and what is refused."""

import pytest
import torch
from safetensors.torch import load_file

from mindseye.checkpoints.adapters import Weights, attach, match, read_adapter
from mindseye.errors import OptionError, WeightsError
from mindseye.networks.clip import CLIP, Text
from mindseye.networks.clip import Config as ClipConfig
from mindseye.networks.unet import SD1, SD2, UNet
from mindseye.nn.layers import Conv2d, Later, Linear

QUERY = "down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
OURS = "down.0.stages.0.transformer.blocks.0.attention.query.weight"
CONV = "down.0.stages.0.residual.conv1.weight"
FUSED = "text_tower.stack.blocks.1.qkv.weight"


def state(parts):
    return {f"{part}/{k}": v.clone() for part, network in parts.items() for k, v in network.state_dict().items()}


def equal(one, two):
    return set(one) == set(two) and all(torch.equal(one[key], two[key]) for key in one)


def product(path, module):
    file = load_file(path)
    up, down = file[f"{module}.lora_up.weight"], file[f"{module}.lora_down.weight"]
    return up.flatten(1) @ down.flatten(1) * float(file[f"{module}.alpha"]) / len(down)


def test_the_weights_named_change_by_what_is_stored_and_no_others(parts, kohya):
    path, before = kohya(), state(parts)
    attached = attach(parts, [(read_adapter(path), Weights(0.5, 2.0))])
    after = state(parts)
    assert attached.reports[0].matched == 3
    assert not attached.notices
    changed = {key for key in before if not torch.equal(before[key], after[key])}
    assert changed == {f"unet/{OURS}", f"unet/{CONV}", f"text/{FUSED}"}
    delta = after[f"unet/{OURS}"] - before[f"unet/{OURS}"]
    torch.testing.assert_close(delta, 0.5 * product(path, f"lora_unet_{QUERY}"))
    delta = after[f"text/{FUSED}"] - before[f"text/{FUSED}"]
    module = "lora_te_text_model_encoder_layers_1_self_attn_k_proj"
    torch.testing.assert_close(delta[12:24], 2 * product(path, module), rtol=1e-4, atol=1e-5)
    assert not delta[:12].any() and not delta[24:].any()  # queries and values share the parameter


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_taking_out_restores_every_bit_and_the_memory_layout(parts, kohya, dtype):
    for network in parts.values():
        network.to(dtype)
    parts["unet"].to(memory_format=torch.channels_last)
    before = state(parts)
    strides = [p.stride() for p in parts["unet"].parameters()]
    with attach(parts, [(read_adapter(kohya(dtype=torch.float16)), Weights(0.7))]) as attached:
        assert not equal(before, state(parts))
        assert [p.stride() for p in parts["unet"].parameters()] == strides
        assert {p.dtype for p in parts["unet"].parameters()} == {dtype}
    assert equal(before, state(parts))
    attached.detach()
    assert equal(before, state(parts))


def test_layers_that_wait_for_their_first_call_are_adapted_at_full_width(parts, kohya):
    """As if they had been widened before, not rounded to what the file has them in."""
    parts["unet"].half()
    wide = {name: value.float() for name, value in parts["unet"].state_dict().items()}
    adapter = [(read_adapter(kohya()), Weights(0.7))]
    for layer in parts["unet"].modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.later = Later(dtype=torch.float32, memory_format=torch.channels_last, release=lambda old: None)
    other = {"unet": UNet(parts["unet"].config), "text": parts["text"]}
    other["unet"].load_state_dict(wide)
    with attach(other, adapter):
        changed = {key: value.clone() for key, value in other["unet"].state_dict().items() if value.ndim > 1}
    with attach(parts, adapter):
        assert all(torch.equal(parts["unet"].state_dict()[key], value) for key, value in changed.items())
    assert all(torch.equal(parts["unet"].state_dict()[key], wide[key]) for key in changed)


def test_adapters_add_up_in_any_order(parts, kohya):
    one, two = (read_adapter(kohya(name=name, seed=seed)) for name, seed in (("one", 1), ("two", 2)))
    before = state(parts)
    results = []
    for adapters in ([(one, Weights(0.3)), (two, Weights(-0.9))], [(two, Weights(-0.9)), (one, Weights(0.3))]):
        with attach(parts, adapters):
            results.append(state(parts))
    assert equal(*results)
    with attach(parts, [(one, Weights(0.3))]):
        alone = state(parts)
    with attach(parts, [(two, Weights(-0.9))]):
        other = state(parts)
    for key in before:
        torch.testing.assert_close(results[0][key] - before[key], alone[key] + other[key] - 2 * before[key])


def test_nothing_at_strength_zero_and_by_part(parts, kohya):
    adapter, before = read_adapter(kohya()), state(parts)
    with attach(parts, [(adapter, Weights(0.0))]):
        assert equal(before, state(parts))
    with attach(parts, [(adapter, Weights(1.0, 0.0))]):
        after = state(parts)
        assert torch.equal(before[f"text/{FUSED}"], after[f"text/{FUSED}"])
        assert not torch.equal(before[f"unet/{OURS}"], after[f"unet/{OURS}"])
    with attach(parts, []) as attached:
        assert attached.reports == ()


def test_kinds_that_read_the_weight_do_not_read_each_other(parts, kohya):
    """Norm, bias, IA3 and full differences, two at a time on one weight, each from the original."""
    ia3 = kohya({f"lora_unet_{QUERY}": {"weight": torch.full((8, 1), 0.5), "on_input": torch.tensor(0)}}, "ia3")
    more = {
        f"lora_unet_{QUERY}": {"diff": torch.ones(8, 8)},
        "lora_unet_down_blocks_0_resnets_0_norm1": {"w_norm": torch.ones(8), "b_norm": torch.full((8,), 2.0)},
        "lora_unet_down_blocks_0_resnets_0_conv1": {"diff": torch.ones(8, 8, 3, 3), "diff_b": torch.full((8,), 3.0)},
        "lora_unet_conv_out": {"diff_b": torch.full((4,), 4.0)},
    }
    before = state(parts)
    attach(parts, [(read_adapter(ia3), Weights(2.0)), (read_adapter(kohya(more, "full")), Weights(0.5))])
    after = state(parts)
    torch.testing.assert_close(after[f"unet/{OURS}"], 2 * before[f"unet/{OURS}"] + 0.5)
    stem = "unet/down.0.stages.0.residual"
    for key, difference in (("norm1.weight", 0.5), ("norm1.bias", 1.0), ("conv1.weight", 0.5), ("conv1.bias", 1.5)):
        torch.testing.assert_close(after[f"{stem}.{key}"], before[f"{stem}.{key}"] + difference)
    torch.testing.assert_close(after["unet/conv_out.bias"], before["unet/conv_out.bias"] + 2)
    assert torch.equal(after["unet/conv_out.weight"], before["unet/conv_out.weight"])


def test_detaching_out_of_order_is_refused(parts, kohya):
    adapter = read_adapter(kohya())
    first = attach(parts, [(adapter, Weights())])
    second = attach(parts, [(adapter, Weights())])
    with pytest.raises(RuntimeError, match="reverse order"):
        first.detach()
    second.detach()
    first.detach()


@pytest.mark.parametrize("where", ["lora_up.weight", "alpha"])
def test_numbers_that_are_none_leave_the_base_alone(parts, kohya, where):
    modules = {f"lora_unet_{QUERY}": kohya.pair(8, 8), "lora_unet_conv_in": kohya.pair(8, 4, kernel=(3, 3))}
    modules["lora_unet_conv_in"][where].view(-1)[0] = float("nan")
    adapter, before = read_adapter(kohya(modules)), state(parts)
    with pytest.raises(WeightsError, match="conv_in.*holds NaN"):
        attach(parts, [(adapter, Weights())])
    assert equal(before, state(parts))
    with pytest.raises(OptionError, match="no number"):
        attach(parts, [(adapter, Weights(float("nan")))])


def test_a_file_cut_short_or_gone_since_it_was_read(parts, kohya):
    path, before = kohya(), state(parts)
    adapter = read_adapter(path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError, match="cannot be read"):
        attach(parts, [(adapter, Weights())])
    path.unlink()
    with pytest.raises(WeightsError, match="not there"):
        attach(parts, [(adapter, Weights())])
    assert equal(before, state(parts))


def test_too_few_places_is_an_error_unless_asked_for(parts, kohya):
    modules = {f"lora_unet_{QUERY}": kohya.pair(8, 8), "lora_unet_nowhere": kohya.pair(8, 8)}
    adapter, before = read_adapter(kohya(modules)), state(parts)
    with pytest.raises(WeightsError, match="1 of its 2 modules fit .*no such module"):
        attach(parts, [(adapter, Weights())])
    assert equal(before, state(parts))
    attached = attach(parts, [(adapter, Weights())], allow_partial=True)
    assert attached.reports[0].matched == 1
    assert attached.reports[0].unmatched == ("unet: nowhere: there is no such module",)
    assert "1 of 2 modules" in attached.notices[0]
    assert not torch.equal(before[f"unet/{OURS}"], state(parts)[f"unet/{OURS}"])


@pytest.mark.parametrize(
    ("module", "factors", "says"),
    [
        (f"lora_unet_{QUERY}", {"diff": (9, 8)}, "9 x 8, and here it is 8 x 8"),
        (f"lora_unet_{QUERY}", {"diff": (8, 8), "diff_b": (8,)}, "bias that this base does not have"),
        ("lora_unet_conv_out", {"diff_b": (5,)}, "bias of another size than 4"),
        ("lora_te2_text_projection", {"diff": (8, 8)}, "no second text encoder"),
        (f"lora_unet_{QUERY}", {"lora_up.weight": (8, 2)}, "no kind of change"),
    ],
)
def test_why_a_module_does_not_fit(parts, kohya, module, factors, says):
    adapter = read_adapter(kohya({module: {end: torch.ones(shape) for end, shape in factors.items()}}))
    report = match(parts, adapter)
    assert report.matched == 0
    assert says in report.unmatched[0]


def test_both_namings_of_one_module_are_one_module(parts, kohya):
    modules = {name: kohya.pair(8, 4, kernel=(3, 3)) for name in ("lora_unet_conv_in", "lora_unet_input_blocks_0_0")}
    report = match(parts, read_adapter(kohya(modules)))
    assert report.matched == 1
    assert "twice" in report.unmatched[0]


def text(width, layers):
    return CLIP(ClipConfig(text=Text(width=width, layers=layers, heads=width // 64), image=None, embed=None))


@pytest.fixture(scope="module")
def bases():
    with torch.device("meta"):
        return {
            "sd1": {"unet": UNet(SD1), "text": text(768, 12)},
            "sd2": {"unet": UNet(SD2), "text": text(1024, 23)},
        }


CROSS = "down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"


@pytest.mark.parametrize(("made", "width", "words"), [("sdxl", 2048, "SDXL"), ("sd2", 1024, "Stable Diffusion 2")])
def test_an_adapter_for_another_base_names_both(bases, kohya, made, width, words):
    modules = {f"lora_unet_{CROSS}": kohya.pair(640, width)}
    for layer in ("to_q", "to_k", "to_v", "to_out_0"):  # these fit either
        for place in range(3):
            modules[f"lora_unet_up_blocks_{place}_attentions_0_transformer_blocks_0_attn1_{layer}"] = kohya.pair(
                640, 640
            )
    adapter = read_adapter(kohya(modules, "flowers"))
    assert adapter.base == made
    with pytest.raises(WeightsError, match=f"flowers was made for {words}, and this is Stable Diffusion 1") as error:
        attach(bases["sd1"], [(adapter, Weights())])
    assert error.value.hint


def test_the_layer_that_sd2_leaves_out_is_no_fault(bases, kohya):
    names = [f"lora_te_text_model_encoder_layers_{layer}_self_attn_q_proj" for layer in (22, 23)]
    adapter = read_adapter(kohya({name: kohya.pair(1024, 1024) for name in names}))
    assert adapter.base == "sd2"
    report = match(bases["sd2"], adapter)
    assert (report.matched, report.unmatched) == (1, ())
    assert "leaves out" in report.notices[0]


def test_real_files_find_every_module(bases, material):
    paths = sorted((material / "lora_cloneofsimo").glob("*.safetensors"))
    assert len(paths) == 2
    for path in paths:
        report = match(bases["sd1"], read_adapter(path))
        assert report == type(report)(path.stem, 192)
        assert match(bases["sd2"], read_adapter(path)).matched < 0.9 * 192
