"""Parti and NUWA against transformers' pre-norm encoder-decoder, and against their arithmetic in straight lines."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from mindseye.networks import nuwa, nuwa_infinity, parti
from mindseye.networks.direction import Plan
from mindseye.networks.nuwa import NUWA
from mindseye.networks.parti import Parti, Text

pytestmark = pytest.mark.parity

TEXT = Text(vocabulary=40, length=7, layers=2, pad=0)
SIZES = {"text": TEXT, "codes": 13, "width": 24, "layers": 2, "heads": 3, "hidden": 40}
NETWORKS = {
    "parti": lambda: Parti(parti.Config(**SIZES, grid=(4, 5), reach=None)),
    "parti-nearby": lambda: Parti(parti.Config(**SIZES, grid=(4, 5), reach=1)),
    "nuwa": lambda: NUWA(nuwa.Config(**SIZES, grid=(3, 3, 4), reach=(1, 1, 2))),
}
WORDS = torch.tensor([[5, 8, 13, 21, 34, 1, 0], [5, 1, 0, 0, 0, 0, 0]])


def random(make):
    """With norms that are not 1 and 0, which would hide a swap of them."""
    torch.manual_seed(0)
    network = make().eval().double().requires_grad_(False)
    for value in network.parameters():
        value.normal_(std=0.3)
    return network


def codes(count):
    return torch.randint(13, (2, count), generator=torch.Generator().manual_seed(1))


class Straight:
    """The arithmetic, from the names of a state dict alone, one head and one place at a time."""

    def __init__(self, weights, heads):
        self.w, self.heads = weights, heads

    def linear(self, name, x):
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def norm(self, name, x):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def attend(self, q, k, v, allowed):
        out = torch.zeros_like(q)
        size = q.shape[-1] // self.heads
        for head in range(self.heads):
            part = slice(head * size, (head + 1) * size)
            for n in range(len(q)):
                seen = allowed[n].nonzero()[:, 0]
                shares = (k[seen][:, part] @ q[n, part] / math.sqrt(size)).softmax(0)
                out[n, part] = shares @ v[seen][:, part]
        return out

    def block(self, name, x, allowed, memory=None, keep=None):
        q, k, v = self.linear(f"{name}.qkv", self.norm(f"{name}.attention_norm", x)).chunk(3, -1)
        x = x + self.linear(f"{name}.out", self.attend(q, k, v, allowed))
        if memory is not None:
            q = self.linear(f"{name}.query", self.norm(f"{name}.memory_norm", x))
            k, v = self.linear(f"{name}.memory", memory).chunk(2, -1)
            x = x + self.linear(f"{name}.read", self.attend(q, k, v, keep.expand(len(x), -1)))
        h = self.linear(f"{name}.up", self.norm(f"{name}.mlp_norm", x))
        return x + self.linear(f"{name}.down", h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))

    def __call__(self, words, ids, grid, allowed):
        keep = words != 0
        memory = self.w["reader.embedding.weight"][words] + self.w["reader.positions"][: len(words)]
        for layer in range(2):
            memory = self.block(f"reader.stack.blocks.{layer}", memory, keep.expand(len(words), -1))
        memory = self.norm("reader.norm", memory)
        x = []
        for n, place in enumerate(itertools.product(*map(range, grid))):
            before = self.w["writer.beginning"] if n == 0 else self.w["writer.embedding.weight"][ids[n - 1]]
            sides = zip(("frames", "rows", "columns"), place, strict=True)
            x.append(before + sum(self.w[f"writer.{side}"][at] for side, at in sides))
        x = torch.stack(x)
        for layer in range(2):
            x = self.block(f"writer.blocks.{layer}", x, allowed, memory, keep)
        return self.linear("writer.head", self.norm("writer.norm", x))


def allowed(grid, reach):
    """Which slots a place sees, by walking over all pairs."""
    places = list(itertools.product(*map(range, grid)))
    mask = torch.zeros(len(places), len(places), dtype=torch.bool)
    for n, slot in itertools.product(range(len(places)), repeat=2):
        near = reach is None or all(abs(a - b) <= r for a, b, r in zip(places[n], places[slot - 1], reach, strict=True))
        mask[n, slot] = slot <= n and (near or slot in (0, n))
    return mask


@pytest.mark.parametrize("name", NETWORKS)
def test_the_same_as_straight_lines(name):
    network = random(NETWORKS[name])
    grid = network.writer.grid
    reach = {"parti": None, "parti-nearby": (0, 1, 1), "nuwa": (1, 1, 2)}[name]
    straight = Straight(network.state_dict(), 3)
    ids = codes(math.prod(grid))
    found = network(WORDS, ids)[1]
    for row in range(2):
        wanted = straight(WORDS[row], ids[row], grid, allowed(grid, reach))
        torch.testing.assert_close(found[row], wanted, atol=1e-10, rtol=1e-8)


def test_the_same_as_transformers():
    """Pegasus is pre-norm with a last norm in both halves; its sinusoids are replaced by what we learned."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.pegasus import modeling_pegasus as pegasus

    network = random(NETWORKS["parti"])
    w = network.state_dict()
    config = transformers.PegasusConfig(
        vocab_size=40, d_model=24, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
        decoder_attention_heads=3, encoder_ffn_dim=40, decoder_ffn_dim=40, max_position_embeddings=20, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, activation_function="gelu", scale_embedding=False,
        pad_token_id=0, attn_implementation="eager",
    )  # fmt: skip
    encoder, decoder = pegasus.PegasusEncoder(config), pegasus.PegasusDecoder(config)

    def block(source, target, prefix, theirs, weights, split):
        for end in ("weight", "bias"):
            for part, value in zip(split, w[f"{prefix}.{source}.{end}"].chunk(len(split)), strict=True):
                weights[f"{theirs}.{target}{part}.{end}"] = value

    def layers(prefix, count, crossed):
        weights = {}
        for layer in range(count):
            ours, theirs = f"{prefix}.{layer}", f"layers.{layer}"
            block("attention_norm", "self_attn_layer_norm", ours, theirs, weights, [""])
            block("qkv", "self_attn.", ours, theirs, weights, ["q_proj", "k_proj", "v_proj"])
            block("out", "self_attn.out_proj", ours, theirs, weights, [""])
            block("mlp_norm", "final_layer_norm", ours, theirs, weights, [""])
            block("up", "fc1", ours, theirs, weights, [""])
            block("down", "fc2", ours, theirs, weights, [""])
            if crossed:
                block("memory_norm", "encoder_attn_layer_norm", ours, theirs, weights, [""])
                block("query", "encoder_attn.q_proj", ours, theirs, weights, [""])
                block("memory", "encoder_attn.", ours, theirs, weights, ["k_proj", "v_proj"])
                block("read", "encoder_attn.out_proj", ours, theirs, weights, [""])
        return weights

    def filled(module, weights, positions, norm):
        weights |= {f"layer_norm.{end}": w[f"{norm}.{end}"] for end in ("weight", "bias")}
        table = torch.zeros(20, 24).double()
        table[: len(positions)] = positions
        weights["embed_positions.weight"] = table
        module.double().load_state_dict(weights, strict=False)
        missing = {key for key in module.state_dict() if key not in weights}
        assert missing <= {"embed_tokens.weight"} and set(weights) <= set(module.state_dict())
        return module.eval().requires_grad_(False)

    encoder = filled(encoder, layers("reader.stack.blocks", 2, False), w["reader.positions"], "reader.norm")
    places = (w["writer.rows"][:, None] + w["writer.columns"] + w["writer.frames"][0]).flatten(0, 1)
    decoder = filled(decoder, layers("writer.blocks", 2, True), places, "writer.norm")
    ids = codes(20)
    keep = WORDS != 0
    read = encoder(inputs_embeds=w["reader.embedding.weight"][WORDS], attention_mask=keep.long()).last_hidden_state
    before = torch.cat([w["writer.beginning"].expand(2, 1, -1), w["writer.embedding.weight"][ids[:, :-1]]], 1)
    written = decoder(
        inputs_embeds=before,
        encoder_hidden_states=read,
        encoder_attention_mask=keep.long(),
        use_cache=False,
    ).last_hidden_state
    wanted = F.linear(written, w["writer.head.weight"], w["writer.head.bias"])
    torch.testing.assert_close(network(WORDS, ids)[1], wanted, atol=1e-9, rtol=1e-7)


class Walked(Straight):
    """NUWA-Infinity, one slot at a time, on coordinates of the canvas."""

    patch, reach = 2, (1, 2)

    def far(self, layer, head, query, key, own):
        """The number for a distance: query is a place, key a token's place or None for a patch's beginning."""
        down, across = self.reach
        height, width = 2 * (down + 1) * self.patch, 2 * (across + 1) * self.patch
        table = self.w[f"distances.{layer}.table"][:, head]
        if key is None:
            return table[height * width + (0 if own else 1)]
        row, column = key[0] - query[0] + height // 2, key[1] - query[1] + width // 2
        return table[row * width + column]

    def walk(self, words, ids, order, rows, columns):
        size = self.patch**2
        keep = words != 0
        memory = self.w["reader.embedding.weight"][words] + self.w["reader.positions"][: len(words)]
        for layer in range(2):
            memory = self.block(f"reader.stack.blocks.{layer}", memory, keep.expand(len(words), -1))
        memory = self.norm("reader.norm", memory)
        slots = [(step, slot) for step in range(len(order)) for slot in range(size + 1)]
        x = []
        for step, slot in slots:
            r, c = order[step]
            sides = torch.tensor([r == 0, r == rows - 1, c == 0, c == columns - 1])
            token = self.w["beginning"] if slot == 0 else self.w["embedding.weight"][ids[step * size + slot - 1]]
            x.append(token + self.w["places"][slot] + self.w["edges"][sides].sum(0))
        x = torch.stack(x)
        for layer in range(2):
            name = f"blocks.{layer}"
            q, k, v = self.linear(f"{name}.qkv", self.norm(f"{name}.attention_norm", x)).chunk(3, -1)
            out, width = torch.zeros_like(q), q.shape[-1] // self.heads
            for head in range(self.heads):
                part = slice(head * width, (head + 1) * width)
                for n, (step, slot) in enumerate(slots):
                    scores, values = [], []
                    for m, (other, at) in enumerate(slots):
                        offsets = [abs(a - b) for a, b in zip(order[step], order[other], strict=True)]
                        near = other < step and all(a <= b for a, b in zip(offsets, self.reach, strict=True))
                        if not (near or (other == step and at <= slot)):
                            continue
                        query = [p * self.patch + s for p, s in zip(order[step], divmod(slot, self.patch), strict=True)]
                        key = None
                        if at:
                            inside = divmod(at - 1, self.patch)
                            key = [p * self.patch + s for p, s in zip(order[other], inside, strict=True)]
                        bias = self.far(layer, head, query, key, other == step)
                        scores.append(q[n, part] @ k[m, part] / math.sqrt(width) + bias)
                        values.append(v[m, part])
                    out[n, part] = torch.stack(scores).softmax(0) @ torch.stack(values)
            x = x + self.linear(f"{name}.out", out)
            q = self.linear(f"{name}.query", self.norm(f"{name}.memory_norm", x))
            k, v = self.linear(f"{name}.memory", memory).chunk(2, -1)
            x = x + self.linear(f"{name}.read", self.attend(q, k, v, keep.expand(len(x), -1)))
            h = self.linear(f"{name}.up", self.norm(f"{name}.mlp_norm", x))
            x = x + self.linear(f"{name}.down", h * 0.5 * (1 + torch.erf(h / math.sqrt(2))))
        said = torch.tensor([n for n, (_, slot) in enumerate(slots) if slot < size])
        return self.linear("head", self.norm("norm", x))[said]


def test_a_canvas_is_the_same_slot_by_slot():
    config = nuwa_infinity.Config(**SIZES, patch=2, reach=(1, 2))
    network = random(lambda: nuwa_infinity.NUWAInfinity(config))
    order = ((1, 2), (0, 0), (0, 3), (1, 1), (0, 1), (1, 0), (0, 2), (1, 3))
    ids = codes(32)
    found = network(WORDS, ids, Plan(2, 4, order, (1, 2)))[1]
    wanted = Walked(network.state_dict(), 3).walk(WORDS[0], ids[0], order, 2, 4)
    torch.testing.assert_close(found[0], wanted, atol=1e-10, rtol=1e-8)
