"""What the commands share in speaking to a terminal: sentences, progress bars, `key=value` pairs."""

import json
import signal
import sys
import threading
from collections.abc import Generator, Iterable
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

from mindseye.errors import OptionError
from mindseye.request import Steps

T = TypeVar("T")


def say(text: str, *, hint: str = "") -> None:
    """A sentence to the user, on stderr."""
    print(f"mindseye: {text}", file=sys.stderr)
    if hint:
        print(f"  hint: {hint}", file=sys.stderr)


def put_json(value: Any) -> None:
    """One JSON value on one line of stdout."""
    print(json.dumps(value, ensure_ascii=False, sort_keys=True), flush=True)


def pairs(given: Iterable[str]) -> dict[str, str]:
    """`["a=1", "b=x"]` as a mapping; the last of two equal names counts.

    Raises:
        OptionError: One of them has no equals sign or no name.
    """
    found: dict[str, str] = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not equals or not name.strip():
            raise OptionError(f"--set {each!r} is not of the form name=value", hint="say --set steps=20")
        found[name.strip().replace("-", "_")] = value
    return found


def watch(steps: Steps[T], *, quiet: bool = False, finish_step: bool = False) -> T:
    """Run a generator of `Progress` to its end under a bar with stage, steps and time left; give back its value.

    The bar is on stderr and only where that is a terminal.

    Args:
        steps: What is run; closed in any case.
        quiet: No bar.
        finish_step: Ctrl-C closes the generator after the step under way, so that it can keep what it has; a second
            Ctrl-C stops it at once.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    bar = None if quiet or not sys.stderr.isatty() else _Bar()
    try:
        with _asked_to_stop() if finish_step else nullcontext([]) as asked:
            while not asked:
                progress = next(steps)
                if bar is not None:
                    bar.show(progress.stage, progress.step, progress.total)
            steps.close()
        raise KeyboardInterrupt
    except StopIteration as stop:
        return stop.value
    finally:
        steps.close()
        if bar is not None:
            bar.close()


@contextmanager
def _asked_to_stop() -> Generator[list[int], None, None]:
    """A list that the first Ctrl-C fills; the next one interrupts as ever."""
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler or threading.current_thread() is not threading.main_thread():
        yield asked  # somebody else's business, or nobody's
        return

    def ask(number: int, frame: object) -> None:
        asked.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, ask)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGINT, before)


class _Bar:
    """A rich progress bar that changes its name with the stage."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
        self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("", total=None)
        self._stage = ""
        self._bar.start()

    def show(self, stage: str, step: int, total: int) -> None:
        """Move to where the work is; a new stage starts a new count and a new estimate."""
        if stage != self._stage:
            self._stage = stage
            self._bar.reset(self._task, description=stage)
        self._bar.update(self._task, completed=step, total=total)

    def close(self) -> None:
        """Take the bar off the screen."""
        self._bar.stop()
