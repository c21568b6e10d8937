import json
import shutil

import pytest
from PIL import Image

from mindseye import animation
from mindseye.errors import LimitError, OptionError, OutputError
from mindseye.request import Progress, Request, Result, drain

START = Request(prompt="ignored", seed=3, count=5, options={"spacing": "karras"})


def options(requests, name):
    return [request.options.get(name) for request in requests]


def test_between_two_prompts_the_text_moves_evenly():
    made = animation.frames(START, ["a", "b"], 5)
    assert [request.prompt for request in made] == ["a"] * 5
    assert options(made, "toward") == [None, "b", "b", "b", "b"]
    assert options(made, "toward_amount") == [None, 0.25, 0.5, 0.75, 1.0]
    assert options(made, "variation_strength") == [None] * 5
    assert {(request.seed, request.count, request.options["spacing"]) for request in made} == {(3, 1, "karras")}


def test_several_prompts_are_visited_in_order():
    made = animation.frames(START, ["a", "b", "c"], 5)
    told = [(request.prompt, request.options.get("toward"), request.options.get("toward_amount")) for request in made]
    assert told == [("a", None, None), ("a", "b", 0.5), ("b", None, None), ("b", "c", 0.5), ("b", "c", 1.0)]


def test_between_two_seeds_the_noise_moves():
    made = animation.frames(START, ["a"], 3, to_seed=9)
    assert options(made, "variation_seed") == [None, 9, 9]
    assert options(made, "variation_strength") == [None, 0.5, 1.0]
    assert options(made, "toward") == [None] * 3
    both = animation.frames(START, ["a", "b"], 3, to_seed=9)
    assert options(both, "toward_amount") == options(both, "variation_strength") == [None, 0.5, 1.0]


def test_smoothly_is_slow_at_both_ends():
    amounts = [each or 0 for each in options(animation.frames(START, ["a", "b"], 9, smooth=True), "toward_amount")]
    steps = [after - before for before, after in zip(amounts, amounts[1:], strict=False)]
    assert (
        amounts[4] == pytest.approx(0.5) and amounts[-1] == 1 and steps[0] < steps[3] / 3 and steps[-1] < steps[4] / 3
    )


def test_frames_that_cannot_be():
    with pytest.raises(OptionError, match="nothing to go to"):
        animation.frames(START, ["a"], 5)
    with pytest.raises(OptionError, match="1 frames"):
        animation.frames(START, ["a", "b"], 1)
    with pytest.raises(LimitError, match="100,000 frames"):
        animation.frames(START, ["a", "b"], 100_000)
    with pytest.raises(OptionError, match="same seed"):
        animation.frames(Request(prompt="a"), ["a", "b"], 2)


def draw(request):
    for step in range(2):
        yield Progress("draw", step + 1, 2, tuple)
    image = Image.new("RGB", (8, 8), (round(200 * float(request.options.get("toward_amount", 0))), 0, 0))
    return Result(images=(image,), seeds=(request.seed,), request=request, seconds=0)


def test_playing_keeps_what_is_done():
    requests, done, seen = animation.frames(START, ["a", "b"], 3), [], []
    drain(animation.play(requests, draw, done), seen.append)
    assert [each[:3] for each in seen[-2:]] == [("frame 3", 5, 6), ("frame 3", 6, 6)]
    assert [result.images[0].getpixel((0, 0))[0] for result in done] == [0, 100, 200]
    some = []
    steps = animation.play(requests, draw, some)
    for _ in range(3):
        next(steps)
    steps.close()
    assert len(some) == 1


REDS = [Image.new("RGB", (16, 12), (value, 40, 0)) for value in (0, 60, 120, 180, 240)]


@pytest.mark.parametrize("ending", [".gif", ".webp", ".apng"])
@pytest.mark.parametrize("bounce", [False, True])
def test_animations(tmp_path, ending, bounce):
    path = tmp_path / f"m{ending}"
    assert animation.save(REDS, path, seconds=1, bounce=bounce, about={"prompts": ["a", "b"]})
    values = []
    with Image.open(path) as file:
        assert file.info["loop"] == 0
        for index in range(file.n_frames):
            file.seek(index)
            file.load()
            assert file.info["duration"] == 200
            values.append(file.convert("RGB").getpixel((8, 6))[0])
        text = file.info.get("comment", file.info.get("mindseye-morph"))
    expected = [0, 60, 120, 180, 240, *([180, 120, 60] if bounce else [])]
    assert len(values) == len(expected) and max(abs(a - b) for a, b in zip(values, expected, strict=True)) <= 12
    if ending != ".webp":
        assert json.loads(text)["prompts"] == ["a", "b"]
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_strip(tmp_path):
    path = tmp_path / "m.png"
    assert animation.save(REDS, path, seconds=1, bounce=True, about={"frames": 5})
    with Image.open(path) as file:
        assert file.size == (5 * 20 - 4, 12) and file.getpixel((40 + 8, 6)) == (120, 40, 0)
        assert json.loads(file.text["mindseye-morph"]) == {"frames": 5}
    assert animation.strip(REDS, columns=2).size == (36, 44)


def test_nothing_is_overwritten_or_half_written(tmp_path):
    path = tmp_path / "m.gif"
    path.write_bytes(b"mine")
    assert not animation.save(REDS, path, seconds=1, replace=False) and path.read_bytes() == b"mine"
    with pytest.raises(OptionError, match="endings"):
        animation.save(REDS, tmp_path / "m.avi", seconds=1)
    with pytest.raises(OutputError):
        animation.save(REDS, tmp_path / "none" / "m.gif", seconds=1)
    assert len(list(tmp_path.iterdir())) == 1


def test_films_need_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(OptionError, match="ffmpeg, which is not installed"):
        animation.save(REDS, tmp_path / "m.mp4", seconds=1)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_films(tmp_path):
    path = tmp_path / "m.mp4"
    assert animation.save(REDS, path, seconds=1)
    assert path.read_bytes()[4:8] == b"ftyp"


def test_what_ffmpeg_says_is_passed_on(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\ncat > /dev/null\necho no such codec >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(OutputError, match="no such codec"):
        animation.save(REDS, tmp_path / "m.mp4", seconds=1)
    assert not (tmp_path / "m.mp4").exists()
