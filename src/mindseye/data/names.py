"""From an icon's file name to words: what it shows, its skin tone, its keywords.

Names are matched against Emojibase's labels (``man-mage-light-skin-tone`` is *man mage*, tone *light*), also when a
set writes them without hyphens (``musicalnote``) or with a number behind; what matches nothing is split into known
words and kept as it is.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

__all__ = ["Concept", "Names", "with_article"]

TONES: Final = {
    1: "light skin",
    2: "medium light skin",
    3: "medium skin",
    4: "medium dark skin",
    5: "dark skin",
}
TONE_ENDINGS: Final = {
    f"-{words.removesuffix(' skin').replace(' ', '-')}": words
    # Longest first: "-medium-dark" also ends in "-dark".
    for words in sorted(TONES.values(), key=len, reverse=True)
}
PEOPLE: Final = frozenset({"man", "woman", "person", "people", "men", "women", "boy", "girl", "child", "baby"})
OTHER: Final = -1


@dataclass(frozen=True, kw_only=True)
class Concept:
    """What an icon shows."""

    label: str
    """Lower case, as a caption says it: ``"flag of germany"``."""
    tone: str = ""
    tags: tuple[str, ...] = ()
    group: int = OTHER
    """Emojibase's group (0 smileys, 1 people, 3 animals and nature, 4 food, 5 travel, 6 activities, 7 objects,
    8 symbols, 9 flags), or -1."""


def slug(text: str) -> str:
    """Lower case words joined by hyphens."""
    text = text.lower().replace("’", "").replace("'", "").replace("“", "").replace("”", "").replace("&", "and")
    return re.sub(r"[^\w]+", "-", text).strip("-")


def readable(label: str) -> str:
    """Emojibase's label as a caption says it."""
    label = label.lower().replace("’", "'").replace("“", "").replace("”", "")
    if label.startswith("flag: "):
        return "flag of " + label[6:]
    return label.replace(": ", " ").replace(",", "")


def with_article(label: str) -> str:
    """``"owl"`` to ``"an owl"``; plurals and names of signs stay bare."""
    first = label.split()[0]
    plural = label.endswith("s") and not label.endswith("ss")
    if plural or not first[0].isalpha() or first in {"a", "an", "the", "keycap", "flag"}:
        return label
    return ("an " if first[0] in "aeiou" and not first.startswith(("uni", "one")) else "a ") + label


class Names:
    """An index of Emojibase's labels.

    Args:
        emojibase: the list in its ``en/data.json``.
        others: file names of every set, whose words help to split names written together.
    """

    def __init__(self, emojibase: Sequence[Mapping[str, Any]], others: Iterable[str] = ()) -> None:
        self._by_slug: dict[str, Concept] = {}
        words: Counter[str] = Counter()
        for entry in emojibase:
            base = Concept(
                label=readable(entry["label"]), tags=tuple(entry.get("tags", ())), group=entry.get("group", OTHER)
            )
            words.update(slug(entry["label"]).split("-"))
            self._add(entry["label"], base)
            for skin in entry.get("skins", ()):
                tone = skin.get("tone")
                named = " and ".join(TONES[t] for t in (tone if isinstance(tone, list) else [tone]))
                toned = Concept(label=base.label, tone=named, tags=base.tags, group=base.group)
                self._add(skin["label"], toned)
        self._squashed = {key.replace("-", ""): value for key, value in self._by_slug.items()}
        for name in others:
            words.update(name.split("-"))
        total = sum(words.values())
        self._words = {w: n / total for w, n in words.items() if len(w) > 2 or w in {"of", "in", "on", "no", "up", "a"}}

    def _add(self, label: str, concept: Concept) -> None:
        key = slug(label)
        self._by_slug.setdefault(key, concept)
        if key.startswith("flag-"):
            self._by_slug.setdefault(key.replace("flag-", "flag-for-", 1), concept)
        if key.endswith("-skin-tone"):
            self._by_slug.setdefault(key.removesuffix("-skin-tone"), concept)

    def find(self, name: str) -> Concept:
        """The concept of an icon's file name."""
        bare = re.sub(r"-\d+$", "", name).replace("flag-for-flag-", "flag-for-")
        for key in (name, bare, bare + "-face", bare + "-button", bare.removesuffix("-face")):
            if key in self._by_slug:
                return self._by_slug[key]
        for tone, words in TONE_ENDINGS.items():
            base = self._by_slug.get(bare.removesuffix(tone)) if bare.endswith(tone) else None
            if base is not None and base.group == 1:
                return Concept(label=base.label, tone=words, tags=base.tags, group=base.group)
            if bare.endswith(f"{tone}-skin-tone") or (bare.endswith(tone) and bare.split("-")[0] in PEOPLE):
                base = self.find(bare.removesuffix("-skin-tone").removesuffix(tone))
                return Concept(label=base.label, tone=words, tags=base.tags, group=1)
        squashed = bare.replace("-", "")
        if squashed in self._squashed:
            return self._squashed[squashed]
        words = bare.split("-")
        if len(words) == 1 and bare not in self._words:
            words = self._split(bare)
        return Concept(label=" ".join(words))

    def _split(self, text: str) -> list[str]:
        """The likeliest division of ``text`` into known words, or the text whole."""
        best: list[tuple[float, list[str]]] = [(1.0, [])]
        for end in range(1, len(text) + 1):
            options = [(0.0, [text[:end]])]
            for start in range(max(0, end - 16), end):
                p = self._words.get(text[start:end])
                if p is not None and best[start][0] > 0:
                    options.append((best[start][0] * p, [*best[start][1], text[start:end]]))
            best.append(max(options, key=lambda option: option[0]))
        return best[-1][1]
