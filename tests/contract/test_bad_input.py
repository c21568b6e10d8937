"""What a user may get wrong with the systems that listen: a sentence each, the same from both doors; nothing is run.

And what only looks wrong: prompts with colons, pictures of any size and mode, cuts larger than the picture.
"""

import os

import pytest
import torch
from PIL import Image

import mindseye
from mindseye import zoo
from mindseye.checkpoints.save import save_part
from mindseye.cli.main import main
from mindseye.networks import adm
from mindseye.pictures import open_image

ASCENT, GUIDED, DISCO = "deep-daze-pocket", "clip-guided-pocket", "disco-pocket"
FEW = {ASCENT: {"cuts": 1, "prime": 1}, GUIDED: {"cuts": 1}, DISCO: {"overview": "1", "inner": "1"}}


class Hostile(torch.nn.Module):
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("ran",)


@pytest.fixture(scope="module")
def pocket(tmp_path_factory):
    """What is shipped, and a random U-Net where none is yet."""
    folder = tmp_path_factory.mktemp("pocket")
    for path in zoo.POCKET.iterdir():
        (folder / path.name).symlink_to(path)
    if not (folder / "adm-pocket.safetensors").exists():
        torch.manual_seed(0)
        save_part(folder / "adm-pocket.safetensors", adm.ADM(adm.POCKET))
    return folder


@pytest.fixture(autouse=True)
def here(pocket, tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "POCKET", pocket)
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile(), "module.pt")
    Image.effect_noise((90, 31), 60).save("grey.png")
    Image.effect_noise((7, 60), 60).convert("P").save("palette.png", transparency=3)
    Image.effect_noise((64, 64), 60).convert("I;16").save("deep.png")


def both(capsys, prompt, model, *, size="24x24", **asked):
    """The command line's exit code and words, and Python's error, if any."""
    options = {**FEW.get(model, {}), **asked.pop("options", {})}
    asked = {"steps": 1, **asked}
    line = [prompt, "-m", model, "--size", size, "-o", "out.png", "--seed", "1"]
    for name, value in asked.items():
        line += [f"--{name}", str(value)]
    for name, value in options.items():
        line += ["--set", f"{name}={value}"]
    code = main(line)
    err = capsys.readouterr().err
    width, _, height = size.partition("x")
    try:
        for name in ("image", "mask"):
            if name in asked:
                asked[name] = open_image(asked[name])
        size = (int(width), int(height))
        mindseye.generate(mindseye.Request(prompt=prompt, model=model, size=size, seed=1, options=options, **asked))
    except mindseye.MindseyeError as error:
        return code, err, error
    return code, err, None


@pytest.mark.parametrize(
    ("prompt", "model", "asked", "said"),
    [
        ("castle:1e9", ASCENT, {}, "1e9 in 'castle:1e9' is out of range"),
        (":2", ASCENT, {}, "prompt"),
        ("castle|fog:-1", GUIDED, {}, "sum to about zero"),
        ("castle", ASCENT, {"steps": 0}, "steps"),
        ("castle", DISCO, {"steps": 0}, "steps"),
        ("castle", ASCENT, {"options": {"cuts": 0}}, "cuts"),
        ("castle", ASCENT, {"options": {"lower": 0.9, "upper": 0.5}}, "0 < least <= greatest <= 1"),
        ("castle", ASCENT, {"options": {"noises": "seven"}}, "seven"),
        ("castle", ASCENT, {"options": {"images": "https://a.b:80/c.png:2"}}, "is an address"),
        ("castle", GUIDED, {"options": {"images": "none.png:2"}}, "no file none.png"),
        ("castle", ASCENT, {"image": "https://a.b:80/c.png"}, "a.b"),
        ("castle", ASCENT, {"image": "grey.png", "mask": "grey.png", "options": {"picture": "aim"}}, "only looked at"),
        ("castle", DISCO, {"options": {"overview": "__import__('os').mkdir('ran')"}}, "is not a schedule"),
        ("castle", DISCO, {"options": {"mirror_at": "[0.1 for x in y]", "symmetry": "x"}}, "is not a schedule"),
        ("castle", "module.pt", {}, "code in it"),
        ("castle", ASCENT, {"options": {"critics": "./module.pt"}}, "code in it"),
    ],
)
def test_a_sentence_each(capsys, prompt, model, asked, said):
    code, err, error = both(capsys, prompt, "./module.pt" if model == "module.pt" else model, **asked)
    assert error is not None and said in str(error) and "\n" not in error.message
    assert code == error.exit_code != 0 and said in err and "Traceback" not in err
    assert not os.path.exists("ran") and not os.path.exists("out.png")  # noqa: PTH110


@pytest.mark.parametrize(
    ("prompt", "model", "asked"),
    [
        ("cat:dog", ASCENT, {}),
        ("https://example.org:8080/a castle:2:0.5", GUIDED, {}),
        ("castle", ASCENT, {"image": "palette.png"}),
        ("castle", GUIDED, {"image": "deep.png", "mask": "palette.png"}),
        ("castle", DISCO, {"image": "grey.png"}),
        ("castle", ASCENT, {"size": "3x40", "options": {"family": "crowson"}}),
        ("castle", DISCO, {"size": "8x16"}),
    ],
)
def test_what_only_looks_wrong_is_drawn(capsys, prompt, model, asked):
    code, err, error = both(capsys, prompt, model, **asked)
    assert (code, error) == (0, None), err
    width, _, height = asked.get("size", "24x24").partition("x")
    with Image.open("out.png") as drawn:
        assert drawn.size == (int(width), int(height))
