"""Files that diffusers and transformers write themselves, read by us: equal outputs; and their converters as judges."""

import json
import warnings
from pathlib import Path

import pytest
import torch

from mindseye.checkpoints import layouts
from mindseye.checkpoints.convert import convert
from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.releases import identify
from mindseye.networks.clip import CLIP, Config, Text
from mindseye.networks.unet import SD1, SD2, SDXL, UNet
from mindseye.networks.vae import KL_F8, AutoencoderKL
from mindseye.nn.embeddings import sinusoidal

pytestmark = pytest.mark.parity
diffusers = pytest.importorskip("diffusers")
transformers = pytest.importorskip("transformers")
single_file = pytest.importorskip("diffusers.loaders.single_file_utils")

IDS = torch.tensor([[3, 5, 7, 99, *[99] * 12], [3, *range(10, 24), 99]])


def text(kind: type, width: int, act: str, embed: int = 32, layers: int = 3):
    config = transformers.CLIPTextConfig(
        hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=2, hidden_act=act,
        vocab_size=100, max_position_embeddings=16, projection_dim=embed, bos_token_id=0, eos_token_id=2,
        pad_token_id=1,
    )  # fmt: skip
    return kind(config)


def pipeline(family: str):
    """A tiny pipeline with random weights that hide nothing."""
    torch.manual_seed(0)
    xl = "xl" in family
    linear = family != "sd1"
    refiner = family == "sdxl-refiner"
    kinds = ("DownBlock2D", "CrossAttnDownBlock2D") if xl else ("CrossAttnDownBlock2D", "DownBlock2D")
    more = {}
    if xl:
        more = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": 32 + 8 * (5 if refiner else 6),
            "transformer_layers_per_block": (1, 2),
        }
    unet = diffusers.UNet2DConditionModel(
        sample_size=8,
        in_channels=9 if "inpaint" in family else 4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        cross_attention_dim={"sd1": 32, "sd2": 32, "sdxl": 64, "sdxl-inpaint": 64, "sdxl-refiner": 32}[family],
        attention_head_dim=(2, 4) if linear else 4,
        use_linear_projection=linear,
        down_block_types=kinds,
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)),
        **more,
    )
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        norm_num_groups=4,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **({"scaling_factor": 0.13025} if xl else {}),
    )
    parts = {"unet": unet, "vae": vae, "tokenizer": None}
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if xl:
        parts["scheduler"] = diffusers.EulerDiscreteScheduler(**betas)
        parts["text_encoder"] = None if refiner else text(transformers.CLIPTextModel, 32, "quick_gelu")
        parts["text_encoder_2"] = text(transformers.CLIPTextModelWithProjection, 32, "gelu")
        parts["tokenizer_2"] = None
    else:
        v = {"prediction_type": "v_prediction"} if family == "sd2" else {}
        parts["scheduler"] = diffusers.DDIMScheduler(**betas, clip_sample=False, set_alpha_to_one=False, **v)
        parts["text_encoder"] = text(transformers.CLIPTextModel, 32, "gelu" if family == "sd2" else "quick_gelu")
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    for module in parts.values():
        if isinstance(module, torch.nn.Module):
            for parameter in module.eval().requires_grad_(False).parameters():
                if parameter.ndim == 1:
                    parameter.normal_(std=0.3)
    kind = {
        "sd1": diffusers.StableDiffusionPipeline,
        "sd2": diffusers.StableDiffusionPipeline,
        "sdxl": diffusers.StableDiffusionXLPipeline,
        "sdxl-inpaint": diffusers.StableDiffusionXLInpaintPipeline,
        "sdxl-refiner": diffusers.StableDiffusionXLImg2ImgPipeline,
    }[family]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return kind(**parts), parts


def close(ours: torch.Tensor, theirs: torch.Tensor, atol: float = 1e-5) -> None:
    assert theirs.std() > 0.01
    torch.testing.assert_close(ours, theirs, rtol=0, atol=atol)


@torch.no_grad()
def equal_outputs(release, parts, atol: float = 1e-5) -> None:
    """Every network of a release against diffusers' and transformers'."""
    ours = {name: load_foreign(part) for name, part in release.parts.items()}
    unet = parts["unet"].float()
    x, timesteps = torch.randn(2, unet.config.in_channels, 8, 8), torch.tensor([3.0, 900.0])
    tokens = torch.randn(2, 5, unet.config.cross_attention_dim)
    vector, added = None, None
    if unet.config.addition_embed_type:
        sizes = torch.rand(2, (unet.config.projection_class_embeddings_input_dim - 32) // 8) * 1000
        added = {"text_embeds": torch.randn(2, 32), "time_ids": sizes}
        vector = torch.cat([added["text_embeds"], sinusoidal(sizes, 8).flatten(1)], dim=1)
    theirs = unet(x, timesteps, tokens, added_cond_kwargs=added).sample
    close(ours["unet"](x, timesteps, tokens, vector), theirs, atol)
    vae = parts["vae"].float()
    pixels, scale = torch.rand(1, 3, 16, 16) * 2 - 1, vae.config.scaling_factor
    latents = vae.encode(pixels).latent_dist.mode() * scale
    close(ours["codec"].encode(pixels), latents, atol)
    close(ours["codec"].decode(latents), vae.decode(latents / scale).sample, atol)
    for name, folder in (("text", "text_encoder"), ("text_2", "text_encoder_2")):
        if parts.get(folder) is None:
            assert name not in ours
            continue
        out = parts[folder].float()(IDS, output_hidden_states=True)
        close(ours[name].text(IDS)[0], out.last_hidden_state, atol)
        close(ours[name].text(IDS, skip=1, final_norm=False)[0], out.hidden_states[-2], atol)
        if folder == "text_encoder_2":
            close(ours[name].text(IDS)[1], out.text_embeds, atol)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl-inpaint", "sdxl-refiner"])
def test_folders_that_diffusers_writes(tmp_path: Path, family: str) -> None:
    pipe, parts = pipeline(family)
    pipe.save_pretrained(tmp_path)
    release = identify(tmp_path)
    assert release.family == family
    assert release.facts["prediction"] == ("v" if family == "sd2" else "eps")
    equal_outputs(release, parts)


@pytest.mark.parametrize(
    "form",
    [
        {"safe_serialization": False},
        {"variant": "fp16"},
        {"max_shard_size": "40KB"},
        {"variant": "fp16", "max_shard_size": "40KB"},
        {"safe_serialization": False, "max_shard_size": "40KB"},
    ],
)
def test_forms_of_folder(tmp_path: Path, form: dict) -> None:
    pipe, parts = pipeline("sd1")
    if "variant" in form:
        pipe.to(dtype=torch.float16)
    pipe.save_pretrained(tmp_path, **form)
    names = {path.name for path in tmp_path.rglob("*")}
    assert any(mark in name for name in names for mark in (".bin", "fp16", "-of-")), names
    equal_outputs(identify(tmp_path), parts)


@torch.no_grad()
def test_latent_diffusion_that_diffusers_writes(tmp_path: Path) -> None:
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertConfig, LDMBertModel

    _, parts = pipeline("sd1")
    bert = LDMBertModel(
        LDMBertConfig(
            vocab_size=100,
            max_position_embeddings=16,
            encoder_layers=2,
            encoder_ffn_dim=64,
            d_model=32,
            head_dim=8,
            encoder_attention_heads=2,
        )  # fmt: skip
    ).eval()
    (tmp_path / "model_index.json").write_text('{"_class_name": "LDMTextToImagePipeline"}')
    for name, part in (("unet", "unet"), ("vae", "vqvae"), ("scheduler", "scheduler")):
        parts[name].save_pretrained(tmp_path / part)
    bert.save_pretrained(tmp_path / "bert")
    release = identify(tmp_path)
    assert release.family == "ldm-text2img" and set(release.parts) == {"unet", "codec", "text"}
    ours = load_foreign(release.parts["text"])
    close(ours.text(IDS)[0], bert(IDS)[0])
    theirs = parts["unet"](torch.ones(1, 4, 8, 8), torch.tensor([9.0]), torch.ones(1, 5, 32)).sample
    unet = load_foreign(release.parts["unet"])
    close(unet(torch.ones(1, 4, 8, 8), torch.tensor([9.0]), torch.ones(1, 5, 32)), theirs)


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl", "sdxl-refiner"])
def test_what_we_export_diffusers_reads(tmp_path: Path, family: str) -> None:
    """Their folder, our single file of it, our folder of that: read by them again, the same weights."""
    pipe, parts = pipeline(family)
    pipe.save_pretrained(tmp_path / "theirs")
    for _ in convert(tmp_path / "theirs", tmp_path / "one.safetensors", "original"):
        pass
    for _ in convert(tmp_path / "one.safetensors", tmp_path / "back", "diffusers"):
        pass
    equal_outputs(identify(tmp_path / "one.safetensors"), parts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        back = type(pipe).from_pretrained(tmp_path / "back")
    index = json.loads((tmp_path / "back" / "model_index.json").read_text())
    assert (index["text_encoder"] == [None, None]) == (family == "sdxl-refiner")
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        if parts.get(name) is not None:
            again, before = getattr(back, name).state_dict(), parts[name].state_dict()
            assert again.keys() == before.keys()
            assert all(torch.equal(again[key], before[key]) for key in before)
            if name == "unet":
                assert {k: v for k, v in back.unet.config.items() if not k.startswith("_")}.items() >= {
                    "sample_size": 8, "use_linear_projection": family != "sd1"
                }.items()  # fmt: skip


def named(state: dict[str, torch.Tensor], config: object, layout: str) -> dict[str, torch.Tensor]:
    """A network's weights under a layout's names; the very same tensors where nothing is done to them."""
    found = layouts.find(layout)
    return restore(state, found.rules(config), given=found.given)


@pytest.mark.parametrize("config", [SD1, SD2, SDXL], ids=["sd1", "sd2", "sdxl"])
def test_original_unets_by_their_converter(config) -> None:
    """The very tensors, told apart by identity: what diffusers makes of our original names are our diffusers names."""
    with torch.device("meta"):
        state = UNet(config).state_dict()
    original, wanted = named(state, config, "compvis-unet"), named(state, config, "diffusers-unet")
    settings = {
        "layers_per_block": config.blocks,
        "class_embed_type": None,
        "addition_embed_type": None if config.vector is None else "text_time",
        "num_class_embeds": None,
        "up_block_types": ["CrossAttnUpBlock2D" if depth else "UpBlock2D" for depth in config.transformers.depth[::-1]],
    }
    prefixed = {f"model.diffusion_model.{key}": value for key, value in original.items()}
    theirs = single_file.convert_ldm_unet_checkpoint(prefixed, config=settings)
    assert theirs.keys() == wanted.keys()
    assert all(theirs[key] is wanted[key] for key in wanted)


@torch.no_grad()
def test_original_autoencoders_by_their_converter() -> None:
    state = AutoencoderKL(KL_F8).state_dict()
    original, wanted = named(state, KL_F8, "compvis-vae"), named(state, KL_F8, "diffusers-vae")
    original = {f"first_stage_model.{key}": value.contiguous() for key, value in original.items()}
    settings = {"down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4}
    theirs = single_file.convert_ldm_vae_checkpoint(original, config=settings)
    assert theirs.keys() == wanted.keys()
    assert all(torch.equal(theirs[key], wanted[key]) for key in wanted)


@torch.no_grad()
@pytest.mark.parametrize("prefix", ["cond_stage_model.model.", "conditioner.embedders.1.model."])
def test_open_clip_by_their_converter(prefix: str) -> None:
    """Their names want the release's width, 1024 or 1280; two blocks of it suffice."""
    width = 1024 if prefix.startswith("cond_stage") else 1280
    config = Config(text=Text(width=width, layers=2, heads=16, vocabulary=50), image=None, embed=width)
    state = CLIP(config).state_dict()
    original, wanted = named(state, config, "open-clip-text"), named(state, config, "transformers-clip-text")
    model = transformers.CLIPTextModelWithProjection(
        transformers.CLIPTextConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=2,
            num_attention_heads=16,
            vocab_size=50,
            projection_dim=width,
        )  # fmt: skip
    )
    prefixed = {prefix + key: value.contiguous() for key, value in original.items()}
    theirs = single_file.convert_open_clip_checkpoint(model, prefixed, prefix=prefix)
    if width == 1024:  # Stable Diffusion 2 does not project
        wanted.pop("text_projection.weight")
    theirs.pop("text_model.embeddings.position_ids", None)
    theirs = {key if key.startswith("text_") else f"text_model.{key}": value for key, value in theirs.items()}
    assert theirs.keys() == wanted.keys()
    assert all(torch.equal(theirs[key], wanted[key]) for key in wanted)
