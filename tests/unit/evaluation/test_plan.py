"""Every system has a plan, and a plan asks of it what it can do."""

import pytest

from mindseye.evaluation.plan import DIFFUSION, PLANS, plan_of
from mindseye.zoo import ZOO


@pytest.mark.parametrize("card", ZOO, ids=lambda card: card.name)
def test_every_card_has_a_plan_of_its_own_with_bars_for_what_it_asks(card):
    plan = plan_of(card.system)
    assert card.system.rpartition(":")[2] in PLANS
    for sizes in (plan.full, plan.quick):
        assert sizes.pairs >= 20  # fewer have no distance between sets
    assert plan.full.pairs >= 200
    asked = {"classes": plan.full.classes, "edits": plan.full.edits, "relations": plan.full.relations}
    assert all(asked[key] for key in plan.bars if key in asked)


def test_only_those_that_draw_frames_are_asked_for_motion():
    assert {name for name, plan in PLANS.items() if plan.full.clips} == {"NUWA"}
    assert "motion" in PLANS["NUWA"].quick.figures


@pytest.mark.parametrize("name", ["DALLE", "DalleMini", "Parti", "NUWAInfinity"])
def test_writers_of_tokens_are_asked_what_choosing_gains_and_what_nobody_saw(name):
    plan = PLANS[name]
    assert (plan.full.chosen, plan.candidates, plan.bars["choosing"].at_least) == (200, 16, 0.1)
    for sizes in (plan.full, plan.quick):
        assert sizes.chosen <= sizes.pairs and sizes.combinations
        assert bool(sizes.strips) == (name == "NUWAInfinity") == ("seams" in plan.bars)


def test_words_for_what_is_asked():
    assert "edits by a phrase" in PLANS["VQGANCLIP"].full.figures
    assert "class accuracy" in PLANS["ClassGAN"].full.figures and "relations" not in PLANS["ClassGAN"].full.figures
    assert plan_of("somewhere:Else") is DIFFUSION
