"""The README is true: its commands exist, its Python runs, its links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from mindseye.cli.main import COMMANDS
from mindseye.zoo import DEFAULT, POCKET

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", README, re.DOTALL)
COMMAND_LINES = [
    shlex.split(line, comments=True)
    for kind, text in BLOCKS
    if kind == "bash"
    for line in text.splitlines()
    if line.startswith("mindseye ")
]
GENERATE = [line for line in COMMAND_LINES if line[1] not in COMMANDS or line[1] == "generate"]


def run(line: list[str], capsys: pytest.CaptureFixture[str], *more: str) -> str:
    from mindseye.cli.main import main

    code = main([*line[1:], *more])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_the_drawing_commands_draw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert len(GENERATE) >= 5
    # An hour's training, as it leaves it.
    for part in ("vae-pocket", "unet-pocket"):
        run_of = tmp_path / "runs" / part
        run_of.mkdir(parents=True)
        (run_of / f"{part}.safetensors").symlink_to(POCKET / f"{part}.safetensors")
    for line in GENERATE:
        # Two steps instead of all: what is tested is that every flag does what the README says. --like keeps its own.
        run(line, capsys, *([] if "--like" in line else ["--steps", "2"]))
    assert (tmp_path / "a-red-apple.png").is_file() and (tmp_path / "again.png").is_file()
    assert len(list((tmp_path / "owls").glob("*.png"))) == 4


def test_the_telling_commands_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    run(["mindseye", "a red apple"], capsys, "--steps", "1")
    assert "a red apple" in run(["mindseye", "show", "a-red-apple.png"], capsys)
    assert DEFAULT in run(["mindseye", "models"], capsys)


def test_like_makes_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image, ImageChops

    monkeypatch.chdir(tmp_path)
    run(["mindseye", "a red apple"], capsys, "--steps", "3")
    run(["mindseye", "generate", "--like", "a-red-apple.png", "-o", "again.png"], capsys)
    with Image.open("a-red-apple.png") as first, Image.open("again.png") as second:
        assert ImageChops.difference(first.convert("RGB"), second.convert("RGB")).getbbox() is None


def test_the_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = [text for kind, text in BLOCKS if kind == "python"]
    exec(compile(code, "README.md", "exec"), {})
    assert (tmp_path / "star.png").is_file()


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)", README)
    assert links
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link


def test_the_python_of_the_painting_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs/guides/painting.md").read_text(encoding="utf-8")
    drawing, canvas = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    exec(compile(drawing, "painting.md", "exec"), {})
    assert (tmp_path / "castle.png").is_file()
    named: dict[str, object] = {}
    exec(compile(canvas, "painting.md", "exec"), named)
    pixels = named["pixels"]
    assert pixels.shape == (1, 3, 64, 64) and pixels.square().mean() < 0.3  # type: ignore[attr-defined]
