"""The commands that only pass on: they hand over what was typed and print what comes back."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from mindseye.cli import evaluate, train
from mindseye.cli.main import main
from mindseye.request import Progress


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_evaluate_draws_with_the_card_and_prints_the_report(painter, monkeypatch, capsys):
    from mindseye.data.glyphs import Corpus
    from mindseye.evaluation import report
    from mindseye.evaluation.figures import Report, Row
    from mindseye.evaluation.intervals import Estimate
    from mindseye.evaluation.plan import DIFFUSION

    drawn = {}

    def measure(
        card, generate, corpus, judge, quick, *, plan, critic, edit, choose, strips, clips, classes, album, seed, facts
    ):
        yield Progress("half", 1, 2, tuple)
        assert choose is strips is clips is None
        drawn["pictures"] = generate(["a red fox", "a blue fox"], [7, 8])
        assert edit("a blue fox", 7, drawn["pictures"][0]).size == (16, 16)
        assert (plan, critic, classes) == (DIFFUSION, None, ())
        drawn["album"] = album
        row = Row(key="right", label="right pictures", estimate=Estimate(value=0.5, low=0.25, high=0.75, n=4), unit="%")
        pictures = [("a red fox", drawn["pictures"][0], True)]
        return Report(
            card=card, seed=seed, quick=quick, rows=(row,), facts=facts, drawn={"some pairs": pictures}, suspects=()
        )

    monkeypatch.setattr(report, "evaluate", measure)
    monkeypatch.setattr(evaluate, "_judge", lambda: None)
    monkeypatch.setattr(Corpus, "open", classmethod(lambda cls, root: root))
    assert main(["evaluate", "painter", "--quick", "--seed", "3", "--steps", "2", "--json", "-o", "."]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["card"], found["quick"], found["seed"], found["facts"]["steps"]) == ("painter", True, 3, 2)
    assert found["figures"]["right"]["value"] == 0.5
    first, second = drawn["pictures"]
    assert first.size == second.size == (16, 16) and first.tobytes() != second.tobytes()
    assert Path("some-pairs.png").is_file()
    assert drawn["album"] is None and "R-precision of unseen pairs" in found["facts"]["figures"]
    assert main(["evaluate", "painter", "--keep", "."]) == 0
    assert drawn["album"].folder == Path()
    assert "50.0 %" in capsys.readouterr().out


def test_evaluate_has_a_critic_choose_and_canvases_grow_where_the_plan_asks(painter, monkeypatch, capsys):
    from mindseye.data.glyphs import Corpus
    from mindseye.engine.engine import Engine
    from mindseye.evaluation import plan, report
    from mindseye.evaluation.figures import Report
    from mindseye.evaluation.strips import LONG

    sizes = plan.Sizes(pairs=1, chosen=1, strips=1)
    monkeypatch.setattr(plan, "plan_of", lambda system: plan.Plan(full=sizes, quick=sizes, candidates=3))
    seen, stream = [], Engine.stream

    def recorded(self, request):
        seen.append(request)
        return stream(self, replace(request, options={}))

    def measure(card, generate, corpus, judge, quick, *, critic, choose, strips, album, facts, **more):
        yield Progress("half", 1, 2, tuple)
        assert critic.embed_text(["a red fox"]).shape == (1, 192) and facts["critic"] == "clip-pocket"
        choose.generate(["a red fox"], [7])
        assert strips.painter.generate(["a red fox"], [7])[0].size == (8 * LONG, 8)
        assert (strips.patch, strips.token) == (8, 2)
        albums = (album, choose.album, strips.painter.album)
        assert len({each._conditions for each in albums}) == 3 and "chooser" in choose.album._conditions
        return Report(card=card, seed=0, quick=quick, rows=(), facts=facts, drawn={}, suspects=())

    monkeypatch.setattr(Engine, "stream", recorded)
    monkeypatch.setattr(report, "evaluate", measure)
    monkeypatch.setattr(evaluate, "_judge", lambda: None)
    monkeypatch.setattr(Corpus, "open", classmethod(lambda cls, root: root))
    kind = sys.modules["painter_for_tests"].Painter
    monkeypatch.setattr(kind, "multiple", 8, raising=False)
    monkeypatch.setattr(kind, "codec", SimpleNamespace(factor=2), raising=False)
    assert main(["evaluate", "painter", "--keep", ".", "-q"]) == 0
    assert [(request.candidates, request.size) for request in seen] == [(3, None), (None, (8 * LONG, 8))]
    assert seen[1].options == {"direction": "left"}


def test_evaluate_shows_pictures_to_the_critic_that_a_card_brings():
    from mindseye.engine.engine import Engine
    from mindseye.zoo import find

    engine = Engine(device="cpu")
    for name in ("deep-daze-pocket", "stable-diffusion-pocket"):
        card, system = find(name), engine.load(name)
        critic, named = evaluate._critic(card, system)
        assert named == "clip-pocket" and critic.size == 64
        assert critic.embed_text(["a red apple"]).shape == (1, 192)
        assert evaluate._classes(system) == ()


def test_evaluate_without_a_corpus_says_how_to_make_it(monkeypatch, capsys):
    assert main(["evaluate"]) == 1
    said = capsys.readouterr()
    assert "mindseye data glyphs" in said.err and said.out == ""


def test_data_glyphs_passes_on_the_folder(monkeypatch, capsys):
    from mindseye.data import glyphs

    def prepare(root, workers):
        yield Progress("render", 1, 1, tuple)
        return root / f"made-by-{workers}"

    monkeypatch.setattr(glyphs, "prepare", prepare)
    assert main(["data", "glyphs", "--out", "there", "--workers", "3"]) == 0
    assert capsys.readouterr().out == "there/made-by-3\n"


def test_train_passes_on_recipe_settings_and_hours(monkeypatch, capsys):
    from mindseye.training import recipe, recipes, trainer

    seen = {}

    def follow(chosen, folder, workshop, *, hours, resume, start):
        seen.update(recipe=chosen, folder=folder, workshop=workshop, hours=hours, resume=resume, start=start)
        yield Progress("train", 1, 1, tuple)
        return {"vae-pocket": folder / "vae-pocket.safetensors"}

    monkeypatch.setattr(trainer, "train", follow)
    asked = ["train", "vae-pocket", "--set", "batch=3", "--set", "optimizer.lr=0.5", "--hours", "0.1", "--corpus", "c"]
    assert main(asked) == 0
    said = capsys.readouterr()
    assert said.out == "runs/vae-pocket/vae-pocket.safetensors\n" and "--resume goes on" in said.err
    assert 'draw with it: mindseye "a red apple" -m stable-diffusion-pocket:runs/vae-pocket' in said.err
    assert (seen["recipe"].batch, seen["recipe"].optimizer.lr, seen["hours"]) == (3, 0.5, 0.1)
    assert seen["recipe"].steps == recipes.RECIPES["vae-pocket"]().steps and seen["resume"] is False
    assert seen["workshop"].corpus == Path("c") and isinstance(seen["workshop"], recipe.Workshop)


def test_train_alone_lists_the_recipes(capsys):
    from mindseye.training.recipes import RECIPES

    assert main(["train"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(RECIPES)]] == list(RECIPES)
    assert all(RECIPES[name]().about in line for name, line in zip(RECIPES, lines, strict=False))


def test_train_runs_what_is_made_in_one_go(monkeypatch, capsys):
    from mindseye.training import recipes
    from mindseye.training.recipe import Craft

    def make(workshop, folder):
        yield Progress("make", 1, 1, tuple)
        (folder / "bpe.json").touch()
        return {"bpe": folder / "bpe.json"}

    monkeypatch.setitem(recipes.RECIPES, "bpe", lambda: Craft(name="bpe", about="x", make=make))
    assert main(["train", "bpe", "--run", "deep/here", "-q"]) == 0
    assert capsys.readouterr().out == "deep/here/bpe.json\n" and Path("deep/here/bpe.json").is_file()
    assert main(["train", "bpe", "--hours", "1"]) == 2


def test_a_part_of_ones_own_runs_comes_before_the_shipped_one(here, monkeypatch):
    monkeypatch.setattr(train, "POCKET", here / "shipped")
    own, shipped = here / "vae-pocket" / "vae-pocket.safetensors", here / "shipped" / "vae-pocket.safetensors"
    assert train._part_file(here, "vae-pocket") == own
    for path in (shipped, own):
        path.parent.mkdir()
        path.touch()
        assert train._part_file(here, "vae-pocket") == path


def test_sheets_need_a_folder_before_anything_is_drawn(capsys):
    assert main(["evaluate", "-o", "none"]) == 1
    assert "there is no folder none" in capsys.readouterr().err
