"""Disco Diffusion's settings files: there and back, and what strangers may write into them."""

import json

import pytest
from PIL import Image

from mindseye.engine.options import build
from mindseye.errors import ImageError
from mindseye.metadata.disco import DEFAULTS, prompts_of, read, to_request, to_settings
from mindseye.request import Request
from mindseye.systems.disco import Knobs
from mindseye.text.keyframes import read_keyframes, read_schedule

FILE = {
    **DEFAULTS,
    "text_prompts": {
        "0": ["A beautiful painting of a singular lighthouse, by greg rutkowski", "yellow color scheme:2.5"],
        "100": ["This set of prompts start at frame 100"],
    },
    "image_prompts": {}, "clip_guidance_scale": 7000, "tv_scale": 10, "sat_scale": 5, "cutn_batches": 2,
    "init_image": "start.png", "init_scale": 900, "skip_steps": 50, "seed": 3093320096, "width": 512, "height": 448,
    "ViTB32": True, "ViTB16": True, "RN50": False, "use_horizontal_symmetry": True,
    "transformation_percent": [0.09, 0.3], "perlin_init": True, "perlin_mode": "gray", "clamp_grad": False,
    "use_secondary_model": False, "diffusion_sampling_mode": "plms", "animation_mode": "2D",
}  # fmt: skip


def test_a_settings_file_is_a_request():
    request, notices = to_request(FILE)
    assert request.prompt.split("|") == FILE["text_prompts"]["0"]
    assert (request.guidance, request.size, request.seed, request.steps) == (7.0, (512, 448), 3093320096, 250)
    assert (request.sampler, request.strength) == ("plms", 0.8)
    assert request.model == DEFAULTS["diffusion_model"]
    assert request.options == {
        "smooth": 10.0, "range": 150.0, "saturation": 5.0, "eta": 0.8, "batches": 2, "clamp": 0.0, "augment": True,
        "clip": False, "through": "network", "perlin": "grey", "symmetry": "x", "mirror_at": "0.09,0.3",
        "likeness": 900.0, "overview": "[12]*400+[4]*600", "inner": "[4]*400+[12]*600", "power": "[1]*1000",
        "grey": "[0.2]*400+[0]*600",
    }  # fmt: skip
    build(Knobs, request.options, owner="it")
    told = " ".join(notices)
    assert all(word in told for word in ("start.png", "2 frames", "2D", "ViTB32, ViTB16"))
    assert "RN50" not in told


def test_the_notebooks_defaults_are_ours():
    request, notices = to_request({**DEFAULTS, "text_prompts": {"0": ["a"]}, "skip_steps": 0})
    settings = build(Knobs, request.options, owner="it")
    assert settings == Knobs() and request.guidance == 5.0 and request.sampler == "ddim" and notices == ()
    for name in ("cut_overview", "cut_innercut", "cut_ic_pow", "cut_icgray_p"):
        assert len(read_schedule(DEFAULTS[name])) == 1000
    for name in ("angle", "zoom", "translation_x", "translation_z", "rotation_3d_x"):
        read_keyframes(DEFAULTS[name])


def test_there_and_back():
    image = Image.new("RGB", (8, 8))
    image.info["path"] = "x.png"
    options = {
        "smooth": 2.0, "range": 9.0, "eta": 0.5, "batches": 3, "clamp": 0.07, "augment": False, "clip": True,
        "through": "secondary", "overview": "[9]*1000", "symmetry": "xy", "mirror_at": "0.2", "perlin": "colour",
        "likeness": 20.0, "palette": "red,blue", "loss": "cosine", "fuzz": 0.2,
    }  # fmt: skip
    request = Request(
        prompt="a castle:2|fog", negative="people", model="disco-pocket", size=(64, 96), seed=12, steps=40,
        guidance=0.75, sampler="ddim", strength=0.5, options=options,
    )  # fmt: skip
    text = json.dumps(to_settings(request))
    again, _ = to_request(json.loads(text))
    # Without a picture its likeness is kept all the same.
    assert again.options == {**to_request(to_settings(Request(prompt="a")))[0].options, **options}
    for name in ("prompt", "negative", "model", "size", "seed", "steps", "guidance", "sampler", "strength"):
        assert getattr(again, name) == getattr(request, name), name
    started = to_settings(Request(prompt="a", image=image, strength=0.2, steps=100, options={"likeness": 3.0}))
    assert (started["init_image"], started["skip_steps"], started["init_scale"]) == ("x.png", 80, 3.0)
    plain = to_settings(Request(prompt="a castle:2|fog", steps=150))
    assert plain["text_prompts"] == {"0": ["a castle:2", "fog"]}
    assert (plain["diffusion_steps"], plain["skip_steps"]) == (900, 0)
    assert set(DEFAULTS) <= set(plain)


def test_fuzzy_prompts():
    told = {**DEFAULTS, "text_prompts": {"0": ["a"]}, "fuzzy_prompt": True}
    request, notices = to_request(told)
    assert request.options["fuzz"] == 0.05 and notices == ()
    assert to_request({**told, "rand_mag": 0.3})[0].options["fuzz"] == 0.3
    assert "fuzz" not in to_request({**told, "fuzzy_prompt": False, "rand_mag": 0.3})[0].options
    del told["rand_mag"]
    assert to_request(told)[0].options["fuzz"] == 0.05
    for strange in (None, "much", -1, [1], 1e9):
        request, (said,) = to_request({**told, "rand_mag": strange})
        assert "fuzz" not in request.options and "not made fuzzy" in said
    plain, fuzzy = (to_settings(Request(prompt="a", steps=9, options=each)) for each in ({"fuzz": 0.0}, {"fuzz": 0.3}))
    assert (plain["fuzzy_prompt"], plain["rand_mag"]) == (False, 0.05)
    assert (fuzzy["fuzzy_prompt"], fuzzy["rand_mag"]) == (True, 0.3)


def test_steps_skipped_without_a_picture_start_from_grey():
    """As the notebook does unless it is told otherwise: ten of its 250 steps are skipped."""
    told = {**DEFAULTS, "text_prompts": {"0": ["a"]}}
    request, notices = to_request(told)
    assert (request.options["start"], request.strength, notices) == ("grey", 0.96, ())
    assert read({"parameters": json.dumps(told)}).fields["strength"] == 0.96
    again = to_settings(request)
    assert (again["skip_steps"], again["init_image"], again["perlin_init"]) == (10, None, False)
    assert "options" not in again["mindseye"] and to_request(again)[0] == request
    for change in ({"skip_steps": 0}, {"skip_steps": -3}, {"skip_steps": None}, {"steps": None}, {"perlin_init": True},
                   {"init_image": "a.png"}):  # fmt: skip
        assert "start" not in to_request({**told, **change})[0].options
    assert read({"parameters": json.dumps({**told, "skip_steps": 0})}).fields.get("strength") is None


def test_it_is_known_by_its_keys():
    found = read({"parameters": json.dumps(FILE)})
    assert found is not None and found.tool == "Disco Diffusion"
    assert found.fields["steps"] == 250 and found.fields["strength"] == 0.8
    assert read({"parameters": '{"prompt": "x", "steps": 3}'}) is None
    assert read({"parameters": "a castle\nSteps: 20"}) is None
    empty = read({"parameters": json.dumps({**DEFAULTS})})
    assert empty is not None and "no text prompts" in empty.notices[0]


@pytest.mark.parametrize(
    "change",
    [
        {"steps": "many"}, {"steps": -4}, {"width": 1e99}, {"seed": 1.5}, {"cut_overview": {"a": 1}}, {"eta": "nan"},
        {"cut_overview": "__import__('os')"}, {"clip_guidance_scale": -1}, {"transformation_percent": "x"},
        {"cutn_batches": 0}, {"clamp_max": "a"}, {"mindseye": 4}, {"mindseye": {"options": {"a": [1]}}},
        {"cut_ic_pow": ["x"]}, {"tv_scale": [1]}, {"use_horizontal_symmetry": 1}, {"skip_steps": 10**9},
    ],
)  # fmt: skip
def test_strange_values_are_left_out(change):
    request, _ = to_request({**FILE, **change})
    assert request.prompt and all(isinstance(value, (str, int, float)) for value in request.options.values())
    assert 0 <= request.strength <= 1


def test_strange_prompts():
    assert prompts_of({"text_prompts": {"0": "one", "x": ["no"], "-1": ["no"], "7": [3, "two | three"]}}) == {
        0: "one",
        7: "two   three",
    }
    assert prompts_of({"text_prompts": ["a", "b:-1"]}) == {0: "a|b:-1"}
    for plain in ({}, {"text_prompts": 3}, {"text_prompts": {"0": []}}):
        with pytest.raises(ImageError, match="no text prompts"):
            to_request(plain)


def test_lists_of_numbers_become_schedules():
    request, _ = to_request({**FILE, "cut_overview": [12] * 400 + [4] * 600})
    assert request.options["overview"] == "[12]*400+[4]*600"
