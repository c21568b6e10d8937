"""Both sides of every contest, against the papers' formulas, and which way each pulls."""

import math

import pytest
import torch

from mindseye.adversarial.losses import CONTESTS

REAL, FAKE = torch.tensor([2.0, -0.5, 0.3]), torch.tensor([-1.5, 0.7])


def sigmoid(x):
    """Written out."""
    return 1 / (1 + math.exp(-x))


def test_goodfellow():
    """Equation 1: -log D(x) - log(1 - D(G(z))), the generator either plus the latter or -log D(G(z))."""
    real = -sum(math.log(sigmoid(x)) for x in REAL.tolist()) / 3
    fake = -sum(math.log(1 - sigmoid(x)) for x in FAKE.tolist()) / 2
    kind = CONTESTS["non-saturating"]
    assert float(kind.real(REAL)) == pytest.approx(real, abs=1e-6)
    assert float(kind.fake(FAKE)) == pytest.approx(fake, abs=1e-6)
    believed = -sum(math.log(sigmoid(x)) for x in FAKE.tolist()) / 2
    assert float(kind.generator(FAKE)) == pytest.approx(believed, abs=1e-6)
    assert float(CONTESTS["minimax"].generator(FAKE)) == pytest.approx(-fake, abs=1e-6)


def test_hinge_wasserstein_least_squares():
    """By hand."""
    hinge, wasserstein, squares = (CONTESTS[kind] for kind in ("hinge", "wasserstein", "least-squares"))
    assert float(hinge.real(REAL)) == pytest.approx((0 + 1.5 + 0.7) / 3)
    assert float(hinge.fake(FAKE)) == pytest.approx((0 + 1.7) / 2)
    assert float(hinge.generator(FAKE)) == pytest.approx(0.4)
    assert float(wasserstein.real(REAL) + wasserstein.fake(FAKE)) == pytest.approx(-0.6 - 0.4)
    assert float(squares.real(REAL)) == pytest.approx((1 + 2.25 + 0.49) / 3)
    assert float(squares.fake(FAKE)) == pytest.approx((2.25 + 0.49) / 2)


@pytest.mark.parametrize("kind", CONTESTS)
def test_the_sides_pull_apart(kind):
    """The discriminator raises real logits and lowers fake ones; the generator raises them; patches count alike."""
    contest = CONTESTS[kind]
    for loss, up in ((contest.real, True), (contest.fake, False), (contest.generator, True)):
        logits = torch.full((2, 1, 3, 3), 0.2, requires_grad=True)
        loss(logits).backward()
        assert ((logits.grad < 0) == up).all()


def test_only_the_saturating_contest_saturates():
    """Where the discriminator is sure, minimax has no gradient left, and the non-saturating contest has one of 1."""
    slopes = {}
    for kind in ("minimax", "non-saturating"):
        logits = torch.tensor([-20.0], requires_grad=True)
        CONTESTS[kind].generator(logits).backward()
        slopes[kind] = abs(float(logits.grad))
    assert slopes["minimax"] < 1e-8 and slopes["non-saturating"] == pytest.approx(1)
