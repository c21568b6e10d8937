"""Settings of Disco Diffusion, pasted or beside a picture, on the way to a request for some card."""

import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mindseye.engine.options import build, knobs
from mindseye.errors import ImageError
from mindseye.metadata import Drawer, read, read_text, to_request
from mindseye.metadata.disco import DEFAULTS
from mindseye.request import Request
from mindseye.systems.disco import Disco

FILE = {
    **DEFAULTS, "text_prompts": {"0": ["a lighthouse by greg", "yellow:2.5"], "40": ["a ruin"]}, "seed": 7,
    "width": 512, "height": 448, "steps": 120, "clip_guidance_scale": 8000, "cutn_batches": 2, "perlin_init": True,
    "skip_steps": 30, "ViTB32": True, "animation_mode": "2D",
}  # fmt: skip
OURS = Drawer(
    name="disco-pocket",
    native=(512, 512),
    samplers=Disco.samplers,
    options=tuple(knob.name for knob in knobs(Disco.Options)),
)
OTHER = Drawer(name="sd", native=(128, 128), samplers=("euler",), options=("spacing", "eta"), flow=True)


@pytest.mark.parametrize(
    "text",
    [json.dumps(FILE), json.dumps(FILE, indent=4), f"\n  {json.dumps(FILE)}\n"],
    ids=["one line", "indented", "pasted"],
)
def test_pasted_text_is_a_request_for_disco(text):
    found = read_text(text)
    assert found.tool == "Disco Diffusion" and found.fields["prompt"] == "a lighthouse by greg|yellow:2.5"
    request, notices = to_request(found, cards=[OTHER, OURS], model="disco-pocket")
    assert (request.model, request.size, request.seed, request.steps) == ("disco-pocket", (512, 448), 7, 120)
    assert (request.guidance, request.sampler, request.strength) == (8.0, "ddim", 0.75)
    settings = build(Disco.Options, request.options, owner="it")
    assert (settings.perlin, settings.batches, settings.overview) == ("mixed", 2, "[12]*400+[4]*600")
    told = " ".join(notices)
    assert "2 frames" in told and "ViTB32" in told and DEFAULTS["diffusion_model"] in told
    assert len(set(notices)) == len(notices)


def test_a_card_that_is_no_disco_gets_words_size_and_seed():
    request, notices = to_request(read_text(json.dumps(FILE)), cards=[OTHER, OURS])
    assert (request.model, request.prompt, request.seed) == ("sd", "a lighthouse by greg|yellow:2.5", 7)
    assert (request.guidance, request.sampler, request.steps, request.options) == (None, None, None, {})
    assert request.strength == Request(prompt="a").strength
    # Its shape at the size of that card's pictures.
    assert request.size == (137, 120)
    assert any("sd is no Disco Diffusion" in said for said in notices)
    # Not a sentence for every knob.
    assert not any("has no option" in said for said in notices)


def test_its_own_model_is_found_by_name():
    own = Drawer(name=DEFAULTS["diffusion_model"], native=(512, 512), options=OURS.options, samplers=OURS.samplers)
    request, notices = to_request(read_text(json.dumps(FILE)), cards=[OTHER, own])
    assert request.model == own.name and not any("here with" in said for said in notices)


def test_beside_a_picture_and_inside_of_one(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(FILE), encoding="utf-8-sig")
    for path in (tmp_path / "a.png", tmp_path / "a.json"):
        found = read(path)
        assert found is not None and found.tool == "Disco Diffusion" and found.fields["steps"] == 120
    for chunk in ("Comment", "parameters"):
        told = PngInfo()
        told.add_text(chunk, json.dumps(FILE))
        Image.new("RGB", (4, 4)).save(tmp_path / "b.png", pnginfo=told)
        found = read(tmp_path / "b.png")
        assert found is not None and found.tool == "Disco Diffusion"
        assert to_request(found, cards=[OURS])[0].prompt == "a lighthouse by greg|yellow:2.5"


@pytest.mark.parametrize(
    "change",
    [{"text_prompts": {}}, {"text_prompts": 5}, {"text_prompts": {"0": [3]}}, {"text_prompts": {"-1": ["a"]}}],
)
def test_without_words_there_is_no_request(change):
    found = read_text(json.dumps({**FILE, **change}))
    with pytest.raises(ImageError, match="words"):
        to_request(found, cards=[OURS])


@pytest.mark.parametrize(
    "text",
    [
        '{"text_prompts":' * 20_000,
        '{"text_prompts": {"0": ["a"]}, "clip_guidance_scale": ' + "9" * 20_000 + "}",
        '{"text_prompts": {"0": ["a"]}, "clip_guidance_scale": NaN, "steps": Infinity, "seed": -1}',
        json.dumps({**FILE, "cut_overview": "__import__('os').system('x')", "eta": [[]], "width": "x" * 9999}),
        json.dumps({**FILE, "text_prompts": {"0": ["a"] * 9999}, "mindseye": {"options": {"x": "y" * 99_999}}}),
    ],
    ids=["deep", "long number", "no numbers", "code", "much"],
)
def test_hostile_settings_are_text_and_no_more(text):
    request, _ = to_request(read_text(text), cards=[OURS])
    assert isinstance(request, Request) and len(request.prompt) <= 100_000


def test_others_texts_are_still_others():
    assert read_text("a castle\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 64x64").tool == "A1111"
    assert read_text('{"prompt": "a fox", "text_prompts": 3}').tool != "Disco Diffusion"
