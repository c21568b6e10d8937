"""Canvases against the published programs: formulas written out straight, and siren-pytorch and big-sleep themselves.

The references are written from the papers and notes on the programs, one number or one picture at a time.
"""

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from mindseye.ascent.biggan import Average, BigGANCanvas, Wishes, class_loss, latent_loss, mixture
from mindseye.ascent.codebook import CodebookCanvas
from mindseye.ascent.loop import ascend
from mindseye.ascent.optimizers import choose
from mindseye.ascent.siren import SirenCanvas
from mindseye.critique.judge import Opinion
from mindseye.networks.siren import Config, Siren, grid
from mindseye.noise import Noise
from mindseye.request import drain

pytestmark = pytest.mark.parity


class Likes:
    """A judge whose score is the mean over numbers of (pixels - picture)^2."""

    def __init__(self, picture):
        self.picture = picture

    def opinion(self, pixels, noise, share):
        """In closed form."""
        apart = pixels - self.picture
        return Opinion(apart.square().mean((1, 2, 3)), 2 * apart / apart[0].numel(), {})


def drawn(*shape, seed=0):
    """Normal numbers."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# SIREN


def filled(**settings):
    """A network of two pictures."""
    network = Siren(Config(pictures=2, **settings))
    network.fill(Noise([3, 4]))
    return network


def test_siren_is_the_formula_place_by_place():
    network = filled(hidden=5, layers=3, w0=20.0, w0_initial=30.0).double()
    size = (3, 4)
    got = SirenCanvas(network, size).final()
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in network.layers]
    last, bias = network.last_layer.weight.detach(), network.last_layer.bias.detach()
    for picture in range(2):
        for number, place in enumerate(grid(*size).double()):
            x = place
            for depth, (weight, offset) in enumerate(layers):
                x = torch.sin((30.0 if depth == 0 else 20.0) * (weight[picture] @ x + offset[picture]))
            colour = (last[picture] @ x + bias[picture]).clamp(-1, 1)
            assert torch.allclose(got[picture, :, number // 4, number % 4], colour, atol=1e-9)


def test_siren_is_siren_pytorchs():
    peer = pytest.importorskip("siren_pytorch")
    torch.manual_seed(0)
    theirs = peer.SirenNet(dim_in=2, dim_hidden=16, dim_out=3, num_layers=3, w0=30.0, w0_initial=30.0)
    wrapped = peer.SirenWrapper(theirs, 16, 16)
    ours = Siren(Config(hidden=16, layers=3))
    state = {f"{key}": value[None] for key, value in theirs.state_dict().items()}
    ours.load_state_dict({key.replace("net.", ""): value for key, value in state.items()}, strict=True)
    canvas = SirenCanvas(ours, (16, 16))
    assert torch.allclose(canvas.final(), wrapped().detach().clamp(-1, 1), atol=1e-6)
    for mine, yours in zip((*ours.layers, ours.last_layer), (*theirs.layers, theirs.last_layer), strict=True):
        bound = max(yours.weight.abs().max(), yours.bias.abs().max()).item()
        fresh = filled(hidden=16, layers=3)
        index = [*ours.layers, ours.last_layer].index(mine)
        own = [*fresh.layers, fresh.last_layer][index].weight.abs().max().item()
        assert own == pytest.approx(bound, rel=0.15)  # both uniform within the same bound


# Big Sleep


def reference_latent_loss(rows):
    """Of one picture's rows, moment by moment."""
    total = 4 * max(float(rows.square().mean()), 1.0)
    for row in rows.double():
        count = len(row)
        mean = float(row.sum()) / count
        total += abs(mean) / len(rows)
        total += abs(1 - math.sqrt(sum((float(x) - mean) ** 2 for x in row) / (count - 1))) / len(rows)
        deviation = math.sqrt(sum((float(x) - mean) ** 2 for x in row) / count)
        total += abs(sum(((float(x) - mean) / deviation) ** 3 for x in row) / count) / len(rows)
        total += abs(sum(((float(x) - mean) / deviation) ** 4 for x in row) / count - 3) / len(rows)
    return total


def test_latent_loss_moment_by_moment():
    for scale in (0.5, 1.0, 1.7):
        rows = drawn(2, 5, 16, seed=1) * scale + 0.2
        want = [reference_latent_loss(each) for each in rows]
        assert torch.allclose(latent_loss(rows), torch.tensor(want), rtol=1e-5)


def test_class_loss_of_a_thousand_counts_to_999():
    classes = drawn(1, 15, 1000, seed=2).sub(3.9).sigmoid()
    squares = [(50 * value) ** 2 for row in classes[0].double() for value in sorted(row.tolist())[:999]]
    assert class_loss(classes).item() == pytest.approx(sum(squares) / len(squares), rel=1e-5)


def test_classes_are_picked_one_after_the_other():
    logits = drawn(1, 3, 8, seed=3) * 3
    want = torch.zeros(3, 8)
    for row in range(3):
        left = {index: logits[0, row, index].item() / 2 for index in range(8)}
        for _ in range(3):
            best = max(left, key=lambda index: left[index])
            want[row, best] = math.exp(left[best]) / sum(math.exp(value) for value in left.values())
            del left[best]
    assert torch.allclose(mixture(logits, Wishes(most=3, temperature=2.0))[0], want, atol=1e-6)


def test_a_run_is_the_published_loop():
    """Adam on noise and logits, then the average: five steps against the same written out."""
    torch.manual_seed(0)
    noise_part, class_part = nn.Linear(2 * 6, 12), nn.Linear(2 * 4, 12)

    def generator(z, classes, truncation=1.0):
        return torch.tanh(noise_part(z.flatten(1)) + class_part(classes.flatten(1))).view(-1, 3, 2, 2)

    latents, logits, picture = drawn(1, 2, 6, seed=4), drawn(1, 2, 4, seed=5) - 1, drawn(1, 3, 2, 2, seed=6)
    canvas = BigGANCanvas(generator, latents, logits, (2, 2), wishes=Wishes(decay=0.8))
    got = drain(ascend(canvas, Likes(picture), Noise([0]), steps=5, lr=0.07))

    live = [latents.clone().requires_grad_(), logits.clone().requires_grad_()]
    stepper = torch.optim.Adam(live, lr=0.07)
    left, biased = 0.8, [0.2 * each.detach() for each in live]
    for _ in range(5):
        stepper.zero_grad()
        shown = generator(live[0], live[1].sigmoid())
        mean_square = (shown - picture).square().mean()
        classes = live[1].sigmoid()[0]
        few = (50 * torch.cat([row.sort().values[:-1] for row in classes])).square().mean()
        rows = live[0][0]
        deviation, middle = rows.std(dim=1), rows.mean(dim=1)
        apart = (rows - middle[:, None]) / rows.var(dim=1, unbiased=False).sqrt()[:, None]
        normal = (1 - deviation).abs().mean() + middle.abs().mean()
        normal = normal + 4 * torch.maximum(rows.square().mean(), torch.tensor(1.0))
        normal = normal + ((apart**4).mean(dim=1) - 3).abs().sum() / 2 + (apart**3).mean(dim=1).abs().sum() / 2
        (mean_square + few + normal).backward()
        stepper.step()
        left *= 0.8
        biased = [0.8 * old + 0.2 * new.detach() for old, new in zip(biased, live, strict=True)]
    average = [each / (1 - left) for each in biased]
    assert torch.allclose(got, generator(average[0], average[1].sigmoid()).detach(), atol=1e-5)


def test_the_average_is_big_sleeps():
    spec = importlib.util.find_spec("big_sleep")
    if spec is None or spec.origin is None:
        pytest.skip("big_sleep is not installed")
    # By path: the package's own import asks for CUDA.
    file = importlib.util.spec_from_file_location("big_sleep_ema", Path(spec.origin).with_name("ema.py"))
    assert file is not None and file.loader is not None
    module = importlib.util.module_from_spec(file)
    file.loader.exec_module(module)
    live = nn.ParameterList([nn.Parameter(drawn(3))])
    theirs = module.EMA(live, 0.9)
    ours = Average(0.9, [live[0].detach()])
    for step in range(4):
        with torch.no_grad():
            live[0].add_(step)
            theirs.model[0].copy_(live[0])
        theirs.update()
        ours.add([live[0].detach()])
    assert torch.allclose(theirs.average[0], ours.values[0], atol=1e-6)
    sys.modules.pop("big_sleep_ema", None)


# VQGAN-CLIP


class Painter(nn.Module):
    """A decoder that leaves the range, so that the clamp matters."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(1)
        self.conv = nn.Conv2d(4, 12, 3, padding=1)

    def decode(self, latents):
        """Twice as large."""
        return torch.pixel_shuffle(3 * self.conv(latents), 2)


def test_a_run_is_crowsons_loop():
    """Ten steps of z + quantize, the gradients through quantiser and clamp written out by hand."""
    codes, start, picture = drawn(7, 4, seed=7), drawn(1, 4, 3, 2, seed=8), drawn(1, 3, 6, 4, seed=9)
    painter = Painter().requires_grad_(False)
    canvas = CodebookCanvas(painter, codes, start, pull=0.3)
    got = drain(ascend(canvas, Likes(picture), Noise([0]), steps=10, lr=0.05))

    z = start.clone()
    mean, square = torch.zeros_like(z), torch.zeros_like(z)
    low, high = codes.min(0).values.view(1, -1, 1, 1), codes.max(0).values.view(1, -1, 1, 1)

    def chosen():
        rows = z.permute(0, 2, 3, 1).reshape(-1, 4)
        distance = torch.stack([(row - codes).square().sum(1) for row in rows])
        return codes[distance.argmin(1)].view(1, 3, 2, 4).permute(0, 3, 1, 2).contiguous()

    for count in range(1, 11):
        shown = chosen().requires_grad_()
        raw = painter.decode(shown)
        inside = raw.detach().clamp(-1, 1)
        grad = 2 * (inside - picture) / picture.numel()
        outwards = ((raw > 1) & (grad < 0)) | ((raw < -1) & (grad > 0))
        (grad,) = torch.autograd.grad(raw, shown, grad.masked_fill(outwards, 0.0))
        grad = grad + 0.3 / 2 * 2 * (z - start) / z.numel()
        mean, square = 0.9 * mean + 0.1 * grad, 0.999 * square + 0.001 * grad**2
        z = z - 0.05 * (mean / (1 - 0.9**count)) / ((square / (1 - 0.999**count)).sqrt() + 1e-8)
        z = torch.minimum(torch.maximum(z, low), high)
    assert torch.allclose(canvas.z.detach(), z, atol=1e-5)
    assert torch.allclose(got, painter.decode(chosen()).clamp(-1, 1), atol=1e-5)


# Optimisers


@pytest.mark.parametrize(("name", "theirs"), [("adamp", "AdamP"), ("diffgrad", "DiffGrad")])
def test_optimisers_are_torch_optimizers(name, theirs):
    peer = pytest.importorskip("torch_optimizer")
    start = drawn(1, 4, 5, seed=10)
    mine, yours = start.clone().requires_grad_(), start[0].clone().requires_grad_()
    steppers = choose(name, [mine], 0.01), getattr(peer, theirs)([yours], lr=0.01, eps=1e-8)
    for step in range(6):
        grad = drawn(4, 5, seed=20 + step)
        if step % 2:  # at right angles to the rows, where AdamP projects
            rows = yours.detach()
            grad = grad - (grad * rows).sum(1, keepdim=True) / rows.square().sum(1, keepdim=True) * rows
        mine.grad, yours.grad = grad[None].clone(), grad.clone()
        for stepper in steppers:
            stepper.step()
    assert torch.allclose(mine[0], yours, atol=1e-6)
