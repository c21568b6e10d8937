"""A judge on frozen features: what it sees, what it is told, and who is trained."""

import pytest
import torch
from torch import nn

from mindseye.adversarial.objective import Adversarial, Rules
from mindseye.networks.gan import Config as PainterConfig
from mindseye.networks.gan import DCGANGenerator
from mindseye.networks.projected import Config, Projected

EYES = nn.Conv2d(3, 6, 4, stride=4).requires_grad_(False)


def see(pixels):
    seen = EYES(pixels)
    return [seen, nn.functional.avg_pool2d(seen, 2)]


def judge(**more) -> Projected:
    torch.manual_seed(0)
    return Projected(Config(channels=(6, 6), width=8, **more), see)


def test_a_logit_for_each_place_of_each_map():
    assert judge()(torch.randn(4, 3, 32, 32)).shape == (4, 8 * 8 + 4 * 4)


def test_places_hear_what_is_told():
    who, pixels = judge(told=3).eval(), torch.randn(2, 3, 32, 32)
    one, other = (torch.eye(3)[[place, place]] for place in (0, 1))
    seen = who.look(pixels)
    assert torch.equal(who.compare(seen, one), who(pixels, one))
    assert (who.compare(seen, one) - who.compare(seen, other)).abs().mean() > 0.1


def test_who_is_told_nothing_must_not_be_told():
    with pytest.raises(ValueError, match="told nothing"):
        judge()(torch.randn(2, 3, 32, 32), torch.eye(2))
    with pytest.raises(ValueError, match="must be told"):
        judge(told=2)(torch.randn(2, 3, 32, 32))


def test_pictures_that_are_all_alike_are_found_out():
    who = judge(group=4).eval()
    alike = torch.randn(1, 3, 32, 32).expand(4, -1, -1, -1)
    others = torch.cat([alike[:1], torch.randn(3, 3, 32, 32)])
    assert not torch.allclose(who(alike)[0], who(others)[0])
    alone = judge(group=1).eval()
    torch.testing.assert_close(alone(alike)[0], alone(others)[0])


def test_heads_are_trained_and_eyes_are_not():
    painter = DCGANGenerator(PainterConfig(z_dim=4, widths=(8, 8, 8)))
    contest = Adversarial(painter, judge(), Rules(kind="hinge"), lambda network, z, batch: network(z), name="painter")
    kept = EYES.weight.clone()
    batch = {"pixels": torch.randn(4, 3, 32, 32).clamp(-1, 1)}
    for turn, parameters in contest.turns().items():
        mine = list(parameters)
        contest.zero_grad()
        contest(batch, turn).total.backward()
        assert all(each.grad is not None and bool(each.grad.abs().sum() > 0) for each in mine if each.requires_grad)
    assert EYES.weight.grad is None and torch.equal(EYES.weight, kept)
    assert not any("see" in name for name, _ in contest.named_parameters())
