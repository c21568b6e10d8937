"""What every card promises, checked on every card: a new row in the zoo earns these tests by being there."""

import dataclasses

import numpy as np
import pytest

from mindseye.engine import options
from mindseye.engine.engine import Engine, system_class
from mindseye.request import Request, resolve
from mindseye.systems.base import System
from mindseye.zoo import ZOO

CARDS = pytest.mark.parametrize("card", ZOO, ids=lambda card: card.name)


@pytest.fixture(scope="module")
def engine():
    return Engine(device="cpu")


def ask(card, **changes):
    return Request(**{"prompt": "a red circle", "model": card.name, "seed": 11, "steps": 2, **changes})


def pixels(images):
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


@CARDS
def test_it_resolves_to_a_system_with_these_parts(card):
    kind = system_class(card)
    assert callable(getattr(kind, "synthesize", None)) and dataclasses.is_dataclass(kind.Options)
    fields = {field.name for field in dataclasses.fields(kind)}
    required = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    given = set(card.parts) | set(card.facts)
    assert given <= fields and required <= given


@CARDS
def test_its_preferences_are_ones_it_accepts(card):
    resolved, notices = resolve(Request(prompt="x", model=card.name), card, seed=0)
    assert notices == () and resolved.size == card.native
    kind = system_class(card)
    assert resolved.sampler in getattr(kind, "samplers", ("",))
    options.build(kind.Options, card.options, owner=card.name)


@CARDS
def test_every_option_has_help_and_a_default_within_its_bounds(card):
    kind = system_class(card)
    for knob in options.knobs(kind.Options):
        assert knob.help
        options.build(kind.Options, {knob.name: str(knob.default)}, owner=card.name)


@CARDS
def test_it_says_where_it_comes_from(card):
    assert card.licence and card.paper and card.training


@CARDS
def test_it_draws_offline_the_same_picture_from_the_same_seed(engine, card):
    seen = []
    first = engine.generate(ask(card), seen.append)
    again = engine.generate(first.request)
    assert [image.size for image in first.images] == [card.native]
    assert (pixels(first.images) == pixels(again.images)).all()
    assert (pixels(first.images) != pixels(engine.generate(ask(card, seed=12)).images)).any()
    assert len(seen) > 2 and len(seen[-1].peek()) == 1
    assert set(first.weights) == set(card.parts)


@CARDS
def test_picture_n_alone_is_picture_n_of_a_batch(engine, card):
    batch = pixels(engine.generate(ask(card, count=3)).images)
    alone = pixels(engine.generate(ask(card, seed=13)).images)
    differs = np.abs(batch[2:] - alone)
    assert differs.max() <= 1 and (differs > 0).mean() < 0.001


@CARDS
def test_a_closed_run_ends_at_once_and_the_next_is_unharmed(engine, card):
    before = pixels(engine.generate(ask(card)).images)
    steps = engine.stream(ask(card, steps=50))
    next(steps), next(steps), next(steps)
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)
    assert (pixels(engine.generate(ask(card)).images) == before).all()


@CARDS
def test_its_sides_are_multiples_that_the_system_needs(engine, card):
    system = engine.load(card.name)
    assert isinstance(system, System)
    assert card.multiple == getattr(system, "multiple", 1)
    width, height = card.native
    other = engine.generate(ask(card, size=(width + card.multiple, height))).images[0]
    assert other.size == (width + card.multiple, height)
