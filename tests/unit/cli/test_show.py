"""`mindseye show`: any program's pictures, several at once, folders, pasted text."""

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from mindseye.cli.main import main
from mindseye.pictures import save_png

TEXT = "a fox <lora:ink:1>\nNegative prompt: blur\nSteps: 6, Sampler: Euler a, Seed: 99, Size: 64x32, ENSD: 31337"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "in"
    folder.mkdir()
    save_png(Image.new("RGB", (4, 4)), folder / "b.png", {"parameters": TEXT})
    save_png(Image.new("RGB", (4, 4)), folder / "a.png", {"Dream": '"an owl" -s 7 -S 3 -A k_lms'})
    (folder / "notes.txt").write_text("no picture")
    return folder


def test_another_programs_picture(capsys):
    assert main(["show", "in/b.png"]) == 0
    shown = {name: value.strip() for name, value in (one.split(":", 1) for one in capsys.readouterr().out.splitlines())}
    assert shown == {
        "prompt": "a fox <lora:ink:1>", "negative": "blur", "steps": "6", "sampler": "Euler a", "seed": "99",
        "size": "64x32", "ENSD": "31337", "made by": "A1111",
    }  # fmt: skip


def test_as_json(capsys):
    assert main(["show", "in/b.png", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["tool"] == "A1111" and shown["notices"] == []
    assert shown["fields"]["size"] == [64, 32] and shown["fields"]["extra"] == {"ENSD": "31337"}


def test_folders_and_several_files(capsys):
    assert main(["show", "in", "in/b.png", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["path"], row["tool"]) for row in rows] == [
        ("in/a.png", "InvokeAI"), ("in/b.png", "A1111"), ("in/b.png", "A1111"),
    ]  # fmt: skip
    assert main(["show", "in"]) == 0
    out = capsys.readouterr().out
    assert "in/a.png" in out and "an owl" in out and "in/b.png" in out


def test_one_that_says_nothing_does_not_stop_the_others(here, capsys):
    save_png(Image.new("RGB", (4, 4)), here / "aa.png")
    assert main(["show", "in", "none.png"]) == 2
    said = capsys.readouterr()
    assert "in/aa.png does not say" in said.err and "no file none.png" in said.err and "a fox" in said.out


def test_pasted_text(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO(TEXT))
    assert main(["show", "-", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fields"]["seed"] == 99


def test_what_could_not_be_read_is_said(capsys):
    save_png(Image.new("RGB", (4, 4)), Path("c.png"), {"prompt": '{"3": {"class'})
    assert main(["show", "c.png"]) == 0
    said = capsys.readouterr()
    assert "ComfyUI" in said.out and "damaged" in said.err


def test_as_discos_settings(capsys, painter, monkeypatch):
    """Of a picture of ours, whatever drew it; it can be drawn again from them."""
    assert (
        main(["a castle:2|fog", "-m", "painter", "--seed", "5", "--steps", "50", "--size", "64x32", "-o", "c.png"]) == 0
    )
    capsys.readouterr()
    assert main(["show", "c.png", "--disco"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["text_prompts"] == {"0": ["a castle:2", "fog"]} and settings["skip_steps"] == 0
    assert [settings[name] for name in ("seed", "steps", "width", "height")] == [5, 50, 64, 32]
    for wrong, said in ((["in/b.png"], "not drawn by mindseye"), (["c.png", "c.png"], "of one picture")):
        assert main(["show", *wrong, "--disco"]) == 2
        assert said in capsys.readouterr().err
