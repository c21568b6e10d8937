"""Adapters against those who write and read them: diffusers' own renaming, PEFT's own forward pass."""

import functools
import json
import re

import pytest
import torch
from safetensors.torch import save_file

from mindseye.checkpoints.adapters import Weights, attach, match, read_adapter
from mindseye.checkpoints.adapters.dialects import Target, cloneofsimo, parse
from mindseye.checkpoints.adapters.places import Places
from mindseye.checkpoints.layout import convert
from mindseye.checkpoints.layouts import diffusers as layout
from mindseye.checkpoints.layouts import transformers as text_layout
from mindseye.networks.clip import CLIP, Config, Text
from mindseye.networks.unet import SD1, SD2, SDXL, Transformers, UNet
from mindseye.networks.unet import Config as UNetConfig

pytestmark = pytest.mark.parity

TINY = UNetConfig(
    in_channels=4,
    out_channels=4,
    channels=(8, 16),
    blocks=1,
    transformers=Transformers(depth=(1, 1), middle=1, context=12, heads=2, linear=False),
    embedding=32,
    groups=4,
)
LAYERS = (torch.nn.Linear, torch.nn.Conv2d)


def theirs_for(config: UNetConfig):
    """diffusers' U-Net of the same shape; built on whatever device is current."""
    diffusers = pytest.importorskip("diffusers")
    attends = config.transformers
    kinds = ["CrossAttn" if depth else "" for depth in attends.depth]
    xl = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": config.vector,
    }
    return diffusers.UNet2DConditionModel(
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.channels,
        down_block_types=tuple(f"{kind}DownBlock2D" for kind in kinds),
        up_block_types=tuple(f"{kind}UpBlock2D" for kind in reversed(kinds)),
        layers_per_block=config.blocks,
        attention_head_dim=attends.heads or tuple(width // 64 for width in config.channels),
        cross_attention_dim=attends.context,
        transformer_layers_per_block=tuple(depth or 1 for depth in attends.depth[:-1]) + (attends.middle,),
        use_linear_projection=attends.linear,
        norm_num_groups=config.groups,
        **(xl if config.vector else {}),
    )


@functools.cache
def full(config: UNetConfig):
    """Both at full size, without numbers."""
    with torch.device("meta"):
        return theirs_for(config), UNet(config)


def layers(network) -> dict[str, torch.Tensor]:
    return {name: m.weight for name, m in network.named_modules() if isinstance(m, LAYERS)}


@pytest.mark.parametrize("config", [SD1, SD2, SDXL], ids=["sd1", "sd2", "sdxl"])
def test_every_layer_is_found_under_kohyas_name(config):
    """kohya's name is diffusers' with underscores; the place must hold just that weight."""
    theirs, ours = full(config)
    places, shapes = Places({"unet": ours}), {name: p.shape for name, p in ours.named_parameters()}
    wanted = layers(theirs)
    assert len(wanted) > 250
    taken = set()
    for name, weight in wanted.items():
        found = places.find(Target("unet", name.replace(".", "_")))
        assert found is not None, name
        rule = found[1].weight
        assert rule.theirs == f"{name}.weight"
        assert rule.op.shape(tuple(shapes[rule.ours])) == tuple(weight.shape)
        taken.add(rule.ours)
    assert len(taken) == len(wanted)


def original_names(names) -> dict[str, str]:
    """diffusers' name -> the original one, by the table of the fact sheet, for the transformers of SDXL."""
    found = {}
    for name in names:
        if (m := re.match(r"down_blocks\.(\d)\.attentions\.(\d)\.(.*)", name)) is not None:
            found[name] = f"input_blocks.{3 * int(m[1]) + int(m[2]) + 1}.1.{m[3]}"
        elif (m := re.match(r"up_blocks\.(\d)\.attentions\.(\d)\.(.*)", name)) is not None:
            found[name] = f"output_blocks.{3 * int(m[1]) + int(m[2])}.1.{m[3]}"
        elif (m := re.match(r"mid_block\.attentions\.0\.(.*)", name)) is not None:
            found[name] = f"middle_block.1.{m[1]}"
    return found


def test_original_block_names_mean_what_diffusers_makes_of_them():
    theirs, ours = full(SDXL)
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    names = original_names(layers(theirs))
    assert len(names) == 722
    state = {}
    for number, name in enumerate(names.values()):
        for end in ("lora_down", "lora_up"):
            state[f"lora_unet_{name.replace('.', '_')}.{end}.weight"] = torch.tensor(number)
    own = parse(state)
    renamed = utils._maybe_map_sgm_blocks_to_diffusers(dict(state), theirs.config)
    renamed, _ = utils._convert_non_diffusers_lora_to_diffusers(renamed)
    other = parse(renamed)
    assert len(own.modules) == len(other.modules) == 722
    assert not own.left and not other.left
    places = Places({"unet": ours})
    expected = {int(renamed[keys["down"]]): places.find(target) for target, keys in other.modules.items()}
    for target, keys in own.modules.items():
        found, truth = places.find(target), expected[int(state[keys["down"]])]
        assert found is not None and truth is not None
        assert found[1].weight.ours == truth[1].weight.ours


@pytest.mark.parametrize("part", ["unet", "text"])
def test_diffusers_conversion_of_kohyas_files_reads_as_the_same_modules(part):
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    with torch.device("meta"):
        if part == "unet":
            theirs, ours = full(SD1)
            names = [n for n in layers(theirs) if ".attn" in n or ".ff." in n or "proj_" in n]
            prefix, places = "lora_unet_", Places({"unet": ours})
        else:
            names = [f"text_model.{n}" for n in layers(text_peer(width=768, count=12, heads=12)) if "layers" in n]
            config = Config(text=Text(width=768, layers=12, heads=12), image=None, embed=None)
            prefix, places = "lora_te_", Places({"text": CLIP(config)})
    assert len(names) > 60
    for name in names:
        stem = f"{prefix}{name.replace('.', '_')}"
        state = {f"{stem}.{end}.weight": torch.full((1, 1), i) for i, end in enumerate(("lora_down", "lora_up"))}
        renamed, _ = utils._convert_non_diffusers_lora_to_diffusers(dict(state))
        (own,) = parse(state).modules
        found = parse(renamed)
        assert not found.left, renamed
        ((other, factors),) = found.modules.items()
        assert set(factors) == {"up", "down"}
        assert other.part == own.part == part
        assert renamed[factors["down"]].item() == 0
        first, second = places.find(own), places.find(other)
        assert first is not None and first == second, (name, renamed)


def text_peer(width=16, count=2, heads=2):
    transformers = pytest.importorskip("transformers")
    return transformers.CLIPTextModel(
        transformers.CLIPTextConfig(
            vocab_size=99,
            max_position_embeddings=12,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=count,
            num_attention_heads=heads,
            eos_token_id=98,
            bos_token_id=97,
            pad_token_id=0,
        )
    )


def test_the_text_encoders_attention_is_walked_as_transformers_makes_it():
    """Numbered modules: the class still makes its layers in the order that the first trainer met."""
    peer = text_peer(count=3)
    names = [name for name, m in peer.named_modules() if isinstance(m, torch.nn.Linear) and "self_attn" in name]
    prefix = "" if names[0].startswith("text_model.") else "text_model."
    assert cloneofsimo.text_order(3) == tuple(f"{prefix}{name}" for name in names)


@pytest.fixture
def twins():
    """diffusers' tiny U-Net and ours with the same weights, and what to feed them."""
    torch.manual_seed(0)
    theirs = theirs_for(TINY).eval().requires_grad_(False)
    ours = UNet(TINY).eval().requires_grad_(False)
    ours.load_state_dict(convert(theirs.state_dict(), layout.unet_rules(TINY)))
    x, tokens, timesteps = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 12), torch.tensor([1.0, 700.0])
    return theirs, ours, (x, timesteps, tokens)


def randomise(network):
    for name, parameter in network.named_parameters():
        if "lora_magnitude" in name:
            parameter.data.mul_(torch.rand_like(parameter) + 0.5)
        elif any(f".{kind}" in name for kind in ("lora_", "hada_", "lokr_")):
            parameter.data.normal_(std=0.3)


def peft_config(peft, kind):
    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj", "conv1", "proj_in", "time_emb_proj"]
    if kind == "loha":
        return peft.LoHaConfig(r=3, alpha=2, target_modules=targets)
    if kind == "loha conv":
        return peft.LoHaConfig(r=3, alpha=2, target_modules=targets, use_effective_conv2d=True)
    if kind == "lokr":
        return peft.LoKrConfig(r=2, alpha=3, target_modules=targets, decompose_both=True)
    if kind == "lokr conv":
        return peft.LoKrConfig(r=1, alpha=3, target_modules=targets, use_effective_conv2d=True, decompose_factor=2)
    return peft.LoraConfig(
        r=3,
        lora_alpha=2,
        target_modules=targets,
        use_dora="dora" in kind,
        use_rslora="rank-stabilised" in kind,
        alpha_pattern={"attn1.to_q": 9} if kind == "pattern" else {},
    )


@torch.no_grad()
@pytest.mark.parametrize(
    "kind", ["lora", "pattern", "rank-stabilised", "dora", "loha", "loha conv", "lokr", "lokr conv"]
)
def test_merged_weights_do_what_pefts_layers_do(twins, tmp_path, kind):
    peft = pytest.importorskip("peft")
    theirs, ours, (x, timesteps, tokens) = twins
    plain = ours(x, timesteps, tokens)
    wrapped = peft.get_peft_model(theirs, peft_config(peft, kind)).eval()
    randomise(wrapped)
    truth = wrapped(x, timesteps, tokens).sample
    wrapped.save_pretrained(tmp_path / "fox")
    adapter = read_adapter(tmp_path / "fox")
    assert len(adapter.modules) > 20
    with attach({"unet": ours}, [(adapter, Weights())]) as attached:
        assert not attached.reports[0].unmatched and not adapter.left
        torch.testing.assert_close(ours(x, timesteps, tokens), truth, rtol=1e-4, atol=2e-5)
    assert (truth - plain).abs().max() > 1e-2
    assert torch.equal(ours(x, timesteps, tokens), plain)


@torch.no_grad()
def test_a_pipelines_own_file_with_its_metadata(twins, tmp_path):
    """What `save_lora_adapter` of diffusers writes, alpha in the metadata."""
    peft = pytest.importorskip("peft")
    theirs, ours, (x, timesteps, tokens) = twins
    theirs.add_adapter(peft.LoraConfig(r=4, lora_alpha=2, target_modules=["to_q", "to_v", "to_out.0"]))
    randomise(theirs)
    truth = theirs(x, timesteps, tokens).sample
    theirs.save_lora_adapter(tmp_path, upcast_before_saving=True)
    with attach({"unet": ours}, [(read_adapter(tmp_path), Weights())]):
        torch.testing.assert_close(ours(x, timesteps, tokens), truth, rtol=1e-4, atol=2e-5)


@torch.no_grad()
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_text_encoder_through_peft(tmp_path):
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    theirs = text_peer().eval().requires_grad_(False)
    config = Config(text=Text(vocabulary=99, length=12, width=16, layers=2, heads=2), image=None, embed=None)
    ours = CLIP(config).eval().requires_grad_(False)
    rules = list(text_layout.clip_text_rules(config))
    state = convert(theirs.state_dict(), rules, ignore=text_layout.IGNORE)
    ours.load_state_dict(state | {"logit_scale": ours.logit_scale})
    wrapped = peft.get_peft_model(
        theirs, peft.LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj", "v_proj", "out_proj", "fc1"])
    ).eval()
    randomise(wrapped)
    ids = torch.tensor([[97, 5, 6, 98, 0, 0], [97, 9, 98, 0, 0, 0]])
    truth = wrapped(input_ids=ids).last_hidden_state
    names = peft.get_peft_model_state_dict(wrapped)
    for prefix in ("base_model.model.", "text_encoder.", "text_encoder.text_model."):
        path = tmp_path / "fox.safetensors"
        renamed = {
            prefix + key.removeprefix("base_model.model.").removeprefix("text_model."): value
            for key, value in names.items()
        }
        metadata = {"lora_adapter_metadata": json.dumps({"text_encoder.lora_alpha": 4, "text_encoder.r": 2})}
        if prefix == "base_model.model.":
            renamed |= {f"{key.rpartition('.lora_')[0]}.alpha": torch.tensor(4.0) for key in renamed}
        save_file(renamed, path, metadata)
        adapter = read_adapter(path)
        assert not match({"text": ours}, adapter).unmatched
        with attach({"text": ours}, [(adapter, Weights())]):
            torch.testing.assert_close(ours.text(ids)[0], truth, rtol=1e-4, atol=2e-5)


def test_embeddings_as_diffusers_reads_them(material):
    loaders = pytest.importorskip("diffusers.loaders.textual_inversion")
    from mindseye.checkpoints.adapters import read_embedding

    for path in sorted((material / "textual_inversion").glob("*.bin")):
        (state,) = loaders.load_textual_inversion_state_dicts([str(path)])
        ((token, vector),) = state.items()
        word = read_embedding(path)
        assert word.name == token
        assert torch.equal(word.vectors["text"][0], vector)
