"""Kinds of thing: what a class-conditional generator is told, read off captions.

The corpus has names for thousands of things; a generator with a class for each would see each a dozen times. So things
that look alike are one class: ten plain shapes, and some twenty kinds of icon, those that the corpus has at least 150
pictures of and that a classifier tells from the others.
"""

import re
from typing import Final

from mindseye.data.scenes import names_plain_shapes
from mindseye.data.shapes import SHAPES

__all__ = ["CLASSES", "class_of"]

CLASSES: Final[dict[str, str]] = {
    **dict.fromkeys(SHAPES, ""),
    "cat": "cat",
    "dog": "dog poodle",
    "bear": "bear panda koala",
    "bird": "bird chick chicken rooster penguin duck owl eagle parrot dove swan flamingo",
    "fish": "fish whale dolphin shark blowfish",
    "moon": "moon",
    "clock": "clock o'clock watch alarm",
    "cloud": "cloud",
    "umbrella": "umbrella",
    "car": "car automobile taxi bus trolleybus minibus",
    "train": "train tram railway locomotive metro",
    "ship": "ship boat sailboat speedboat ferry canoe",
    "house": "house building hotel castle school church hospital bank office store",
    "flag": "flag",
    "hand": "hand hands fist thumbs finger index",
    "person": "person woman man",
    "heart": "heart",
    "star": "star",
    "button": "button",
    "letter": "letter",
    "plant": "leaf herb clover seedling tree",
    "flower": "flower blossom rose tulip hibiscus sunflower bouquet hyacinth",
    "fruit": "apple strawberry grapes tangerine tomato banana cherries lemon pear peach watermelon melon pineapple "
    "mango kiwi blueberries orange coconut",
    "book": "book books notebook",
    "face": "face",
}
"""What a picture of one thing is a picture of: the name of a class, and the words by which it is known."""
_WORDS: Final = {word: label for label, words in reversed(CLASSES.items()) for word in words.split()}
_PLACE: Final = {label: place for place, label in enumerate(CLASSES)}
_SEVERAL: Final = re.compile(r"\b(two|three|and|left of|right of|above|below|next to|beside|without)\b")
_ADDED: Final = re.compile(r",| on an? \w+ background| with ")


def class_of(caption: str) -> int | None:
    """The place among `CLASSES` of what a caption of the corpus shows; None for several things, or another."""
    if _SEVERAL.search(caption):
        return None
    if names_plain_shapes(caption):
        found = [word for word in caption.split() if word in SHAPES]
        return _PLACE[found[0]] if len(found) == 1 else None
    words = re.findall(r"[a-z'-]+", _ADDED.split(caption, maxsplit=1)[0].lower())
    places = [_PLACE[_WORDS[word]] for word in words if word in _WORDS]
    # "cat face" is a cat: the classes stand in the order in which they claim.
    return min(places, key=lambda place: (place < len(SHAPES), place)) if places else None
