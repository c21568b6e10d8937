"""A folder of lists to pick words from: what `__colours__` in a dynamic prompt stands for.

    animals.txt         a value a line; blank lines and those that begin with # do not count
    clothes/hats.txt    is called clothes/hats
    more.yaml, .json    a list is called as the file; of nested tables the keys make the name, `clothes: {hats: [...]}`
    3::red              a value that comes up three times as often

Names may be patterns: `*` and `?` within a part of the name, `**` for any number of parts.

The folder is listed once and names are looked up in that list, never in the file system: no name leads out of the
folder, and neither does a link in it.
"""

import difflib
import fnmatch
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, final

from mindseye.errors import DataError, OptionError, UnknownName

_WEIGHT = re.compile(r"\s*([0-9]{1,9}(?:\.[0-9]{0,9})?|\.[0-9]{1,9})::")
_SUFFIXES = (".txt", ".yaml", ".yml", ".json")
_LARGEST = 64 * 2**20
_MOST = 200_000
_SHOWN = 20


class Value(NamedTuple):
    """One thing to pick.

    Attributes:
        weight: How often, in proportion to the others.
        text: May be a dynamic prompt itself.
    """

    weight: float
    text: str


def weighed(text: str) -> Value:
    """Takes the weight off a value, `0.5::red`; 1 where there is none."""
    found = _WEIGHT.match(text)
    return Value(float(found[1]), text[found.end() :]) if found else Value(1.0, text)


@final
class Wildcards:
    """A folder of lists, read as they are asked for.

    Args:
        folder: Where they lie.

    Raises:
        OptionError: There is no such folder.
    """

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise OptionError(f"there is no folder of wildcards at {folder}")
        self.folder = folder
        self._found: dict[str, list[Value]] = {}
        self._lines: dict[str, Path] = {}
        root = folder.resolve()
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in _SUFFIXES or not path.is_file() or not path.resolve().is_relative_to(root):
                continue
            inside = path.relative_to(folder)
            if path.suffix.lower() == ".txt":
                self._lines[inside.with_suffix("").as_posix()] = path
            else:
                where = inside.parent.as_posix()
                for name, values in _lists(path):
                    full = name if where == "." else f"{where}/{name}"
                    self._found.setdefault(full, []).extend(values)
        self.names = tuple(sorted({*self._found, *self._lines}))
        """All lists, by name."""

    def values(self, name: str) -> list[Value]:
        """What a name or a pattern stands for; of a pattern, the lists one after the other.

        Raises:
            UnknownName: Nothing is called like that, or nothing is in it.
            DataError: A file cannot be read.
        """
        if not any(sign in name for sign in "*?["):
            matching = [name] if name in self._found or name in self._lines else []
        else:
            pattern = name.split("/")
            matching = [known for known in self.names if _matches(known.split("/"), pattern)]
        values = [value for known in matching for value in self._read(known)]
        if not values:
            raise UnknownName("wildcard", name, self._like(name))
        return values

    def _like(self, name: str) -> list[str]:
        """All names, or those most like this one if there are many."""
        shown = difflib.get_close_matches(name, self.names, n=_SHOWN, cutoff=0)
        return shown if len(self.names) > _SHOWN else list(self.names)

    def _read(self, name: str) -> list[Value]:
        path = self._lines.pop(name, None)
        if path is not None:
            lines = (line.strip() for line in _text(path).splitlines())
            own = self._found.setdefault(name, [])
            own += [weighed(line) for line in lines if line and not line.startswith("#")]
        return self._found[name]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a name fits a pattern, both cut at their slashes."""
    # Which beginnings of the pattern the parts so far can have used up; `**` may stand for none.
    at = {0}
    for index in range(len(parts) + 1):
        for used in range(len(pattern)):
            if used in at and pattern[used] == "**":
                at.add(used + 1)
        if index == len(parts):
            break
        nexts = set()
        for used in at:
            if used < len(pattern):
                if pattern[used] == "**":
                    nexts.add(used)
                elif fnmatch.fnmatchcase(parts[index], pattern[used]):
                    nexts.add(used + 1)
        at = nexts
    return len(pattern) in at


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise DataError(f"the wildcard file {path} is larger than {_LARGEST // 2**20} MiB")
        return path.read_bytes().decode("utf-8-sig", "replace")
    except OSError as error:
        raise DataError(f"the wildcard file {path} cannot be read: {error.strerror}") from None


def _lists(path: Path) -> Iterator[tuple[str, list[Value]]]:
    """The lists of a YAML or JSON file, by name."""
    text = _text(path)
    try:
        if path.suffix.lower() == ".json":
            content = json.loads(text)
        else:
            import yaml

            content = yaml.safe_load(text)
    except RecursionError:
        raise DataError(f"the wildcard file {path} is nested too deeply") from None
    except Exception as error:  # of yaml's kind or json's; yaml's can also be a plain ValueError
        what = " ".join(str(error).split())
        raise DataError(f"the wildcard file {path} cannot be read: {what:.200}") from None
    # An alias of YAML can make a small file an endless table: what is walked is counted.
    walked = 0
    waiting: list[tuple[str, Any]] = [("", content)]
    while waiting:
        name, content = waiting.pop()
        walked += 1 + (len(content) if isinstance(content, (list, dict)) else 0)
        if walked > _MOST:
            raise DataError(f"the wildcard file {path} holds more than {_MOST:,} values")
        if isinstance(content, dict):
            waiting += ((f"{name}/{key}" if name else str(key), value) for key, value in content.items())
        elif isinstance(content, list):
            values = [weighed(str(value)) for value in content if isinstance(value, (str, int, float))]
            yield name or path.stem, values
        elif isinstance(content, (str, int, float)):
            yield name or path.stem, [weighed(str(content))]
