import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from mindseye.cli.generate import parse_size, slug
from mindseye.cli.main import main
from mindseye.errors import SizeError
from mindseye.metadata import read
from mindseye.pictures import save_png

TESTS = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, painter):
    """Every test draws into a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def draw(capsys):
    """Run the program with the painter; gives exit code, lines of stdout, text of stderr."""

    def run(*arguments):
        code = main([*map(str, arguments), *(() if "--like" in arguments else ("-m", "painter"))])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return run


def names(folder="."):
    return sorted(path.name for path in Path(folder).iterdir())


def pixels(path):
    with Image.open(path) as image:
        return image.tobytes()


def test_a_prompt_alone_draws_into_the_current_folder(draw):
    code, out, err = draw("a Red, apple!")
    assert (code, out, err) == (0, ["a-red-apple.png"], "")
    assert names() == ["a-red-apple.png"]
    found = read(Path("a-red-apple.png"))
    assert found.account.request["prompt"] == found.fields["prompt"] == "a Red, apple!"


def test_flags_reach_the_request(draw):
    code, out, _ = draw(
        "a fox", "-n", 2, "--seed", 5, "--steps", 4, "--guidance", 2.5, "--negative", "blur", "--size", "24x16",
        "--sampler", "heun", "--strength", 0.5, "--set", "tint=0.25", "--set", "mood=wild", "--json",
    )  # fmt: skip
    assert code == 0
    one, two = map(json.loads, out)
    assert two["request"] == {
        "prompt": "a fox", "negative": "blur", "model": "painter", "size": [24, 16], "count": 1, "seed": 6, "steps": 4,
        "guidance": 2.5, "sampler": "heun", "strength": 0.5,
        "candidates": 1, "keep": 1,
        "options": {"tint": 0.25, "mood": "wild", "grain": 1, "frame": False, "break_": ""},
    }  # fmt: skip
    assert (one["path"], two["path"], one["seed"]) == ("a-fox-0.png", "a-fox-1.png", 5)
    assert names() == ["a-fox-0.png", "a-fox-1.png"]


def test_nothing_is_overwritten(draw):
    for expected in ("a-fox.png", "a-fox-1.png", "a-fox-2.png"):
        assert draw("a fox")[1] == [expected]
    assert draw("a fox", "-n", 2)[1] == ["a-fox-0.png", "a-fox-3.png"]
    assert draw("a fox", "-o", "mine.png")[1] == ["mine.png"]
    assert draw("a fox", "-o", "mine.png")[1] == ["mine-1.png"]


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "webp", "WEBP"])
def test_lossy_pictures_say_how_they_were_made(draw, ending):
    assert draw("a fox", "--seed", 3, "-o", f"mine.{ending}")[1] == [f"mine.{ending}"]
    assert draw("a fox", "-n", 2, "-o", f"mine.{ending}")[1] == [f"mine-0.{ending}", f"mine-1.{ending}"]
    with Image.open(f"mine.{ending}") as image:
        assert image.format == ("WEBP" if ending.lower() == "webp" else "JPEG")
    found = read(Path(f"mine.{ending}"))
    assert found.account.request["seed"] == 3 and found.fields["prompt"] == "a fox"
    again = draw("--like", f"mine.{ending}", "-o", "again.png")[1]
    assert read(Path(again[0])).account.request == found.account.request


def test_a_file_that_appears_meanwhile_is_not_overwritten_either(draw, monkeypatch):
    Path("a-fox.png").write_bytes(b"another's")
    monkeypatch.setattr(Path, "exists", lambda path: path.is_dir())
    assert draw("a fox")[1] == ["a-fox-1.png"]
    assert Path("a-fox.png").read_bytes() == b"another's"


def test_a_folder_is_made_when_there_is_something_to_put_into_it(draw):
    assert draw("a fox", "-o", "out/deep/")[1] == ["out/deep/a-fox.png"]
    assert draw("a fox", "-o", "other", "--sampler", "none")[0] == 2
    assert not Path("other").exists()


def test_many_pictures_are_saved_as_they_are_done(draw, monkeypatch):
    _, together, _ = draw("a fox", "-n", 5, "--seed", 1)
    monkeypatch.setattr("mindseye.cli.generate.BATCH", 2)
    _, apart, _ = draw("a fox", "-n", 5, "--seed", 1, "-o", "apart.png")
    assert [pixels(path) for path in together] == [pixels(path) for path in apart]
    assert read(Path(apart[4])).account.request["count"] == 1
    assert read(Path(apart[3])).account.index == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["a fox", "--sampler", "eulr"], 2, "did you mean 'euler'"),
        (["a fox", "--set", "tnit=1"], 2, "did you mean 'tint'"),
        (["a fox", "--set", "tint=2"], 2, "within 0 and 1"),
        (["a fox", "--set", "tint"], 2, "not of the form name=value"),
        (["a fox", "--set", "mood=wlid"], 2, "did you mean 'wild'"),
        ([""], 2, "the prompt is empty"),
        (["--steps", "3"], 2, "the prompt is empty"),
        (["a fox", "--size", "big"], 2, "--size 'big' is no size"),
        (["a fox", "--size", "0x16"], 2, "no pixels"),
        (["a fox", "--size", "99999x99999"], 2, "is too much"),
        (["a fox", "-n", "0"], 2, "count 0"),
        (["a fox", "--seed", "-1"], 2, "seed -1"),
        (["a fox", "--steps", "many"], 2, "'--steps'"),
        (["a fox", "--strength", "nan"], 2, "strength nan"),
        (["a fox", "--device", "abacus"], 2, "no device 'abacus'"),
        (["a fox", "--device", "cuda:77"], 2, "no device 'cuda:77'"),
        (["a fox", "--unknown"], 2, "--unknown"),
        (["a fox", "-o", "fox.gif"], 2, "written as .png, .jpg, .jpeg, .webp, not as .gif"),
        (["a fox", "-o", "none/fox.txt"], 2, "not as .txt"),
        (["a fox", "-o", "/proc/self/fox.png"], 1, "cannot write into /proc/self"),
        (["a fox", "--image", "none.png"], 2, "there is no file none.png"),
        (["a fox", "--mask", "ok.png"], 2, "add --image"),
        (["a fox", "--image", "cut.png"], 2, "cut short"),
        (["a fox", "--image", "text.png"], 2, "not a picture"),
        (["a fox", "--set", "break_=nan"], 1, "not finite"),
        (["a fox", "--set", "break_=bug"], 1, "this should not have happened: RuntimeError: a bug"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_a_sentence_and_leaves_no_file(draw, here, arguments, code, says):
    image = Image.effect_noise((32, 32), 50)
    image.save("ok.png")
    Path("cut.png").write_bytes(Path("ok.png").read_bytes()[:500])
    Path("text.png").write_text("not a picture")
    before = names()
    got, out, err = draw(*arguments)
    assert says in err and "Traceback" not in err
    assert (got, out) == (code, [])
    assert names() == before


def test_an_unknown_model_comes_with_the_nearest(capsys):
    assert main(["a fox", "-m", "paintre"]) == 2
    assert "did you mean 'painter'" in capsys.readouterr().err


def test_liberties_are_said_once_and_quiet_keeps_still(draw):
    Image.new("RGB", (40, 20), "red").save("in.png")
    Image.new("L", (9, 9), "white").save("mask.png")
    asked = ("one two three four", "--size", "20x12", "-n", 2, "--image", "in.png", "--mask", "mask.png")
    code, out, err = draw(*asked)
    assert code == 0 and len(out) == 2
    assert err.count("size 20x12 rounded to 24x16") == 1
    assert "scaled and cropped" in err and "mask resized" in err and "prompt cut" in err
    assert draw(*asked, "-q")[2] == ""
    _, out, err = draw(*asked, "--json")
    assert len(json.loads(out[0])["notices"]) == 4


def test_like_draws_the_same_pixels(draw):
    _, drawn, _ = draw("a fox", "-n", 3, "--set", "tint=0.1")
    code, again, err = draw("--like", drawn[2])
    assert (code, again, err) == (0, ["a-fox.png"], "")
    assert pixels(again[0]) == pixels(drawn[2]) != pixels(drawn[1])
    assert read(Path(again[0])).account.request == read(Path(drawn[2])).account.request


@pytest.fixture
def chosen(monkeypatch):
    """Candidates are chosen by brightness."""
    from tests.unit.critique.test_ranking import Eye

    from mindseye.engine import engine

    monkeypatch.setattr(engine, "critic_for", lambda system, parts: Eye())


def test_candidates_are_saved_in_the_order_of_their_rank(draw, chosen):
    code, out, _ = draw("0.5", "--seed", 3, "--candidates", 5, "--keep", 2, "--sheet")
    assert (code, out) == (0, ["0-5-0.png", "0-5-1.png", "0-5-sheet.png"])
    accounts = [read(Path(name)) for name in out]
    told = [Image.open(name).text for name in out[:2]]
    assert "Candidates: 5" in told[0]["parameters"]
    assert json.loads(told[0]["mindseye"])["score"] > json.loads(told[1]["mindseye"])["score"]
    with Image.open("0-5-sheet.png") as sheet:
        assert sheet.width > 2 * 16
    draw("--like", "0-5-1.png", "-o", "again.png")
    assert pixels("again.png") == pixels("0-5-1.png")
    draw("--like", "0-5-1.png", "--steps", 4, "-o", "other.png")
    alone = read(Path("other.png")).account
    assert alone.request["candidates"] == 1 and alone.seed == accounts[1].account.seed
    code, out, _ = draw("0.5", "--seed", 3, "-n", 2, "--candidates", 5, "--json")
    rows = [json.loads(line) for line in out]
    draw("0.5", "--seed", rows[1]["seed"], "-o", "one.png")
    assert pixels("one.png") == pixels(rows[1]["path"]) and rows[1]["request"]["candidates"] == 1
    assert -1 <= rows[0]["score"] <= 1


def test_more_cannot_be_kept_than_drawn(draw):
    code, out, said = draw("a fox", "--candidates", 2, "--keep", 4)
    assert (code, out) == (2, []) and "4 of 2 candidates cannot be kept" in said and names() == []


def test_like_with_changes_starts_from_that_picture(draw):
    _, drawn, _ = draw("a fox", "-n", 2, "--seed", 10)
    _, changed, _ = draw("--like", drawn[1], "--steps", 9, "-o", "changed.png", "--set", "mood=wild")
    request = read(Path(changed[0])).account.request
    assert (request["seed"], request["steps"], request["count"], request["options"]["mood"]) == (11, 9, 1, "wild")
    assert request["prompt"] == "a fox"


def test_like_finds_its_start_picture_or_says_which_it_was(draw):
    Image.effect_noise((16, 16), 50).save("in.png")
    _, drawn, _ = draw("a fox", "--image", "in.png")
    assert draw("--like", drawn[0])[0] == 0
    Image.new("RGB", (16, 16)).save("in.png")
    code, _, err = draw("--like", drawn[0])
    assert code == 2 and "in.png" in err and "--image" in err
    assert draw("--like", drawn[0], "--image", "in.png")[0] == 0


def test_like_a_picture_of_another_program_takes_what_it_says(draw):
    text = "a dog\nNegative prompt: blurry\nSteps: 6, Sampler: DDIM, CFG scale: 3.5, Seed: 99, Size: 512x512"
    save_png(Image.new("RGB", (4, 4)), Path("theirs.png"), {"parameters": text})
    code, out, err = draw("--like", "theirs.png", "--model", "painter")
    assert code == 0 and "another program, A1111" in err and "a GPU's" in err and "no sampler 'ddim'" in err
    request = read(Path(out[0])).account.request
    assert [request[key] for key in ("prompt", "negative", "steps", "guidance", "seed")] == [
        "a dog", "blurry", 6, 3.5, 99,
    ]  # fmt: skip


def test_like_pasted_text_with_changes(draw, monkeypatch):
    text = "a dog\nSteps: 6, Sampler: Euler, CFG scale: 3.5, Seed: 99, Size: 32x16"
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    code, out, err = draw("a cat", "--like", "-", "--model", "painter", "--seed", 5, "-q")
    assert (code, err) == (0, "")
    request = read(Path(out[0])).account.request
    assert [request[key] for key in ("prompt", "steps", "seed", "sampler", "size")] == [
        "a cat", 6, 5, "euler", [32, 16],
    ]  # fmt: skip


def prompts(out):
    return [(row["seed"], row["request"]["prompt"]) for row in map(json.loads, out)]


def test_styles_go_around_the_words(draw, home):
    table = 'name,prompt,negative_prompt\nink,"ink of {prompt}, wet",blur\nold,"old, worn",\n'
    Path("mine.csv").write_text(table)
    home.mkdir(exist_ok=True)
    (home / "styles.csv").write_text(table.replace("ink of", "my ink of"))
    _, out, _ = draw("a fox", "--negative", "fog", "--style", "ink", "--style", "old", "--styles", "mine.csv", "--json")
    request = json.loads(out[0])["request"]
    assert (request["prompt"], request["negative"]) == ("ink of a fox, wet, old, worn", "fog, blur")
    assert prompts(draw("a fox", "--style", "ink", "--json")[1])[0][1] == "my ink of a fox, wet"
    (home / "styles.csv").unlink()
    for asked, said in (
        (["--style", "inc", "--styles", "mine.csv"], "did you mean 'ink'"),
        (["--style", "ink"], "styles"),
    ):
        code, out, err = draw("a fox", *asked)
        assert code != 0 and out == [] and said in err and "Traceback" not in err


def test_dynamic_prompts_are_drawn_by_the_seeds_of_their_pictures(draw):
    """Any picture of the order can be had again by its own seed."""
    Path("lists").mkdir()
    Path("lists/colour.txt").write_text("red\ngreen\nblue\n")
    asked = ("a {big|small|old} __colour__ fox", "--wildcards", "lists", "--json")
    together = prompts(draw(*asked, "-n", 5, "--seed", 5)[1])
    assert [seed for seed, _ in together] == [5, 6, 7, 8, 9] and len({text for _, text in together}) > 1
    assert all(text.split()[2] in ("red", "green", "blue") and "{" not in text for _, text in together)
    assert prompts(draw(*asked, "--seed", 8)[1]) == together[3:4]
    every = prompts(draw("a {big|small} {cat|dog}", "--every", "--seed", 3, "--json")[1])
    assert every == [(3, f"a {size} {what}") for size in ("big", "small") for what in ("cat", "dog")]
    # Without being asked to, braces are words.
    assert prompts(draw("a {big|small} fox", "--json")[1])[0][1] == "a {big|small} fox"
    code, out, err = draw("a __none__ fox", "--wildcards", "lists")
    assert code == 2 and out == [] and "none" in err


@pytest.mark.parametrize(
    "chunk", ["{}", "nonsense", '{"schema": 1, "request": {"prompt": "x", "evil": 1}, "index": 0}']
)
def test_like_a_damaged_account_is_a_sentence(draw, chunk):
    save_png(Image.new("RGB", (4, 4)), Path("bad.png"), {"mindseye": chunk})
    code, out, err = draw("--like", "bad.png")
    assert (code, out) == (2, []) and "mindseye: " in err and names() == ["bad.png"]


def test_like_a_plain_picture_is_a_sentence(draw):
    save_png(Image.new("RGB", (4, 4)), Path("plain.png"))
    code, _, err = draw("--like", "plain.png")
    assert code == 2 and "does not say how it was made" in err


def test_a_full_disk_is_a_sentence_and_leaves_nothing(draw, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    code, out, err = draw("a fox")
    assert (code, out, names()) == (1, [], [])
    assert "cannot write a-fox.png: no space left on device" in err


@pytest.mark.parametrize(
    ("text", "size"), [("640x480", (640, 480)), ("64X32", (64, 32)), (" 8 x 9 ", (8, 9)), ("128", (128, 128))]
)
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "x", "12x", "1x2x3", "-1x2", "1.5x2", "9999999x1", "٣"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(SizeError):
        parse_size(text)


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red, red apple", "a-red-red-apple"),
        ("../../etc/passwd", "etc-passwd"),
        ("-rf --help", "rf-help"),
        ("C:\\x\0\n.", "c-x"),
        ("ein Füchslein im Schnee", "ein-füchslein-im-schnee"),
        ("红色的苹果", "红色的苹果"),
        ("!!!", "picture"),
        ("word " * 50, "-".join(["word"] * 12)),
        ("é" * 99, "é" * 30),
    ],
)
def test_slugs_are_safe_names(prompt, name):
    assert slug(prompt) == name
    assert len(slug(prompt).encode()) <= 60


SLOW = """
    import signal, sys, time
    signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, it would be ignored
    sys.path.insert(0, {tests!r})
    import conftest, types
    from mindseye import zoo
    from mindseye.request import Progress
    class Slow(conftest.Painter):
        def synthesize(self, request, options, noise):
            for step in range(1000):
                yield Progress("paint", step, 1000, tuple)
                print("step", file=sys.stderr, flush=True)
                time.sleep(0.02)
    sys.modules["painter_for_tests"] = types.SimpleNamespace(Painter=Slow)
    zoo.ZOO = (conftest.PAINTER,)
    from mindseye.cli.main import main
    sys.exit(main(["a fox", "-m", "painter"]))
"""


def test_ctrl_c_stops_with_130_and_leaves_nothing(here):
    code = textwrap.dedent(SLOW.format(tests=str(TESTS)))
    with subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, text=True, cwd=here) as process:
        for line in process.stderr:
            if line == "step\n":
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "stopped; nothing half-made is left" in err and "Traceback" not in err
    assert out == "" and names() == []
