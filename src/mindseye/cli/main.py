"""The command line: `mindseye "a red apple"` and its subcommands.

Nothing heavy is imported until a command needs it, so that `--help` is instant. A first word that is no command is a
prompt: drawing is the default command. Pictures' paths and `--json` go to stdout, everything said to people to stderr;
exit codes are those of `mindseye.errors`.
"""

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from mindseye.cli import convert, data, evaluate, film, generate, grid, models, morph, show, train
from mindseye.cli.terminal import say
from mindseye.errors import Interrupted, MindseyeError, UsageError

__all__ = ["app", "main"]

_HELP = """Text to pictures, on your own machine.

\b
  mindseye "a red apple"                draw it, into the current folder
  mindseye "a red apple" -n 4 -o out    four of it, into a folder
  mindseye generate --help              everything that can be asked for
"""

app = typer.Typer(
    name="mindseye",
    help=_HELP,
    pretty_exceptions_enable=False,
    # Plain help: it is read by people and compared by tests, and rich takes longer to load than all the rest.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("generate")(generate.generate)
app.add_typer(models.app, name="models")
app.command("grid")(grid.grid)
app.command("morph")(morph.morph)
app.command("film")(film.film)
app.command("show")(show.show)
app.command("convert")(convert.convert)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.add_typer(data.app, name="data")

COMMANDS = ("generate", "grid", "morph", "film", "show", "convert", "train", "evaluate", "models", "data")
_STOPPED = "stopped; nothing half-made is left"
_ROOT_FLAGS = ("-h", "--help", "--version", "--install-completion", "--show-completion")


def _version(wanted: bool) -> None:
    """Print the version and leave."""
    if wanted:
        from mindseye import __version__

        print(f"mindseye {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Holds the options of the program itself."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program and return its exit code; nothing is raised.

    Args:
        arguments: Without the program's name; those of the process when None.
    """
    # Before torch is loaded: threads that wait busily for long starve each other on a machine that is busy already, and
    # threads that go to sleep at once wake up late; a short wait costs little on either.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    if cores := _share():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    given = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        code = app(_with_default(given), prog_name="mindseye", standalone_mode=False) or 0
        if code == Interrupted.exit_code:
            say(_STOPPED)
        return code
    except KeyboardInterrupt:
        say(_STOPPED)
        return Interrupted.exit_code
    except MindseyeError as error:
        say(error.message, hint=error.hint)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away (`| head`). Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as error:
        if complaint := getattr(error, "format_message", None):
            # The argument parser's own complaint; its class has no name that all versions share.
            context = getattr(error, "ctx", None)
            say(complaint(), hint=f"{context.command_path if context else 'mindseye'} --help")
            return UsageError.exit_code
        if os.environ.get("MINDSEYE_DEBUG"):
            traceback.print_exc()
        say(
            f"this should not have happened: {type(error).__name__}: {error!s:.300}",
            hint="please report it, with what MINDSEYE_DEBUG=1 prints",
        )
        return 1


def _share(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int | None:
    """Cores' worth of time that a container is allowed, where that is less than the cores it sees: torch counts those.

    More threads than that wait for each other whenever the container is held back. None where there is no limit.
    """
    try:
        quota, period = limit.read_text(encoding="ascii").split()
        cores = max(1, int(quota) // int(period))
        return cores if cores < len(os.sched_getaffinity(0)) else None
    except (OSError, ValueError, ZeroDivisionError, AttributeError):
        return None


def _with_default(given: list[str]) -> list[str]:
    """The arguments with the default command spelled out."""
    if not given or given[0] in COMMANDS or given[0] in _ROOT_FLAGS:
        return given
    if len(given) == 1 and (meant := difflib.get_close_matches(given[0], COMMANDS, n=1, cutoff=0.8)):
        # A lone word one slip away from a command is an odd prompt and a likely slip.
        raise UsageError(
            f"{given[0]!r} is no command",
            hint=f"did you mean `mindseye {meant[0]}`? to draw it: mindseye generate {given[0]}",
        )
    return ["generate", *given]
