"""What every card promises, checked on every card: a new row in the zoo earns these tests by being there.

A row may stand there before its parts are trained: parts that are not shipped are random here, of the size that its
recipe trains or less.
"""

import dataclasses

import numpy as np
import pytest
import torch

from mindseye import zoo
from mindseye.checkpoints.save import save_part
from mindseye.engine import options
from mindseye.engine.engine import Engine, system_class
from mindseye.networks import adm, bart, biggan, dalle, dvae, gan, nuwa, nuwa_infinity, parti, textgan, vqgan, wdsr
from mindseye.request import Request, resolve
from mindseye.systems.base import System
from mindseye.zoo import ZOO

LABELS = ("circle", "square", "cat", "house", "apple")
TWINS = {
    "adm": lambda: adm.ADM(adm.POCKET),
    "biggan": lambda: biggan.BigGAN(dataclasses.replace(biggan.POCKET, num_classes=len(LABELS), labels=LABELS)),
    "dcgan": lambda: gan.DCGANGenerator(gan.POCKET),
    "textgan": lambda: textgan.TextGenerator(textgan.POCKET),
    "dvae": lambda: dvae.DVAE(dvae.POCKET),
    "dalle": lambda: dalle.DALLE(dataclasses.replace(dalle.POCKET, width=48, layers=3, heads=2, head_width=24)),
    "dalle-mini": lambda: bart.Bart(
        dataclasses.replace(bart.POCKET, width=48, heads=2, hidden=64, encoder=1, decoder=1)
    ),
    "parti": lambda: parti.Parti(dataclasses.replace(parti.POCKET, width=48, layers=1, heads=2, hidden=64)),
    "nuwa": lambda: nuwa_infinity.NUWAInfinity(
        dataclasses.replace(nuwa_infinity.POCKET, width=48, layers=1, heads=2, hidden=64)
    ),
    "nuwa-clip": lambda: nuwa.NUWA(dataclasses.replace(nuwa.POCKET, width=48, layers=1, heads=2, hidden=64)),
    "wdsr": lambda: wdsr.WDSR(wdsr.POCKET),
    "vqgan": lambda: vqgan.VQGAN(vqgan.POCKET),
}
CARDS = pytest.mark.parametrize("card", ZOO, ids=lambda card: card.name)


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """Draws with what is shipped, and with twins of what is not yet."""
    folder = tmp_path_factory.mktemp("pocket")
    for path in zoo.POCKET.iterdir():
        (folder / path.name).symlink_to(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(zoo, "POCKET", folder)
        wanted = {source.name: source.path for card in ZOO for source in card.parts.values()}
        for name in (name for name, path in wanted.items() if not path.exists()):
            torch.manual_seed(0)
            twin = TWINS[name]()
            for values in twin.parameters():
                if not values.any():  # what begins at nothing shows nothing
                    torch.nn.init.normal_(values, std=0.02)
            save_part(wanted[name], twin)
        yield Engine(device="cpu")


FEW = {"cuts": 2, "overview": "[1]*1000", "inner": "[1]*1000"}
"""Of what a card does many times in a step: how often changes nothing that is asked here."""


def ask(card, **changes):
    knobs = {knob.name for knob in options.knobs(system_class(card).Options)}
    few = {name: value for name, value in FEW.items() if name in knobs}
    many = {"candidates": 2} if "candidates" in card.defaults else {}
    asked = {"prompt": "a red circle", "model": card.name, "seed": 21, "steps": 2, "options": few, **many, **changes}
    return Request(**asked)


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


@pytest.fixture(scope="module")
def first(engine):
    """What each card draws first, and what it said meanwhile."""
    kept = {}

    def draw(card):
        if card.name not in kept:
            seen = []
            kept[card.name] = engine.generate(ask(card), seen.append), seen
        return kept[card.name]

    return draw


@CARDS
def test_it_draws_offline_at_its_own_size_and_tells_how_far_it_is(first, card):
    result, seen = first(card)
    assert [image.size for image in result.images] == [card.native]
    assert len(seen) >= 2  # a GAN needs one look: loading, drawing
    assert len(seen[-1].peek()) == (result.request.candidates or 1)
    assert set(result.weights) == set(card.parts)


@CARDS
def test_picture_n_alone_is_picture_n_of_a_batch_and_no_other(engine, first, card):
    # Sums round otherwise with more rows, so a code on the border of its share is, rarely, not the one that is drawn:
    # nuwa-pocket has one in seed 11 of these words, by 5e-8.
    alone, batch = pixels(first(card)[0].images), pixels(engine.generate(ask(card, seed=20, count=2)).images)
    differs = np.abs(batch[1:] - alone)
    assert differs.max() <= 1 and (differs > 0).mean() < 0.001
    assert (batch[:1] != alone).any()


@CARDS
def test_a_closed_run_ends_at_once_and_the_same_seed_is_still_the_same_picture(engine, first, card):
    before = first(card)[0]
    steps = engine.stream(ask(card, steps=50))
    next(steps), next(steps)
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)
    assert (pixels(engine.generate(before.request).images) == pixels(before.images)).all()


@CARDS
def test_its_sides_are_multiples_that_the_system_needs(engine, card):
    system = engine.load(card.name)
    assert isinstance(system, System)
    assert card.multiple == getattr(system, "multiple", 1)
    width, height = card.native
    other = engine.generate(ask(card, size=(width + card.multiple, height), steps=1)).images[0]
    assert other.size == (width + card.multiple, height)
