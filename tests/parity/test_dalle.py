"""DALL-E's networks against plain references, written from the papers and from what their repositories do.

The references know no cache, no mask of the house and none of its modules: they loop over places.
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mindseye.autoregression import sample
from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts import dalle_pytorch as dalle_pytorch_layout
from mindseye.checkpoints.layouts import mindalle
from mindseye.checkpoints.save import from_json
from mindseye.networks.dalle import DALLE, Config, Extras
from mindseye.networks.mindalle import RELEASED, MinDALLE
from mindseye.networks.mindalle import Config as MinConfig
from mindseye.noise import Noise
from mindseye.request import drain

pytestmark = pytest.mark.parity

GRID, WORDS, TOKENS, CODES = 4, 6, 50, 20
EXACT, ROUNDED = 1e-10, 1e-6
"""Cached against uncached: in double precision, and in single precision as a share of the largest logit."""
ALL = ("full", "axial_row", "axial_col", "conv_like")
CASES = {
    "rotary, shift": ({"attention": ALL}, {}),
    "learned, sandwich, tied, stable": (
        {"attention": ALL, "rotary": False, "shift": False},
        {"sandwich": True, "tied": True, "stable": True},
    ),
    "shared, narrow inside": (
        {"attention": ("axial_row", "axial_col"), "head_width": 6},
        {"attention_ids": (0, 1, 0, 1), "feed_ids": (0, 0, 1, 1), "expansion": 2},
    ),
}


def built(case):
    shape, extras = CASES[case]
    shape = {"head_width": 12, **shape}
    config = Config(
        width=16, layers=4, heads=2, text_tokens=TOKENS, text_length=WORDS, image_tokens=CODES, grid=GRID,
        extras=Extras(**extras), **shape,
    )  # fmt: skip
    torch.manual_seed(0)
    network = DALLE(config).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return network


def batch():
    generator = torch.Generator().manual_seed(5)
    text = torch.randint(1, TOKENS, (2, WORDS), generator=generator)
    text[0, 4:], text[1, 2:] = 0, 0
    return text, torch.randint(0, CODES, (2, GRID * GRID), generator=generator)


def reference(theirs, config, text, ids):
    """Logits over the joint vocabulary at every place, from weights under DALLE-pytorch's names."""
    begun, places = WORDS + 1, WORDS + GRID * GRID
    vocabulary = TOKENS + WORDS

    def get(*ends):
        found = [value for key, value in theirs.items() if any(key.endswith(end) for end in ends)]
        assert len(found) == 1, ends
        return found[0]

    head, bias = theirs["to_logits.1.weight"], theirs["to_logits.1.bias"]
    words = head[:vocabulary] if config.extras.tied else theirs["text_emb.weight"]
    codes = head[vocabulary:] if config.extras.tied else theirs["image_emb.weight"]
    rows = []
    for sentence, picture in zip(text.tolist(), ids.tolist(), strict=True):
        stream = [words[0]]
        stream += [words[token or TOKENS + place] for place, token in enumerate(sentence)]
        stream += [codes[code] for code in picture[:-1]]
        rows.append(torch.stack(stream))
    x = torch.stack(rows)
    if not config.rotary:
        down, across = theirs["image_pos_emb.weights.0"][0, :, 0], theirs["image_pos_emb.weights.1"][0, 0]
        own = [down[n // GRID] + across[n % GRID] for n in range(GRID * GRID)]
        x = x + torch.cat([theirs["text_pos_emb.weight"], torch.stack(own)])[:places]

    def shifted(x):
        if not config.shift:
            return x
        out, half, quarter = x.clone(), x.shape[2] // 2, x.shape[2] // 4
        for place in range(places):
            number = place - begun
            if place < begun:
                out[:, place, :half] = x[:, place - 1, :half] if place else 0
            else:
                out[:, place, :quarter] = x[:, place - GRID, :quarter] if number >= GRID else 0
                left = number % GRID > 0
                out[:, place, quarter:half] = x[:, place - 1, quarter:half] if left else 0
        return out

    def rotated(t):
        """By angles in thirds: text place, row, column."""
        part = config.head_width // 3
        pairs, out = part // 2, t.clone()
        for place in range(places):
            number = place - begun
            image = number >= 0
            text_at = 8192 if image else place
            at = (
                (-1 + 2 * (number // GRID) / (GRID - 1), -1 + 2 * (number % GRID) / (GRID - 1)) if image else (-10, -10)
            )
            angles = [text_at / 10_000 ** (2 * i / part) for i in range(pairs)]
            speeds = [1.0] if pairs == 1 else [1 + 4 * i / (pairs - 1) for i in range(pairs)]
            angles += [axis * speed * math.pi for axis in at for speed in speeds]
            for pair, angle in enumerate(angles):
                a, b = t[..., place, 2 * pair], t[..., place, 2 * pair + 1]
                out[..., place, 2 * pair] = a * math.cos(angle) - b * math.sin(angle)
                out[..., place, 2 * pair + 1] = b * math.cos(angle) + a * math.sin(angle)
        return out

    def sees(kind, query, key):
        if key > query:
            return False
        if query < begun or key < begun or kind == "full":
            return True
        (r, c), (s, d) = divmod(query - begun, GRID), divmod(key - begun, GRID)
        return {"axial_row": r == s, "axial_col": c == d, "conv_like": r - s < 5 and 0 <= c - d < 5}[kind]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], theirs[f"{name}.weight"], theirs[f"{name}.bias"])

    for layer in range(config.layers):
        kind = config.attention[layer % len(config.attention)]
        sees_what = torch.tensor([[sees(kind, i, j) for j in range(places)] for i in range(places)])
        for place in range(2):
            prefix = f"transformer.layers.layers.{layer}.{place}."
            mine = {key: value for key, value in theirs.items() if key.startswith(prefix)}
            y = shifted(norm(x, f"{prefix}fn.norm"))

            def own(end, mine=mine):
                return next(value for key, value in mine.items() if key.endswith(end))

            if place == 0:
                q, k, v = torch.einsum("bnd,ed->bne", y, own("to_qkv.weight")).chunk(3, -1)
                q, k, v = (t.reshape(2, places, config.heads, -1).transpose(1, 2) for t in (q, k, v))
                if config.rotary:
                    q, k, v = rotated(q), rotated(k), rotated(v)
                dots = torch.einsum("bhid,bhjd->bhij", q, k) / config.head_width**0.5
                dots[..., ~sees_what] = -torch.finfo(dots.dtype).max
                y = torch.einsum("bhij,bhjd->bihd", dots.softmax(-1), v).flatten(2)
                y = y @ own("to_out.0.weight").T + own("to_out.0.bias")
            else:
                y = y @ own("net.0.weight").T + own("net.0.bias")
                values, gates = y.chunk(2, -1)
                y = (values * gates * (1 + torch.erf(gates / 2**0.5)) / 2) @ own("net.3.weight").T + own("net.3.bias")
            if config.extras.sandwich:
                y = norm(y, f"{prefix}fn.norm_out")
            x = x + y * theirs[f"{prefix}scale"]
    if config.extras.stable:
        x = x / x.max(-1, keepdim=True).values
    return norm(x, "to_logits.0") @ head.T + bias


def exported(network):
    """Weights under their names; what layers share, once for each."""
    config = network.config
    theirs = dict(restore(network.state_dict(), dalle_pytorch_layout.dalle_rules(config)))
    for place, ids in enumerate((config.extras.attention_ids, config.extras.feed_ids)):
        for layer, number in enumerate(ids):
            first = ids.index(number)
            for key in [key for key in theirs if key.startswith(f"transformer.layers.layers.{first}.{place}.fn.fn.")]:
                theirs[key.replace(f"layers.{first}.{place}", f"layers.{layer}.{place}")] = theirs[key]
    if config.rotary:
        theirs["transformer.pos_emb"] = torch.zeros(1, WORDS + 1 + GRID * GRID, 12)
    return theirs


@pytest.mark.parametrize("case", CASES)
def test_every_option_gives_the_references_logits(case):
    network = built(case)
    text, ids = batch()
    with torch.no_grad():
        expected = reference(exported(network), network.config, text, ids)
        said, drawn = network(text, ids)
    vocabulary = TOKENS + WORDS
    assert torch.allclose(said, expected[:, :WORDS, :vocabulary], atol=1e-5)
    assert torch.allclose(drawn, expected[:, WORDS:, vocabulary:], atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize("case", CASES)
def test_against_dalle_pytorchs_own(case, dalle_pytorch):
    """Its package's transformer: weights under its own names, logits, and what it writes when nothing is drawn."""
    for name in ("rotary_embedding_torch", "axial_positional_embedding"):
        pytest.importorskip(name)
    config = built(case).config
    # Which it has fixed; and its rotations need more than one pair a third.
    config = replace(config, head_width=12, extras=replace(config.extras, expansion=4))
    extras = config.extras
    hparams = {
        "num_text_tokens": TOKENS, "text_seq_len": WORDS, "heads": config.heads, "attn_types": config.attention,
        "shift_tokens": config.shift, "stable": extras.stable, "shared_attn_ids": extras.attention_ids or None,
        "shared_ff_ids": extras.feed_ids or None,
    }  # fmt: skip
    torch.manual_seed(0)
    vae = dalle_pytorch.DiscreteVAE(image_size=2 * GRID, num_layers=1, num_tokens=CODES, codebook_dim=4, hidden_dim=4)
    theirs = dalle_pytorch.DALLE(
        vae=vae, dim=config.width, depth=config.layers, dim_head=config.head_width, rotary_emb=config.rotary,
        sandwich_norm=extras.sandwich, share_input_output_emb=extras.tied, **hparams,
    ).eval()  # fmt: skip
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.4)
    state = theirs.state_dict()
    found = dalle_pytorch_layout.dalle_config({key: tuple(value.shape) for key, value in state.items()}, hparams)
    assert from_json(Config, found) == config
    ours = DALLE(config).eval().requires_grad_(False)
    rules = dalle_pytorch_layout.dalle_rules(config)
    ours.load_state_dict(convert(state, rules, ignore=dalle_pytorch_layout.ignored(config)), strict=True)
    text, ids = batch()
    said, drawn = ours(text, ids)
    with torch.no_grad():
        expected = theirs(text.clone(), ids)
    vocabulary = TOKENS + WORDS
    assert torch.allclose(said, expected[:, :WORDS, :vocabulary], atol=1e-5)
    assert torch.allclose(drawn, expected[:, WORDS:, vocabulary:], atol=1e-5)
    vae.decode = lambda codes: codes
    wanted = theirs.generate_images(text[1:].clone(), filter_thres=1.0)
    assert torch.equal(drain(sample(ours, text[1:], None, Noise([0]), temperature=0)), wanted)


def stepped(network, text, ids):
    """Logits of all tokens, one after the other."""
    state = network.start(text)
    return torch.stack([network.next(ids[:, n - 1] if n else None, state) for n in range(ids.shape[1])], 1), state


@pytest.mark.parametrize("case", CASES)
def test_step_by_step_is_the_whole(case):
    """Token by token, from given tokens, and in rows that were selected on the way; exactly, but for rounding."""
    network = built(case).double()
    text, ids = batch()
    with torch.no_grad():
        whole = network(text, ids)[1]
    steps, state = stepped(network, text, ids)
    assert (steps - whole).abs().max() < EXACT and state.written == GRID * GRID - 1
    for told in (1, GRID + 2):
        state = network.start(text)
        assert (network.read(ids[:, :told], state) - whole[:, told]).abs().max() < EXACT
        both = state.select(torch.tensor([1, 0, 1]))
        for n in range(told, told + GRID + 1):
            logits = network.next(ids[[1, 0, 1], n], both)
            assert (logits - whole[[1, 0, 1], n + 1]).abs().max() < EXACT
        assert state.written == told and both.written == told + GRID + 1
    # In single precision sums of another order round otherwise, by a share of what is summed.
    single, _ = stepped(network.float(), text, ids)
    assert (single - whole).abs().max() < ROUNDED * whole.abs().max()


@pytest.mark.parametrize("case", CASES)
def test_their_names_and_shapes_tell_the_configuration(case):
    network = built(case)
    config, theirs = network.config, exported(network)
    hparams = {
        "num_text_tokens": TOKENS, "text_seq_len": WORDS, "heads": 2, "attn_types": ",".join(config.attention),
        "shift_tokens": config.shift, "stable": config.extras.stable,
        "shared_attn_ids": list(config.extras.attention_ids) or None,
        "shared_ff_ids": list(config.extras.feed_ids) or None,
    }  # fmt: skip
    found = dalle_pytorch_layout.dalle_config({key: tuple(value.shape) for key, value in theirs.items()}, hparams)
    extras = Extras(**{key: tuple(v) if isinstance(v, list) else v for key, v in found.pop("extras").items()})
    assert Config(**{**found, "attention": tuple(found["attention"]), "extras": extras}) == config
    names = {
        key: key.replace("fn.fn.fn.fn.", "fn.fn.fn.").replace("pos_emb.weights.", "pos_emb.weights_") for key in theirs
    }
    older = {names[key]: value for key, value in theirs.items()}
    again = convert(older, dalle_pytorch_layout.dalle_rules(config), ignore=dalle_pytorch_layout.ignored(config))
    assert all(torch.equal(again[key], value) for key, value in network.state_dict().items())


def tiny():
    torch.manual_seed(0)
    config = MinConfig(
        width=12, layers=2, heads=3, text_tokens=TOKENS, text_length=WORDS, image_tokens=CODES, image_length=16
    )
    network = MinDALLE(config).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.4)
    return network


def min_reference(theirs, config, text, ids):
    """minGPT's transformer over both vocabularies, uncached."""

    def linear(x, name):
        return torch.einsum("bnd,ed->bne", x, theirs[f"{name}.weight"]) + theirs.get(f"{name}.bias", 0)

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], theirs[f"{name}.weight"], theirs[f"{name}.bias"])

    words = theirs["tok_emb_txt.weight"][text] + theirs["pos_emb_txt.weight"]
    x = torch.cat([words, theirs["tok_emb_img.weight"][ids] + theirs["pos_emb_img.weight"][: ids.shape[1]]], 1)
    places = x.shape[1]
    for layer in range(config.layers):
        y = norm(x, f"blocks.{layer}.ln1")
        q, k, v = (linear(y, f"blocks.{layer}.attn.{name}") for name in ("query", "key", "value"))
        q, k, v = (t.reshape(len(x), places, config.heads, -1) for t in (q, k, v))
        dots = torch.einsum("bihd,bjhd->bhij", q, k) / q.shape[-1] ** 0.5
        dots = dots.masked_fill(torch.ones(places, places).triu(1).bool(), -math.inf)
        y = torch.einsum("bhij,bjhd->bihd", dots.softmax(-1), v).flatten(2)
        x = x + linear(y, f"blocks.{layer}.attn.proj")
        y = linear(norm(x, f"blocks.{layer}.ln2"), f"blocks.{layer}.mlp.0")
        x = x + linear(y * (1 + torch.erf(y / 2**0.5)) / 2, f"blocks.{layer}.mlp.2")
    x = norm(x, "ln_f")
    return linear(x[:, : WORDS - 1], "head_txt"), linear(x[:, WORDS - 1 : -1], "head_img")


def test_mindalle_gives_the_references_logits_at_once_and_step_by_step():
    network = tiny()
    text, ids = batch()
    theirs = restore(network.state_dict(), mindalle.mindalle_rules(network.config))
    with torch.no_grad():
        said, drawn = network(text, ids)
        for ours, expected in zip((said, drawn), min_reference(theirs, network.config, text, ids), strict=True):
            assert torch.allclose(ours, expected, atol=1e-5)
        whole = network.double()(text, ids)[1]
    assert (stepped(network, text, ids)[0] - whole).abs().max() < EXACT
    state = network.start(text)
    assert (network.read(ids[:, :5], state) - whole[:, 5]).abs().max() < EXACT
    assert (network.next(ids[:, 5], state) - whole[:, 6]).abs().max() < EXACT
    assert (stepped(network.float(), text, ids)[0] - whole).abs().max() < ROUNDED * whole.abs().max()


def test_mindalle_is_as_large_as_released():
    with torch.device("meta"):
        network = MinDALLE(RELEASED)
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_291_081_728
    shapes = {
        key: tuple(v.shape) for key, v in restore(network.state_dict(), mindalle.mindalle_rules(RELEASED)).items()
    }
    assert MinConfig(**mindalle.mindalle_config(shapes, {})) == RELEASED
