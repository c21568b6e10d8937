import math
from datetime import timedelta

import pytest
import torch
from torch import distributed, multiprocessing

from mindseye.contrastive import CEILING, alike, contrastive_loss


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [0.0, 1.5])
def test_orthogonal_pairs_in_closed_form(scale):
    loss = contrastive_loss(3 * torch.eye(5), 0.1 * torch.eye(5), torch.tensor(scale))
    factor = math.exp(scale)
    assert loss.item() == pytest.approx(math.log(math.exp(factor) + 4) - factor, rel=1e-5)


def test_both_ways_by_hand():
    image, text, scale = noise(6, 4), noise(6, 4, seed=1), torch.tensor(1.0)
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (image, text))
    p = (math.e * a @ b.T).double().exp()
    wanted = -((p / p.sum(0)).diag().log().mean() + (p.T / p.sum(1)).T.diag().log().mean()) / 2
    assert contrastive_loss(image, text, scale).item() == pytest.approx(wanted.item(), rel=1e-5)


def test_equal_captions_are_no_negatives():
    captions = torch.tensor([[1, 2], [1, 2], [3, 4]])
    assert alike(captions).tolist() == [[True, True, False], [True, True, False], [False, False, True]]
    # Two pictures of one caption, found without doubt: each of the two places has half of the probability.
    image = torch.eye(2)[[0, 0, 1]]
    loss = contrastive_loss(image, image, torch.tensor(CEILING), captions)
    assert loss.item() == pytest.approx(2 / 3 * math.log(2), rel=1e-5)
    # And by hand: every place of a caption is as right as the others, for pictures and for texts.
    image, text = noise(3, 4), noise(3, 4, seed=1)
    a, b = (x / x.norm(dim=1, keepdim=True) for x in (image, text))
    p, target = (math.e * a @ b.T).double().exp(), torch.tensor([[0.5, 0.5, 0], [0.5, 0.5, 0], [0, 0, 1]])
    rows, columns = (p / p.sum(1, keepdim=True)).log(), (p / p.sum(0)).log()
    wanted = -(target * (rows + columns)).sum().item() / 6
    assert contrastive_loss(image, text, torch.tensor(1.0), captions).item() == pytest.approx(wanted, rel=1e-5)


def test_different_captions_given_or_not():
    image, text, scale = noise(4, 3), noise(4, 3, seed=1), torch.tensor(2.0)
    plain = contrastive_loss(image, text, scale)
    torch.testing.assert_close(contrastive_loss(image, text, scale, torch.arange(8).view(4, 2)), plain)


def test_scale_is_clamped_and_can_come_back():
    scale = torch.nn.Parameter(torch.tensor(9.0))
    contrastive_loss(noise(4, 3), noise(4, 3, seed=1), scale).backward()
    assert scale.item() == pytest.approx(math.log(100))
    assert scale.grad.item() > 0  # random pairs: a smaller factor would be better


def _rank(rank, store, results):
    patience = timedelta(minutes=2)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2, timeout=patience)
    rows = slice(3 * rank, 3 * rank + 3)
    image, scale = noise(6, 4)[rows].requires_grad_(), torch.nn.Parameter(torch.tensor(1.0))
    captions = torch.tensor([[0], [1], [2], [0], [4], [5]])[rows]  # one caption stands on both ranks
    loss = contrastive_loss(image, noise(6, 4, seed=1)[rows], scale, captions)
    loss.backward()
    torch.save((loss.detach(), image.grad, scale.grad), results / f"{rank}.pt")
    distributed.destroy_process_group()


def test_two_ranks_are_one_large_batch(tmp_path):
    multiprocessing.spawn(_rank, (tmp_path / "store", tmp_path), nprocs=2)
    image, scale = noise(6, 4).requires_grad_(), torch.nn.Parameter(torch.tensor(1.0))
    wanted = contrastive_loss(image, noise(6, 4, seed=1), scale, torch.tensor([[0], [1], [2], [0], [4], [5]]))
    wanted.backward()
    (loss_0, first, scale_0), (loss_1, second, scale_1) = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    for loss in (loss_0, loss_1):
        torch.testing.assert_close(loss, wanted.detach())
    torch.testing.assert_close(torch.cat([first, second]) / 2, image.grad)  # DDP averages over ranks
    torch.testing.assert_close((scale_0 + scale_1) / 2, scale.grad)
