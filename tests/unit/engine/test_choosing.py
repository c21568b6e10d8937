"""Candidates: drawn of every system, chosen by a critic, the same whenever and however they are drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.critique.test_ranking import Eye

from mindseye.critique.ranking import Ranking
from mindseye.engine import choosing
from mindseye.engine import engine as engines
from mindseye.engine.engine import Engine, Limits
from mindseye.errors import LimitError, OptionError
from mindseye.metadata import texts
from mindseye.pixels import from_images
from mindseye.request import Request, candidate_seed, from_json, resolve, to_json


@pytest.fixture
def engine(painter, monkeypatch):
    monkeypatch.setattr(engines, "critic_for", lambda system, parts: Eye())
    return Engine(device="cpu")


def ask(**changes):
    return Request(**{"prompt": "0.8", "model": "painter", "seed": 5, "candidates": 6, **changes})


def pixels(images):
    return [np.asarray(image).tobytes() for image in images]


def test_the_best_are_kept_in_order_and_each_is_an_ordinary_picture(engine):
    result = engine.generate(ask(keep=3))
    assert len(result.images) == len(result.seeds) == len(result.scores) == 3
    assert list(result.scores) == sorted(result.scores, reverse=True)
    every = {candidate_seed(5, number) for number in range(6)}
    alone = {seed: engine.generate(ask(candidates=1, seed=seed)) for seed in every}
    assert set(result.seeds) <= every and candidate_seed(5, 0) == 5
    assert pixels(result.images) == [pixels(alone[seed].images)[0] for seed in result.seeds]
    shown = from_images([alone[seed].images[0] for seed in every])
    liked = dict(zip(every, Ranking.of(Eye(), "0.8").scores(shown).tolist(), strict=True))
    assert list(result.seeds) == sorted(every, key=lambda seed: -liked[seed])[:3]
    assert list(result.scores) == pytest.approx([liked[seed] for seed in result.seeds], abs=0.01)
    assert alone[5].scores == () and alone[5].request.candidates == 1


def test_a_picture_has_its_own_candidates_in_any_batch(engine, monkeypatch):
    both = engine.generate(ask(count=2, keep=2))
    assert pixels(engine.generate(ask(seed=6, keep=2)).images) == pixels(both.images[2:])
    assert pixels(engine.generate(both.request).images) == pixels(both.images)
    monkeypatch.setitem(engines._CHUNK_PIXELS, "cpu", 16 * 16 * 4)  # chunks that cut through a picture's candidates
    assert pixels(engine.generate(both.request).images) == pixels(both.images)
    assert max(engine.load("painter").batches) == 12 and engine.load("painter").batches[-3:] == [4, 4, 4]


def test_out_of_memory_loses_and_repeats_no_candidate(engine):
    whole = engine.generate(ask(keep=6))
    small = engine.generate(ask(keep=6, options={"break_": "oom"}))
    assert pixels(whole.images) == pixels(small.images) and len(set(small.seeds)) == 6


def test_what_cannot_be_kept_is_a_sentence(engine, painter):
    with pytest.raises(OptionError, match="7 of 6 candidates cannot be kept"):
        engine.generate(ask(keep=7))
    for wrong in ({"candidates": 0}, {"keep": 0}):
        with pytest.raises(OptionError, match="out of range"):
            engine.generate(ask(**wrong))
    with pytest.raises(LimitError, match="pictures: 1,200"):
        Engine(device="cpu", limits=Limits(count=1000)).generate(ask(count=2, candidates=600))
    assert resolve(ask(candidates=None, keep=3), painter, seed=0)[0].candidates == 3
    eager = replace(painter, defaults={**painter.defaults, "candidates": 8})
    assert resolve(ask(candidates=None), eager, seed=0)[0].candidates == 8
    assert resolve(ask(), eager, seed=0)[0].candidates == 6


def test_the_account_says_it(engine):
    result = engine.generate(ask(keep=2))
    chunks = texts(result, 1)
    account = json.loads(chunks["mindseye"])
    assert account["seed"] == result.seeds[1] and account["score"] == pytest.approx(result.scores[1], abs=1e-6)
    assert (account["request"]["candidates"], account["request"]["keep"], account["index"]) == (6, 2, 1)
    assert "Candidates: 6" in chunks["parameters"]
    assert from_json(to_json(result.request), lambda path, sha: None) == result.request


def test_a_system_that_has_a_clip_is_judged_by_it():
    class System:
        pass

    shelf = type("Shelf", (), {"get": lambda self, source: source})()
    judged = []

    def critic(clip, tokenizer):
        judged.append((clip, tokenizer))

    real, choosing.ClipCritic = choosing.ClipCritic, critic
    try:
        choosing.critic_for(System(), shelf)
        own = System()
        own.tokenizer, own.clip = "words", type("Clip", (), {"config": type("Config", (), {"image": 1})})()
        choosing.critic_for(own, shelf)
    finally:
        choosing.ClipCritic = real
    assert judged[0][0].name == "clip" and judged[1] == (own.clip, "words")
