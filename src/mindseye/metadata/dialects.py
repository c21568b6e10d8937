"""Others' prompt grammars in A1111's, which is the one that is understood here (`mindseye.text.prompt`).

ComfyUI weighs as A1111 does, (x:1.2), but square brackets mean nothing there, and embeddings are `embedding:name`.
InvokeAI's Compel weighs behind the words: `word++`, `(some words)1.3`, plus being 1.1 and minus 0.9; bare brackets
weigh nothing. NovelAI weighs 1.05 for each {brace}, and 1 / 1.05 for each [bracket].

One pass over the text each, so that no text is slow to translate.
"""

import re

from mindseye.metadata.found import Dialect

__all__ = ["to_a1111"]

_EMBEDDING = re.compile(r"\bembedding:([\w-]+)(\.pt\b|\.safetensors\b|\.bin\b)?")


def to_a1111(text: str, dialect: Dialect) -> str:
    """A prompt in A1111's grammar that weighs as it did in its own."""
    if dialect == "comfy":
        return _EMBEDDING.sub(r"\1", re.sub(r"(?<!\\)([\[\]])", r"\\\1", text))
    if dialect == "compel":
        return _compel(text)
    return _novelai(text) if dialect == "novelai" else text


def _compel(text: str) -> str:
    """Weights from behind the words to inside brackets; brackets without one become words' own."""
    made: list[str] = []
    opened: list[int] = []
    at, end = 0, len(text)
    word = 0
    while at < end:
        mark = text[at]
        if mark == "\\" and at + 1 < end:
            made.append(text[at : at + 2])
            at += 2
            continue
        if mark == "(":
            opened.append(len(made))
            made.append("")
            at, word = at + 1, len(made)
        elif mark == ")" and opened:
            weight, at = _weight(text, at + 1, number=True)
            start = opened.pop()
            if weight is not None:
                made[start] = "("
                made.append(f":{weight:.4g})")
            word = len(made)
        elif mark in "+-" and word < len(made) and made[-1] not in "+-":
            weight, after = _weight(text, at, number=False)
            # A dash within a word, or before one, is a dash.
            if weight is not None and (after == end or text[after].isspace() or text[after] in ",.;:!?)"):
                made.insert(word, "(")
                made.append(f":{weight:.4g})")
                at, word = after, len(made)
            else:
                made.append(text[at:after])
                at = after
        else:
            made.append("\\" + mark if mark in "[])" else mark)
            at += 1
            if mark.isspace() or mark in ",":
                word = len(made)
    return "".join(made)


def _weight(text: str, at: int, *, number: bool) -> tuple[float | None, int]:
    """The weight written at a place, None if there is none, and where it ends."""
    end = at
    mark = text[at : at + 1]
    if mark in ("+", "-"):
        while end < len(text) and text[end] == mark and end - at < 20:
            end += 1
        return (1.1 if mark == "+" else 0.9) ** (end - at), end
    while number and end - at < 8 and text[end : end + 1] in tuple("0123456789."):
        end += 1
    try:
        return (float(text[at:end]) if end > at else None), end
    except ValueError:
        return None, at


def _novelai(text: str) -> str:
    """Braces and brackets as weights, round brackets as themselves."""
    made: list[str] = []
    closing = {"}": ("{", ":1.05)"), "]": ("[", f":{1 / 1.05:.4g})")}
    opened: list[tuple[str, int]] = []
    for mark in text:
        if mark in "{[":
            opened.append((mark, len(made)))
            made.append("(")
        elif mark in closing:
            if opened and opened[-1][0] == closing[mark][0]:
                opened.pop()
                made.append(closing[mark][1])
        else:
            made.append("\\" + mark if mark in "()" else mark)
    # What was never closed weighs nothing.
    for _, place in opened:
        made[place] = ""
    return "".join(made)
