"""The two turns: who learns in which, what is random, what the guide and mismatched pairs do."""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from mindseye.adversarial.guides import ClassGuide, ClipGuide
from mindseye.adversarial.objective import Adversarial, Rules, spread
from mindseye.adversarial.translation import Cycling, Pairing, Past
from mindseye.adversarial.watch import Probe
from mindseye.networks.biggan import BigGAN
from mindseye.networks.biggan import Config as BigConfig
from mindseye.networks.clip import CLIP, HALF, Config, Text, ViT
from mindseye.networks.discriminator import Config as JudgeConfig
from mindseye.networks.discriminator import Discriminator, PatchConfig, PatchGAN
from mindseye.networks.gan import Config as GanConfig
from mindseye.networks.gan import DCGANGenerator
from mindseye.networks.translator import ResNetConfig, ResNetTranslator, UNetConfig, UNetTranslator

SIDE = 16
BATCH = {"pixels": torch.rand(6, 3, SIDE, SIDE) * 2 - 1, "classes": torch.eye(3).repeat(2, 1)}


def contest(rules=None, told=None, guide=None):
    """A small one."""
    torch.manual_seed(0)
    generator = DCGANGenerator(GanConfig(z_dim=4, widths=(16, 8)))
    judge = Discriminator(JudgeConfig(size=SIDE, widths=(8, 16), told=3 if told else 0))
    return Adversarial(
        generator, judge, rules or Rules(), lambda painter, z, batch: painter(z), name="part", told=told, guide=guide
    )


def gradients(network):
    """Which weights have any."""
    return [parameter.grad is not None and bool(parameter.grad.any()) for parameter in network.parameters()]


def test_in_each_turn_one_side_learns():
    """No gradient is left with the side whose turn it is not, and weights that were trained still are afterwards."""
    objective = contest()
    assert list(objective.turns()) == ["discriminator", "generator"]
    objective(BATCH, "discriminator").total.backward()
    assert any(gradients(objective.judge)) and not any(gradients(objective.painter))
    objective.zero_grad(set_to_none=True)
    objective(BATCH, "generator").total.backward()
    assert any(gradients(objective.painter)) and not any(gradients(objective.judge))
    assert all(parameter.requires_grad for parameter in objective.parameters())
    assert list(objective.parts()) == ["part"]


@pytest.mark.parametrize("penalty", ["none", "r1", "gradient", "matching"])
def test_a_step_is_a_function_of_its_seed(penalty):
    """Noise, augmentation and whether a penalty is due come from the objective's generator alone."""
    rules = Rules(penalty=penalty, every=1, policies=("translation", "cutout"), mismatched=0.5)
    objective = contest(rules, told="classes")
    totals = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed + len(totals))
        objective.reseed(seed)
        totals.append(float(objective(BATCH, "discriminator").total.detach()))
    assert totals[0] == totals[1] != totals[2]


def test_penalties_come_as_often_as_said_and_weigh_as_much():
    """Once in four steps, and then four times."""
    objective = contest(Rules(penalty="r1", every=4, weight=2.0))
    due = []
    for seed in range(200):
        objective.reseed(seed)
        due.append("penalty" in objective(BATCH, "discriminator").parts)
    assert 30 < sum(due) < 70
    seed = due.index(True)
    losses = {}
    for penalty in ("none", "r1"):
        objective.rules = replace(objective.rules, penalty=penalty)
        objective.reseed(seed)
        losses[penalty] = objective(BATCH, "discriminator")
    found = losses["r1"].parts["penalty"]
    assert float((losses["r1"].total - losses["none"].total).detach()) == pytest.approx(2.0 * found, rel=1e-3)


def test_mismatched_pairs_teach_the_judge_to_read():
    """A judge trained on one batch whose classes are colours scores the right class above the wrong one."""
    colours = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]])
    batch = {"pixels": colours.repeat(4, 1)[:, :, None, None].expand(-1, -1, SIDE, SIDE).contiguous()}
    batch["classes"] = torch.eye(3).repeat(4, 1)
    objective = contest(Rules(mismatched=0.5), told="classes")
    optimizer = torch.optim.Adam(objective.judge.parameters(), 3e-3)
    for step in range(25):
        objective.reseed(step)
        loss = objective(batch, "discriminator")
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    assert loss.parts["mismatched"] == 1.0


def test_twins_are_no_mismatch():
    """Where all are told the same, nobody has a wrong text, and there is nothing to learn from."""
    objective = contest(Rules(mismatched=0.5), told="classes")
    same = {**BATCH, "classes": torch.eye(3)[:1].expand(6, -1)}
    assert objective(same, "discriminator").parts["mismatched"] == 1.0


TINY = Config(
    text=Text(vocabulary=20, length=6, width=16, layers=1, heads=2),
    image=ViT(size=8, patch=4, width=16, layers=1, heads=2),
    embed=12,
    mean=HALF,
    std=HALF,
)


def test_the_guide_prefers_own_texts_and_forgives_twins():
    """Told each picture's own direction, its opinion is low; told another's, high; a twin's does not count."""
    torch.manual_seed(0)
    clip = CLIP(TINY).requires_grad_(False).eval()
    guide = ClipGuide(clip)
    pixels = (torch.rand(4, 3, 8, 8) * 2 - 1).requires_grad_()
    vectors = clip.image(pixels).detach()
    own, other = guide(pixels, {"vector": vectors}), guide(pixels, {"vector": vectors.roll(1, 0)})
    assert own < other
    other.backward()
    assert pixels.grad.abs().amax((1, 2, 3)).min() > 0
    twins = torch.cat([vectors[:1], vectors[:1]])
    assert float(guide(pixels[:1].expand(2, -1, -1, -1), {"vector": twins}).detach()) == pytest.approx(0, abs=1e-5)
    # Pictures of another size are brought to the critic's.
    large = torch.rand(2, 3, 16, 16) * 2 - 1
    assert torch.isfinite(guide(large, {"vector": vectors[:2]}))


def test_the_class_guide_is_cross_entropy_of_a_probe():
    """It prefers the class a picture is of, walks up its slope, and takes pictures of any size."""
    torch.manual_seed(0)
    clip = CLIP(TINY).requires_grad_(False).eval()
    real = torch.rand(6, 3, 8, 8) * 2 - 1
    seen = torch.nn.functional.normalize(clip.image(real), dim=-1)
    labels = torch.arange(6) % 3
    probe = Probe.fit(seen, labels, 3, width=float(torch.cdist(seen, seen).square().mean()) / 4, ridge=1e-3)
    guide = ClassGuide(clip, probe)
    own, other = (guide(real, {"classes": torch.eye(3)[each]}) for each in (labels, labels.roll(1)))
    assert own.dtype == torch.float32
    scores = probe.scores(seen)
    torch.testing.assert_close(scores.argmax(1), labels)
    expected = torch.nn.functional.cross_entropy(10 * scores, labels)
    assert own.item() == pytest.approx(expected.item(), abs=1e-4) and own < other
    near = (real + 0.1 * torch.randn(real.shape)).requires_grad_()
    guide(near, {"classes": torch.eye(3)[labels.roll(1)]}).backward()
    assert near.grad.abs().amax((1, 2, 3)).min() > 1e-6
    assert torch.isfinite(guide(torch.rand(2, 3, 16, 16) * 2 - 1, {"classes": torch.eye(3)[:2]}))


def test_who_ignores_the_noise_is_pushed_apart():
    """Half is told what the other half is, and of two paintings so much is wanted as their noise is apart."""
    shown = []

    def paint(painter, z, batch):
        shown.append((z, batch, painter(z)))
        return shown[-1][2]

    objective = contest(Rules(seeking=0.3), told="classes")
    objective.paint = paint
    odd = {key: value[:5] for key, value in BATCH.items()}
    objective.reseed(0)
    loss = objective(odd, "generator")
    z, batch, painted = shown[0]
    assert len(z) == 4 and torch.equal(batch["classes"][:2], batch["classes"][2:])
    assert torch.equal(batch["classes"][:2], odd["classes"][:2])
    apart = (painted[:2] - painted[2:]).abs().mean() / (z[:2] - z[2:]).abs().mean()
    assert loss.parts["apart"] == pytest.approx(apart.item())
    logits = objective.judge(painted, batch["classes"])
    torch.testing.assert_close(loss.total, -logits.mean() + 0.3 / (apart + 0.01), atol=1e-5, rtol=1e-4)
    assert spread(torch.ones(4, 3, 4, 4), z).item() == 0
    assert "apart" not in contest(told="classes")(odd, "generator").parts


def test_pairing_shows_the_source_and_counts_the_distance():
    """Without a judge's say, the loss is a hundred times the mean absolute difference."""
    torch.manual_seed(0)
    translator = UNetTranslator(UNetConfig(size=SIDE, width=8, levels=2, noise=2))
    judge = PatchGAN(PatchConfig(channels=6, width=4, layers=1))
    objective = Pairing(translator, judge, name="part", z_dim=2)
    batch = {"source": BATCH["pixels"], "pixels": -BATCH["pixels"]}
    objective(batch, "discriminator").total.backward()
    assert any(gradients(judge)) and not any(gradients(translator))
    objective.zero_grad(set_to_none=True)
    loss = objective(batch, "generator")
    loss.total.backward()
    assert any(gradients(translator)) and not any(gradients(judge))
    assert float(loss.total.detach()) == pytest.approx(100 * loss.parts["l1"] + loss.parts["fooled"], rel=1e-4)


@dataclass(frozen=True)
class Nothing:
    """A config."""


class Factor(nn.Module):
    """A translator of one weight."""

    def __init__(self, factor):
        super().__init__()
        self.config, self.factor = Nothing(), nn.Parameter(torch.tensor(factor))

    def forward(self, pixels, z=None):
        return pixels * self.factor


class Mean(nn.Module):
    """A judge of one weight."""

    def __init__(self):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, pixels):
        return pixels.mean((1, 2, 3)) + self.bias


def test_cycling_by_hand():
    """Twice there and a third back: what each term is can be said."""
    first, second = torch.full((2, 3, 4, 4), 0.3), torch.full((2, 3, 4, 4), -0.6)
    objective = Cycling(Factor(2.0), Factor(1 / 3), Mean(), Mean(), names=("there", "back"), identity=0.5)
    loss = objective({"source": first, "pixels": second}, "generator")
    cycle = abs(0.3 * 2 / 3 - 0.3) + abs(-0.6 * 2 / 3 + 0.6)
    fooled = (0.6 - 1) ** 2 + (-0.2 - 1) ** 2
    alone = abs(-1.2 + 0.6) + abs(0.1 - 0.3)
    assert float(loss.total.detach()) == pytest.approx(fooled + 10 * cycle + 5 * alone, rel=1e-5)
    judged = objective({"source": first, "pixels": second}, "discriminator").total
    expected = 0.5 * ((-0.6 - 1) ** 2 + 0.6**2) + 0.5 * ((0.3 - 1) ** 2 + 0.2**2)
    assert float(judged.detach()) == pytest.approx(expected, rel=1e-5)
    assert list(objective.parts()) == ["there", "back"]


def test_judges_are_shown_paintings_of_the_past():
    """Of one number each: half of what is shown is of the past, what is shown has left, and a copy goes on alike."""
    past, generator = Past(50), torch.Generator().manual_seed(0)

    def show(past, first, generator):
        pixels = torch.arange(first, first + 8.0).view(-1, 1, 1, 1).expand(-1, 3, 2, 2)
        return [int(each) for each in past.exchange(pixels, generator)[:, 0, 0, 0]]

    shown = [show(past, first, generator) for first in range(0, 400, 8)]
    assert [each for row in shown[:6] for each in row] == list(range(48))  # until there are enough
    old = [each < first for first, row in zip(range(56, 400, 8), shown[7:], strict=True) for each in row]
    assert 0.4 < sum(old) / len(old) < 0.6
    every = [each for row in shown for each in row]
    assert sorted({*every, *(int(each[0, 0, 0]) for each in past.kept)}) == list(range(400)) and len(past.kept) == 50
    objective = Cycling(*[torch.nn.Identity()] * 4, names=("a", "b"))
    objective.past_there = past
    again = Cycling(*[torch.nn.Identity()] * 4, names=("a", "b"))
    again.load_state_dict({key: value.clone() for key, value in objective.state_dict().items()}, strict=True)
    states = [torch.Generator().manual_seed(1) for _ in range(2)]
    assert show(past, 400, states[0]) == show(again.past_there, 400, states[1]) and not again.past_back.kept
    assert show(Past(0), 3, generator) == list(range(3, 11))


def test_cycling_trains_both_ways():
    """Both translators, or both judges, and never the others."""
    torch.manual_seed(0)
    networks = [ResNetTranslator(ResNetConfig(width=4, blocks=1)) for _ in range(2)]
    judges = [PatchGAN(PatchConfig(width=4, layers=1)) for _ in range(2)]
    objective = Cycling(*networks, *judges, names=("there", "back"), policies=("translation",))
    batch = {"source": BATCH["pixels"][:2], "pixels": -BATCH["pixels"][2:4]}
    objective(batch, "generator").total.backward()
    assert all(any(gradients(each)) for each in networks) and not any(any(gradients(each)) for each in judges)
    objective.zero_grad(set_to_none=True)
    objective(batch, "discriminator").total.backward()
    assert all(any(gradients(each)) for each in judges) and not any(any(gradients(each)) for each in networks)


def test_a_contest_is_won_by_learning_the_classes():
    """After a short contest over three plain colours, the generator paints each class in its own."""
    torch.manual_seed(0)
    colours = torch.tensor([[0.8, -0.8, -0.8], [-0.8, 0.8, -0.8], [-0.8, -0.8, 0.8]])
    layers = ((True, 4, 2),)
    generator = BigGAN(BigConfig(z_dim=4, class_dim=8, num_classes=3, width=8, layers=layers, attention=None, rows=1))
    judge = Discriminator(JudgeConfig(size=8, widths=(16, 32), told=3))
    objective = Adversarial(
        generator,
        judge,
        Rules(kind="hinge", penalty="r1", weight=0.1, every=4),
        lambda painter, z, batch: painter(z, batch["classes"]),
        name="part",
        told="classes",
    )
    optimizers = {turn: torch.optim.Adam(list(p), 3e-3, betas=(0.0, 0.99)) for turn, p in objective.turns().items()}
    batch = {"classes": torch.eye(3).repeat(8, 1)}
    batch["pixels"] = (batch["classes"] @ colours)[:, :, None, None] + 0.1 * torch.randn(24, 3, 8, 8)
    for step in range(150):
        for place, (turn, optimizer) in enumerate(optimizers.items()):
            objective.reseed(2 * step + place)
            objective(batch, turn).total.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    with torch.no_grad():
        painted = generator(torch.randn(24, 4), batch["classes"]).mean((2, 3))
    assert torch.equal(painted.argmax(1), batch["classes"].argmax(1))
    assert (painted - batch["classes"] @ colours).abs().mean() < 0.4
