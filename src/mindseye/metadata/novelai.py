"""NovelAI: PNG chunks `Software`, `Description` and `Comment`, the last JSON; or the same hidden in the pixels."""

from collections.abc import Mapping
from typing import Any

from mindseye.metadata.found import Found, gathered, parse_object, real, size_of, spread, text_of, whole

_READ = {
    "prompt", "uc", "steps", "sampler", "noise_schedule", "scale", "cfg_rescale", "seed", "width", "height", "strength",
    "v4_prompt", "v4_negative_prompt", "signed_hash", "version",
}  # fmt: skip


def read(chunks: Mapping[str, str]) -> Found | None:
    """NovelAI's account in a file's chunks."""
    raw = chunks.get("Comment", "")
    plain = parse_object(raw)
    if chunks.get("Software") != "NovelAI" and not (plain and "uc" in plain and "sampler" in plain):
        return None
    if plain is None:
        return Found(tool="NovelAI", raw=raw, dialect="novelai", notices=("what NovelAI wrote into it is damaged",))
    notices: list[str] = []
    prompt, negative = (_told(plain, key, notices) for key in ("v4_prompt", "v4_negative_prompt"))
    is_start = plain.get("request_type") in ("Img2ImgRequest", "NativeInfillingRequest")
    fields = {
        "prompt": prompt or text_of(plain.get("prompt")) or text_of(chunks.get("Description")),
        "negative": negative or text_of(plain.get("uc")),
        "steps": whole(plain.get("steps")),
        "sampler": text_of(plain.get("sampler")),
        "schedule": text_of(plain.get("noise_schedule")),
        "guidance": real(plain.get("scale")),
        "rescale": real(plain.get("cfg_rescale")) or None,
        "seed": whole(plain.get("seed")),
        "size": size_of((plain.get("width"), plain.get("height"))),
        # It is written for every picture; only a start picture gives it a meaning.
        "strength": real(plain.get("strength")) if is_start else None,
        "model": text_of(chunks.get("Source")),
        "extra": spread({key: value for key, value in plain.items() if key not in _READ and value is not False}),
    }
    return Found(tool="NovelAI", fields=gathered(fields), raw=raw, notices=tuple(notices), dialect="novelai")


def _told(plain: Mapping[str, Any], key: str, notices: list[str]) -> str | None:
    """Since version 4: a caption for the whole and one for each figure."""
    outer = plain.get(key)
    caption = outer.get("caption") if isinstance(outer, dict) else None
    if not isinstance(caption, dict):
        return None
    texts = [text_of(caption.get("base_caption"))]
    figures = caption.get("char_captions")
    if isinstance(figures, list):
        texts += [text_of(each.get("char_caption")) for each in figures[:20] if isinstance(each, dict)]
    said = "it placed several figures, each with its own words: here the words are joined and the places lost"
    if len([text for text in texts if text]) > 1 and said not in notices:
        notices.append(said)
    return ", ".join(text for text in texts if text) or None
