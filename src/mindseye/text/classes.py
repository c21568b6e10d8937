"""Which classes a prompt names: for networks that know things by number.

A class may have several names ("goldfish", "Carassius auratus"), joined by ``|``, the first of which it is called by
here. Networks of a thousand classes are taken for those of ImageNet, whose names come with the package
(``imagenet.txt``, which says from where); BigGAN and guided-diffusion's networks were trained on no other thousand.

This module imports no torch.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files

__all__ = ["imagenet", "known_as", "likely", "named", "place_of", "title", "told"]

_WORD = re.compile(r"[\w'-]+")
_CLOSE, _LONG = 0.88, 6
"""How alike a misspelt word is, and how long: "goldfsh" is a goldfish; "house" is no horse, "planet" no plane."""


@lru_cache(maxsize=1)
def imagenet() -> tuple[str, ...]:
    """The names of ImageNet's thousand classes."""
    lines = (files("mindseye.text") / "imagenet.txt").read_text(encoding="utf-8").splitlines()
    return tuple(line for line in lines if not line.startswith("#"))


def known_as(labels: Sequence[str], count: int) -> tuple[str, ...]:
    """The names of ``count`` classes: their own, or else ImageNet's where there are a thousand; empty = unknown."""
    return tuple(labels) or (imagenet() if count == 1000 else ())


def title(label: str) -> str:
    """What a class is called."""
    return label.partition("|")[0]


def told(label: str) -> str:
    """A text that says no more than the class: what a critic reads for it. A name that is a text already stays so."""
    name = title(label)
    return name if name.partition(" ")[0].lower() in ("a", "an", "the") else f"a {name}"


def named(prompt: str, labels: Sequence[str]) -> list[int]:
    """The classes whose names stand in the prompt, as words, one or several of the thing; the longest names count.

    Of two classes of one name the one is meant that is called so first, or else the first ("crane": the bird).
    """
    known = _names(tuple(labels))
    longest = max((name.count(" ") + 1 for name in known), default=0)
    words: list[str] = _WORD.findall(prompt.lower())
    found: list[int] = []
    place = 0
    while place < len(words):
        for length in range(min(longest, len(words) - place), 0, -1):
            text = " ".join(words[place : place + length])
            hit = next((known[form] for form in _singular(text) if form in known), None)
            if hit is not None:
                found.append(hit)
                place += length
                break
        else:
            place += 1
    return list(dict.fromkeys(found))


def likely(prompt: str, labels: Sequence[str]) -> list[int]:
    """The classes that a prompt without any may mean: of the kind of a word ("dog": "Maltese dog"), or misspelt."""
    words: list[str] = _WORD.findall(prompt.lower())
    kinds: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        kinds.setdefault(title(label).lower().rpartition(" ")[2], []).append(place)
    found = [place for word in words for form in _singular(word) for place in kinds.get(form, ())]
    if not found:
        known = _names(tuple(labels))
        long = [name for name in known if len(name) >= _LONG]
        close = (difflib.get_close_matches(word, long, 1, _CLOSE) for word in words if len(word) >= _LONG)
        found = [known[name] for names in close for name in names]
    return list(dict.fromkeys(found))


def place_of(name: str, labels: Sequence[str], count: int) -> int | None:
    """The class of a name, or of a number below ``count``; None = there is no such class."""
    name = name.strip().lower()
    found = _names(tuple(labels)).get(" ".join(_WORD.findall(name)))
    if found is None and name.isdecimal() and len(name) < 9 and int(name) < count:
        return int(name)
    return found


def _singular(text: str) -> Iterator[str]:
    """A word as it stands, and without the endings of several."""
    yield text
    for end in ("s", "es"):
        if text.endswith(end):
            yield text.removesuffix(end)


@lru_cache(maxsize=8)
def _names(labels: tuple[str, ...]) -> Mapping[str, int]:
    """Every name in small letters, and its class."""
    found: dict[str, int] = {}
    every = [(rank, place, name) for place, label in enumerate(labels) for rank, name in enumerate(label.split("|"))]
    for _, place, name in sorted(every):
        if words := _WORD.findall(name.lower()):
            found.setdefault(" ".join(words), place)
    return found
