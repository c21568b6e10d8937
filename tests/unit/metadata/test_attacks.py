"""A megabyte made to hold a reader up: every reader, every grammar, in less than a second of processor time."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mindseye.errors import MindseyeError
from mindseye.metadata import read, read_chunks, read_text, to_request
from mindseye.metadata.dialects import to_a1111
from mindseye.metadata.names import sampler, spacing
from mindseye.pictures import save_png
from mindseye.request import LONGEST_PROMPT

SIZE = 1 << 20
KEYS = (
    "parameters",
    "prompt",
    "invokeai_metadata",
    "sd-metadata",
    "Dream",
    "Comment",
    "workflow",
    "stealth",
    "comment",
)
SHORT = (
    "[", "]", "(", ")", "{", "}", "a b", "aa:", 'aa: "', '"', '\\"', "-s ", "-s5 ", '"\\', ",", "\n", "+", "a+", "(a",
    " ", ")+", ")1.", "embedding:", "a embedding:a.", "Steps: ", "Steps: 1\n", "Template:\n", ":", "::", "\\", "&",
    "&#1", '{"a":', '{"a":1,', "[1,", "1", '{"c":"', "<lora:", "Lora hashes: ", "Negative prompt:\n", "\ud7ff", "-",
    "a-",
)  # fmt: skip


def used(work):
    started = time.process_time()
    work()
    return time.process_time() - started


@pytest.mark.parametrize("piece", SHORT)
def test_every_reader(piece, second):
    # A quarter of a megabyte in all: what is quadratic takes minutes for it.
    text = (piece * (SIZE // len(piece)))[: SIZE // 128]
    chunks = [{key: start + text, "Software": "NovelAI"} for key in KEYS for start in ("", '"', "{")]

    def work():
        for each in chunks:
            found = read_chunks(each)
            assert found is None or len(found.fields.get("prompt", "")) <= SIZE

    assert used(work) < second


@pytest.mark.parametrize("piece", ["a b", 'aa:"\\', "Steps: 1\n", "["])
@pytest.mark.parametrize("key", ["parameters", "Dream"])
def test_a_whole_megabyte(piece, key, second):
    text = (piece * (SIZE // len(piece)))[:SIZE]
    assert used(lambda: read_chunks({key: text})) < second


@pytest.mark.parametrize("piece", SHORT)
@pytest.mark.parametrize("dialect", ["comfy", "compel", "novelai"])
def test_every_dialect(piece, dialect, second):
    text = (piece * (SIZE // len(piece)))[:LONGEST_PROMPT]
    assert used(lambda: to_a1111(text, dialect)) < 0.5 * second
    assert used(lambda: to_a1111(f"({text}", dialect)) < 0.5 * second


def test_names_of_any_length(second):
    for piece in ("_", "k_", "a", "+", "karras "):
        assert used(lambda piece=piece: (sampler(piece * SIZE), spacing(piece * SIZE))) < 0.5 * second
    assert len(sampler("x" * SIZE).notices[0]) < 200


@pytest.mark.parametrize("piece", ["a, ", "Steps: 1, ", "<lora:x:1>"])
def test_from_pasted_text_to_request(piece, second):
    text = piece * (SIZE // len(piece)) + "\nSteps: 2, Seed: 1, Size: 8x8"

    def work():
        request, notices = to_request(read_text(text))
        assert len(request.prompt) <= 32_000 and all(len(notice) < 400 for notice in notices)

    assert used(work) < 1.5 * second


VALUE = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("512x512")),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=2)),
    max_leaves=6,
)
NAMES = (
    "prompt seed steps width height model loras loraweights image sampler c v2 lora positive_prompt hrf_enabled "
    "hrf_width hrf_height clip_skip vae uc v4_prompt caption base_model full_prompt resolution num_inference_steps "
    "use_lora_model lora_alpha tiling size scheduler strength cfg_scale seamless_x char_captions Comment parameters"
).split()
PLAIN = st.dictionaries(st.sampled_from(NAMES), VALUE, max_size=12)


@settings(max_examples=40)
@given(PLAIN, st.sampled_from([*KEYS, "sui"]))
def test_no_json_makes_a_reader_raise(plain, key):
    if key == "sui":
        plain, key = {"sui_image_params": plain, "sui_models": plain.get("loras")}, "parameters"
    if key == "sd-metadata":
        plain = plain | {"image": plain}
    for more in ({}, {"Software": "NovelAI"}, {"fooocus_scheme": "fooocus"}):
        found = read_chunks({key: json.dumps(plain), **more})
        if found is not None and "prompt" in found.fields:
            to_request(found)
    read_text(json.dumps(plain))


SETTINGS = (
    "Steps, Sampler, Schedule type, CFG scale, Seed, Size, Model, Model hash, Clip skip, Hires upscale, Hires steps, "
    "Denoising strength, Variation seed, Variation seed strength, Mask blur, Masked area padding, Eta, Emphasis, RNG, "
    "ENSD, Lora hashes, Version"
).split(", ")
FIELDS = st.dictionaries(
    st.sampled_from(SETTINGS),
    st.one_of(st.text(max_size=8), st.integers().map(str), st.floats().map(str), st.just("1e400"), st.just("1" * 5000)),
    min_size=3,
)


@settings(max_examples=40)
@given(FIELDS)
def test_no_settings_make_a_request_raise(fields):
    text = "x\n" + ", ".join(f"{key}: {json.dumps(value)}" for key, value in fields.items())
    request, _ = to_request(read_text(text))
    assert request.seed is None or 0 <= request.seed < 2**63
    assert request.steps is None or request.steps >= 1


@settings(max_examples=40)
@given(st.binary(max_size=60))
def test_no_bytes_make_it_raise_anything_else(content):
    for start in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe1", b"RIFF\x40\0\0\0WEBP", b"GIF89a"):
        try:
            read(start + content)
        except MindseyeError:
            continue


def test_a_png_full_of_texts_is_read(tmp_path, second):
    save_png(
        Image.new("RGB", (4, 4)), tmp_path / "a.png", {f"k{i}": "x" * 50 for i in range(5000)} | {"parameters": "hi"}
    )
    assert used(lambda: read(tmp_path / "a.png")) < second
