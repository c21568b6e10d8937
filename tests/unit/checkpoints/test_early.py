"""Networks of the systems before latent diffusion: told by their keys, kept in the library, drawn with."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tests.unit.checkpoints import tiny_early as tiny

from mindseye import zoo
from mindseye.checkpoints import kinds
from mindseye.checkpoints.describe import describe
from mindseye.checkpoints.library import Library
from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.releases import identify
from mindseye.engine.engine import Engine
from mindseye.errors import UnknownName, UsageError, WeightsError
from mindseye.networks import clip
from mindseye.networks.adm import ADM
from mindseye.networks.biggan import BigGAN
from mindseye.networks.gan import DCGANGenerator, MLPGenerator
from mindseye.networks.vqgan import VQGAN
from mindseye.request import Request, drain

FILES = {
    "vqgan.ckpt": tiny.vqgan_file,
    "vqgan.safetensors": tiny.vqgan_file,
    "net2net.ckpt": lambda path: tiny.vqgan_file(path, "first_stage_model."),
    "biggan-deep-pytorch_model.bin": tiny.biggan_file,
    "biggan.safetensors": tiny.biggan_file,
    "netG.pth": tiny.dcgan_file,
    "netG.safetensors": lambda path: tiny.dcgan_file(path, prefix="module."),
    "adm.pt": tiny.adm_file,
    "adm.safetensors": tiny.adm_file,
    "wrapped.safetensors": lambda path: tiny.adm_file(path, "model."),
    "secondary.pth": tiny.secondary_file,
    "secondary.safetensors": tiny.secondary_file,
    "clip.safetensors": tiny.clip_file,
    "clip": tiny.clip_folder,
}
FAMILIES = {"net2net": "vqgan", "netG": "gan", "wrapped": "adm", "biggan-deep-pytorch_model": "biggan"}
KINDS = {"clip": "clip", "secondary": "secondary"}
LITTLE = {"vqgan": {"cuts": 2}, "adm": {"cuts": 2}, "clip": {"cuts": 2, "hidden": 8, "layers": 1}, "gan": {}}
LITTLE["biggan"] = {"classes": "2"}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))


def family(name):
    return FAMILIES.get(Path(name).stem, Path(name).stem)


def draw(card, **more):
    """One small picture in two steps."""
    engine = Engine(device="cpu", dtype=torch.float32)
    options = more.pop("options", {})
    asked = {"size": (16, 16), "steps": 2, "seed": 3, "candidates": 2 if card.startswith("gan:") else None, **more}
    result = engine.generate(Request(prompt="a red apple", model=card, options=options, **asked))
    assert result.images[0].size == (16, 16)
    return result


def added(path, **more):
    return drain(Library().add(str(path), **more)).entries[0]


@pytest.mark.parametrize("name", FILES)
def test_told_kept_described_and_found(name, tmp_path):
    path = FILES[name](tmp_path / name)
    kind = KINDS.get(family(name), "model")
    assert kinds.look(path) == kinds.Seen(kind=kind, family=family(name))
    entry = added(path, name="mine")
    assert (entry.kind, entry.family, entry.problem) == (kind, family(name), "")
    assert [each.name for each in Library().entries(kind)] == ["mine"]
    told = describe(entry, Library(), hashes=False)
    (part,) = told["parts"].values()
    assert not told.get("problem") and told["family"] == family(name) and 0 < part["matched"] <= part["tensors"]
    if kind == "secondary":
        for asked in ("mine", str(path)):
            with pytest.raises(UsageError, match="paints nothing by itself"):
                zoo.find(asked)
        return
    for asked in ("mine", str(path)):
        usual = zoo.find(asked)
        assert usual.system == next(iter(zoo.MANNERS[family(name)].values())).system
    for manner, way in zoo.MANNERS[family(name)].items():
        card = zoo.find(f"{manner}:mine")
        assert (card.name, card.system) == (f"{manner}:mine", way.system)
        assert zoo.find(f"{manner}:{path}").parts == card.parts
    with pytest.raises(UnknownName, match="manner of painting"):
        zoo.find("big-sleep:mine" if family(name) != "biggan" else "disco:mine")


@pytest.mark.parametrize(
    ("name", "kind", "config"),
    [
        ("vqgan.ckpt", VQGAN, tiny.CODES),
        ("net2net.ckpt", VQGAN, tiny.CODES),
        ("biggan.safetensors", BigGAN, tiny.DEEP),
        ("netG.pth", DCGANGenerator, tiny.DIGITS),
        ("netG.safetensors", DCGANGenerator, tiny.DIGITS),
        ("wrapped.safetensors", ADM, tiny.DIFFUSION),
        ("clip.safetensors", clip.CLIP, None),
        ("clip", clip.CLIP, tiny.EYES),
    ],
)
def test_loaded_to_the_number(name, kind, config, tmp_path):
    part = next(iter(identify(FILES[name](tmp_path / name)).parts.values()))
    network = load_foreign(part)
    assert type(network) is kind and network.config == (config or network.config)
    wanted = tiny.made(kind, config or tiny.EYES).state_dict()
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, wanted[key], rtol=1e-5, atol=1e-6, msg=key)


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("vqgan.ckpt", "{}"),
        ("biggan.safetensors", "{}"),
        ("netG.pth", "{}"),
        ("adm.safetensors", "{}"),
        ("clip", "{}"),
    ],
)
def test_drawn_with(name, card, tmp_path):
    entry = added(FILES[name](tmp_path / name))
    result = draw(card.format(entry.name), options=LITTLE[family(name)])
    assert len(set(result.images[0].get_flattened_data())) > 1
    assert draw(card.format(entry.name), options=LITTLE[family(name)]).images[0].tobytes() == result.images[0].tobytes()
    (foreign,) = (name for name, source in zoo.find(entry.name).parts.items() if isinstance(source, zoo.Foreign))
    assert len(result.weights[foreign]) == 64


def test_drawn_with_in_another_manner(tmp_path):
    tiny.biggan_file(tmp_path / "deep.safetensors")
    few = {"cuts": 2, "prime": 0}
    assert any("critics=NAME" in said for said in draw(f"big-sleep:{tmp_path}/deep.safetensors", options=few).notices)
    tiny.adm_file(tmp_path / "uncond.pt")
    settings = {"overview": "[1]*1000", "inner": "[1]*1000", "batches": 1}
    draw(f"disco:{tmp_path}/uncond.pt", options=settings)


def test_what_a_generator_listens_to_is_no_option(tmp_path):
    """A note that recommends an option names one that there is."""
    tiny.dcgan_file(tmp_path / "netG.pth")
    said = draw(str(tmp_path / "netG.pth")).notices
    assert any("CLIP" in each for each in said) and not any("--set" in each for each in said)


def test_real_digits(material, tmp_path):
    folder = material / "gan_mnist"
    if not folder.is_dir():
        pytest.skip("the weights are not beside the project")
    release = identify(folder / "G--300.ckpt")
    assert (release.family, release.native) == ("gan", (28, 28))
    entry = added(folder / "G--300.ckpt", name="digits")
    assert entry.kind == "model"
    assert type(load_foreign(release.parts["generator"])) is MLPGenerator
    engine = Engine(device="cpu", dtype=torch.float32)
    picture = engine.generate(Request(prompt="a digit", model="digits", seed=1)).images[0]
    assert picture.size == (28, 28)
    dark = sum(pixel[0] < 40 for pixel in picture.get_flattened_data())
    assert 0.5 < dark / 28**2 < 0.97  # strokes on black
    with pytest.raises(WeightsError, match="discriminator"):
        identify(folder / "D--300.ckpt")
    with pytest.raises(WeightsError, match="discriminator"):
        added(folder / "D--300.ckpt")


@pytest.mark.parity
def test_a_folder_of_the_transformers_library(tmp_path):
    transformers = pytest.importorskip("transformers")
    heads = {"hidden_size": 64, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 256}
    config = transformers.CLIPConfig(
        text_config={**heads, "vocab_size": 49408, "max_position_embeddings": 16},
        vision_config={**heads, "image_size": 16, "patch_size": 8},
        projection_dim=24,
    )
    torch.manual_seed(0)
    theirs = transformers.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    release = identify(tmp_path / "theirs")
    assert (release.family, release.facts, release.native) == ("clip", {"length": 16}, (16, 16))
    ours = load_foreign(release.parts["clip"])
    ids = torch.tensor([[49406, 320, 736, 3055, *[49407] * 12]])
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = theirs(input_ids=ids, pixel_values=pixels)
        torch.testing.assert_close(ours.text(ids)[1], wanted.text_embeds * ours.text(ids)[1].norm(), atol=1e-5, rtol=0)
    draw(f"deep-daze:{tmp_path}/theirs", options=LITTLE["clip"])


def test_a_lora_is_known_by_its_keys_and_not_by_its_name(tmp_path):
    (tmp_path / "loras").mkdir()
    path = tiny.adm_file(tmp_path / "loras" / "my_lora_v2.safetensors")
    assert kinds.look(path) == kinds.Seen(kind="model", family="adm")
    assert draw(str(path), options={"cuts": 2}).request.model == str(path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("netD.pth", lambda path: tiny.dcgan_file(path, generator=False), "discriminator"),
        ("pointer.ckpt", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "Git LFS pointer"),
        ("page.ckpt", b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        ("empty.pt", b"", ""),
    ],
)
def test_what_is_no_network_is_said_in_a_sentence(name, content, said, tmp_path):
    path = tmp_path / name
    path.write_bytes(content) if isinstance(content, bytes) else content(path)
    seen = kinds.look(path)
    assert said in seen.problem and seen.problem
    for attempt in (identify, added, lambda path: zoo.find(str(path))):
        with pytest.raises(WeightsError) as caught:
            attempt(path)
        assert said in caught.value.message and "\n" not in caught.value.message


@pytest.mark.parametrize(
    "shapes",
    [
        {"main.x.weight": (4, 4, 4, 4), "main.y.weight": (4, 4, 4, 4)},
        {f"{'9' * 5000}.weight": (4, 4), f"{'8' * 5000}.weight": (4, 4)},
        {"embeddings.weight": (4, 3), "generator.gen_z.weight_orig": (4, 10)},
        {"embeddings.weight": (), "generator.gen_z.weight_orig": (), "generator.layers.x.gamma": (1,)},
        {"logit_scale": (), "visual.conv1.weight": (4, 3)},
        {"timestep_embed.weight": (8, 1), "net.2.main.1.0.weight": (8, 8, 3, 3)},
        {
            "time_embed.0.weight": (64, 64), "input_blocks.0.0.weight": (8, 3, 3, 3), "middle_block.1.qkv.weight": (1,),
            "out.2.weight": (3, 8, 3, 3), "input_blocks.99999.0.weight": (1,),
        },
        {"quantize.embedding.weight": (4,), "decoder.conv_in.weight": (4, 4, 3, 3)},
        {"formatLayer.weight": (5,), "main.outlayer.weight": (3,)},
    ],
)  # fmt: skip
def test_keys_that_only_look_like_it_are_no_crash(shapes, tmp_path):
    path = tiny.written(tmp_path / "a.safetensors", {key: torch.zeros(shape) for key, shape in shapes.items()})
    assert kinds.look(path).problem
    with pytest.raises(WeightsError):
        identify(path)


def test_a_cut_file_and_a_clip_of_other_words(tmp_path):
    whole = load_file(tiny.adm_file(tmp_path / "adm.safetensors"))
    del whole["middle_block.2.out_layers.3.weight"]
    path = tiny.written(tmp_path / "cut.safetensors", whole)
    told = describe(kinds_entry(path), Library(), hashes=False)
    assert "middle_block.2.out_layers.3.weight" in told["problem"]
    with pytest.raises(WeightsError, match=r"middle_block\.2\.out_layers\.3\.weight"):
        Engine(device="cpu").load(str(path))
    words = clip.Text(vocabulary=500, length=16, width=16, layers=1, heads=1)
    other = tiny.clip_file(tmp_path / "other.safetensors", clip.Config(text=words, image=tiny.EYES.image, embed=16))
    with pytest.raises(WeightsError, match="500 tokens"):
        zoo.find(str(other))


def kinds_entry(path):
    from mindseye.checkpoints.index import Entry

    return Entry(name="it", kind="model", path=path)


@pytest.mark.parametrize(("levels", "side"), [(4, 64), (5, 128), (6, 256), (7, 512)])
def test_sides_of_the_published_sizes(levels, side, tmp_path):
    from dataclasses import replace

    from mindseye.checkpoints.layout import restore
    from mindseye.checkpoints.layouts import guided_diffusion

    attention = replace(tiny.DIFFUSION.attention, levels=(*[False] * (levels - 1), True))
    config = replace(tiny.DIFFUSION, channels=(64,) * levels, attention=attention)
    with torch.device("meta"):
        state = restore(ADM(config).state_dict(), guided_diffusion.adm_rules(config))
    # One number for each tensor is enough for a table of contents.
    path = tiny.written(tmp_path / "a.pt", {key: torch.zeros(1).expand(value.shape) for key, value in state.items()})
    release = identify(path)
    assert (release.native, release.multiple) == ((side, side), 2 ** (levels - 1))
    assert any(str(side) in note for note in release.notes)


def test_a_folder_of_safetensors_is_sorted_without_torch(tmp_path):
    """Hundreds of files are listed before torch would be awake."""
    tiny.vqgan_file(tmp_path / "vqgan.safetensors")
    tiny.adm_file(tmp_path / "adm.safetensors")
    tiny.clip_file(tmp_path / "clip.safetensors")
    code = (
        "import sys; from pathlib import Path; from mindseye.checkpoints.kinds import look\n"
        f"print([look(path).kind for path in sorted(Path({str(tmp_path)!r}).glob('*.safetensors'))])\n"
        "sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "['model', 'clip', 'model']", "")
