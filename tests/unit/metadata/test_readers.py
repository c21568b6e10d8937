"""Hand-made files of each program, as its source writes them."""

import json

import pytest

from mindseye.metadata import read_chunks, read_text
from mindseye.metadata.invoke import bracketed

FULL = (
    "a fox <lora:ink:0.8>, (sharp:1.2)\nNegative prompt: blur,\nugly\n"
    "Steps: 30, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 4294967295, Size: 512x768, "
    "Model hash: 6ce0161689, Model: v1-5, VAE hash: 735e4c3a44, VAE: vae-ft.safetensors, Variation seed: 12, "
    "Variation seed strength: 0.25, Denoising strength: 0.5, Clip skip: 2, ENSD: 31337, RNG: CPU, Tiling: True, "
    "Hires upscale: 2, Hires steps: 10, Hires upscaler: 4x-UltraSharp, Emphasis: No norm, "
    'Lora hashes: "ink: 0123456789ab, x: 11", Version: v1.10.1'
)


def chunk(value):
    return json.dumps(value)


def test_an_infotext_in_full():
    found = read_text(FULL)
    assert found.tool == "A1111" and found.raw == FULL
    assert found.fields == {
        "prompt": "a fox <lora:ink:0.8>, (sharp:1.2)",
        "negative": "blur,\nugly",
        "steps": 30,
        "sampler": "DPM++ 2M",
        "schedule": "Karras",
        "guidance": 7.5,
        "seed": 4294967295,
        "size": (512, 768),
        "model": "v1-5",
        "model_hash": "6ce0161689",
        "vae": "vae-ft.safetensors",
        "clip_skip": 2,
        "variation_seed": 12,
        "variation_strength": 0.25,
        "hires": 2.0,
        "hires_steps": 10,
        "hires_strength": 0.5,
        "hires_upscaler": "4x-UltraSharp",
        "seamless": "xy",
        "emphasis": "No norm",
        "rng": "CPU",
        "loras": ({"name": "ink", "hash": "0123456789ab"}, {"name": "x", "hash": "11"}),
        "version": "v1.10.1",
        "extra": {"ENSD": "31337", "VAE hash": "735e4c3a44"},
    }


@pytest.mark.parametrize(
    ("settings", "tool"),
    [
        ("Version: f2.0.1v1.10.1-previous", "Forge"),
        ("Version: ComfyUI", "ComfyUI"),
        ("Version: stable-diffusion.cpp master", "stable-diffusion.cpp"),
        ("App: SD.Next", "SD.Next"),
        ("Version: mindseye 0.1.0", "mindseye"),
        ("Version: v1.6.0", "A1111"),
        ("Eta: 1", "A1111"),
    ],
)
def test_who_wrote_an_infotext(settings, tool):
    assert read_text(f"x\nSteps: 1, Seed: 2, Size: 8x8, {settings}").tool == tool


@pytest.mark.parametrize(
    ("settings", "fields"),
    [
        ("Hires resize: 1024x1024", {"hires": 2.0}),
        ("Hires resize: 0x768", {"hires": 1.5}),
        ("Hires resize: 1024x0, Denoising strength: 0.4", {"hires": 2.0, "hires_strength": 0.4}),
        ("Hires resize: 0x0", {}),
        ("Denoising strength: 0.4", {"strength": 0.4}),
        ("Denoising strength: 0.4, Hires upscale: 1.5", {"hires": 1.5, "hires_strength": 0.4}),
        ("Mask blur: 4, Inpaint area: Only masked, Masked area padding: 16, Masked content: latent noise",
         {"mask_blur": 4.0, "only_masked": True, "padding": 16, "masked": "latent noise"}),
        ("Sampler: DPM++ 2M, Schedule type: Automatic", {"sampler": "DPM++ 2M", "schedule": "Karras"}),
        ("Sampler: Euler a, Schedule type: Automatic", {"sampler": "Euler a"}),
        ("Seed resize from: 64x64", {"extra": {"Seed resize from": "64x64"}}),
        ("CFG scale: nan, Clip skip: many, Eta: 1e999, Hires upscale: x", {}),
    ],
)  # fmt: skip
def test_single_settings(settings, fields):
    found = read_text(f"x\nSteps: 1, Seed: 2, Size: 512x512, {settings}").fields
    given = {key: value for key, value in found.items() if key not in ("prompt", "steps", "seed", "size")}
    assert given == {"extra": {}, **fields}


@pytest.mark.parametrize(
    ("told", "first", "hires"),
    [("512x768", (512, 768), 2.0), ("0x0", (448, 640), 1536 / 640), ("", (1024, 1536), None)],
)
def test_until_2023_the_size_was_that_of_the_second_pass(told, first, hires):
    found = read_text(f"x\nSteps: 1, Seed: 2, Size: 1024x1536, Denoising strength: 0.7, First pass size: {told}").fields
    assert (found["size"], found.get("hires")) == (first, hires)
    assert found["hires_strength" if hires else "strength"] == 0.7


def test_a_second_pass_of_another_shape_is_said():
    assert read_text("x\nSteps: 1, Seed: 2, Size: 512x768, Hires resize: 1000x1500").notices == ()
    cut = read_text("x\nSteps: 1, Seed: 2, Size: 512x768, Hires resize: 1024x1024")
    assert cut.fields["hires"] == 2.0 and "cut to 1024x1024" in cut.notices[0]


def test_a_pasted_prompt_without_settings():
    found = read_text("  just words: a, b \n")
    assert found.fields["prompt"] == "just words: a, b" and "seed" not in found.fields


@pytest.mark.parametrize("text", ["", "   ", "{", "{}", "[]", '{"a": 1}', '{"prompt": 7}', '{"prompt": {"1": 2}}'])
def test_pasted_rubbish_is_words_at_most(text):
    found = read_text(text)
    assert set(found.fields) <= {"prompt", "extra"}


INVOKE = {
    "generation_mode": "txt2img", "positive_prompt": "a fox++", "negative_prompt": "", "width": 512, "height": 640,
    "seed": 42, "rand_device": "cuda", "cfg_scale": 7.5, "cfg_rescale_multiplier": 0.3, "steps": 30,
    "scheduler": "dpmpp_2m_k", "seamless_x": True, "seamless_y": False, "clip_skip": 1,
    "model": {"key": "k", "hash": "blake3:ab", "name": "dream", "base": "sd-1", "type": "main"},
    "loras": [{"model": {"name": "ink"}, "weight": 0.75}, {"lora": {"model_name": "old"}, "weight": 1}, 7],
    "vae": {"name": "ft"}, "strength": None, "app_version": "4.2.0",
}  # fmt: skip


def test_invoke_3():
    found = read_chunks({"invokeai_metadata": chunk(INVOKE)})
    assert found.tool == "InvokeAI" and found.dialect == "compel"
    assert found.fields == {
        "prompt": "a fox++", "steps": 30, "sampler": "dpmpp_2m_k", "guidance": 7.5, "rescale": 0.3, "seed": 42,
        "size": (512, 640), "model": "dream", "model_hash": "blake3:ab", "vae": "ft", "clip_skip": 2, "seamless": "x",
        "rng": "cuda", "version": "4.2.0", "extra": {"generation_mode": "txt2img"},
        "loras": ({"name": "ink", "weight": 0.75}, {"name": "old", "weight": 1.0}),
    }  # fmt: skip


def test_invoke_1_and_2():
    dream = read_chunks(
        {"Dream": r'"a \"red\" boat [storm] now [rain]" -s50 -S 1234 -W 512 -H 448 -C7.5 -A k_lms -f0.6'}
    )
    assert dream.fields == {
        "prompt": 'a "red" boat  now', "negative": "storm, rain", "steps": 50, "seed": 1234, "size": (512, 448),
        "guidance": 7.5, "sampler": "k_lms", "strength": 0.6, "rng": "cpu",
    }  # fmt: skip
    image = {"prompt": [{"prompt": "a", "weight": 1}, {"prompt": "b", "weight": 2}], "steps": 9, "seed": 1}
    second = read_chunks({"sd-metadata": chunk({"model_weights": "m", "image": image})})
    assert second.fields["prompt"] == "a, b" and len(second.notices) == 1
    bare = read_chunks({"sd-metadata": chunk({"image": {"prompt": "one [two", "steps": 1}})})
    assert bare.fields["prompt"] == "one [two"


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [("a [b] c [d]", ("a  c", "b, d")), ("a ] b", ("a ] b", "")), ("[", ("[", "")), ("[]", ("", "")), ("", ("", ""))],
)
def test_brackets(prompt, expected):
    assert bracketed(prompt) == expected


def test_novelai_with_figures_of_its_own():
    comment = {
        "prompt": "old", "steps": 28, "height": 1216, "width": 832, "scale": 5.0, "cfg_rescale": 0.1, "seed": 9,
        "noise_schedule": "karras", "sampler": "k_euler_ancestral", "uc": "bad", "strength": 0.7,
        "v4_prompt": {"caption": {"base_caption": "two", "char_captions": [{"char_caption": "girl"}, {"x": 1}]}},
        "v4_negative_prompt": {"caption": {"base_caption": "worst", "char_captions": []}},
    }  # fmt: skip
    for chunks in (
        {"Software": "NovelAI", "Description": "d", "Source": "NovelAI Diffusion V4", "Comment": chunk(comment)},
        {"Comment": chunk(comment)},
    ):
        found = read_chunks(chunks)
        assert found.tool == "NovelAI" and found.dialect == "novelai" and len(found.notices) == 1
        assert found.fields["prompt"] == "two, girl" and found.fields["negative"] == "worst"
        assert found.fields["size"] == (832, 1216) and found.fields["schedule"] == "karras"
        assert "strength" not in found.fields


def test_novelai_hidden_in_the_pixels():
    from PIL import Image

    from mindseye.metadata import read, write_stealth

    outer = {
        "Software": "NovelAI",
        "Description": "a cat",
        "Comment": chunk({"steps": 3, "sampler": "k_lms", "uc": "b"}),
    }
    image = write_stealth(Image.new("RGB", (64, 64)), chunk(outer))
    found = read(image)
    assert found.tool == "NovelAI" and found.fields["prompt"] == "a cat" and found.fields["steps"] == 3
    nested = write_stealth(
        Image.new("RGB", (64, 64)), chunk(outer | {"Comment": {"steps": 3, "sampler": "x", "uc": "b"}})
    )
    assert read(nested).fields["steps"] == 3


FOOOCUS = {
    "prompt": "a fox", "negative_prompt": "blur", "full_prompt": ["a fox"], "full_negative_prompt": ["blur", "ugly"],
    "steps": 30, "sampler": "dpmpp_2m_sde_gpu", "scheduler": "karras", "seed": "42", "guidance_scale": 4,
    "resolution": "(1152, 896)", "base_model": "jugger", "loras": [["ink", 0.5, "aa"], ["None", 1.0, ""], "x"],
    "version": "Fooocus v2.5.0",
}  # fmt: skip


@pytest.mark.parametrize(
    "chunks",
    [
        {"parameters": chunk(FOOOCUS), "fooocus_scheme": "fooocus"},
        {"parameters": chunk(FOOOCUS)},
        {"Comment": chunk(FOOOCUS)},
        {"Comment": chunk({key.replace("_", " ").title(): value for key, value in FOOOCUS.items()})},
    ],
)
def test_fooocus_json(chunks):
    found = read_chunks(chunks)
    assert found.tool == "Fooocus" and found.notices == ()
    fields = found.fields
    assert fields["prompt"] == "a fox" and fields["negative"] == "blur BREAK ugly" and fields["seed"] == 42
    assert fields["size"] == (1152, 896) and fields["loras"] == ({"name": "ink", "weight": 0.5, "hash": "aa"},)


def test_fooocus_in_a1111s_scheme():
    found = read_chunks({"parameters": FULL, "fooocus_scheme": "a1111"})
    assert found.tool == "Fooocus" and found.fields["seed"] == 4294967295


SWARM = {
    "sui_image_params": {
        "prompt": "a cat", "negativeprompt": "dog", "model": "Official/sd_xl.safetensors", "seed": 1, "steps": 20,
        "cfgscale": 7.0, "width": 1024, "height": 768, "sampler": "dpmpp_2m", "scheduler": "karras",
        "clipstopatlayer": -2, "loras": ["sub/ink.safetensors", "b"], "loraweights": ["0.5"], "swarm_version": "0.9",
        "seamlesstileable": "X-Only", "initimagecreativity": 0.6, "aspectratio": "4:3",
    },
    "sui_models": [{"name": "Official/sd_xl.safetensors", "param": "model", "hash": "0xd7a9"}],
}  # fmt: skip


@pytest.mark.parametrize("key", ["parameters", "UserComment"])
def test_swarm(key):
    from mindseye.metadata.chunks import unfolded

    found = read_chunks(unfolded({key: chunk(SWARM)}))
    assert found.tool == "SwarmUI"
    assert found.fields == {
        "prompt": "a cat", "negative": "dog", "steps": 20, "sampler": "dpmpp_2m", "schedule": "karras",
        "guidance": 7.0, "seed": 1, "size": (1024, 768), "model": "sd_xl", "model_hash": "d7a9", "clip_skip": 2,
        "strength": 0.6, "seamless": "x", "version": "0.9", "extra": {"aspectratio": "4:3"},
        "loras": ({"name": "ink", "weight": 0.5}, {"name": "b", "weight": 1.0}),
    }  # fmt: skip


EASY = {
    "prompt": "an oasis", "negative_prompt": "cactus", "seed": "2024", "num_inference_steps": "25", "width": "512",
    "guidance_scale": "7.5", "height": "384", "sampler_name": "euler_a", "tiling": "xy", "clip_skip": "True",
    "use_stable_diffusion_model": "C:\\models\\sd-v1-5.ckpt", "use_lora_model": "ink", "lora_alpha": "0.3",
}  # fmt: skip
LABELS = {
    "Prompt": "an oasis", "Negative Prompt": "cactus", "Seed": 2024, "Steps": 25, "Width": 512, "Guidance Scale": 7.5,
    "Height": 384, "Sampler": "euler_a", "Seamless Tiling": "xy", "Clip Skip": True,
    "Stable Diffusion model": "sd-v1-5", "LoRA model": "ink", "LoRA strength": 0.3,
}  # fmt: skip


@pytest.mark.parametrize("chunks", [EASY, {"parameters": chunk(EASY)}, {"parameters": chunk(LABELS)}])
def test_easy_diffusion(chunks):
    found = read_chunks(chunks)
    assert found.tool == "Easy Diffusion"
    assert found.fields == {
        "prompt": "an oasis", "negative": "cactus", "steps": 25, "sampler": "euler_a", "guidance": 7.5, "seed": 2024,
        "size": (512, 384), "model": "sd-v1-5", "clip_skip": 2, "seamless": "xy", "extra": {},
        "loras": ({"name": "ink", "weight": 0.3},),
    }  # fmt: skip


def test_anybodys_json_with_the_usual_names():
    found = read_text('{"prompt": "a fox", "steps": 4, "seed": 7, "cfg_scale": 3, "width": 64, "height": 32}')
    assert found.tool == "unknown" and found.fields["guidance"] == 3.0 and found.fields["size"] == (64, 32)


@pytest.mark.parametrize("name", ["invokeai_metadata", "sd-metadata"])
def test_damaged_chunks_say_whose_they_are(name):
    found = read_chunks({name: '{"positive_prompt": "a'})
    assert found.tool == "InvokeAI" and found.fields == {} and "damaged" in found.notices[0]
    assert "damaged" in read_chunks({"Software": "NovelAI", "Comment": "{"}).notices[0]
    assert "damaged" in read_chunks({"parameters": "{", "fooocus_scheme": "fooocus"}).notices[0]
    assert "damaged" in read_chunks({"prompt": '{"3": {'}).notices[0]
