"""What the commands share: how a watched run ends when somebody asks it to."""

import os
import signal

import pytest

from mindseye.cli.terminal import watch
from mindseye.request import Progress


def steps(log, asks, at=3):
    """Ten steps; in step ``at`` comes Ctrl-C, ``asks`` times."""
    try:
        for step in range(10):
            if step == at:
                for _ in range(asks):
                    os.kill(os.getpid(), signal.SIGINT)
            log.append(step)
            yield Progress("work", step, 10, tuple)
    except GeneratorExit:
        log.append("closed")
        raise
    except KeyboardInterrupt:
        log.append("interrupted")
        raise
    return "done"


@pytest.fixture(autouse=True)
def plain_interrupts():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler, "watching put nothing back"
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("finish", [False, True])
def test_the_value_comes_through(finish) -> None:
    log = []
    assert watch(steps(log, 0), quiet=True, finish_step=finish) == "done"
    assert log == list(range(10))


def test_ctrl_c_stops_at_once() -> None:
    log = []
    with pytest.raises(KeyboardInterrupt):
        watch(steps(log, 1), quiet=True)
    assert log == [0, 1, 2, "interrupted"]


def test_ctrl_c_lets_the_step_end_and_closes() -> None:
    log = []
    with pytest.raises(KeyboardInterrupt):
        watch(steps(log, 1), quiet=True, finish_step=True)
    assert log == [0, 1, 2, 3, "closed"]


def test_a_second_ctrl_c_does_not_wait() -> None:
    log = []
    with pytest.raises(KeyboardInterrupt):
        watch(steps(log, 2), quiet=True, finish_step=True)
    assert log == [0, 1, 2, "interrupted"]


def test_what_others_do_with_ctrl_c_is_left_alone() -> None:
    log, seen = [], []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    assert watch(steps(log, 1), quiet=True, finish_step=True) == "done"
    signal.signal(signal.SIGINT, signal.default_int_handler)
    assert seen == [signal.SIGINT]
