import json
import os
import resource
import subprocess
import sys

import pytest
from PIL import Image

import mindseye
from mindseye import zoo
from mindseye.cli import main as module
from mindseye.cli.main import main
from mindseye.pictures import save_png


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mindseye {mindseye.__version__}\n"


def test_no_arguments_show_the_help(capsys):
    main([])
    said = capsys.readouterr()
    assert "Usage: mindseye" in said.out + said.err


@pytest.mark.parametrize("command", module.COMMANDS)
def test_every_command_has_help(command, capsys):
    assert main([command, "--help"]) == 0
    assert f"Usage: mindseye {command}" in capsys.readouterr().out


def test_the_list_of_commands_is_that_of_the_program():
    commands = [each.name for each in module.app.registered_commands]
    groups = [each.name for each in module.app.registered_groups]
    assert tuple(commands + groups) == module.COMMANDS


@pytest.mark.parametrize("arguments", [["data"], ["generate", "--steps", "x"], ["show"], ["train", "a", "b"]], ids=str)
def test_the_parsers_own_complaints_are_one_sentence_and_a_hint(arguments, capsys):
    assert main(arguments) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("mindseye: ") and second == f"  hint: mindseye {arguments[0]} --help"


def test_a_word_that_was_meant_as_a_command_is_not_drawn(capsys):
    assert main(["modles"]) == 2
    said = capsys.readouterr()
    assert "did you mean `mindseye models`" in said.err and said.out == ""


def test_models_lists_every_card(capsys):
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    assert all(card.name in text and card.training in text for card in zoo.ZOO)
    assert main(["models", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["name"] for row in rows] == [card.name for card in zoo.ZOO]


def test_show_tells_how_a_picture_was_made(painter, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["generate", "a fox", "-m", "painter", "-n", "2", "--seed", "3", "--negative", "blur"])
    capsys.readouterr()
    assert main(["show", "a-fox-1.png"]) == 0
    lines = [line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines()]
    assert ["prompt:", "a fox"] in lines and ["seed:", "4"] in lines and ["negative:", "blur"] in lines
    assert ["size:", "16x16"] in lines and ["tint:", "0.5"] in lines
    assert main(["show", "a-fox-1.png", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["request"]["seed"] == 4


def test_show_names_the_pictures_a_picture_was_made_from(painter, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (8, 8)).save("start.png")
    assert main(["a hill", "--image", "start.png", "-o", "hill.png", "-m", "painter"]) == 0
    assert main(["show", "hill.png"]) == 0
    assert any(line.split() == ["image:", "start.png"] for line in capsys.readouterr().out.splitlines())


def test_show_reads_plain_text_and_keeps_it_from_steering_the_terminal(tmp_path, capsys):
    text = "a \x1b[2Jdog\nSteps: 6, CFG scale: 3.5, Seed: 99"
    save_png(Image.new("RGB", (4, 4)), tmp_path / "a.png", {"parameters": text})
    assert main(["show", str(tmp_path / "a.png")]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\\x1b[2Jdog" in out and "99" in out


@pytest.mark.parametrize("name", ["none.png", "plain.png"])
def test_show_of_nothing_is_a_sentence(name, tmp_path, capsys):
    save_png(Image.new("RGB", (4, 4)), tmp_path / "plain.png")
    assert main(["show", str(tmp_path / name)]) == 2
    assert capsys.readouterr().err.startswith("mindseye: ")


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["train", "vae-pokcet"], 2, "no recipe named 'vae-pokcet'"),
        (["train", "vae-pocket", "--hours", "0"], 2, "no time"),
        (["train", "vae-pocket", "--resume"], 2, "no run in runs"),
        (["train", "vae-pocket", "--run", "full"], 2, "--resume goes on"),
        (["train", "vae-pocket", "--set", "batchsize=3"], 2, "batchsize"),
        (["evaluate", "stable-difusion-pocket"], 2, "did you mean 'stable-diffusion-pocket'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_other_commands_refuse_with_a_sentence(arguments, code, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "manifest.json").touch()
    assert main(arguments) == code
    said = capsys.readouterr()
    assert says in said.err and "Traceback" not in said.err and said.out == ""
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_a_reader_that_goes_away_is_no_error():
    code = "import sys; from mindseye.cli.main import main; sys.exit(main(['models']))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        said = process.stderr.read()
    assert said == b""


def test_help_is_instant_and_wakes_nothing_heavy():
    code = (
        "import sys; from mindseye.cli.main import main; code = main(['generate', '--help'])\n"
        "heavy = {'torch', 'PIL', 'numpy', 'tokenizers', 'safetensors'} & set(sys.modules)\n"
        "assert not heavy, heavy\nsys.exit(code)"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Processor time, for the clock also counts what else the machine does: 0.2 s here, and 2 s with torch.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.8


@pytest.mark.parametrize(
    ("text", "cores"),
    [("200000 100000", 2), ("150000 100000", 1), ("50000 100000", 1), ("800000 100000", None), ("max 100000", None),
     ("", None), ("x y", None), ("1 0", None)],
)  # fmt: skip
def test_threads_of_a_container_that_is_allowed_less_than_it_sees(tmp_path, monkeypatch, text, cores):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)), raising=False)
    (tmp_path / "cpu.max").write_text(text)
    assert module._share(tmp_path / "cpu.max") == cores
    assert module._share(tmp_path / "none") is None
    monkeypatch.setattr(module, "_share", lambda: cores)
    monkeypatch.setenv("OMP_NUM_THREADS", "0")  # and so it is put back afterwards
    monkeypatch.delenv("OMP_NUM_THREADS")
    main(["--version"])
    assert os.environ.get("OMP_NUM_THREADS") == (None if cores is None else str(cores))
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    main(["--version"])
    assert os.environ["OMP_NUM_THREADS"] == "5"
