"""How minDALL-E and min-dalle write a picture token by token, on our network's weights.

Written from what the repositories do (kakaobrain/minDALL-E, kuprel/min-dalle), not copied from them: what matters for
speed is kept as it is there, which is how keys and values are stored, what is joined at every token, and which products
are made of how many rows. Neither loop reads the text of several pictures once, and both give the same distribution as
ours.
"""

import time

import torch
from torch import Tensor
from torch.nn import functional as F

from mindseye.networks.mindalle import MinDALLE

__all__ = ["MinDalleWay", "MinDallEWay"]

Written = tuple[Tensor, list[float]]


class MinDallEWay:
    """Keys and values of a step are stacked over the layers, kept in a list, and all joined anew at every token."""

    def __init__(self, network: MinDALLE) -> None:
        self.network = network
        self.heads = network.config.heads
        # Three projections where we have one.
        self.split = [(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)) for block in network.stack.blocks]

    @torch.no_grad()
    def write(self, text: Tensor, tokens: int, top_k: int = 256) -> Written:
        """Ids, and the seconds of each token."""
        network, past, times = self.network, [], []
        ids: Tensor | None = None
        for place in range(tokens):
            start = time.perf_counter()
            if ids is None:
                x = network.text_embedding(text) + network.text_places.weight
            else:
                last = ids.clone()[:, place - 1 : place]
                x = network.image_embedding(last) + network.image_places.weight[place - 1 : place]
            joined = torch.cat(past, dim=-2) if past else None
            presents = []
            for layer, block in enumerate(network.stack.blocks):
                y, present = self._attention(block.attention_norm(x), layer, None if joined is None else joined[layer])
                presents.append(present)
                x = x + block.out(y)
                x = x + block.down(F.gelu(block.up(block.mlp_norm(x))))
            past.append(torch.stack(presents).clone())
            logits = network.image_head(network.norm(x)[:, -1].contiguous()).float()
            drawn = draw(logits, top_k)
            ids = drawn if ids is None else torch.cat([ids, drawn], 1)
            times.append(time.perf_counter() - start)
        assert ids is not None
        return ids, times

    def _attention(self, x: Tensor, layer: int, past: Tensor | None) -> tuple[Tensor, Tensor]:
        count, places, width = x.shape
        x = x.transpose(0, 1).contiguous()  # places first, as there
        weights, biases = self.split[layer]
        shape = (places, count * self.heads, width // self.heads)
        q, k, v = (F.linear(x, w, b).view(shape).transpose(0, 1) for w, b in zip(weights, biases, strict=True))
        present = torch.stack([k, v])
        if past is not None:
            k, v = (torch.cat([old, new], dim=-2) for old, new in zip(past, (k, v), strict=True))
        scores = torch.bmm(q, k.transpose(-2, -1) * (width // self.heads) ** -0.5)
        if past is None:
            scores = scores.masked_fill(torch.ones(places, places).tril() == 0, float("-inf"))
        y = torch.bmm(scores.softmax(-1), v).transpose(0, 1).contiguous().view(places, count, width)
        return y.transpose(0, 1).contiguous(), present


class MinDalleWay:
    """One cache for all places, all of it multiplied at every token under a mask of what is written."""

    def __init__(self, network: MinDALLE) -> None:
        self.network = network
        self.heads = network.config.heads
        self.split = [(block.qkv.weight.chunk(3), block.qkv.bias.chunk(3)) for block in network.stack.blocks]

    @torch.no_grad()
    def write(self, text: Tensor, tokens: int, top_k: int = 256) -> Written:
        """Ids, and the seconds of each token."""
        network, config = self.network, self.network.config
        words, count, times = text.shape[1], len(text), []
        places = words + tokens
        weight = network.image_head.weight
        state = torch.zeros(config.layers, 2 * count, places, config.width, dtype=weight.dtype)
        ids = torch.zeros(count, tokens, dtype=torch.long)
        for place in range(tokens):
            start = time.perf_counter()
            if place == 0:
                x, at = network.text_embedding(text) + network.text_places.weight, torch.arange(words)
            else:
                x = network.image_embedding(ids[:, place - 1 : place]) + network.image_places.weight[place - 1 : place]
                at = torch.tensor([words + place - 1])
            seen = torch.arange(places) <= at[:, None]
            for layer, block in enumerate(network.stack.blocks):
                y = self._attention(block.attention_norm(x), layer, state[layer], at, seen)
                x = x + block.out(y)
                x = x + block.down(F.gelu(block.up(block.mlp_norm(x))))
            logits = network.image_head(network.norm(x)[:, -1]).float()
            ids[:, place : place + 1] = draw(logits, top_k)
            times.append(time.perf_counter() - start)
        return ids, times

    def _attention(self, x: Tensor, layer: int, state: Tensor, at: Tensor, seen: Tensor) -> Tensor:
        weights, biases = self.split[layer]
        q, k, v = (F.linear(x, w, b) for w, b in zip(weights, biases, strict=True))
        new = torch.cat([k, v])
        if len(at) < state.shape[1]:
            state[:, at] = new
        k, v = state.chunk(2)
        q, k, v = (each.unflatten(-1, (self.heads, -1)) for each in (q, k, v))
        q = q / q.shape[-1] ** 0.5
        scores = torch.einsum("bqhc,bkhc->bhqk", q, k)
        scores = scores + (~seen)[None, None] * torch.finfo(scores.dtype).min
        return torch.einsum("bhqk,bkhc->bqhc", scores.softmax(-1), v).flatten(2)


def draw(logits: Tensor, top_k: int) -> Tensor:
    """One id a row of the likeliest, as both draw it: by torch's own generator."""
    least = logits.topk(min(top_k, logits.shape[-1])).values[:, [-1]]
    kept = logits.clone()
    kept[kept < least] = -float("inf")
    return torch.multinomial(kept.softmax(-1), 1)
