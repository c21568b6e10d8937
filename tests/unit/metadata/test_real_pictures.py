"""Pictures that other programs made: every one gives its prompt, seed, steps and sampler."""

import json

import pytest

from mindseye.metadata import read, to_request

# Read off the files' chunks by hand (the graphs: the sampler that starts from noise).
KNOWN = {
    "AUTOMATIC1111/automatic1111_cropped.png": ("A1111", "photo of a duck", 15, "UniPC", 235284042, 5.0, (512, 400)),
    "AUTOMATIC1111/automatic1111_cropped.jpg": ("A1111", "photo of a duck", 15, "UniPC", 235284042, 5.0, (512, 400)),
    "AUTOMATIC1111/automatic1111_stealth.png": ("A1111", "a circle", 20, "Euler", 2015833630, 7.0, (64, 64)),
    "ComfyUI/img2img_cropped.png": (
        "ComfyUI", "photograph of victorian woman with wings", 20, "sample_dpmpp_2m", 280823642470253, 8.0, None,
    ),
    "ComfyUI/night_evening_day_morning_cropped.png": (
        "ComfyUI", "(best quality) (night:1.3)", 13, "dpmpp_sde", 335608130539327, 8.5, (704, 1280),
    ),
    "ComfyUI/noisy_latents_3_subjects_cropped.png": (
        "ComfyUI", "sky clouds nature", 16, "sample_dpmpp_sde", 512136241112371, 7.0, (1280, 704),
    ),
    "ComfyUI/unclip_2pass_cropped.png": (
        "ComfyUI", "(waifu, anime, exceptional,", 26, "uni_pc_bh2", 1106257833005336, 8.0, (1280, 704),
    ),
    "Fooocus/fooocus1_cropped.png": (
        "Fooocus", "cinematic still a smiling goldfish", 30, "dpmpp_2m_sde_gpu", 6952411511246973023, 4.0, (768, 1280),
    ),
    "InvokeAI/invokeai_dream1.png": (
        "InvokeAI", "professional full body photo", 50, "k_lms", 2980747362, 5.0, (512, 768),
    ),
    "InvokeAI/invokeai_sdmeta1.png": (
        "InvokeAI", "professional full body photo", 50, "k_lms", 2980747362, 5.0, (512, 768),
    ),
    "InvokeAI/invokeai_imeta1.png": (
        "InvokeAI", "digital artwork, oil painting.", 35, "euler", 3293022630, 8.0, (1024, 1024),
    ),
    "NovelAI/novelai1_cropped.png": (
        "NovelAI", "masterpiece, best quality,  cat", 50, "k_euler_ancestral", 2253955223, 10.0, None,
    ),
}  # fmt: skip

SAMPLERS = {
    "UniPC": "unipc",
    "Euler": "euler",
    "sample_dpmpp_2m": "dpm++-2m",
    "dpmpp_sde": "dpm++-sde",
    "sample_dpmpp_sde": "dpm++-sde",
    "uni_pc_bh2": "unipc",
    "dpmpp_2m_sde_gpu": "dpm++-2m-sde",
    "k_lms": "lms",
    "euler": "euler",
    "k_euler_ancestral": "euler-ancestral",
}


@pytest.fixture
def samples(material):
    return material / "metadata_samples"


@pytest.mark.parametrize("name", KNOWN)
def test_it_says_how_it_was_made(samples, name):
    tool, prompt, steps, sampler, seed, guidance, size = KNOWN[name]
    found = read(samples / name)
    assert found.tool == tool and found.raw
    assert found.fields["prompt"].startswith(prompt)
    assert found.fields["negative"]
    assert [found.fields.get(key) for key in ("steps", "sampler", "seed", "guidance", "size")] == [
        steps, sampler, seed, guidance, size,
    ]  # fmt: skip
    request, notices = to_request(found)
    assert (request.steps, request.seed, request.guidance, request.size) == (steps, seed, guidance, size)
    assert request.sampler == SAMPLERS[sampler] and request.prompt and request.negative
    assert notices and all(notice == notice.strip() and "\n" not in notice for notice in notices)
    json.dumps(dict(found.fields))


def test_there_is_no_other(samples):
    assert {f"{path.parent.name}/{path.name}" for path in samples.glob("*/*")} == set(KNOWN)


def test_a_graph_with_two_passes_is_a_hires_pass(samples):
    fields = read(samples / "ComfyUI/night_evening_day_morning_cropped.png").fields
    assert fields["hires"] == pytest.approx(1088 / 704)
    assert (fields["hires_steps"], fields["hires_strength"]) == (14, 0.5)
    assert (fields["model"], fields["clip_skip"]) == ("Anything-V3.0", 2)
    assert fields["prompt"].count(" AND ") == 4


def test_a_graph_from_a_picture_has_a_strength(samples):
    found = read(samples / "ComfyUI/img2img_cropped.png")
    assert found.fields["strength"] == pytest.approx(0.87) and found.fields["model"] == "v1-5-pruned-emaonly"
    assert any("--image" in notice for notice in to_request(found)[1])


def test_brackets_were_invokes_negative_prompt(samples):
    for name in ("invokeai_dream1.png", "invokeai_sdmeta1.png"):
        fields = read(samples / "InvokeAI" / name).fields
        assert fields["negative"] == "rendering, glowing eyes, skinny" and "[" not in fields["prompt"]


def test_what_fooocus_encoded_is_the_prompt(samples):
    found = read(samples / "Fooocus/fooocus1_cropped.png")
    assert found.fields["prompt"].count(" BREAK ") == 1
    assert found.fields["extra"]["typed prompt"] == "a smiling goldfish"
    assert "clip_skip" not in found.fields and found.fields["model_hash"] == "aeb7e9e689"
