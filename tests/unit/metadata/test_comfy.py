"""ComfyUI's graphs: ordinary ones, custom samplers, adapters, and ones made to hurt."""

import json
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mindseye.metadata import read_chunks

BASE = {
    "1": ("CheckpointLoaderSimple", {"ckpt_name": "sub\\v1-5.safetensors"}),
    "2": ("CLIPTextEncode", {"text": "a fox", "clip": ["1", 1]}),
    "3": ("CLIPTextEncode", {"text": "blur", "clip": ["1", 1]}),
    "4": ("EmptyLatentImage", {"width": 512, "height": 768, "batch_size": 1}),
    "5": ("KSampler", {
        "seed": 7, "steps": 20, "cfg": 6.5, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 1,
        "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
    }),
    "6": ("VAEDecode", {"samples": ["5", 0], "vae": ["1", 2]}),
    "7": ("SaveImage", {"images": ["6", 0], "filename_prefix": "x"}),
}  # fmt: skip


def graph(**changes):
    nodes = BASE | {name.removeprefix("n"): node for name, node in changes.items()}
    return json.dumps({name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()})


def sampler(**changes):
    return "KSampler", BASE["5"][1] | changes


def fields(**changes):
    return read_chunks({"prompt": graph(**changes)}).fields


def test_the_ordinary_graph():
    assert fields() == {
        "prompt": "a fox", "negative": "blur", "steps": 20, "sampler": "dpmpp_2m", "schedule": "karras",
        "guidance": 6.5, "seed": 7, "size": (512, 768), "model": "v1-5", "rng": "CPU",
    }  # fmt: skip
    assert read_chunks({"prompt": graph(), "workflow": "{}"}).fields["extra"]["workflow"].startswith("2 char")


def test_adapters_are_read_on_the_way_to_the_checkpoint():
    found = fields(
        n5=sampler(model=["9", 0]),
        n8=("LoraLoader", {"lora_name": "a/ink.safetensors", "strength_model": 0.5, "model": ["1", 0]}),
        n9=("Power Lora Loader", {"lora_1": {"on": True, "lora": "wet.pt", "strength": 1.5}, "model": ["8", 0],
                                  "lora_2": {"on": False, "lora": "off", "strength": 1}}),
    )  # fmt: skip
    assert found["loras"] == ({"name": "ink", "weight": 0.5}, {"name": "wet", "weight": 1.5})
    assert found["model"] == "v1-5"


def test_seed_text_and_size_from_primitive_nodes():
    found = fields(
        n5=sampler(seed=["8", 0], steps=["11", 0]),
        n2=("CLIPTextEncode", {"text": ["9", 0], "clip": ["1", 1]}),
        n4=("EmptyLatentImage", {"width": ["11", 0], "height": 64}),
        n8=("Seed (rgthree)", {"seed": 99}),
        n9=("StringConcatenate", {"string_a": "a red", "string_b": ["10", 0]}),
        n10=("PrimitiveString", {"value": "owl"}),
        n11=("PrimitiveInt", {"value": 12}),
    )
    assert (found["seed"], found["prompt"], found["size"], found["steps"]) == (99, "a red, owl", (12, 64), 12)


def test_custom_samplers():
    common = {
        "guider": ["22", 0],
        "sampler": ["21", 0],
        "sigmas": ["23", 0],
        "noise": ["20", 0],
        "latent_image": ["4", 0],
    }
    found = fields(
        n5=("SamplerCustomAdvanced", common),
        n20=("RandomNoise", {"noise_seed": 5}),
        n21=("KSamplerSelect", {"sampler_name": "euler"}),
        n22=("CFGGuider", {"cfg": 3.5, "positive": ["2", 0], "negative": ["3", 0], "model": ["1", 0]}),
        n23=("SplitSigmas", {"sigmas": ["24", 0], "step": 0}),
        n24=("KarrasScheduler", {"steps": 15, "sigma_max": 14.6, "sigma_min": 0.03}),
    )
    assert (found["seed"], found["steps"], found["sampler"], found["guidance"]) == (5, 15, "euler", 3.5)
    assert (found["prompt"], found["negative"], found["model"]) == ("a fox", "blur", "v1-5")
    simple = {"noise_seed": 6, "cfg": 2, "positive": ["2", 0], "negative": ["3", 0], "model": ["1", 0],
              "sampler": ["21", 0], "sigmas": ["23", 0], "latent_image": ["4", 0], "add_noise": True}  # fmt: skip
    found = fields(
        n5=("SamplerCustom", simple),
        n21=("SamplerDPMPP_2M_SDE", {"eta": 0.5, "s_noise": 1}),
        n23=("BasicScheduler", {"steps": 9, "scheduler": "exponential", "denoise": 1, "model": ["1", 0]}),
    )
    assert (found["seed"], found["steps"], found["sampler"], found["schedule"], found["eta"]) == (
        6, 9, "dpmpp_2m_sde", "exponential", 0.5,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "joined"),
    [("ConditioningCombine", "a fox AND blue"), ("ConditioningConcat", "a fox BREAK blue")],
)
def test_texts_that_are_put_together(kind, joined):
    found = fields(
        n5=sampler(positive=["9", 0]),
        n8=("CLIPTextEncode", {"text": "blue", "clip": ["10", 0]}),
        n9=(kind, {"conditioning_1": ["2", 0], "conditioning_2": ["8", 0]}),
        n10=("CLIPSetLastLayer", {"stop_at_clip_layer": -2, "clip": ["1", 1]}),
    )
    assert found["prompt"] == joined and found["clip_skip"] == 2


def test_controlnet_passes_both_sides_on():
    chunks = {"prompt": graph(
        n5=sampler(positive=["9", 0], negative=["9", 1]),
        n9=("ControlNetApplyAdvanced", {"positive": ["2", 0], "negative": ["3", 0], "image": ["10", 0]}),
        n10=("LoadImage", {"image": "pose.png"}),
    )}  # fmt: skip
    found = read_chunks(chunks)
    assert (found.fields["prompt"], found.fields["negative"]) == ("a fox", "blur")
    assert "strength" not in found.fields and any("ControlNet" in notice for notice in found.notices)


def test_a_negative_that_is_zeroed_out_is_none():
    found = fields(n5=sampler(negative=["9", 0]), n9=("ConditioningZeroOut", {"conditioning": ["2", 0]}))
    assert "negative" not in found


def test_the_two_encoders_of_sdxl():
    found = fields(n2=("CLIPTextEncodeSDXL", {"text_g": "a fox", "text_l": "sharp", "width": 9, "clip": ["1", 1]}))
    assert found["prompt"] == "a fox BREAK sharp" and found["size"] == (512, 768)


HIRES = {
    "n8": ("LatentUpscaleBy", {"samples": ["5", 0], "upscale_method": "bicubic", "scale_by": 1.5}),
    "n9": sampler(seed=8, steps=11, denoise=0.5, latent_image=["8", 0]),
    "n6": ("VAEDecode", {"samples": ["9", 0], "vae": ["1", 2]}),
}


def test_a_second_pass_is_hires():
    found = fields(**HIRES)
    assert [found[key] for key in ("seed", "steps", "hires", "hires_steps", "hires_strength", "hires_upscaler")] == [
        7, 20, 1.5, 11, 0.5, "latent bicubic",
    ]  # fmt: skip


def test_a_second_pass_over_pixels():
    found = fields(
        **HIRES
        | {
            "n8": ("VAEEncode", {"pixels": ["12", 0], "vae": ["1", 2]}),
            "n11": ("VAEDecode", {"samples": ["5", 0]}),
            "n12": ("ImageScale", {"image": ["13", 0], "width": 1024, "height": 1536, "upscale_method": "lanczos"}),
            "n13": ("ImageUpscaleWithModel", {"upscale_model": ["14", 0], "image": ["11", 0]}),
            "n14": ("UpscaleModelLoader", {"model_name": "4x.pth"}),
        }
    )
    assert (found["hires"], found["hires_upscaler"], found["size"]) == (2.0, "lanczos", (512, 768))


def test_of_several_saved_pictures_the_size_tells_which():
    both = {**HIRES, "n6": BASE["6"], "n20": ("VAEDecode", {"samples": ["9", 0]}),
            "n21": ("SaveImage", {"images": ["20", 0]}),
            "n8": ("LatentUpscale", {"samples": ["5", 0], "width": 768, "height": 1152})}  # fmt: skip
    small = read_chunks({"prompt": graph(**both), "size": "512x768"})
    large = read_chunks({"prompt": graph(**both), "size": "768x1152"})
    other = read_chunks({"prompt": graph(**both), "size": "1x1"})
    assert "hires" not in small.fields and large.fields["hires"] == other.fields["hires"] == 1.5
    assert not small.notices and any("2 different pictures" in notice for notice in other.notices)


def test_from_a_picture():
    found = fields(
        n5=sampler(latent_image=["9", 0], denoise=0.6),
        n9=("VAEEncode", {"pixels": ["10", 0], "vae": ["1", 2]}),
        n10=("LoadImage", {"image": "example.png"}),
    )
    assert found["strength"] == 0.6 and "size" not in found


def test_only_the_editors_view():
    found = read_chunks({"workflow": '{"nodes": []}'})
    assert found.tool == "ComfyUI" and found.fields == {} and "workflow" in found.notices[0]


def test_a_graph_without_a_sampler_says_so():
    found = read_chunks({"prompt": '{"1": {"class_type": "LoadImage", "inputs": {}}}'})
    assert found.fields == {} and "no sampler" in found.notices[0]


LINK = st.tuples(st.sampled_from([*"123456789", "x", 1]), st.integers(-1, 2)).map(list)
VALUE = st.one_of(LINK, st.text(max_size=3), st.integers(), st.floats(), st.none(), st.lists(st.integers(), max_size=3),
                  st.dictionaries(st.sampled_from(["on", "lora"]), st.text(max_size=2)))  # fmt: skip
KEY = st.sampled_from([
    "model", "positive", "negative", "latent_image", "samples", "steps", "cfg", "sigmas", "guider", "sampler", "noise",
    "text", "clip", "width", "height", "seed", "conditioning", "ckpt_name", "lora_name", "upscale_model", "scale_by",
])  # fmt: skip
NODE = st.fixed_dictionaries({
    "class_type": st.sampled_from(["KSampler", "CLIPTextEncode", "SaveImage", "Combine", "LoadImage", "XScheduler"]),
    "inputs": st.dictionaries(KEY, VALUE, max_size=8),
})  # fmt: skip


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from("123456789"), NODE, max_size=9))
def test_no_graph_makes_it_raise(nodes):
    read_chunks({"prompt": json.dumps(nodes)})


def node(kind, **inputs):
    return {"class_type": kind, "inputs": inputs}


def chained(kind, key, count, **more):
    """A long chain of nodes behind a sampler, each linked to the next and all of them to everything near."""
    nodes = {str(i): node(kind, **{key: [str(i + 1), 0], **more}) for i in range(count)}
    return nodes | {"s": node("KSampler", steps=1, cfg=1, positive=["0", 0], negative=["0", 0], latent_image=["0", 0],
                              model=["0", 0]), "o": node("SaveImage", images=["s", 0])}  # fmt: skip


ATTACKS = {
    "itself": {"1": node("KSampler", steps=1, cfg=1, positive=["1", 0], negative=["1", 0], latent_image=["1", 0])},
    "circle": {str(i): node("KSampler", steps=1, cfg=1, **{key: [str((i + 1) % 5000), 0]
                            for key in ("seed", "positive", "latent_image")}) for i in range(5000)},
    "deep words": chained("ConditioningCombine", "conditioning_1", 4990),
    "deep model": chained("ModelPatch", "model", 4990, lora_name="x", strength_model=1),
    "deep latents": chained("LatentThing", "samples", 4990, width=["5", 0], height=["6", 0]),
    "deep strings": chained("CLIPTextEncode", "text", 4990),
    "empty texts": {str(i): node("CLIPTextEncode", clip=0, text=["a", 0], conditioning=[str(i + 1), 0])
                    for i in range(900)}
    | chained("String", "text", 4000) | {"a": node("String", text=["0", 0])},
    "wide": {"s": node("KSampler", steps=1, cfg=1, positive=["c", 0], latent_image=["c", 0], model=["c", 0]),
             "o": node("SaveImage", images=["s", 0]),
             "c": node("Combine", **{f"i{i}": ["c", 0] for i in range(50_000)})},
    "many outputs": {str(i): node("SaveImage", images=["s", 0]) for i in range(1000)}
    | chained("ConditioningCombine", "conditioning_1", 3900),
    "many samplers": {str(i): node("KSampler", steps=1, cfg=1, positive=["w", 0], latent_image=[str(i + 1), 0])
                      for i in range(4900)} | {"w": node("CLIPTextEncode", clip=0, text="x")},
    "everything to everything": {str(i): node("Mix", **{f"i{j}": [str(j), 0] for j in range(180)}) for i in range(180)}
    | {"s": node("KSampler", steps=1, cfg=1, positive=["0", 0], latent_image=["0", 0]),
       "o": node("Save", images=["s", 0])},
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_a_crafted_graph_of_a_megabyte_is_read_at_once(name, second):
    raw = json.dumps(ATTACKS[name])
    assert 0 < len(raw) < 1 << 21
    started = time.process_time()
    read_chunks({"prompt": raw, "size": "5x5"})
    assert time.process_time() - started < second


def test_a_graph_that_nobody_drew_is_not_walked():
    found = read_chunks({"prompt": json.dumps({str(i): node("KSampler") for i in range(5001)})})
    assert found.fields == {} and "too large" in found.notices[0]


@pytest.mark.parametrize(
    "raw", ['{"a":' * 100_000, '{"a": ' + "[" * 500_000, '{"1": {"class_type": "K", "inputs": ' * 9000]
)
def test_deep_json_is_damaged_json(raw):
    for key in ("prompt", "parameters", "invokeai_metadata", "sd-metadata", "Comment", "UserComment", "workflow"):
        found = read_chunks({key: raw, "Software": "NovelAI"})
        assert found is None or not found.fields
