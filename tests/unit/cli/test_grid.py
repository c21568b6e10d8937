import json
from pathlib import Path

import pytest
from PIL import Image

from mindseye.cli import main as program
from mindseye.cli.grid import grid
from mindseye.cli.morph import morph


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, painter):
    monkeypatch.chdir(tmp_path)
    for name, command in (("grid", grid), ("morph", morph)):
        if name not in program.COMMANDS:
            program.app.command(name)(command)
            monkeypatch.setattr(program, "COMMANDS", (*program.COMMANDS, name))
    return tmp_path


@pytest.fixture
def run(capsys):
    def go(*arguments):
        code = program.main([*map(str, arguments), "-m", "painter"])
        said = capsys.readouterr()
        return code, said.out.splitlines(), said.err

    return go


def names():
    return sorted(path.name for path in Path().iterdir())


def test_a_grid_over_fields_and_options(run):
    code, out, err = run("grid", "a fox", "-x", "steps=1-3", "-y", "tint=0-1 [2]", "--seed", 5, "-o", "g.png")
    assert (code, out, err) == (0, ["g.png"], "")
    with Image.open("g.png") as sheet:
        sheet.load()
        account = json.loads(sheet.text["mindseye-grid"])
        assert "X Type" in sheet.text["parameters"]
    assert [each["values"] for each in account["axes"]] == ["1-3", "0-1 [2]"]
    assert account["request"]["seed"] == 5 and len(account["cells"]) == 6


def test_a_matrix(run):
    assert run("grid", "a fox|at night|in snow", "--matrix")[:2] == (0, ["a-fox-at-night-in-snow.png"])
    assert run("grid", "a fox|at night|in snow", "--matrix")[1] == ["a-fox-at-night-in-snow-1.png"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-x", "steps=1-x"], "no whole number"),
        (["-x", "stpes=1"], "no axis named 'stpes'"),
        (["-x", "sampler=euler,hoin"], "no sampler named 'hoin'"),
        (["-x", "tint=0.5,7"], "option tint"),
        (["-x", "steps"], "not of the form name=values"),
        (["-x", "model=painter,none"], "no model named 'none'"),
        ([], "either axes or --matrix"),
        (["-x", "steps=1", "--matrix"], "either axes or --matrix"),
        (["-x", "steps=1", "-o", "g.jpg"], "none of the endings"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_drawn(run, arguments, said):
    code, out, err = run("grid", "a fox", *arguments)
    assert code == 2 and out == [] and said in err and names() == []


def test_a_grid_that_is_stopped_keeps_what_is_done(run, monkeypatch):
    from mindseye.engine.engine import Engine

    stream, asked = Engine.stream, []

    def stopping(self, request):
        # Every cell is checked before the first is drawn: three checks, then the drawing.
        asked.append(request)
        if len(asked) == 3 + 2:
            raise KeyboardInterrupt
        return stream(self, request)

    monkeypatch.setattr(Engine, "stream", stopping)
    code, out, err = run("grid", "a fox", "-x", "steps=1-3", "-o", "g.png")
    assert code == 130 and out == ["g.png"] and "stopped after 1 of 3" in err
    assert names() == ["g.png"]


def test_a_folder_that_is_not_there(run):
    code, _, err = run("grid", "a fox", "-x", "steps=1", "-o", "none/g.png")
    assert code == 1 and "there is no folder none" in err


def test_a_morph_asks_for_what_is_between(run, monkeypatch):
    # The painter has no such options: the engine says so, before a picture is drawn.
    code, out, err = run("morph", "a fox", "a cat", "--frames", 3)
    assert code == 2 and "toward" in err and out == [] and names() == []


def test_a_morph(run, monkeypatch):
    from mindseye import animation

    plain = animation.frames
    monkeypatch.setattr(
        animation, "frames", lambda request, prompts, count, **more: [request] * len(plain(request, prompts, count))
    )
    code, out, err = run("morph", "a fox", "a cat", "--frames", 3, "--steps", 1)
    assert (code, out, err) == (0, ["a-fox-to-a-cat.gif"], "")
    code, out, _ = run("morph", "a fox", "a cat", "--frames", 3, "--steps", 1, "-o", "strip.png")
    with Image.open("strip.png") as strip:
        assert strip.size == (3 * 20 - 4, 16) and json.loads(strip.text["mindseye-morph"])["prompts"] == [
            "a fox",
            "a cat",
        ]
    assert run("morph", "a fox", "-o", "x.gif")[2].startswith("mindseye: there is nothing to go to")
