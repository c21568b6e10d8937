"""What is at a path: families by keys and shapes, predictions by what stands beside, strangers by name."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.releases import EARLY, FAMILIES, WRITERS, PartFile, identify, identify_codec
from mindseye.checkpoints.save import from_json
from mindseye.diffusion.schedule import SCHEDULES
from mindseye.errors import WeightsError, WeightsMissing

PARTS = {"sdxl": {"text", "text_2"}, "sdxl-inpaint": {"text", "text_2"}, "sdxl-refiner": {"text_2"}}


def same_configs(release, model) -> None:
    for name, network in model.networks.items():
        assert from_json(type(network.config), json.loads(release.parts[name].config)) == network.config


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
@pytest.mark.parametrize("family", [family for family in FAMILIES if family not in (*EARLY, *WRITERS)])
def test_single_files(tmp_path: Path, tiny, family: str, suffix: str) -> None:
    model = tiny(family)
    release = identify(model.file(tmp_path / f"x{suffix}"))
    assert release.family == family
    assert set(release.parts) == {"unet", "codec"} | PARTS.get(family, {"text"})
    same_configs(release, model)
    assert release.facts["schedule"] in SCHEDULES
    for name, part in release.parts.items():
        ours = load_foreign(part).state_dict()
        wanted = model.networks[name].state_dict()
        for key, value in wanted.items():
            assert key == "logit_scale" or torch.equal(ours[key], value), (name, key)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in (*EARLY, *WRITERS, "ldm-text2img")])
def test_folders(tmp_path: Path, tiny, family: str) -> None:
    model = tiny(family)
    release = identify(model.folder(tmp_path / "x", "v_prediction"))
    assert release.family == family and release.facts["prediction"] == "v" and release.native == (16, 16)
    same_configs(release, model)
    assert identify(tmp_path / "x" / "model_index.json") == release


def test_text_names_without_text_model(tmp_path: Path, tiny) -> None:
    """The oldest files; positions that old training code saved are left out."""
    model = tiny("sd1")
    tensors = {key.replace(".text_model.", "."): value for key, value in model.single().items()}
    tensors["cond_stage_model.transformer.embeddings.position_ids"] = torch.arange(16)[None]
    save_file(tensors, tmp_path / "x.safetensors")
    part = identify(tmp_path / "x.safetensors").parts["text"]
    ours, wanted = load_foreign(part).state_dict(), model.networks["text"].state_dict()
    assert all(torch.equal(ours[key], wanted[key]) for key in wanted if key != "logit_scale")


def test_old_attention_names_of_autoencoders(tmp_path: Path, tiny) -> None:
    model = tiny("sd1")
    folder = model.folder(tmp_path)
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = model.tensors("codec", "diffusers-vae")
    for new, name in old.items():
        tensors = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): v for key, v in tensors.items()}
    assert sum("proj_attn" in key for key in tensors) == 4
    save_file(tensors, folder / "vae" / "diffusion_pytorch_model.safetensors")
    ours = load_foreign(identify(folder).parts["codec"]).state_dict()
    assert all(torch.equal(ours[key], value) for key, value in model.networks["codec"].state_dict().items())


def variant(folder: Path, change) -> None:
    """Put the U-Net's weights elsewhere."""
    old = folder / "unet" / "diffusion_pytorch_model.safetensors"
    from safetensors.torch import load_file

    tensors = load_file(old)
    old.unlink()
    change(folder / "unet", tensors)


def fp16(folder: Path, tensors) -> None:
    save_file(
        {key: value.half() for key, value in tensors.items()}, folder / "diffusion_pytorch_model.fp16.safetensors"
    )


def pickled(folder: Path, tensors) -> None:
    torch.save(tensors, folder / "diffusion_pytorch_model.bin")


def shards(folder: Path, tensors, index: str = "diffusion_pytorch_model.safetensors.index.json") -> None:
    names = {key: f"diffusion_pytorch_model-0000{1 + (n % 2)}-of-00002.safetensors" for n, key in enumerate(tensors)}
    for name in set(names.values()):
        save_file({key: tensors[key] for key in tensors if names[key] == name}, folder / name)
    (folder / index).write_text(json.dumps({"weight_map": names}))


@pytest.mark.parametrize("change", [fp16, pickled, shards])
def test_variants_of_a_folder(tmp_path: Path, tiny, change) -> None:
    model = tiny("sd1")
    variant(model.folder(tmp_path), change)
    release = identify(tmp_path)
    ours = load_foreign(release.parts["unet"]).state_dict()
    for key, value in model.networks["unet"].state_dict().items():
        torch.testing.assert_close(ours[key], value, rtol=1e-3 if change is fp16 else 0, atol=1e-6)
    assert len(release.parts["unet"].files) == (2 if change is shards else 1)
    assert (release.notes != ()) == (change is fp16)


def test_the_plain_file_comes_first(tmp_path: Path, tiny) -> None:
    folder = tiny("sd1").folder(tmp_path)
    for name in ("diffusion_pytorch_model.bin", "diffusion_pytorch_model.fp16.safetensors", "flax_model.msgpack"):
        (folder / "unet" / name).write_bytes(b"not read")
    assert identify(folder).parts["unet"].files[0].name == "diffusion_pytorch_model.safetensors"


def test_a_missing_shard(tmp_path: Path, tiny) -> None:
    variant(tiny("sd1").folder(tmp_path), shards)
    (tmp_path / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    with pytest.raises(WeightsMissing, match="00002-of-00002"):
        identify(tmp_path)
    (tmp_path / "unet" / "diffusion_pytorch_model.safetensors.index.json").unlink()
    with pytest.raises(WeightsMissing, match="shards without their index"):
        identify(tmp_path)


@pytest.mark.parametrize(
    ("settings", "prediction", "schedule"),
    [
        ({}, "eps", "scaled-linear"),
        ({"prediction_type": "v_prediction"}, "v", "scaled-linear"),
        ({"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}, "v", "scaled-linear-zero-snr"),
        ({"prediction_type": "sample", "beta_schedule": "squaredcos_cap_v2"}, "x0", "cosine"),
        ({"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02}, "eps", "linear"),
    ],
)
def test_schedulers(tmp_path: Path, tiny, settings, prediction: str, schedule: str) -> None:
    told = {"prediction": settings.pop("prediction_type", "epsilon"), **settings}
    facts = identify(tiny("sd1").folder(tmp_path, **told)).facts
    assert (facts["prediction"], facts["schedule"]) == (prediction, schedule) and schedule in SCHEDULES


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"prediction": "flow"}, "predicts 'flow'"),
        ({"beta_end": 0.05}, "noise table"),
        ({"trained_betas": [1]}, "table"),
    ],
)
def test_schedulers_that_are_not_known(tmp_path: Path, tiny, settings, said: str) -> None:
    with pytest.raises(WeightsError, match=said):
        identify(tiny("sd1").folder(tmp_path, **settings))


@pytest.mark.parametrize(
    ("text", "suffix", "prediction"),
    [
        ("model:\n  params:\n    parameterization: v\n", ".yaml", "v"),
        ("scaling_config:\n  target: sgm.modules.diffusionmodules.denoiser_scaling.VScaling\n", ".yaml", "v"),
        ('  parameterization: "eps" # as trained', ".yml", "eps"),
        ('{"name": "x", "prediction": "eps"}', ".json", "eps"),
        ('{"prediction_type": "v_prediction"}', ".json", "v"),
        ("\n" * 900_000, ".yaml", None),
        ("[" * 100_000, ".json", None),
        ("nothing: here", ".yaml", None),
    ],
)
def test_sidecars(tmp_path: Path, tiny, text: str, suffix: str, prediction: str | None) -> None:
    path = tiny("sd2").file(tmp_path / "x.safetensors")
    (tmp_path / f"x{suffix}").write_text(text)
    release = identify(path)
    assert release.facts["prediction"] == (prediction or "v")
    assert ("the file beside it" in release.notes[0]) == (prediction is not None)


def test_version_2_is_not_guessed_in_silence(tmp_path: Path, tiny) -> None:
    release = identify(tiny("sd2").file(tmp_path / "x.safetensors"))
    assert release.facts["prediction"] == "v" and release.native == (768, 768)
    assert "nothing says" in release.notes[0] and '{"prediction": "eps"}' in release.notes[0]
    assert release.override(prediction="eps").facts["prediction"] == "eps"
    assert identify(tiny("sd2-inpaint").file(tmp_path / "y.safetensors")).facts["prediction"] == "eps"
    torch.save({"state_dict": tiny("sd2").single(), "global_step": 875000}, tmp_path / "z.ckpt")
    assert identify(tmp_path / "z.ckpt").facts["prediction"] == "eps"


def test_marks_of_newer_files(tmp_path: Path, tiny) -> None:
    model, empty = tiny("sdxl"), torch.zeros(0)
    plain = identify(model.file(tmp_path / "a.safetensors"))
    assert plain.facts["prediction"] == "eps" and plain.notes == () and plain.facts["zeros_for_empty"]
    marked = identify(model.file(tmp_path / "b.safetensors", v_pred=empty, ztsnr=empty))
    assert (marked.facts["prediction"], marked.facts["schedule"]) == ("v", "scaled-linear-zero-snr")
    told = identify(model.file(tmp_path / "c.safetensors", {"modelspec.prediction_type": "v"}))
    assert told.facts["prediction"] == "v" and "its header" in told.notes[0]
    dark = identify(model.file(tmp_path / "d.safetensors", alphas_cumprod=torch.tensor([0.9, 0.0])))
    assert (dark.facts["prediction"], dark.facts["schedule"]) == ("v", "scaled-linear-zero-snr")
    light = identify(model.file(tmp_path / "e.safetensors", alphas_cumprod=torch.tensor([0.9, 0.0047])))
    assert light.facts["schedule"] == "scaled-linear"


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("lora_unet_down_blocks_0.lora_up.weight", "a LoRA, not a model"),
        ("unet.down_blocks.0.attn1.to_q.lora_A.weight", "a LoRA, not a model"),
        ("emb_params", "textual inversion"),
        ("control_model.input_blocks.0.0.weight", "ControlNet"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", "FLUX"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3"),
        ("encoder.block.0.layer.0.SelfAttention.q.weight", "T5"),
        ("model.layers.0.self_attn.q_proj.weight", "language model"),
        ("down_blocks.0.resnets.0.conv1.weight", "U-Net in diffusers' names"),
        ("encoder.down.0.block.0.conv1.weight", "autoencoder on its own"),
        ("text_model.final_layer_norm.weight", "CLIP on its own"),
        ("strange\x1b[2J.weight", r"no model of a known family \(1 tensors: strange\?\[2J"),
    ],
)
def test_strangers_are_called_by_name(tmp_path: Path, key: str, said: str) -> None:
    save_file({key: torch.zeros(4, 4)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=said):
        identify(tmp_path / "x.safetensors")


def test_what_is_not_supported_is_said(tmp_path: Path, tiny) -> None:
    model = tiny("sd2")
    first = "model.diffusion_model.input_blocks.0.0.weight"
    for channels, said in ((5, "depth-guided"), (7, "x4 upscaler"), (8, "InstructPix2Pix")):
        path = model.file(tmp_path / f"{channels}.safetensors", **{first: torch.zeros(32, channels, 3, 3)})
        with pytest.raises(WeightsError, match=said):
            identify(path)
    with pytest.raises(WeightsError, match=r"holds more than a model: 1 not known \(surprise\)"):
        identify(model.file(tmp_path / "more.safetensors", surprise=torch.zeros(1)))
    with pytest.raises(WeightsError, match="encoder for pictures"):
        identify(model.file(tmp_path / "depth.safetensors", **{"depth_model.x": torch.zeros(1)}))
    folder = model.folder(tmp_path / "folder")
    settings = json.loads((folder / "unet" / "config.json").read_text())
    for change, said in (
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep'"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim"),
        ({"down_block_types": ["KDownBlock2D"] * 2}, "KDownBlock2D"),
        ({"block_out_channels": None}, "not supported"),
        ({"in_channels": 7}, "x4 upscaler"),
    ):
        (folder / "unet" / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(WeightsError, match=said):
            identify(folder)


def test_incomplete_things(tmp_path: Path, tiny) -> None:
    with pytest.raises(WeightsMissing, match="is not there"):
        identify(tmp_path / "nothing")
    with pytest.raises(WeightsMissing, match="is no model"):
        identify(tmp_path)
    tensors = {key: value for key, value in tiny("sd1").single().items() if not key.startswith(("first", "cond"))}
    save_file(tensors, tmp_path / "unet.safetensors")
    release = identify(tmp_path)  # the only file in the folder
    assert set(release.parts) == {"unet"} and release.family == "sd1"
    assert [note.split(";")[0] for note in release.notes] == [
        "the file holds no autoencoder", "the file holds no text encoder (text)",
    ]  # fmt: skip
    (tmp_path / "b.ckpt").write_bytes(b"")
    with pytest.raises(WeightsMissing, match="2 single files"):
        identify(tmp_path)
    folder = tiny("sd1").folder(tmp_path / "folder")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsMissing, match="holds no weights"):
        identify(folder)
    (folder / "vae" / "config.json").write_text("version https://git-lfs.github.com/spec/v1")
    with pytest.raises(WeightsError, match="Git LFS pointer"):
        identify(folder)


def test_autoencoders_on_their_own(tmp_path: Path, tiny) -> None:
    model = tiny("sd1")
    wanted = model.networks["codec"].state_dict()
    found = [identify_codec(model.folder(tmp_path / "folder")), identify_codec(tmp_path / "folder" / "vae")]
    for prefix, layout in (
        ("", "compvis-vae"), ("vae.", "compvis-vae"), ("first_stage_model.", "compvis-vae"), ("", "diffusers-vae"),
    ):  # fmt: skip
        save_file(model.tensors("codec", layout, prefix), tmp_path / "vae.safetensors")
        found.append(identify_codec(tmp_path / "vae.safetensors"))
        ours = load_foreign(found[-1]).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in wanted.items())
        assert from_json(type(model.networks["codec"].config), json.loads(found[-1].config)) == (
            model.networks["codec"].config
        )
    assert all(isinstance(part, PartFile) and hash(part) for part in found)
    assert dict(identify_codec(tmp_path / "vae.safetensors", 0.5).values)["latents_std"] == (2.0,)
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="no autoencoder"):
        identify_codec(tmp_path / "x.safetensors")


def test_tokenizers_of_a_folder(tmp_path: Path, tiny) -> None:
    folder = tiny("sd2").folder(tmp_path)
    assert identify(folder).tokenizers == {"tokenizer": None} and identify(folder).facts["pad"] == 0
    (folder / "tokenizer").mkdir()
    (folder / "tokenizer" / "vocab.json").write_text('{"a": 0, "?": 5, "<|endoftext|>": 6}')
    assert identify(folder).tokenizers == {"tokenizer": folder / "tokenizer"} and identify(folder).facts["pad"] == 0
    for token, pad in (("?", 5), ({"content": "?"}, 5), ("<|endoftext|>", None)):
        (folder / "tokenizer" / "tokenizer_config.json").write_text(json.dumps({"pad_token": token}))
        assert identify(folder).facts["pad"] == pad
