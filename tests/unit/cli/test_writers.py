"""Systems that write tokens, asked for what cannot be: a sentence each on the command line, and no traceback.

From Python the same are errors with the same sentence; the tests beside the systems and layouts have those.
"""

import shutil

import pytest
import torch
from tests.unit.checkpoints.test_dalle import SHAPE, dalle_file, words

from mindseye.cli.main import main
from mindseye.networks.dalle import DALLE
from mindseye.zoo import POCKET


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINDSEYE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def ask(here, capsys):
    """Run the program on a DALL-E beside it; gives exit code, lines of stdout, text of stderr."""

    def run(*arguments):
        code = main(["a cat", "-m", "./dalle.pt", *map(str, arguments)])
        said = capsys.readouterr()
        assert "Traceback" not in said.err
        return code, said.out.splitlines(), said.err

    return run


@pytest.fixture
def model(here):
    """A DALL-E of DALLE-pytorch's with its tokenizer."""
    dalle_file(here / "dalle.pt")
    words(here / "dalle.json")


def test_a_prompt_that_is_too_long_is_drawn_and_said(model, ask):
    code, out, said = ask("--seed", 1)
    assert (code, out, said) == (0, ["a-cat.png"], "")
    code, _, said = ask("--negative", "a cat, a dog, a cat and a dog", "--guidance", 3)
    assert code == 0 and "only 5 tokens of a prompt are read; not this:" in said
    assert "guidance needs a model that was trained without its text now and then" in said


def test_another_tokenizer_is_refused(model, here, ask):
    shutil.copy(POCKET / "bpe-pocket.json", here / "dalle.json")
    code, out, said = ask()
    assert (code, out) == (1, [])
    assert "1,536 tokens and the network reads 600: they do not belong together" in said


def test_a_module_that_was_pickled_whole_is_not_opened(here, ask):
    torch.save(DALLE(SHAPE), here / "dalle.pt")
    code, out, said = ask()
    assert (code, out) == (1, []) and "a pickle with code in it (" in said and "it was not opened" in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--candidates", 2, "--keep", 4), "4 of 2 candidates cannot be kept"),
        (("--set", "top_k=3", "--set", "filter_thres=0.5"), "say the same in two ways"),
        (("--set", "top_p=0"), "top_p"),
        (("--set", "prime=-1"), "prime"),
    ],
)
def test_what_contradicts_itself(model, ask, arguments, says):
    code, out, said = ask(*arguments)
    assert (code, out) == (2, []) and says in said


@pytest.mark.parametrize("grid", ["0", "9", "three"])
def test_an_impossible_grid(grid, capsys):
    """Before the weights are looked for."""
    assert main(["a cat", "-m", "dalle-mini-pocket", "--set", f"grid={grid}"]) == 2
    said = capsys.readouterr().err
    assert "grid" in said and "Traceback" not in said
