"""Parts that options call by name: critics and the second model, out of the library or from a path."""

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import torch
from tests.unit.checkpoints import tiny_early as tiny

from mindseye.checkpoints.library import Library
from mindseye.engine.calling import SEATS, Calling
from mindseye.engine.engine import Engine
from mindseye.engine.options import knobs
from mindseye.errors import OptionError, UnknownName, WeightsError, WeightsMissing
from mindseye.networks.clip import CLIP, Config
from mindseye.networks.secondary import Secondary
from mindseye.request import Request, drain
from mindseye.systems.gan import GAN, ClassGAN, TextGAN
from mindseye.zoo import POCKET, Foreign, Pocket, Vocabulary

if not (POCKET / "clip-pocket.safetensors").is_file():
    pytest.skip("the pocket weights are not trained yet", allow_module_level=True)


@dataclass(frozen=True)
class Seats:
    """A system with two seats for critics and one for a second model."""

    clip: Any = "own clip"
    tokenizer: Any = "own words"
    clip_2: Any = "own second"
    tokenizer_2: Any = "own second words"
    secondary: Any = None


class Shelf:
    """Parts that are not loaded: what is asked for comes back."""

    def get(self, source, policy=None):
        return source


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """What a user has."""
    folder = tmp_path_factory.mktemp("files")
    tiny.clip_file(folder / "eyes.safetensors")
    tiny.clip_folder(folder / "folder")
    tiny.secondary_file(folder / "second.safetensors")
    tiny.adm_file(folder / "adm.safetensors")
    return folder


@pytest.fixture(autouse=True)
def library(files, tmp_path, monkeypatch):
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))
    found = Library()
    for each in ("eyes.safetensors", "folder", "second.safetensors", "adm.safetensors"):
        drain(found.add(str(files / each)))
    return found


@pytest.fixture
def fit(library):
    def go(system=None, **options):
        request = Request(prompt="a", options=options)
        found = Calling(library, Shelf()).fit(Seats() if system is None else system, request)
        return found.system, found.said

    return go


def file_of(source):
    assert isinstance(source, Foreign)
    return source.part.files[0].name


def test_nothing_asked_for_is_nothing_changed(fit):
    system = Seats()
    assert fit(system) == (system, []) and fit(system)[0] is system
    assert fit(system, critics="", secondary="")[0] is system
    # A system that is no dataclass is left alone as long as nothing is asked of it.
    bare = object()
    assert fit(bare)[0] is bare


def test_critics_take_the_seats_in_order_and_the_rest_stay_empty(fit):
    system, said = fit(critics="eyes")
    assert file_of(system.clip) == "eyes.safetensors"
    assert system.tokenizer == Vocabulary(None, "clip", 16, pad=0)
    assert (system.clip_2, system.tokenizer_2, system.secondary) == (None, None, None)
    assert len(said) == 1 and "which curve" in said[0]
    system, said = fit(critics=" pocket , FOLDER ")
    assert (system.clip, system.tokenizer) == (Pocket("clip"), Pocket("bpe", length=48))
    assert file_of(system.clip_2) == "model.safetensors" and system.tokenizer_2.length == 16 and said == []


def test_a_path_is_a_name_too(fit, files):
    assert file_of(fit(critics=f"{files}/eyes.safetensors")[0].clip) == "eyes.safetensors"
    assert file_of(fit(secondary=f"{files}/second.safetensors")[0].secondary) == "second.safetensors"


def test_the_second_model_sits_beside_the_critics(fit):
    system, said = fit(secondary="second")
    assert file_of(system.secondary) == "second.safetensors" and system.clip == "own clip" and said == []


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"critics": "eys"}, UnknownName, "no clip named 'eys'"),
        ({"critics": "pocket, eyes, folder"}, OptionError, "names 3; this system listens to 2 at most"),
        ({"critics": "pocket,pocket,pocket,pocket"}, OptionError, "names 4"),
        ({"critics": " , "}, OptionError, "names none"),
        ({"critics": "adm"}, UnknownName, "no clip named 'adm'"),
        ({"critics": "{}/adm.safetensors"}, WeightsError, "of the family adm, and a CLIP is needed"),
        ({"secondary": "adm"}, UnknownName, "no secondary named 'adm'"),
        ({"secondary": "{}/adm.safetensors"}, WeightsError, "a second model of Disco Diffusion is needed"),
        ({"secondary": "none"}, UnknownName, "no secondary named"),
    ],
)
def test_what_cannot_be_called_is_said_in_a_sentence(fit, files, options, error, said):
    with pytest.raises(error) as caught:
        fit(**{name: text.format(files) for name, text in options.items()})
    assert said in caught.value.message and "\n" not in caught.value.message


def test_a_system_without_seats(fit):
    @dataclass(frozen=True)
    class Bare:
        text: Any = None

    with pytest.raises(OptionError, match="listens to 0 at most"):
        fit(Bare(), critics="eyes")


def test_a_critic_that_is_gone_or_reads_other_words(fit, library, tmp_path):
    gone = tiny.clip_file(tmp_path / "gone.safetensors")
    drain(library.add(str(gone)))
    gone.unlink()
    with pytest.raises(WeightsMissing, match="no longer where it was"):
        fit(critics="gone")
    words = replace(tiny.WORDS, vocabulary=500)
    tiny.clip_file(tmp_path / "other.safetensors", Config(text=words, image=tiny.EYES.image, embed=16))
    with pytest.raises(WeightsError, match="500 tokens"):
        fit(critics=f"{tmp_path}/other.safetensors")


def test_the_engine_listens_to_whom_it_is_told():
    """The same seed under another critic is another picture, the card itself is unharmed, and notes are passed on."""
    engine = Engine(device="cpu", dtype=torch.float32)
    asked = Request(
        prompt="a red apple", model="deep-daze-pocket", size=(16, 16), steps=1, seed=1,
        options={"cuts": 2, "hidden": 8, "layers": 1},
    )  # fmt: skip
    own = engine.generate(asked)
    other = engine.generate(replace(asked, options={**asked.options, "critics": "pocket, eyes"}))
    assert other.images[0].tobytes() != own.images[0].tobytes()
    assert any("which curve" in said for said in other.notices)
    assert other.request.options["critics"] == "pocket, eyes"
    alone = engine.generate(replace(asked, options={**asked.options, "critics": "pocket"}))
    assert alone.images[0].tobytes() == own.images[0].tobytes() == engine.generate(asked).images[0].tobytes()
    with pytest.raises(OptionError, match="listens to 3 at most"):
        engine.generate(replace(asked, options={**asked.options, "critics": "pocket,pocket,pocket,pocket"}))
    with pytest.raises(UnknownName, match="critics"):
        engine.generate(Request(prompt="a", options={"critics": "eyes"}))


def test_who_is_called_is_recorded_by_what_the_file_holds(fit, library, files):
    found = Calling(library, Shelf()).fit(Seats(), Request(prompt="a", options={"critics": "eyes, pocket"}))
    assert set(found.sources) == {"clip", "tokenizer", "clip_2", "tokenizer_2"}
    assert found.sources["clip"].part.files == (files / "eyes.safetensors",)


def test_a_gan_has_its_chooser_chosen():
    for kind in (GAN, ClassGAN, TextGAN):
        assert "critics" in {knob.name for knob in knobs(kind.Options)}
        assert set(SEATS[0]) <= {field.name for field in fields(kind)}
    # What reads the text stays the CLIP that it was trained with.
    assert not {"text", "words"} & {name for seat in SEATS for name in seat}


def test_disco_with_a_second_model_and_a_critic_of_ones_own(files):
    engine = Engine(device="cpu", dtype=torch.float32)
    few = {"overview": "[1]*1000", "inner": "[1]*1000", "batches": 1, "secondary": "second", "critics": "eyes"}
    asked = Request(prompt="a red apple", model="disco:adm", size=(16, 16), steps=2, seed=1, options=few)
    result = engine.generate(asked)
    assert result.images[0].size == (16, 16) and result.request.options["secondary"] == "second"
    for part, name in (("secondary", "second"), ("clip", "eyes")):
        assert result.weights[part] == hashlib.sha256((files / f"{name}.safetensors").read_bytes()).hexdigest()
    system = engine._calling.fit(engine.load("disco:adm"), result.request).system
    assert type(system.secondary) is Secondary and type(system.clip) is CLIP and system.clip_2 is None
    assert engine.load("disco:adm").secondary is None
    with pytest.raises(UnknownName, match="secondary"):
        engine.generate(replace(asked, options={**few, "secondary": "eyes"}))
