"""ComfyUI: not settings but the program that drew the picture, `prompt`, a graph of nodes as JSON.

{"3": {"class_type": "KSampler", "inputs": {"steps": 20, "positive": ["6", 0], ...}}, ...}, where a list [node, output]
is a link. Reading it means walking back from the node that saved the picture to the first sampler, and from there along
its links to words, latent size and weights; nodes are told by what their inputs are called, because there are thousands
of kinds of them. A second sampler on the way is read as a high-resolution pass.

A graph is untrusted input: links may point nowhere, in circles or at themselves. Every walk visits a node once and has
a stack of its own, so that a walk is linear in the graph and no graph is too deep. `workflow`, the editor's view of the
same, is only mentioned: without the editor's code its numbers have no names.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mindseye.metadata.found import (
    MOST_LORAS,
    Fields,
    Found,
    Lora,
    gathered,
    lora_of,
    parse_object,
    real,
    size_of,
    stem,
    text_of,
    whole,
)

_MOST_NODES, _MOST_INPUTS = 5000, 500
"""Larger ones are not drawn by hand."""

_MOST_OUTPUTS, _MOST_TEXTS, _MOST_PASSES, _MOST_HOPS = 8, 50, 20, 10
"""Limits that keep a crafted graph from multiplying one walk by another."""

_PICTURES = ("samples", "samples_to", "latent_image", "latent", "images", "image", "pixels", "optional_latent")
"""Inputs that a picture comes in by, in the order they are followed."""

_NOT_PICTURES = {
    "model", "clip", "vae", "positive", "negative", "conditioning", "control_net", "clip_vision", "style_model", "mask",
    "guider", "sampler", "sigmas", "noise", "upscale_model", "basic_pipe", "lora_stack",
}  # fmt: skip

_HELPERS = ("noise", "guider", "sampler", "sigmas")
"""What custom samplers keep in nodes of their own."""

_WORDS = ("text", "string", "prompt", "value", "populated_text", "wildcard_text", "text_positive")
_NUMBERS = ("value", "seed", "noise_seed", "int", "float", "number", "Number", "Value")


@dataclass(frozen=True)
class Node:
    """A node: its kind and its inputs."""

    kind: str
    inputs: Mapping[str, Any]


Graph = Mapping[str, Node]


def read(chunks: Mapping[str, str]) -> Found | None:
    """ComfyUI's account in a file's chunks."""
    raw = chunks.get("prompt", "")
    if raw.lstrip()[:1] != "{":
        # Without the graph, only the editor's view of it is there.
        if parse_object(chunks.get("workflow")) is None or raw:
            return None
        said = "it holds ComfyUI's editor view (workflow) only, from which settings cannot be told"
        return Found(tool="ComfyUI", raw=chunks["workflow"], notices=(said,), dialect="comfy")
    graph = graph_of(raw)
    if not graph:
        said = "ComfyUI's graph in it is damaged, or far too large"
        return Found(tool="ComfyUI", raw=raw, notices=(said,), dialect="comfy")
    notices: list[str] = []
    fields = _read(graph, size_of(chunks.get("size")), notices)
    if "workflow" in chunks:
        fields["extra"] = {"workflow": f"{len(chunks['workflow']):,} characters, for ComfyUI's editor"}
    return Found(tool="ComfyUI", fields=fields, raw=raw, notices=tuple(dict.fromkeys(notices)), dialect="comfy")


def graph_of(raw: str) -> Graph:
    """The nodes of an API graph; what is no node is left out, and what is no graph, or one without end, has none."""
    plain = parse_object(raw) or {}
    if isinstance(plain.get("prompt"), dict):  # as it is sent to the server
        plain = plain["prompt"]
    if len(plain) > _MOST_NODES:
        return {}
    return {
        name: Node(each["class_type"], dict(itertools.islice(each["inputs"].items(), _MOST_INPUTS)))
        for name, each in plain.items()
        if isinstance(each, dict) and isinstance(each.get("class_type"), str) and isinstance(each.get("inputs"), dict)
    }


def _read(graph: Graph, size: tuple[int, int] | None, notices: list[str]) -> Fields:
    """The settings of the picture that the graph saved."""
    chain = _chain(graph, size, notices)
    if not chain:
        notices.append("no sampler that this program knows is in ComfyUI's graph")
        return Fields()
    first, last = chain[-1], chain[0]
    fields = _pass(graph, first, notices)
    prompt, negative = (_words(graph, first, which, notices) for which in ("positive", "negative"))
    model, loras = _weights(graph, first)
    fields |= {"prompt": prompt, "negative": negative, "model": model, "loras": loras}
    fields |= {"clip_skip": _clip_skip(graph, first), "size": _latent_size(graph, first), "rng": "CPU"}
    if _starts_from_picture(graph, first):
        fields["strength"] = fields.pop("denoise")
    if last is not first:
        fields |= _second_pass(graph, first, last, fields, notices)
    if len(chain) > 2:
        notices.append(f"ComfyUI drew it in {len(chain)} passes: the first and the last are read")
    fields.pop("denoise", None)
    return gathered(fields)


def _links(value: object, graph: Graph) -> tuple[str, int] | None:
    """A link as (node, output); None for whatever is no link to a node that exists."""
    if isinstance(value, list) and len(value) == 2 and isinstance(value[0], (str, int)) and type(value[1]) is int:
        name = str(value[0])
        return (name, value[1]) if name in graph else None
    return None


def _walk(
    graph: Graph, start: Iterable[str], follow: Callable[[Node], Iterable[object]], seen: set[str] | None = None
) -> Iterator[str]:
    """Nodes upstream, depth first in the order of `follow`, each once, and none of those already `seen`."""
    seen = set() if seen is None else seen
    stack = list(reversed(list(start)))
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        yield name
        stack.extend(reversed(_named(graph, follow(graph[name]))))


def _upstream(node: Node) -> list[object]:
    """The inputs a picture may come in by, the likely ones first."""
    likely = [node.inputs[key] for key in _PICTURES if key in node.inputs]
    rest = [value for key, value in node.inputs.items() if key not in _NOT_PICTURES and key not in _PICTURES]
    return likely + rest


def _through(key: str) -> Callable[[Node], list[object]]:
    """Follow the one input of that name."""
    return lambda node: [node.inputs[key]] if key in node.inputs else []


def _is_sampler(node: Node) -> bool:
    """Whether the node draws: it takes words, and steps or noise levels."""
    keys = node.inputs.keys()
    told = {"positive", "guider"} & keys or "conditioning" in keys
    paced = ("steps" in keys and ("cfg" in keys or "sampler_name" in keys)) or "sigmas" in keys
    return bool(told and paced)


def _chain(graph: Graph, size: tuple[int, int] | None, notices: list[str]) -> list[str]:
    """The samplers that made the picture, the last one first.

    A graph may save several pictures and is written into all of them. Which of them this is, only its size can tell;
    failing that, the one that took the most passes.
    """
    pointed = {link[0] for node in graph.values() for value in node.inputs.values() if (link := _links(value, graph))}
    ends = [name for name in graph if name not in pointed]
    saves = [name for name in ends if "save" in graph[name].kind.lower()] or ends or list(graph)
    chains: list[list[str]] = []
    for name in saves[:_MOST_OUTPUTS]:
        chain = _line(graph, name)
        if chain and chain not in chains:
            chains.append(chain)
    if not chains:
        return []
    fitting = [chain for chain in chains if size and _final_size(graph, chain) == size]
    if len(chains) > 1 and not fitting:
        notices.append(f"the graph saved {len(chains)} different pictures: the one with the most passes is read")
    return max(fitting or chains, key=len)


def _line(graph: Graph, end: str) -> list[str]:
    """The samplers on the way that leads straight back from a node; composites have side branches, which are left."""
    seen: set[str] = set()
    line: list[str] = []
    ahead = [end]
    while len(line) < _MOST_PASSES:
        # What one stretch has seen leads to no sampler, so the next need not look there again.
        name = next((step for step in _walk(graph, ahead, _upstream, seen) if _is_sampler(graph[step])), None)
        if name is None:
            break
        line.append(name)
        ahead = _named(graph, _upstream(graph[name]))
    return line


def _named(graph: Graph, values: Iterable[object]) -> list[str]:
    """The nodes that links lead to."""
    return [link[0] for value in values if (link := _links(value, graph))]


def _scalar(graph: Graph, value: object, keys: tuple[str, ...] = _NUMBERS) -> object:
    """A value, or what the primitive nodes that it links to hold."""
    for _ in range(_MOST_HOPS):
        link = _links(value, graph)
        if link is None:
            return None if isinstance(value, (list, dict)) else value
        inputs = graph[link[0]].inputs
        value = next((inputs[key] for key in keys if key in inputs), None)
    return None


def _settings(graph: Graph, name: str) -> dict[str, Any]:
    """A sampler's inputs together with those of its helpers; its own come first."""
    node = graph[name]
    merged: dict[str, Any] = {}
    for helper in _named(graph, [node.inputs.get(key) for key in _HELPERS]):
        for step in _walk(graph, [helper], lambda each: [each.inputs.get(key) for key in _HELPERS]):
            for key, value in graph[step].inputs.items():
                merged.setdefault(key, value)
    return merged | {key: value for key, value in node.inputs.items() if key not in ("noise", "sampler", "sigmas")}


def _pass(graph: Graph, name: str, notices: list[str]) -> dict[str, Any]:
    """What one sampler was set to."""
    values = _settings(graph, name)

    def get(*keys: str) -> object:
        return next((found for key in keys if (found := _scalar(graph, values.get(key))) is not None), None)

    start, end, steps = whole(get("start_at_step")), whole(get("end_at_step")), whole(get("steps"))
    if steps is not None and ((start or 0) > 0 or (end is not None and end < steps)):
        notices.append(f"one of its samplers took only steps {start or 0} to {end} of {steps}: all are read")
    sampler = text_of(get("sampler_name"))
    if sampler is None and (link := _links(graph[name].inputs.get("sampler"), graph)):
        kind = graph[link[0]].kind
        sampler = kind.removeprefix("Sampler").lower() if kind.startswith("Sampler") else None
    schedule = text_of(get("scheduler"))
    if schedule is None and (link := _links(graph[name].inputs.get("sigmas"), graph)):
        kind = graph[link[0]].kind
        schedule = kind.removesuffix("Scheduler") if kind.endswith("Scheduler") else None
    return {
        "steps": steps,
        "sampler": sampler,
        "schedule": schedule,
        "guidance": real(get("cfg")),
        "eta": real(get("eta")),
        "seed": whole(get("seed", "noise_seed")),
        "denoise": real(get("denoise")),
    }


def _second_pass(graph: Graph, first: str, last: str, fields: Mapping[str, Any], notices: list[str]) -> dict[str, Any]:
    """The last sampler as a high-resolution pass over the first."""
    again = _pass(graph, last, notices)
    before, after = fields.get("size"), _latent_size(graph, last)
    scale = after[0] / before[0] if before and after else _scale(graph, last)
    if scale is None:
        notices.append("its second pass changed no size that could be read: only the first is")
        return {}
    if again["denoise"] is None or scale == 1:
        notices.append("a second sampler went on at the same size: only the first is read")
        return {}
    words = {which: _words(graph, last, which, []) for which in ("positive", "negative")}
    if words != {"positive": fields.get("prompt"), "negative": fields.get("negative")}:
        notices.append("its second pass used other words than the first, which are not kept")
    if _weights(graph, last)[0] not in (None, fields.get("model")):
        notices.append("its second pass used another model than the first, which is not kept")
    return {
        "hires": scale,
        "hires_steps": again["steps"],
        "hires_strength": again["denoise"],
        "hires_upscaler": _upscaler(graph, last),
    }


def _upscaler(graph: Graph, name: str) -> str | None:
    """What stands between two samplers and enlarges."""
    for step in _walk(graph, _named(graph, _upstream(graph[name])), lambda n: [] if _is_sampler(n) else _upstream(n)):
        node = graph[step]
        if link := _links(node.inputs.get("upscale_model"), graph):
            return text_of(graph[link[0]].inputs.get("model_name")) or "an upscaling network"
        if method := text_of(_scalar(graph, node.inputs.get("upscale_method"))):
            return f"latent {method}" if "samples" in node.inputs else method
    return None


def _scale(graph: Graph, name: str) -> float | None:
    """The factor of an upscaling node between two samplers."""
    for step in _walk(graph, _named(graph, _upstream(graph[name])), lambda n: [] if _is_sampler(n) else _upstream(n)):
        if _is_sampler(graph[step]):
            return None
        if (factor := real(_scalar(graph, graph[step].inputs.get("scale_by")))) is not None:
            return factor
    return None


def _latent_size(graph: Graph, name: str) -> tuple[int, int] | None:
    """Width and height of the latents that a sampler started from, if a node on the way says."""
    keys = (("width", "height"), ("empty_latent_width", "empty_latent_height"))
    values = [graph[name].inputs.get("latent_image"), *_upstream(graph[name])]
    for step in _walk(graph, _named(graph, values), lambda n: [] if _is_sampler(n) else _upstream(n)):
        inputs = graph[step].inputs
        for pair in keys:
            if found := size_of([_scalar(graph, inputs.get(key), (*_NUMBERS, key)) for key in pair]):
                return found
    return None


def _final_size(graph: Graph, chain: list[str]) -> tuple[int, int] | None:
    """The size of the picture a chain of samplers ends with."""
    return _latent_size(graph, chain[0])


def _starts_from_picture(graph: Graph, name: str) -> bool:
    """Whether a sampler's latents come out of a picture file."""
    steps = _walk(graph, _named(graph, _upstream(graph[name])), _upstream)
    return any(graph[step].kind.lower().startswith("loadimage") for step in steps)


def _words(graph: Graph, name: str, which: str, notices: list[str]) -> str | None:
    """What a sampler was told.

    Texts that are concatenated are joined with BREAK, texts whose predictions are combined with AND, as A1111 has it.
    """
    values = _settings(graph, name)
    start = values.get(which, values.get("conditioning") if which == "positive" else None)
    if isinstance(start, str):
        return text_of(start)
    texts: list[str] = []
    kinds: set[str] = set()

    def follow(node: Node) -> list[object]:
        kinds.add(node.kind.lower())
        if len(texts) >= _MOST_TEXTS:
            return []
        told = _told(graph, node, which)
        texts.extend(told)
        if told or "zeroout" in node.kind.lower():
            return []
        # A node that passes both on, or one of thousands with some name for its words.
        if which in node.inputs:
            return [node.inputs[which]]
        return [value for key, value in node.inputs.items() if key not in _NOT_WORDS]

    for _ in _walk(graph, _named(graph, [start]), follow):
        pass
    notices += [said for part, said in _LOST.items() if any(part in kind for kind in kinds)]
    together = " AND " if any("combine" in kind for kind in kinds) else " BREAK "
    return together.join(dict.fromkeys(text for text in texts if text)) or None


_LOST = {
    "setarea": "its words were for parts of the picture each: here they are for all of it",
    "setmask": "its words were for parts of the picture each: here they are for all of it",
    "controlnet": "it followed a ControlNet, which is not kept",
    "unclip": "it followed other pictures, which are not kept",
    "ipadapter": "it followed other pictures, which are not kept",
    "average": "its words were a weighted mean of two texts: they are read as both",
}
"""What nodes between words and sampler do that a prompt cannot, by a part of their kind."""

_NOT_WORDS = {
    "positive", "negative", "clip", "model", "vae", "control_net", "clip_vision", "clip_vision_output", "image",
    "pixels", "mask", "style_model", "latent", "samples", "latent_image",
}  # fmt: skip


def _told(graph: Graph, node: Node, which: str) -> list[str]:
    """The texts of a node that encodes text; that it does so with an empty one is told by an empty one."""
    inputs = node.inputs
    if isinstance(inputs.get(which), str):
        return [inputs[which].strip()]
    if "clip" not in inputs and "encode" not in node.kind.lower():
        return []
    keys = ("text", "text_g", "text_l", "clip_l", "t5xxl", "prompt", f"text_{which}")
    return list(dict.fromkeys((_string(graph, inputs[key]) or "").strip() for key in keys if key in inputs))


def _string(graph: Graph, value: object) -> str | None:
    """A text, or the texts that string nodes put together for it."""
    if isinstance(value, str):
        return value
    parts: list[str] = []
    steps = _walk(graph, _named(graph, [value]), lambda node: list(node.inputs.values()))
    for step in itertools.islice(steps, _MOST_TEXTS):
        inputs = graph[step].inputs
        keys = [key for key in inputs if key in _WORDS or key.startswith(("text", "string"))]
        parts += [inputs[key] for key in keys if isinstance(inputs[key], str)]
    return ", ".join(part for part in parts if part.strip()) or None


def _weights(graph: Graph, name: str) -> tuple[str | None, tuple[Lora, ...]]:
    """The checkpoint and the adapters between it and a sampler."""
    values = _settings(graph, name)
    loras: list[Lora] = []
    for step in _walk(graph, _named(graph, [values.get("model")]), _through("model")):
        inputs = graph[step].inputs
        if len(loras) < MOST_LORAS:
            if made := lora_of(_scalar(graph, inputs.get("lora_name")), _scalar(graph, inputs.get("strength_model"))):
                loras.append(made)
            for each in inputs.values():  # nodes that stack several
                if (
                    isinstance(each, dict)
                    and each.get("on") is not False
                    and "lora" in each
                    and len(loras) < MOST_LORAS
                ):
                    loras += [made] if (made := lora_of(each["lora"], each.get("strength"))) else []
        for key in ("ckpt_name", "unet_name", "model_name"):
            if model := text_of(_scalar(graph, inputs.get(key), (key, *_NUMBERS))):
                return stem(model), tuple(reversed(loras))
    return None, tuple(reversed(loras))


def _clip_skip(graph: Graph, name: str) -> int | None:
    """Which layer of the text encoder is read, counted from the last, if a node says."""
    start = _settings(graph, name).get("positive")
    encoders = list(_walk(graph, _named(graph, [start]), lambda node: list(node.inputs.values())))
    for step in encoders[:1000]:
        inputs = graph[step].inputs
        stop = whole(_scalar(graph, inputs.get("stop_at_clip_layer", inputs.get("clip_skip"))))
        if stop is not None and stop < 0:
            return -stop
    return None
