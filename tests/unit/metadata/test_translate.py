"""From settings to a request, and a sentence for what cannot be the same."""

import dataclasses

import pytest
import torch
from PIL import Image

from mindseye.diffusion.samplers import SAMPLERS
from mindseye.diffusion.schedule import SPACINGS
from mindseye.errors import ImageError
from mindseye.metadata import Drawer, Found, exif, names, read, read_chunks, read_text, to_request
from mindseye.metadata.dialects import to_a1111
from mindseye.metadata.translate import _MASKED, _RANGES
from mindseye.pictures import save_lossy
from mindseye.request import Request, Result
from mindseye.systems.base import remaining
from mindseye.systems.knobs import Options

KNOBS = {each.name: each for each in dataclasses.fields(Options)}
OWN = Drawer(name="v1-5", native=(512, 512), hashes=("6ce0161689" + "0" * 54,))
POCKET = Drawer(name="pocket", native=(128, 128), samplers=("euler",), options=("spacing",), flow=True)


def of(settings, prompt="a fox", **more):
    return to_request(read_text(f"{prompt}\nSteps: 20, Seed: 3, Size: 512x512, {settings}"), **more)


@pytest.mark.parametrize(
    ("name", "ours", "schedule"),
    [
        ("Euler a", "euler-ancestral", ""),
        ("k_euler_a", "euler-ancestral", ""),
        ("euler_ancestral", "euler-ancestral", ""),
        ("DPM++ 2M Karras", "dpm++-2m", "karras"),
        ("dpmpp_2m", "dpm++-2m", ""),
        ("k_dpmpp_2m", "dpm++-2m", ""),
        ("sample_dpmpp_2m", "dpm++-2m", ""),
        ("dpmpp_2m_k", "dpm++-2m", "karras"),
        ("DPM++ 2M SDE Exponential", "dpm++-2m-sde", "exponential"),
        ("dpmpp_2m_sde_gpu", "dpm++-2m-sde", ""),
        ("DPM++ SDE Karras", "dpm++-sde", "karras"),
        ("DPM++ 2S a", "dpm++-2s-ancestral", ""),
        ("DPM2 a Karras", "dpm2-ancestral", "karras"),
        ("kdpm_2_a_k", "dpm2-ancestral", "karras"),
        ("k_dpm_2", "dpm2", ""),
        ("k_lms", "lms", ""),
        ("LMS Karras", "lms", "karras"),
        ("DDIM", "ddim", ""),
        ("DDIM Trailing", "ddim", "trailing"),
        ("pndm", "plms", ""),
        ("UniPC", "unipc", ""),
        ("uni_pc_bh2", "unipc", ""),
        ("LCM", "lcm", ""),
        ("heun", "heun", ""),
    ],
)
def test_samplers_by_all_their_names(name, ours, schedule):
    assert names.sampler(name) == names.Named(sampler=ours, schedule=schedule)


@pytest.mark.parametrize("name", SAMPLERS)
def test_our_own_names_are_understood(name):
    assert names.sampler(name) == names.Named(sampler=name)


def test_every_name_leads_to_something_that_is_there():
    assert set(names._SAMPLERS.values()) | set(names._LIKE.values()) <= set(SAMPLERS)
    assert {each["spacing"] for each in names._SCHEDULES.values()} <= set(SPACINGS)
    assert set(names._LIKE_SCHEDULES.values()) <= set(names._SCHEDULES)
    assert not set(names._SAMPLERS) & set(names._LIKE)
    for table in (names._SAMPLERS, names._LIKE, names._SCHEDULES, names._LIKE_SCHEDULES):
        assert all(key == names.normal(key) for key in table)


def test_methods_that_are_not_here_come_with_what_is_like_them():
    found = names.sampler("DPM adaptive")
    assert found.sampler == "dpm++-2m" and "'DPM adaptive'" in found.notices[0]
    assert names.sampler("Eulr a").sampler == "euler-ancestral"
    nothing = names.sampler("!?")
    assert nothing.sampler is None and "the model's own" in nothing.notices[0]
    assert names.spacing("Align Your Steps").options == {"spacing": "karras"}
    assert names.spacing("zzz").options == {} and names.spacing("zzz").notices


def test_the_options_are_those_of_stable_diffusion():
    used = {
        "seamless",
        "masked",
        "only_masked",
        "emphasis",
        "hires_upscaler",
        "noise_scale",
        "spacing",
        "offset",
        "final",
    }
    assert not (used | set(_RANGES)) - set(KNOBS)
    for name, (low, high) in _RANGES.items():
        about = KNOBS[name].metadata
        assert about["low"] <= low and high <= about["high"], name
    assert set(_MASKED.values()) <= set(KNOBS["masked"].metadata["choices"])
    theirs = ("Latent", "Latent (antialiased)", "Latent (bicubic)", "Latent (bicubic antialiased)", "Latent (nearest)",
              "Latent (nearest-exact)", "Lanczos")  # fmt: skip
    ours = [name.lower().replace(" (", "-").replace(" ", "-").strip(")") for name in theirs[:-1]] + ["pixels"]
    assert [names.upscaler(name) for name in theirs] == [(name, "") for name in ours]
    assert set(ours) == set(KNOBS["hires_upscaler"].metadata["choices"])


def test_a1111s_text_becomes_the_request_it_was():
    request, notices = of(
        "Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Model hash: 6ce0161689, Model: other name, "
        "Clip skip: 2, RNG: CPU, Variation seed: 9, Variation seed strength: 0.25, Tiling: True, Emphasis: No norm, "
        "Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent (nearest), Denoising strength: 0.5",
        "a fox <lora:ink:0.8>",
        cards=(POCKET, OWN),
    )
    assert notices == ()
    assert request == Request(
        prompt="a fox <lora:ink:0.8>", model="v1-5", size=(512, 512), seed=3, steps=20, guidance=7.0,
        sampler="dpm++-2m",
        options={
            "spacing": "karras", "noise_scale": "sigma", "clip_skip": 2, "variation_seed": 9,
            "variation_strength": 0.25, "seamless": "xy", "emphasis": "plain", "hires": 2.0, "hires_steps": 10,
            "hires_strength": 0.5, "hires_upscaler": "latent-nearest",
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ("Sampler: Euler a", {"spacing": "linspace", "noise_scale": "sigma"}),
        ("Sampler: DPM++ 2M Karras", {"spacing": "karras", "noise_scale": "sigma"}),
        ("Sampler: Euler, Schedule type: SGM Uniform", {"spacing": "linspace-open", "noise_scale": "sigma"}),
        ("Sampler: DDIM", {"spacing": "leading", "offset": 1, "final": "minimum"}),
        ("Sampler: UniPC", {"spacing": "linspace-open", "final": "minimum"}),
        ("Sampler: LCM", {"spacing": "lcm"}),
        ("Mask blur: 4, Inpaint area: Only masked, Masked content: latent nothing",
         {"mask_blur": 4.0, "only_masked": True, "masked": "nothing"}),
    ],
)  # fmt: skip
def test_what_a1111_leaves_unsaid(settings, options):
    assert of(settings)[0].options == options


@pytest.mark.parametrize(
    ("chunk", "options"),
    [
        ("euler", {"spacing": "linspace", "noise_scale": "sigma"}),
        ("euler_k", {"spacing": "karras", "noise_scale": "sigma"}),
        ("dpmpp_2m", {"spacing": "linspace-open"}),
        ("ddim", {"spacing": "leading", "offset": 1, "final": "minimum"}),
    ],
)
def test_what_invoke_leaves_unsaid(chunk, options):
    raw = f'{{"positive_prompt": "x", "scheduler": "{chunk}", "steps": 4}}'
    assert to_request(read_chunks({"invokeai_metadata": raw}))[0].options == options


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ("Sampler: Euler", "a GPU's"),
        ("Sampler: Euler, RNG: NV", "a GPU's"),
        ("Sampler: Euler a, RNG: CPU", "added noise at every step"),
        ("Sampler: Euler a, ENSD: 31337", "ENSD 31337"),
        ("Sampler: Restart", "no sampler 'Restart'"),
        ("Sampler: Euler, Schedule type: Beta", "no schedule 'Beta'"),
        ("Model: dream, Model hash: 0123456789", "the model dream (0123456789)"),
        ("RNG: CPU", "does not say which model"),
        ("VAE: ft.pt", "the VAE ft.pt"),
        ("Hires upscale: 2, Hires upscaler: 4x-Ultra", "enlarged by '4x-Ultra'"),
        ("Denoising strength: 0.5", "--image"),
        ("ControlNet 0: Module", "ControlNet"),
        ("ADetailer model: face", "ADetailer"),
        ("Refiner: xl", "second model"),
        ("Seed resize from: 64x64", "another size"),
        ("Hires upscale: 99", "out of range"),
        ("Clip skip: 40", "out of range"),
        ("Emphasis: Ignore", "weights were ignored"),
        ("Sampler: DPM2 a", "last noise level but one"),
        ("Sampler: DDIM, Hires upscale: 2", "left out a step"),
        ("Hires resize: 1024x640", "cut to 1024x640"),
        ("Hires upscale: 2, Hires sampler: Euler, Hires prompt: \"a, b\"",
         "nothing here does what these say: Hires sampler Euler, Hires prompt 'a, b'"),
        ("Sigma churn: 0.3", "nothing here does what these say: Sigma churn 0.3"),
    ],
)  # fmt: skip
def test_what_cannot_be_the_same_is_said(settings, says):
    notices = of(settings)[1]
    assert sum(says in notice for notice in notices) == 1
    assert len(set(notices)) == len(notices)


def test_every_setting_is_honoured_or_said():
    """Whatever key a text holds: it turns something, or a sentence names it, or it says nothing of the picture."""
    quiet = ("Version: v1.9", "User: me", "VAE hash: 00", "X Type: Steps", "Batch size: 4", "Eta: 1", "Pad conds: True",
             "Hires upscale: 2, Hires CFG Scale: 7", "Refiner: None", "Hires sampler: Use same sampler")  # fmt: skip
    plain = set(of("RNG: CPU, CFG scale: 7")[1])
    for settings in quiet:
        assert set(of(f"RNG: CPU, CFG scale: 7, {settings}")[1]) == plain, settings
    (said,) = set(of(f"RNG: CPU, CFG scale: 7, {', '.join(f'Odd {n}: {n}' for n in range(1, 20))}")[1]) - plain
    assert "Odd 1 1, Odd 2 2" in said and said.endswith("and 7 more")
    # JSON of other programs is full of what means nothing.
    raw = '{"positive_prompt": "x", "steps": 4, "odd": 1, "rand_device": "cpu"}'
    assert not any("odd" in notice for notice in to_request(read_chunks({"invokeai_metadata": raw}))[1])


@pytest.mark.parametrize(
    ("sampler", "strength", "run"), [("Euler", 0.5, 11), ("Euler", 0.54, 11), ("Euler", 1.0, 20), ("DDIM", 0.5, 10)]
)
def test_as_many_steps_from_a_picture_as_a1111_runs(sampler, strength, run):
    request, _ = of(f"Sampler: {sampler}, Denoising strength: {strength}")
    assert len(remaining(torch.arange(21.0), request.strength)) - 1 == run


def test_clip_skip_where_a1111_heeds_it():
    second = dataclasses.replace(OWN, skips=False)
    assert of("Clip skip: 2, Model: v1-5", cards=(OWN,))[0].options["clip_skip"] == 2
    request, notices = of("Clip skip: 2, Model: v1-5, RNG: CPU", cards=(second,))
    assert "clip_skip" not in request.options and notices == ()
    assert of("Clip skip: 2, Model: v1-5, Version: f2.0", cards=(second,))[0].options["clip_skip"] == 2


def test_an_autoencoder_of_the_users_is_used():
    request, notices = of("VAE: vae-ft-mse.safetensors, RNG: CPU, Model: v1-5", cards=(OWN,), vaes=("VAE_ft mse", "b"))
    assert request.options["vae"] == "VAE_ft mse" and notices == ()
    assert "vae" not in of("VAE: other", cards=(OWN,), vaes=("b",))[0].options
    request, notices = of("VAE: b", cards=(POCKET,), vaes=("b",))
    assert "vae" not in request.options and any("the VAE b" in notice for notice in notices)


def test_a_seed_beyond_ours_is_folded():
    found = Found(tool="ComfyUI", fields={"prompt": "x", "seed": 2**64 - 1})
    request, notices = to_request(found)
    assert request.seed == 2**63 - 1 and any("out of range" in notice for notice in notices)


def test_the_card_is_found_by_hash_then_by_name_then_the_default():
    cards = (POCKET, OWN, Drawer(name="dream-shaper"))
    assert of("Model hash: 6ce01616, Model: Dream Shaper", cards=cards)[0].model == "v1-5"
    assert of("Model: DreamShaper.safetensors, Model hash: 1111111111", cards=cards)[0].model == "dream-shaper"
    assert of("Model: unknown", cards=cards)[0].model == "pocket"
    assert of("Model hash: 6ce01616", cards=cards, model="pocket")[0].model == "pocket"
    assert of("Model hash: 6ce0", cards=cards)[0].model == "pocket"
    assert of("Model: x", cards=cards, model="not listed")[0].model == "not listed"


def test_another_kind_of_model_gets_what_it_can_use():
    request, notices = of("Sampler: Euler, Schedule type: Karras, Clip skip: 2, Model: x", cards=(POCKET,))
    assert request.size == (128, 128) and request.sampler == "euler" and request.options == {}
    assert any("no option clip_skip" in each for each in notices) and any("rectified flow" in each for each in notices)
    assert any("its shape is kept" in each for each in notices)
    request, notices = of("Sampler: Heun", cards=(POCKET,))
    assert request.sampler is None and any("no sampler 'heun'" in each for each in notices)
    wide = to_request(read_text("x\nSteps: 1, Seed: 1, Size: 1024x256"), cards=(POCKET,))[0]
    assert wide.size == (256, 64)


def test_adapters_become_tags():
    raw = '{"positive_prompt": "a fox", "steps": 3, "loras": [{"model": {"name": "ink"}, "weight": 0.5}]}'
    assert to_request(read_chunks({"invokeai_metadata": raw}))[0].prompt == "a fox <lora:ink:0.5>"


def test_without_words_there_is_nothing_to_ask_for():
    with pytest.raises(ImageError, match="does not say by which words"):
        to_request(Found(tool="ComfyUI"))


def test_ours_is_asked_for_again(tmp_path):
    image = Image.new("RGB", (8, 8))
    image.info = {"path": "start.png"}
    request = Request(prompt="a fox", size=(8, 8), seed=5, count=2, steps=2, image=image, options={"shift": 3.0})
    made = Result(images=(image, image), seeds=(5, 6), request=request, seconds=1)
    save_lossy(image, tmp_path / "a.jpg", exif(made, 1))
    again, notices = to_request(read(tmp_path / "a.jpg"))
    assert again == dataclasses.replace(request, seed=6, count=1, image=None)
    assert len(notices) == 1 and "start.png" in notices[0] and "--image" in notices[0]


def test_ours_from_the_plain_text_alone():
    text = "a fox\nSteps: 2, Sampler: dpm++-2m, Seed: 6, Size: 8x8, Spacing: karras, Version: mindseye 0.1.0"
    card = dataclasses.replace(POCKET, samplers=None, native=(8, 8))
    request, notices = to_request(read_text(text), cards=(card,))
    assert (request.sampler, request.model, request.options) == ("dpm++-2m", "pocket", {"spacing": "karras"})


@pytest.mark.parametrize(
    ("dialect", "text", "expected"),
    [
        ("a1111", "a [b] (c)", "a [b] (c)"),
        ("comfy", r"a [b] \[c (d:1.2)", r"a \[b\] \[c (d:1.2)"),
        ("comfy", "embedding:easy-neg.pt, embedding:x:", "easy-neg, x:"),
        ("compel", "noisy++, a jpg+ b", "(noisy:1.21), a (jpg:1.1) b"),
        ("compel", "dark--", "(dark:0.81)"),
        ("compel", "(some words)1.3 more", "(some words:1.3) more"),
        ("compel", "(some words)+ (plain)", "(some words:1.1) plain"),
        ("compel", "((a)++ b)0.5", "((a:1.21) b:0.5)"),
        ("compel", "well-known - and C++x, a [b]", r"well-known - and C++x, a \[b\]"),
        ("compel", r"\(literal\) un)closed (", r"\(literal\) un\)closed "),
        ("compel", "", ""),
        ("novelai", "{{a}} [b] (c)", r"((a:1.05):1.05) (b:0.9524) \(c\)"),
        ("novelai", "{a] [b} }", "a b "),
    ],
)
def test_dialects(dialect, text, expected):
    assert to_a1111(text, dialect) == expected
