"""Big Sleep on a tiny generator and critic."""

import dataclasses

import pytest
import torch
from PIL import Image
from tests.unit.ascent.tiny import ask, critic, likeness, randomised, tokenizer

from mindseye.networks.biggan import BigGAN, Config
from mindseye.pixels import from_image
from mindseye.request import Request
from mindseye.systems.base import System
from mindseye.systems.big_sleep import BigSleep

LAYERS = ((True, 4, 4), (True, 4, 2), (True, 2, 1))


def generator(classes=5):
    """Draws 32x32."""
    torch.manual_seed(3)
    config = Config(z_dim=6, class_dim=6, num_classes=classes, width=8, layers=LAYERS, attention=None, rows=3)
    found = randomised(BigGAN(config), 3)
    for name, table in found.named_buffers():
        if name.endswith("means"):  # or all truncations would be alike
            table.copy_(torch.linspace(-0.3, 0.3, len(table))[:, None].expand_as(table))
    return found


@pytest.fixture(scope="module")
def system():
    return BigSleep(generator=generator(), clip=critic(), tokenizer=tokenizer())


@pytest.mark.parametrize("mixture", [{"mixture": "sigmoid"}, {"mixture": "softmax"}, {"max_classes": 2}])
def test_the_critic_comes_to_like_what_it_asked_for(system, mixture):
    before = likeness(system, ask(system, steps=1, options={"lr": 1e-7, **mixture}), "a red apple")
    after = likeness(system, ask(system, steps=60, options={"ema": 0.5, **mixture}), "a red apple")
    assert after > before + 0.03


def test_a_seed_is_a_seed_in_any_batch(system):
    alone, both = ask(system, seeds=(6,)), ask(system, seeds=(5, 6))
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.parametrize("classes", [1, 2, 40])
def test_any_number_of_classes_will_do(classes):
    system = BigSleep(generator=generator(classes), clip=critic(), tokenizer=tokenizer())
    for mixture in ("sigmoid", "softmax"):
        assert torch.isfinite(ask(system, options={"mixture": mixture})).all()


def test_the_generators_size_is_its_own_and_that_is_said(system):
    request = Request(prompt="a red apple", size=(48, 40), steps=1, guidance=1.0, sampler="")
    assert any("32x32" in one and "48x40" in one for one in system.notices(request))
    assert system.notices(dataclasses.replace(request, size=(32, 32))) == []
    assert ask(system, size=(48, 40), steps=1).shape == (1, 3, 40, 48)


def test_a_start_picture_is_sought(system):
    # A picture that the generator can draw.
    with torch.no_grad():
        drawn = ask(system, seeds=(9,), steps=1)
    image = Image.fromarray(((drawn[0] + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy())
    start = from_image(image)
    stages = []
    options = {"prime": 80, "latent_weight": 0.0, "class_weight": 0.0}
    got = ask(
        system, image=image, strength=0.0, options=options, on_progress=lambda now: stages.append(now.stage)
    )  # fmt: skip
    other = ask(system, steps=1, options={"lr": 1e-7})
    assert (got - start).square().mean() < 0.5 * (other - start).square().mean()
    assert set(stages) == {"search"} and len(stages) == 80


def test_what_the_mask_keeps_is_kept_to_the_bit(system):
    image, mask = Image.new("RGB", (32, 32), (200, 40, 90)), Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 32, 16))
    got = ask(system, image=image, mask=mask, strength=0.5, options={"prime": 2})
    assert torch.equal(got[..., 16:, :], from_image(image)[..., 16:, :])
    assert (got - from_image(image))[..., :16, :].abs().max() > 0.05


def test_each_knob_is_heard(system):
    plain = ask(system)
    for options in (
        {"kernel": "bilinear"}, {"centre": 2.0}, {"class_temperature": 0.5, "max_classes": 3}, {"ema": 0.0},
        {"truncation": 0.5}, {"latent_weight": 100.0}, {"class_weight": 100.0}, {"family": "crowson"},
        {"optimizer": "radam"}, {"decay": 0.1},
    ):  # fmt: skip
        assert not torch.equal(ask(system, options=options), plain), options


def test_options_have_help(system):
    assert isinstance(system, System)
    assert all(field.metadata.get("help") for field in dataclasses.fields(BigSleep.Options))
