"""What every test shares: shapes checked at run time, the real material, a system that draws without weights."""

import os
import sys
import time
import types
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import hypothesis
import pytest

# One of several pytest processes at work has a processor of its own, and no more: torch reads this when it is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(_name, "1")

from tests import checks  # noqa: E402

# Before any of these is imported: from here on every annotated shape is checked when it is passed.
CHECKED = (
    "adversarial ascent autoregression codec critique diffusion networks nn noise objective pixels systems text "
    "training evaluation"
).split()
checks.install([f"mindseye.{name}" for name in CHECKED])

import torch  # noqa: E402

from mindseye import zoo  # noqa: E402
from mindseye.engine import engine  # noqa: E402
from mindseye.pixels import to_images  # noqa: E402
from mindseye.request import Progress  # noqa: E402

# The same examples on every run, and no clock: a test that fails only on a busy machine tells nothing.
hypothesis.settings.register_profile("mindseye", derandomize=True, deadline=None, database=None)
hypothesis.settings.load_profile("mindseye")

MATERIAL = Path(__file__).parents[2] / "shared" / "material"


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """No test sees what the user of this machine has."""
    folder = tmp_path_factory.getbasetemp() / "home"
    monkeypatch.setenv("MINDSEYE_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def material():
    """Folder of real third-party files, which are not part of the project."""
    if not MATERIAL.is_dir():
        pytest.skip("the third-party material is not beside the project")
    return MATERIAL


@pytest.fixture(scope="session")
def second():
    """A second of the processors that bars are set on (fixed work takes 0.075 s there), in seconds of this one.

    A bar is what it says on those and on faster ones; on slower ones it moves as far as they are slower.
    """

    def work():
        started, counts = time.process_time(), {}
        for number in range(300_000):
            counts[number & 1023] = counts.get(number & 1023, 0) + len(str(number))
        return time.process_time() - started

    return max(1.0, min(work() for _ in range(3)) / 0.075)


class Painter:
    """A system without networks: a picture is its noise, walked towards a colour taken from the prompt."""

    samplers = ("euler", "heun")
    closed = 0

    @dataclass(frozen=True)
    class Options:
        """Its knobs."""

        tint: float = field(default=0.5, metadata={"help": "How much colour.", "low": 0, "high": 1})
        grain: int = field(default=1, metadata={"help": "How coarse.", "low": 1, "high": 8})
        frame: bool = field(default=False, metadata={"help": "A frame around it."})
        mood: str = field(default="calm", metadata={"help": "Which way.", "choices": ("calm", "wild")})
        break_: str = field(default="", metadata={"help": "Fail: nan, oom, bug."})

    def __init__(self):
        self.batches = []
        self.asked = []

    def notices(self, request):
        """What is not done to the letter."""
        return ("prompt cut after 3 words: it left out 'four'",) if len(request.prompt.split()) == 4 else ()

    def synthesize(self, request, options, noise):
        """Noise to colour, one step at a time."""
        try:
            self.batches.append(len(noise.seeds))
            self.asked.append((request.seed, request.count))
            if options.break_ == "oom" and len(noise.seeds) > 2:
                raise torch.OutOfMemoryError("out of memory")
            if options.break_ == "bug":
                raise RuntimeError("a bug")
            width, height = request.size
            colour = torch.tensor([len(request.prompt) % 7 / 7, 0.5, 0.25]).view(1, 3, 1, 1)
            x = noise.normal(3, height, width)
            for step in range(request.steps):
                x = x + options.tint * (colour - x) / request.steps
                yield Progress("paint", step + 1, request.steps, partial(to_images, x))
            return x * float("nan") if options.break_ == "nan" else x
        except GeneratorExit:
            Painter.closed += 1
            raise


PAINTER = zoo.Card(
    name="painter",
    system="painter_for_tests:Painter",
    parts={},
    native=(16, 16),
    multiple=8,
    licence="none",
    paper="none",
    training="not trained",
    defaults={"steps": 3, "sampler": "euler"},
)


@pytest.fixture
def painter(monkeypatch):
    """The card of a system that needs no weights, made known to the zoo."""
    module = types.ModuleType("painter_for_tests")
    module.Painter = Painter
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(zoo, "ZOO", (*zoo.ZOO, PAINTER))
    monkeypatch.setattr(engine, "_shared", None)
    monkeypatch.setattr(Painter, "closed", 0)
    return PAINTER


@pytest.fixture
def painter_card(painter):
    """A maker of cards like the painter's."""
    return lambda **changes: replace(painter, **changes)
