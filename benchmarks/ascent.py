"""How long a step of ascent takes, beside the loops that VQGAN-CLIP and Big Sleep were published with.

Both sides paint with the same random networks at full size: a CLIP ViT-B/32 (transformers' on their side, ours with its
numbers), the VQGAN f16 of 16,384 codes and BigGAN-deep. These two are our network objects on either side: theirs as
built, with torch's own convolutions and norms in place of ours, ours laid out as the engine lays them out. The loops
are written as published: cut after cut, each resampled by itself, all cuts one batch, one backward pass through
everything. Big Sleep never freezes its networks, so that every step also works out gradients on their weights;
"reference frozen" is the same without that. The text tower has no part in a step and is left out.

First both are given the same picture and the same boxes: score and gradient must agree to 1e-4 in float32; how far the
critic in bfloat16 is from that is said beside its gain, for that is what the engine takes where it is the faster dtype.
Then they take turns, step by step, each in a process of its own, for ours has the system's memory handled as the engine
has it (`mindseye.engine.policy.reuse_memory`), which holds for a whole process. Peak memory is that of up to two steps
in a fresh process, by its peak resident set.

    python benchmarks/ascent.py [--cuts 64] [--size 256] [--steps 5] [--chunk N] [--only time|memory] [--output FILE]

Takes about 12 GB of memory and, on two idle cores, some six minutes. Writes benchmarks/results/ascent-<machine>.json,
where what is not measured this time stays as it was; with --tiny, only where --output says.
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

os.environ.setdefault("GOMP_SPINCOUNT", "10000")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parent))
import peers
from memory import peak

from mindseye.ascent.biggan import BigGANCanvas, first_logits
from mindseye.ascent.codebook import CodebookCanvas, random_codes
from mindseye.ascent.loop import ascend
from mindseye.critique.critic import ClipCritic
from mindseye.critique.cuts import Cuts, Scheme, big_sleep, crowson
from mindseye.critique.judge import Judge, judge
from mindseye.critique.losses import LossName
from mindseye.critique.targets import Aims, Targets
from mindseye.engine.policy import Policy, arrange, reuse_memory
from mindseye.networks import biggan, clip, vae, vqgan
from mindseye.nn import resnet
from mindseye.noise import Noise
from mindseye.systems.big_sleep import BigSleep
from mindseye.systems.vqgan_clip import VQGANCLIP

SYSTEMS = ("vqgan-clip", "big-sleep")
MINE, THEIRS, FROZEN, FEW = "mindseye", "reference", "reference frozen", "mindseye chunk 8"
HALF = "mindseye bfloat16"
"""What the engine does by itself with networks of this size where bfloat16 is the faster (`engine.policy.choose`)."""
READY = "ready"
TIMED = {"vqgan-clip": (MINE, HALF, THEIRS), "big-sleep": (MINE, HALF, THEIRS, FROZEN)}
WEIGHED = {"vqgan-clip": (MINE, HALF, FEW, THEIRS), "big-sleep": (MINE, HALF, FEW, THEIRS, FROZEN)}
TOLERANCE = 1e-4
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
"""The processor's own clock counts what this process took of it, whoever else was there."""
RATES = {"vqgan-clip": VQGANCLIP.Options().lr, "big-sleep": BigSleep.Options().lr}
LOSSES: dict[str, LossName] = {"vqgan-clip": "spherical", "big-sleep": "cosine"}
Box = tuple[int, int, int]
"""Left, top, side."""

BIGGANS = {128: biggan.BIGGAN_DEEP_128, 256: biggan.BIGGAN_DEEP_256, 512: biggan.BIGGAN_DEEP_512}
TINY_BLOCKS = ((False, 16, 16), (True, 16, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (True, 2, 1))
TINY_BIGGAN = biggan.Config(z_dim=8, class_dim=8, num_classes=10, width=8, layers=TINY_BLOCKS, attention=3)
TINY_TOWER = vqgan.Tower(channels=(32, 32, 32), blocks=(1, 1, 1))
TINY_VQGAN = vqgan.Config(encoder=TINY_TOWER, decoder=TINY_TOWER, codes=64, code_channels=16, z_channels=16)
TINY_SIZE = 64


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is measured.

    Attributes:
        size: Side of the pictures.
        cuts: Of each picture.
        chunk: Cuts that our critic sees at a time; None = as the system has it.
        tiny: Networks of a few thousand weights, to see that all of this runs.
    """

    size: int
    cuts: int
    chunk: int | None
    tiny: bool

    def chunk_of(self, system: str) -> int:
        """Cuts that our critic sees at a time."""
        return self.chunk or (VQGANCLIP if system == "vqgan-clip" else BigSleep).Options().chunk

    @property
    def image(self) -> clip.ViT:
        """The critic's image tower."""
        return clip.ViT(size=32, patch=8, width=32, layers=2, heads=2) if self.tiny else clip.ViT()

    @property
    def embed(self) -> int:
        """Numbers of the critic's vectors."""
        return 16 if self.tiny else 512


# The networks, the same numbers whoever asks.


def their_critic(order: Order) -> Any:
    """transformers' image tower."""
    try:
        from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
    except ImportError:
        sys.exit("the reference loops listen to transformers' CLIP, which is not installed: pip install transformers")
    image = order.image
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=image.width, intermediate_size=4 * image.width, num_hidden_layers=image.layers,
        num_attention_heads=image.heads, image_size=image.size, patch_size=image.patch, projection_dim=order.embed,
    )  # fmt: skip
    return CLIPVisionModelWithProjection(config).eval().requires_grad_(False)


def our_critic(order: Order, theirs: nn.Module | None, dtype: torch.dtype = torch.float32) -> ClipCritic:
    """Ours, with their numbers where they are given."""
    from mindseye.checkpoints.layouts.transformers import clip_rules

    text = clip.Text(vocabulary=4, length=2, width=8, layers=1, heads=1)
    network = clip.CLIP(clip.Config(text=text, image=order.image, embed=order.embed)).eval().requires_grad_(False)
    if theirs is not None:
        given, state = theirs.state_dict(), network.state_dict()
        rules = [rule for rule in clip_rules(network.config) if rule.ours.startswith("image_tower.")]
        names = [rule.theirs if rule.theirs in given else rule.theirs.removeprefix("vision_model.") for rule in rules]
        if set(names) != {name for name in given if not name.endswith("position_ids")}:
            raise ValueError("the layout does not name every tensor of the peer")
        for rule, name in zip(rules, names, strict=True):
            rule.op.view(state[rule.ours]).copy_(given[name])
    arranged(network, dtype)
    # The tokenizer is asked for texts only.
    return ClipCritic(network, cast(Any, None))


def painter(system: str, order: Order) -> Any:
    """The VQGAN or the BigGAN."""
    torch.manual_seed(1)
    if system == "vqgan-clip":
        network: Any = vqgan.VQGAN(TINY_VQGAN if order.tiny else vqgan.F16)
        # Codes as far apart as a trained codebook's: next to zero, all pictures are alike.
        nn.init.normal_(network.quantizer.weight)
    else:
        network = biggan.BigGAN(TINY_BIGGAN if order.tiny else BIGGANS[order.size])
    return network.eval().requires_grad_(False)


def arranged(network: Any, dtype: torch.dtype) -> Any:
    """Laid out as the engine does."""
    return arrange(network, Policy(dtype=dtype, keep=False, memory_format=torch.channels_last))


def plain(network: Any) -> Any:
    """With torch's own layers, as their authors had them; for a process that does nothing else."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.__dict__["_conv_forward"] = partial(nn.Conv2d._conv_forward, module)
    resnet.normed_silu = vae.normed_silu = lambda norm, x: F.silu(norm(x))  # pyright: ignore[reportAttributeAccessIssue]
    return network


def wanted(order: Order) -> Tensor:
    """What is aimed for: a direction."""
    return F.normalize(torch.randn(1, order.embed, generator=torch.Generator().manual_seed(2)), dim=1)


def beginning(system: str, network: Any, order: Order) -> tuple[Tensor, ...]:
    """What is painted on, at first."""
    noise, config = Noise((3,)), network.config
    if system == "vqgan-clip":
        side = order.size // network.factor
        return (random_codes(network.codebook, noise, (side, side)),)
    return noise.normal(config.sites, config.z_dim), first_logits(noise, config.sites, config.num_classes)


# Ours.


def our_judge(system: str, critic: ClipCritic, order: Order, on_cuts: Any = None) -> Judge:
    """As the system makes it."""
    aims = Aims(wanted(order), torch.ones(1), torch.full((1,), -math.inf), (0,))
    scheme: Scheme = crowson(order.cuts) if system == "vqgan-clip" else big_sleep(order.cuts)
    return judge(
        [critic], Targets((aims,), ()), cuts=scheme, loss=LOSSES[system], chunk=order.chunk_of(system), on_cuts=on_cuts
    )


def ours(system: str, critic: ClipCritic, network: Any, order: Order, steps: int) -> Callable[[], object]:
    """A function that takes a step."""
    start = beginning(system, network, order)
    canvas: Any
    if system == "vqgan-clip":
        canvas = CodebookCanvas(network, network.codebook, start[0])
    else:
        canvas = BigGANCanvas(network, start[0], start[1], (order.size, order.size))
    loop: Generator[Any, None, Any] = ascend(
        canvas, our_judge(system, critic, order), Noise((4,)), steps=steps, lr=RATES[system]
    )
    return lambda: next(loop)


# Theirs.


class Returning(torch.autograd.Function):
    """A clamp to [0, 1] whose gradient passes unless it leads further out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(0, 1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (x,) = ctx.saved_tensors
        return grads[0] * (grads[0] * (x - x.clamp(0, 1)) >= 0)


class Chosen(torch.autograd.Function):
    """The value of one, the gradient to the other."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, carrier: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[None, Tensor]:
        return None, grads[0]


def lanczos(ratio: float, like: Tensor) -> Tensor:
    """A Lanczos-2 kernel for shrinking by that ratio."""
    reach = math.ceil(2 / ratio) - 1
    x = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype) * ratio
    kernel = torch.where(x.abs() < 2, torch.sinc(x) * torch.sinc(x / 2), 0.0)
    return kernel / kernel.sum()


def resample(crop: Tensor, side: int) -> Tensor:
    """One crop of the VQGAN-CLIP notebook: prefiltered down, prefiltered across, then bicubic."""
    rows, channels, height, width = crop.shape
    crop = crop.reshape(rows * channels, 1, height, width)
    if side < height:
        kernel = lanczos(side / height, crop)
        reach = len(kernel) // 2
        crop = F.conv2d(F.pad(crop, (0, 0, reach, reach), "reflect"), kernel[None, None, :, None])
    if side < width:
        kernel = lanczos(side / width, crop)
        reach = len(kernel) // 2
        crop = F.conv2d(F.pad(crop, (reach, reach, 0, 0), "reflect"), kernel[None, None, None, :])
    crop = crop.reshape(rows, channels, height, width)
    return F.interpolate(crop, (side, side), mode="bicubic", align_corners=True)


class Reference:
    """A published loop.

    Args:
        system: Which.
        critic: transformers'.
        network: What paints.
        order: What is measured.
        frozen: Whether weights get no gradients.
    """

    def __init__(self, system: str, critic: Any, network: Any, order: Order, *, frozen: bool) -> None:
        self.system, self.critic, self.network, self.order, self.frozen = system, critic, network, order, frozen
        self.target = wanted(order)
        self.mean, self.std = (torch.tensor(each).view(3, 1, 1) for each in (clip.OPENAI_MEAN, clip.OPENAI_STD))
        self.random, self.generator = random.Random(5), torch.Generator().manual_seed(5)
        start = beginning(system, network, order)
        # Big Sleep knows one picture, whose rows are the first axis.
        start = tuple(each[0] for each in start) if system == "big-sleep" else start
        self.leaves = [each.clone().requires_grad_() for each in start]
        self.optimizer = torch.optim.Adam(self.leaves, lr=RATES[system])
        if system == "vqgan-clip":
            self.codebook = network.codebook.detach()
            self.low = self.codebook.min(dim=0).values[None, :, None, None]
            self.high = self.codebook.max(dim=0).values[None, :, None, None]
        else:
            self.left = 1.0
            self.biased = [torch.zeros_like(each) for each in self.leaves]
            self.average = [each.detach().clone() for each in self.leaves]
            self.averaged()

    def boxes(self) -> list[Box]:
        """Where to cut, drawn as published."""
        side, size, found = self.order.size, self.order.image.size, []
        for _ in range(self.order.cuts):
            if self.system == "vqgan-clip":
                least = min(side, size)
                cut = int(torch.rand([], generator=self.generator) * (side - least) + least)
            else:
                share = torch.zeros(1).normal_(mean=0.8, std=0.3, generator=self.generator).clip(0.5, 0.95)
                cut = int(side * share)
            found.append((self.random.randint(0, side - cut), self.random.randint(0, side - cut), cut))
        return found

    def listen(self, picture: Tensor, boxes: list[Box]) -> Tensor:
        """What the critic says of a picture in [0, 1]: cut after cut, then all in one batch."""
        size, pieces = self.order.image.size, []
        for left, top, side in boxes:
            crop = picture[:, :, top : top + side, left : left + side]
            pieces.append(resample(crop, size) if self.system == "vqgan-clip" else F.interpolate(crop, (size, size)))
        batch = torch.cat(pieces)
        if self.system == "vqgan-clip":
            batch = Returning.apply(batch)
        seen = self.critic(pixel_values=(batch - self.mean) / self.std).image_embeds
        if self.system == "big-sleep":
            return -100 * torch.cosine_similarity(self.target, seen, dim=-1).mean()
        apart = F.normalize(seen.unsqueeze(1), dim=2) - self.target.unsqueeze(0)
        return apart.norm(dim=2).div(2).arcsin().pow(2).mul(2).mean()

    def render(self) -> Tensor:
        """What is there now, in [0, 1]."""
        if self.system == "big-sleep":
            latents, logits = self.leaves
            return (self.network(latents[None], torch.sigmoid(logits)[None], 1.0) + 1) / 2
        z = self.leaves[0].movedim(1, 3)
        codes = self.codebook
        far = z.pow(2).sum(dim=-1, keepdim=True) + codes.pow(2).sum(dim=1) - 2 * z @ codes.T
        chosen = F.one_hot(far.argmin(-1), len(codes)).to(z.dtype) @ codes
        drawn = self.network.decode(cast(Tensor, Chosen.apply(chosen, z)).movedim(3, 1))
        return cast(Tensor, Returning.apply((drawn + 1) / 2))

    def own(self) -> Tensor:
        """Big Sleep's losses of noise and classes, row by row."""
        latents, logits = self.leaves
        loss = (1 - latents.std(dim=1)).abs().mean() + latents.mean(dim=1).abs().mean()
        loss = loss + 4 * torch.max(latents.square().mean(), torch.tensor(1.0))
        for row in latents:
            apart = row - row.mean()
            unit = apart / apart.pow(2).mean().pow(0.5)
            kurtosis, skewness = unit.pow(4).mean() - 3, unit.pow(3).mean()
            loss = loss + kurtosis.abs() / len(latents) + skewness.abs() / len(latents)
        # 999 of a thousand there.
        least = torch.topk(torch.sigmoid(logits), logits.shape[1] - 1, largest=False, dim=1).values
        return loss + ((50 * least) ** 2).mean()

    @torch.no_grad()
    def averaged(self) -> None:
        """Big Sleep's average of what is painted on."""
        self.left *= 0.99
        for leaf, biased, average in zip(self.leaves, self.biased, self.average, strict=True):
            biased.mul_(0.99).add_(0.01 * leaf)
            average.copy_(biased / (1 - self.left))

    def step(self) -> None:
        """One step."""
        for network in (self.network, self.critic):
            network.requires_grad_(not self.frozen)
        loss = self.listen(self.render(), self.boxes())
        if self.system == "big-sleep":
            loss = loss + self.own()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.system == "big-sleep":
            self.averaged()
        else:
            with torch.no_grad():
                self.leaves[0].copy_(self.leaves[0].maximum(self.low).minimum(self.high))


# What is measured.


def agree(system: str, critic: ClipCritic, reference: Reference, order: Order) -> dict[str, float]:
    """How far score and gradient on a picture lie apart, for the same picture and boxes, as shares of theirs.

    Whether they are near enough is the caller's business.
    """
    kept: list[Cuts] = []
    generator = torch.Generator().manual_seed(6)
    pixels = (0.5 * torch.randn(1, 3, order.size, order.size, generator=generator)).clamp(-1, 1)
    opinion = our_judge(system, critic, order, lambda _, cuts: kept.append(cuts)).opinion(pixels, Noise((7,)), 0.0)
    boxes = [(left, top, wide) for left, top, wide, _ in kept[0].boxes[0].int().tolist()]
    leaf = pixels.clone().requires_grad_()
    score = reference.listen((leaf + 1) / 2, boxes)
    (gradient,) = torch.autograd.grad(score, leaf)
    errors = {
        "score": float((opinion.score - score.detach()).abs() / score.detach().abs()),
        "gradient": float((opinion.gradient - gradient).norm() / gradient.norm()),
    }
    return errors


def ready(system: str, name: str, order: Order, steps: int) -> Callable[[], object]:
    """A function that takes one of so many steps, as one of the variants does."""
    network = painter(system, order)
    if name.startswith(MINE):
        reuse_memory()
        dtype = torch.bfloat16 if name == HALF else torch.float32
        return ours(system, our_critic(order, None, dtype), arranged(network, dtype), order, steps)
    frozen = name == FROZEN or system == "vqgan-clip"
    return Reference(system, their_critic(order), plain(network), order, frozen=frozen).step


def proved(system: str, order: Order) -> dict[str, dict[str, float]]:
    """See `agree`: in float32, where no more than rounding may lie between the two, and in bfloat16, as it is."""
    theirs = their_critic(order)
    reference = Reference(system, theirs, painter(system, order), order, frozen=True)
    errors = agree(system, our_critic(order, theirs), reference, order)
    if not all(error <= TOLERANCE for error in errors.values()):
        sys.exit(f"{system}: the two loops do not compute the same, so there is nothing to compare: {errors}")
    return {MINE: errors, HALF: agree(system, our_critic(order, theirs, torch.bfloat16), reference, order)}


def timed(system: str, order: Order, given: argparse.Namespace) -> dict[str, Any]:
    """Seconds a step of everyone, in turns, the first not counted."""
    errors = proved(system, order)
    times: dict[str, list[float]] = {name: [] for name in TIMED[system]}
    with ExitStack() as stack:
        runs = {name: stack.enter_context(_waiting(system, name, given)) for name in times}
        for turn in range(given.steps + 1):
            for name, run in runs.items():
                spent = run()
                if turn:
                    times[name].append(spent)
    middle = {name: statistics.median(each) for name, each in times.items()}
    rows: dict[str, Any] = {
        name: {
            "median": middle[name],
            "min": min(times[name]),
            "max": max(times[name]),
            "cuts timed": order.cuts,
            "size timed": order.size,
            "times faster than the reference": middle[THEIRS] / middle[name],
        }
        for name in times
    }
    return rows | {"errors": errors}


def wait(system: str, name: str, order: Order, steps: int, clock: str) -> None:
    """Take a step for every line that comes in, and say how long it took."""
    now, step = CLOCKS[clock], ready(system, name, order, steps)
    print(READY, flush=True)
    for _ in sys.stdin:
        start = now()
        step()
        print(now() - start, flush=True)


def weigh(system: str, name: str, order: Order, steps: int) -> dict[str, float]:
    """The memory of so many steps, in this process."""
    if not name.startswith(MINE):  # imports are not loading
        import transformers.models.clip.modeling_clip  # noqa: F401
    before = peak()
    step = ready(system, name, order, steps)
    loaded = peak()
    for _ in range(steps):
        step()
    found = {"imports GB": before, "loaded GB": loaded, "peak GB": peak(), "steps GB": peak() - loaded}
    return found | {"cuts weighed": order.cuts, "size weighed": order.size}


def asked() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cuts", type=int, default=64)
    parser.add_argument("--size", type=int, default=256, choices=sorted(BIGGANS), help="side of the pictures")
    parser.add_argument("--steps", type=int, default=5, help="of each, that are counted")
    parser.add_argument("--chunk", type=int, help="cuts our critic sees at a time [default: the system's]")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=SYSTEMS)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu where others use the machine, too")
    parser.add_argument("--tiny", action="store_true", help="with tiny networks and pictures, to see that it runs")
    parser.add_argument("--output", type=Path, help="where the numbers go")
    parser.add_argument("--only", choices=("time", "memory"), help="measure one of the two")
    parser.add_argument("--weigh", nargs=2, metavar=("SYSTEM", "NAME"), help="memory, in this process, as JSON")
    parser.add_argument("--wait", nargs=2, metavar=("SYSTEM", "NAME"), help="a step for every line of standard input")
    return parser.parse_args()


def main() -> None:
    """Prove, measure, print a table, write JSON."""
    given = asked()
    torch.set_num_threads(given.threads)
    order = Order(
        size=TINY_SIZE if given.tiny else given.size, cuts=given.cuts, chunk=given.chunk, tiny=given.tiny
    )  # fmt: skip
    if given.weigh:
        print(json.dumps(weigh(*given.weigh, order, min(given.steps, 2))))
        return
    if given.wait:
        wait(*given.wait, order, given.steps + 1, given.clock)
        return
    path = given.output or (None if given.tiny else peers.results("ascent"))
    found: dict[str, Any] = {
        "machine": peers.machine(), "torch": torch.__version__, "threads": given.threads, "size": order.size,
        "cuts": order.cuts, "steps": given.steps, "clock": given.clock,
        "chunk": {name: order.chunk_of(name) for name in given.systems},
        "networks": "tiny" if order.tiny else "CLIP ViT-B/32, VQGAN f16 of 16,384 codes, BigGAN-deep; random, float32",
        "reference": "transformers' CLIP; our VQGAN and BigGAN objects, with torch's own layers",
    }  # fmt: skip
    told = json.loads(path.read_text(encoding="utf-8")) if path is not None and path.exists() else {}
    found = {**{system: told[system] for system in SYSTEMS if system in told}, **found}
    print(f"{found['machine']}, {given.threads} threads, torch {torch.__version__}")
    print(f"{order.cuts} cuts of {order.size}x{order.size}; the reference: {found['reference']}")
    for system in given.systems:
        # Memory first: this process is still small, and its own share of the machine with it.
        measured: dict[str, Any] = {}
        if given.only != "time":
            measured |= {name: _weighed(system, name, given) for name in WEIGHED[system]}
        if given.only != "memory":
            for name, row in timed(system, order, given).items():
                measured.setdefault(name, {}).update(row)
        rows = found.setdefault(system, {})
        for name, row in measured.items():
            rows.setdefault(name, {}).update(row)
        _tell(system, rows)
        if path is not None:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _command(what: str, system: str, name: str, given: argparse.Namespace) -> list[str]:
    """This program, for one variant."""
    command = [
        sys.executable, __file__, what, system, name, "--cuts", str(given.cuts), "--size", str(given.size),
        "--threads", str(given.threads), "--steps", str(given.steps), "--clock", given.clock,
        *(["--tiny"] if given.tiny else []),
    ]  # fmt: skip
    chunk = 8 if name == FEW else given.chunk
    return command if chunk is None else [*command, "--chunk", str(chunk)]


@contextmanager
def _waiting(system: str, name: str, given: argparse.Namespace) -> Iterator[Callable[[], float]]:
    """A process that takes a step when it is told to; gives what tells it, which answers with the seconds."""
    with subprocess.Popen(
        _command("--wait", system, name, given), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        talk, hear = cast(Any, process.stdin), cast(Any, process.stdout)

        def heard() -> str:
            line = hear.readline()
            if not line:
                sys.exit(f"{system}, {name}: the process ended")
            return line.strip()

        def run() -> float:
            print(file=talk, flush=True)
            return float(heard())

        try:
            if heard() != READY:
                sys.exit(f"{system}, {name}: not understood")
            yield run
        finally:
            process.kill()


def _weighed(system: str, name: str, given: argparse.Namespace) -> dict[str, float]:
    """The memory of one variant, in a fresh process."""
    done = subprocess.run(_command("--weigh", system, name, given), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{system}, {name}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def _tell(system: str, rows: dict[str, Any]) -> None:
    """A table."""
    print(f"\n{system}")
    for name, errors in rows.get("errors", {}).items():
        print(f"{name}: score and gradient agree to {errors['score']:.1e} and {errors['gradient']:.1e}")
    print(f"{'':18} {'median s':>9} {'min s':>8} {'faster':>8} {'peak GB':>8} {'of it':>7} {'steps GB':>9}")
    most = rows[THEIRS].get("peak GB")
    for name, row in rows.items():
        if name == "errors":
            continue
        spent = " " * 27
        if "median" in row:
            spent = f"{row['median']:9.3f} {row['min']:8.3f} {row['times faster than the reference']:7.2f}x"
        held = f"{row['peak GB']:8.2f} {row['peak GB'] / most:6.0%} {row['steps GB']:9.2f}" if most else ""
        print(f"{name:18} {spent} {held}", flush=True)


if __name__ == "__main__":
    main()
