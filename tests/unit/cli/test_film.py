"""`mindseye film`: frames into files, a camera out of words and settings files, and bad input said in a sentence."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from tests.unit.checkpoints import tiny_early as tiny

from mindseye.cli import main as program
from mindseye.engine.engine import Engine
from mindseye.metadata.disco import DEFAULTS
from mindseye.systems import motion
from mindseye.zoo import POCKET

SETTINGS = {
    **DEFAULTS, "text_prompts": {"0": ["a tower", "fog:2"], "2": ["a ruin"]}, "width": 16, "height": 16, "steps": 5,
    "seed": 9, "zoom": "0: (1), 2: (1.5)", "angle": "0: (5)", "frames_skip_steps": "20%", "animation_mode": "2D",
    "cut_overview": "[1]*1000", "cut_innercut": "[1]*1000", "cutn_batches": 1, "use_secondary_model": False,
}  # fmt: skip


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, painter):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(capsys):
    def go(*arguments, model="painter"):
        code = program.main(["film", *map(str, arguments), "-m", str(model)])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return go


@pytest.fixture
def asked(monkeypatch):
    """Every request that is drawn; the first that reaches the engine is only checked."""
    stream, requests = Engine.stream, []

    def listening(self, request):
        requests.append(request)
        return stream(self, request)

    monkeypatch.setattr(Engine, "stream", listening)
    return lambda: requests[1:]


@pytest.fixture
def camera(monkeypatch):
    """What would be filmed, in place of the film."""
    told = {}

    def film(request, moves, count, draw, done, *, prompts=None, depth=None):
        told.update(request=request, moves=moves, count=count, prompts=prompts)
        return
        yield

    monkeypatch.setattr(motion, "film", film)
    return told


def names():
    return sorted(path.name for path in Path().iterdir() if path.is_file())


def put(name, value):
    Path(name).write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return name


def test_a_film(run, asked):
    code, out, err = run("a fox", "--frames", 3, "--seed", 5, "--steps", 1, "--strength", 0.3)
    assert (code, out, err) == (0, ["a-fox.gif"], "")
    with Image.open("a-fox.gif") as film:
        assert (film.n_frames, film.size) == (3, (16, 16))
    assert [each.seed for each in asked()] == [5, 6, 7]
    assert [each.image is None for each in asked()] == [True, False, False]
    assert [each.strength for each in asked()[1:]] == pytest.approx([0.3, 0.3])
    assert {each.count for each in asked()} == {1}


def test_a_strip_tells_how_it_was_made_and_nothing_is_written_over(run):
    for name in ("strip.png", "strip-1.png"):
        code, out, _ = run("a fox", "--frames", 3, "--steps", 1, "--turn", "0:(3)", "-o", "strip.png")
        assert (code, out) == (0, [name])
        with Image.open(name) as strip:
            assert strip.size == (3 * 20 - 4, 16)
            about = json.loads(strip.text["mindseye-morph"])
        assert (about["prompts"], about["frames"]) == ({"0": "a fox"}, 3)
        assert about["camera"] == {
            "animation_mode": "2D", "zoom": "1.04", "angle": "0:(3)", "frames_skip_steps": "60%",
        }  # fmt: skip
        assert about["request"]["steps"] == 1 and about["request"]["seed"] is not None


def test_prompts_follow_each_other(run, asked):
    assert run("a fox", "a cat", "--frames", 4, "--steps", 1)[0] == 0
    assert [each.prompt for each in asked()] == ["a fox", "a fox", "a cat", "a cat"]


def test_one_frame_is_a_film(run):
    assert run("a fox", "--frames", 1, "--steps", 1)[:2] == (0, ["a-fox.gif"])


def test_the_picture_before_the_first_one(run, asked):
    Image.new("RGB", (16, 16), "red").save("red.png")
    assert run("a fox", "--frames", 2, "--steps", 1, "--image", "red.png")[0] == 0
    assert asked()[0].image.getpixel((3, 3)) == (255, 0, 0)
    assert asked()[1].image.getpixel((3, 3)) != (255, 0, 0)


def test_the_camera_is_what_was_typed(run, camera):
    assert run("a fox", "--zoom", "0: (1), 10: (1.5)", "--turn", "-2", "--right", 3, "--down", 4)[0] == 0
    moves = camera["moves"]
    assert (moves.mode, moves.zoom(5), moves.angle(7), moves.x(1), moves.y(1)) == ("2D", 1.25, -2, 3, 4)
    assert moves.strength == pytest.approx(0.4) and camera["count"] == 24
    assert run("a fox", "--into", 10, "--strength", 0.25)[0] == 0
    moves = camera["moves"]
    assert (moves.mode, moves.z(3), moves.strength) == ("3D", 10, 0.25)


def test_a_settings_file(run, camera):
    code, _, err = run("--settings", put("s.json", SETTINGS))
    assert code == 0
    request, moves = camera["request"], camera["moves"]
    assert (request.prompt, request.size, request.seed, request.model) == ("a tower|fog:2", (16, 16), 9, "painter")
    assert camera["prompts"] == {0: "a tower|fog:2", 2: "a ruin"}
    assert (moves.mode, moves.zoom(1), moves.angle(0), moves.strength) == ("2D", 1.25, 5, pytest.approx(0.8))
    # The painter is no Disco Diffusion: knobs that it does not have are no error, but said.
    assert request.options == {} and request.guidance is None and request.sampler is None and request.steps is None
    assert "painter is no Disco Diffusion" in err
    # What is true of a single picture is not said of a film.
    assert "the first is drawn" not in err and "the picture alone" not in err


def test_what_is_typed_comes_before_what_the_file_says(run, camera):
    put("s.json", SETTINGS)
    typed = ("--seed", 3, "--size", "24x16", "--steps", 2, "--set", "tint=0.2", "--turn", 1, "--strength", 0.5, "-q")
    code, _, err = run("a fox", "--settings", "s.json", *typed)
    request, moves = camera["request"], camera["moves"]
    assert (code, err) == (0, "")
    assert (request.prompt, request.seed, request.size, request.steps) == ("a fox", 3, (24, 16), 2)
    assert float(request.options["tint"]) == 0.2 and camera["prompts"] == {0: "a fox"}
    assert (moves.angle(0), moves.zoom(2), moves.strength) == (1, 1.5, 0.5)
    assert run("--settings", "s.json", "--into", 4)[0] == 0
    assert (camera["moves"].mode, camera["moves"].z(0)) == ("3D", 4)
    assert run("--settings", put("space.json", {**SETTINGS, "animation_mode": "3D"}))[0] == 0
    assert (camera["moves"].mode, camera["moves"].fov) == ("3D", 40)


def test_a_settings_file_of_which_little_is_there(run, camera):
    assert run("--settings", put("s.json", {"text_prompts": ["a fox"]}))[0] == 0
    assert camera["prompts"] == {0: "a fox"} and camera["moves"].strength == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "nothing says what to paint"),
        (["a fox", "--zoom", "0: (x)"], "keyframes"),
        (["a fox", "--zoom", "__import__('os').system('touch x')"], "keyframes"),
        (["a fox", "--turn", "0:(1), 0:(2)"], "name frame 0 twice"),
        (["a fox", "--zoom", "0"], "out of range"),
        (["a fox", "--strength", "2"], "a strength of 2"),
        (["a fox", "--strength", "nan"], "keyframes"),
        (["a fox", "--frames", "0"], "0 frames are too few"),
        (["a fox", "a cat", "--frames", "1"], "1 frames are too few"),
        (["a fox", "--frames", "20000"], "20,000 frames are too many"),
        (["a fox", "-o", "x.jpg"], "none of the endings"),
        (["a fox", "--set", "tnit=1"], "no option of painter named 'tnit'"),
        (["a fox", "--sampler", "hoin"], "no sampler named 'hoin'"),
        (["a fox", "--size", "big"], "is no size"),
        (["--settings", "none.json"], "none.json cannot be read"),
        (["--settings", "text.json"], "text.json holds no settings of Disco Diffusion"),
        (["--settings", "list.json"], "holds no settings"),
        (["--settings", "deep.json"], "holds no settings"),
        (["--settings", "empty.json"], "holds no settings"),
        (["--settings", "bytes.json"], "bytes.json cannot be read"),
        (["--settings", "wild.json", "-q"], "keyframes"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(run, arguments, said):
    put("text.json", "a castle at night")
    put("list.json", [1, 2])
    put("deep.json", '{"text_prompts":' * 50_000)
    put("empty.json", {"text_prompts": {"0": []}, "clip_guidance_scale": 5000})
    put("wild.json", {**SETTINGS, "zoom": {"0": "eval(1)"}})
    Path("bytes.json").write_bytes(b"\xff\xfe\x00{")
    before = names()
    code, out, err = run(*arguments)
    assert code == 2 and out == [] and said in err and names() == before
    assert "should not have happened" not in err and len(err.splitlines()) <= 2


def test_a_model_that_is_not_there(run):
    code, _, err = run("a fox", model="paintre")
    assert code == 2 and "no model named 'paintre'" in err


@pytest.mark.parametrize(("done", "files"), [(2, ["a-fox.gif"]), (1, ["a-fox.gif"]), (0, [])])
def test_a_film_that_is_stopped_keeps_what_is_done(run, monkeypatch, done, files):
    stream, asked = Engine.stream, []

    def stopping(self, request):
        asked.append(request)
        if len(asked) == 1 + done + 1:  # the first is only checked
            raise KeyboardInterrupt
        return stream(self, request)

    monkeypatch.setattr(Engine, "stream", stopping)
    code, out, err = run("a fox", "--frames", 4, "--steps", 1)
    assert code == 130 and out == files == names()
    assert (f"stopped after {done} of 4 frames" in err) == bool(done)
    if done:
        with Image.open("a-fox.gif") as film:
            assert film.n_frames == done


def test_a_film_that_fails_keeps_what_is_done(run, monkeypatch):
    stream, asked = Engine.stream, []

    def failing(self, request):
        asked.append(request)
        return stream(self, replace(request, options={"break_": "nan"} if len(asked) == 4 else {}))

    monkeypatch.setattr(Engine, "stream", failing)
    code, out, err = run("a fox", "--frames", 4, "--steps", 1)
    assert code == 1 and out == ["a-fox.gif"] and "not finite" in err and "stopped after 2 of 4" in err


needs_pocket = pytest.mark.skipif(
    not (POCKET / "clip-pocket.safetensors").is_file(), reason="the pocket weights are not trained yet"
)
FEW = ("--set", "cuts=2", "--set", "hidden=8", "--set", "layers=1", "--set", "prime=2")


@needs_pocket
def test_deep_daze_flies_into_its_own_picture(run):
    code, out, _ = run(
        "a red apple", "--frames", 3, "--size", "16x16", "--steps", 5, "--seed", 1, *FEW, model="deep-daze-pocket"
    )
    assert (code, out) == (0, ["a-red-apple.gif"])
    with Image.open("a-red-apple.gif") as film:
        assert (film.n_frames, film.size) == (3, (16, 16))


@needs_pocket
def test_disco_by_its_own_settings(run, here, asked):
    path = tiny.adm_file(here / "uncond.pt")
    # Nothing in the file of such a network says how large its pictures are, so the size is typed.
    asks = ("--settings", put("s.json", SETTINGS), "--frames", 2, "--size", "16x16")
    code, out, err = run(*asks, model=f"disco:{os.fspath(path)}")
    assert (code, out) == (0, ["film.gif"]) and "no Disco Diffusion" not in err
    first, second = asked()
    assert first.options["overview"] == "[1]*1000" and first.guidance == 5.0 and first.sampler == "ddim"
    assert second.strength == pytest.approx(0.8) and second.image.size == (16, 16)
