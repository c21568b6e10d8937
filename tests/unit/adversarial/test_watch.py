"""What goes wrong, on clouds of points of which it is known."""

import pytest
import torch

from mindseye.adversarial import watch


@pytest.fixture
def real():
    """Two clouds."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(400, 4, generator=generator) + torch.tensor([[6.0, 0, 0, 0], [-6.0, 0, 0, 0]]).repeat(200, 1)


def fresh(count, centre, seed, spread=1.0):
    """A cloud of its own."""
    return spread * torch.randn(count, 4, generator=torch.Generator().manual_seed(seed)) + torch.tensor(centre)


def test_a_painter_of_one_thing_has_half_the_recall(real):
    """All it paints is real, half of what is real it paints; one that paints nonsense is not precise."""
    one = fresh(400, [6.0, 0, 0, 0], 1)
    both = torch.cat([fresh(200, [6.0, 0, 0, 0], 2), fresh(200, [-6.0, 0, 0, 0], 3)])
    assert 0.4 < watch.recall(real, one) < 0.5 and watch.precision(real, one) > 0.8
    assert watch.recall(real, both) > 0.8
    assert watch.precision(real, fresh(100, [0, 30.0, 0, 0], 4)) == 0


def test_a_collapsed_painter_has_none(real):
    """The same picture again and again reaches nothing but itself."""
    assert watch.recall(real, real[:1].expand(50, -1)) <= 1 / 400
    assert watch.diversity(real[:1].expand(3, 5, -1)) == pytest.approx(0, abs=1e-3)


def test_diversity_is_the_mean_distance():
    """By hand, and not of one."""
    made = torch.tensor([[[0.0, 0], [3, 4], [0, 0]], [[1.0, 0], [1, 1], [1, 2]]])
    assert watch.diversity(made) == pytest.approx(((5 + 0 + 5) / 3 + (1 + 2 + 1) / 3) / 2, abs=1e-4)
    with pytest.raises(ValueError, match="differ"):
        watch.diversity(made[:, :1])


def test_copies_are_found(real):
    """A tenth of copies is a tenth beyond the share that chance gives."""
    training, unseen = fresh(500, [0.0, 0, 0, 0], 5), fresh(300, [0.0, 0, 0, 0], 6)
    honest = fresh(400, [0.0, 0, 0, 0], 7)
    assert watch.copied(honest, training, unseen) < 0.04
    made = torch.cat([honest[:360], training[:40] + 1e-3])
    assert 0.1 <= watch.copied(made, training, unseen) < 0.14


def test_nearest_in_chunks(real):
    """The k-th nearest, whatever the chunk."""
    distances = torch.cdist(real[:20], real).sort(1).values
    for k in (1, 4):
        assert torch.allclose(watch.nearest(real[:20], real, k, chunk=37), distances[:, k - 1], atol=1e-3)


def test_the_probe_tells_classes():
    """A cloud on both sides of another, which no line tells apart: unseen points of each are told."""
    centres = [[5.0, 0, 0, 0], [0.0, 0, 0, 0], [-5.0, 0, 0, 0]]
    counts = (60, 60, 60)
    rows = torch.cat([fresh(n, c, i) for i, (n, c) in enumerate(zip(counts, centres, strict=True))])
    labels = torch.tensor([0, 1, 0]).repeat_interleave(60)
    classifier = watch.Probe.fit(rows, labels, 2, width=20.0)
    for place, centre in enumerate(centres):
        others = fresh(200, centre, 10 + place)
        assert watch.accuracy(classifier, others, torch.full((200,), place % 2)) > 0.95
    assert watch.accuracy(classifier, fresh(200, centres[0], 20), torch.ones(200, dtype=torch.long)) < 0.05
