import hashlib
from dataclasses import MISSING, fields
from pathlib import Path

import pytest

from mindseye import zoo
from mindseye.checkpoints.kinds import look
from mindseye.checkpoints.releases import EARLY, FAMILIES, PartFile, Release
from mindseye.checkpoints.save import save_part
from mindseye.engine.engine import Engine, check_sampler, system_class
from mindseye.engine.options import build, knobs
from mindseye.errors import UnknownName, UsageError, WeightsMissing
from mindseye.networks.vit_vqgan import POCKET, ViTVQGAN
from mindseye.request import Request, resolve
from mindseye.training.recipes import RECIPES


def test_the_default_card_exists():
    assert zoo.find(zoo.DEFAULT).name == zoo.DEFAULT


def test_names_are_unique():
    names = [card.name for card in zoo.ZOO]
    assert len(set(names)) == len(names)


def test_an_unknown_card_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no model named 'stable-difusion'") as caught:
        zoo.find("stable-difusion")
    assert "stable-diffusion-pocket" in caught.value.hint


def test_pocket_files_lie_inside_the_package():
    assert zoo.Pocket("unet").path.name == "unet-pocket.safetensors"
    assert zoo.Pocket("bpe", length=77).path.name == "bpe-pocket.json"
    assert zoo.Pocket("unet").path.parent.name == "pocket"


def test_shipped_parts_say_how_they_came_to_be():
    made = zoo.trained(zoo.find(zoo.DEFAULT))
    assert set(made) == {"unet-pocket", "vae-pocket", "clip-pocket", "bpe-pocket"}
    for name, record in made.items():
        assert set(record["licences"].values()) <= {"Apache-2.0", "MIT", "CC-BY-4.0"}
        shipped = next(zoo.POCKET.glob(f"{name}.safetensors" if "hours" in record else f"{name}.json"))
        assert hashlib.sha256(shipped.read_bytes()).hexdigest() == record["sha256"]
        assert shipped.stat().st_size <= (24e6 if name == "unet-pocket" else 8e6)


@pytest.mark.parametrize("card", zoo.ZOO, ids=lambda card: card.name)
def test_a_card_without_its_weights_is_not_ready_and_says_so(card, monkeypatch, tmp_path):
    shipped = zoo.POCKET
    monkeypatch.setattr(zoo, "POCKET", tmp_path)
    for name in ("clip-pocket.safetensors", "bpe-pocket.json"):
        (tmp_path / name).symlink_to(shipped / name)
    if set(card.parts) <= {"clip", "tokenizer"}:
        assert card.ready
        return
    assert not card.ready
    with pytest.raises(WeightsMissing, match=r"the weights file [\w-]+-pocket\.safetensors is not there"):
        Engine(device="cpu").load(card.name)
    with pytest.raises(UnknownName) as caught:
        zoo.find(f"{card.name}s")
    assert card.name not in caught.value.hint


MANNERS = [(family, manner) for family, ways in zoo.MANNERS.items() for manner in ways]
PARTS = {"vqgan": "codec", "biggan": "generator", "gan": "generator", "adm": "unet", "clip": "clip"}


def release_of(family, **changes):
    """As `identify` would find it, without a file."""
    name = PARTS.get(family, family)
    given = {
        "family": family, "parts": {name: PartFile((Path("x.pt"),), "any")}, "tokenizers": {},
        "facts": {"length": 77} if family == "clip" else {}, "native": (64, 64), "multiple": 1, "licence": "MIT",
    }  # fmt: skip
    return Release(**{**given, **changes})


def test_every_early_family_is_painted_with_or_says_why_not():
    assert set(zoo.MANNERS) | {"secondary"} == set(EARLY) <= set(FAMILIES)
    assert not any(manner in (card.name for card in zoo.ZOO) for _, manner in MANNERS)


@pytest.mark.parametrize(("family", "manner"), MANNERS)
def test_a_manner_is_a_card(family, manner):
    card = zoo.card_of(release_of(family), "mine", manner=manner)
    assert card.name == f"{manner}:mine" and card.licence == "MIT"
    kind = system_class(card)
    held = {each.name for each in fields(kind)}
    assert {*card.parts, *card.facts} <= held and {"clip", "tokenizer"} <= set(card.parts)
    (own,) = (name for name, source in card.parts.items() if isinstance(source, zoo.Foreign))
    assert own == zoo.MANNERS[family][manner].part
    # Nothing is missing that the system must have.
    needed = {each.name for each in fields(kind) if each.default is MISSING}
    assert needed <= set(card.parts)
    build(kind.Options, card.options, owner=card.name)
    resolved, _ = resolve(Request(prompt="x", model=card.name), card, seed=0)
    check_sampler(kind, resolved.sampler or "")
    assert resolved.size == card.native and resolved.steps
    # A note recommends no option that there is not.
    named = {knob.name for knob in knobs(kind.Options)}
    assert ("critics" in named) or not any("critics" in note for note in card.notes)


def test_the_first_manner_is_the_usual_one():
    assert zoo.card_of(release_of("biggan"), "mine").system == "mindseye.systems.gan:ClassGAN"
    assert zoo.card_of(release_of("biggan"), "mine").name == "mine"
    other = zoo.card_of(release_of("biggan"), "mine", manner="big-sleep", licence="own")
    assert (other.system, other.licence) == ("mindseye.systems.big_sleep:BigSleep", "own")


def test_a_clip_listens_with_its_own_words():
    card = zoo.card_of(release_of("clip"), "mine")
    assert card.parts["tokenizer"] == zoo.Vocabulary(None, "clip", 77, pad=0)
    assert card.native == (128, 128) and not any("small CLIP" in note for note in card.notes)


def test_what_cannot_be_painted_with_that_way():
    with pytest.raises(UnknownName, match="manner of painting with mine") as caught:
        zoo.card_of(release_of("vqgan"), "mine", manner="big-sleep")
    assert "vqgan-clip" in caught.value.hint + caught.value.message
    with pytest.raises(UnknownName, match="manner of painting"):
        zoo.card_of(release_of("sd1", parts={}), "mine", manner="disco")
    with pytest.raises(UsageError, match="paints nothing by itself") as caught:
        zoo.card_of(release_of("secondary"), "mine")
    assert "secondary=mine" in caught.value.hint


@pytest.mark.parametrize("name", ["big-sleep:none", "deep-daze:none", "nonsense:none", "big-sleep:", ":", "disco:big"])
def test_names_behind_a_manner_that_are_not_there(name):
    with pytest.raises(UnknownName, match="there is no model named"):
        zoo.find(name)


def test_files_and_downloads_that_are_not_there(tmp_path):
    for name in (f"{tmp_path}/none.ckpt", f"big-sleep:{tmp_path}/none.ckpt", "none.safetensors"):
        with pytest.raises(WeightsMissing, match="is not there"):
            zoo.find(name)
    for name in ("hub:org/repo", "disco:hub:org/repo"):
        with pytest.raises(WeightsMissing, match="hub:org/repo was not downloaded") as caught:
            zoo.find(name)
        assert "mindseye models add hub:org/repo" in caught.value.hint


@pytest.fixture
def runs(tmp_path):
    """Two finished runs side by side, and one that has not finished."""
    for name in ("dalle-pocket", "vqgan-pocket", "adm-pocket"):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        (run / "recipe.json").touch()
        if name != "adm-pocket":
            (run / f"{name}.safetensors").symlink_to(zoo.POCKET / f"{name}.safetensors")
    return tmp_path / "runs"


@pytest.mark.parametrize(
    "asked",
    ["dalle-pocket:{}", "dalle-pocket:{}/dalle-pocket", "{}/dalle-pocket", "{}/dalle-pocket/dalle-pocket.safetensors"],
)
def test_what_was_trained_takes_the_place_of_what_is_shipped(runs, asked):
    card = zoo.find(asked.format(runs))
    assert card.parts == {
        "network": zoo.File(runs / "dalle-pocket" / "dalle-pocket.safetensors"),
        "codec": zoo.File(runs / "vqgan-pocket" / "vqgan-pocket.safetensors"),
        "tokenizer": zoo.Pocket("bpe", length=32, plain=True),
    }
    assert card.ready and card.name.startswith("dalle-pocket:") and (card.licence, card.training[:5]) == ("", "yours")
    assert card.options == zoo.find("dalle-pocket").options
    assert card.notes == ("of your training: dalle-pocket, vqgan-pocket; as shipped: bpe-pocket",)


def test_a_tokenizer_that_was_trained_stays_one(runs):
    (runs / "bpe-pocket").mkdir()
    (runs / "bpe-pocket" / "bpe-pocket.json").symlink_to(zoo.POCKET / "bpe-pocket.json")
    card = zoo.find(f"dalle-pocket:{runs}")
    assert card.parts["tokenizer"] == zoo.File(runs / "bpe-pocket" / "bpe-pocket.json", length=32, plain=True)


def test_any_tokenizer_of_pictures_is_painted_with(runs):
    """One that no card has; the one that lies beside it is not meant."""
    run = runs / "vit-vqgan-pocket"
    run.mkdir()
    (run / "recipe.json").touch()
    save_part(run / "vit-vqgan-pocket.safetensors", ViTVQGAN(POCKET), {"name": "vit-vqgan-pocket"})
    for asked in (run, f"vqgan-clip-pocket:{run}", f"vqgan-clip:{run}"):
        card = zoo.find(str(asked))
        assert card.parts["codec"] == zoo.File(run / "vit-vqgan-pocket.safetensors")
        assert card.system == "mindseye.systems.vqgan_clip:VQGANCLIP"
    assert zoo.find(f"vqgan-clip-pocket:{runs}").parts["codec"].path.name == "vqgan-pocket.safetensors"


def test_a_manner_for_what_was_trained(runs):
    run = runs / "adm-pocket"
    (run / "adm-pocket.safetensors").symlink_to(zoo.POCKET / "adm-pocket.safetensors")
    assert zoo.find(f"{run}").system.endswith(":CLIPGuided")
    assert zoo.find(f"disco:{run}").system.endswith(":Disco")


def test_trainings_that_cannot_be_drawn_with(runs, tmp_path):
    with pytest.raises(UsageError, match="has not finished a part") as caught:
        zoo.find(f"{runs}/adm-pocket")
    assert "--resume" in caught.value.hint
    for place in (tmp_path / "none", runs / "adm-pocket", runs / "vqgan-pocket"):
        with pytest.raises(UsageError, match="holds no part of disco-pocket") as caught:
            zoo.find(f"disco-pocket:{place}")
        assert "adm-pocket.safetensors" in caught.value.hint
    mine = tmp_path / "mine.safetensors"
    mine.symlink_to(zoo.POCKET / "dalle-pocket.safetensors")
    with pytest.raises(UsageError, match=r"mine.safetensors is one part of a model \(DALLE\)"):
        zoo.find(str(mine))
    assert f"not a model; -m {mine} draws with it if a card has one" in look(mine).problem


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_has_a_card_that_draws_with_it(name):
    """But for the judge of evaluations, which draws nothing, and translators, which are told no words."""
    card = zoo.drawn_with(name)
    assert (card is None) == (name in ("clip-rn-pocket", "pix2pix-pocket", "cyclegan-pocket"))
    assert card is None or zoo.find(card).ready
