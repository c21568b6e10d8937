"""A tiny DALL-E mini, written into folders as its publishers did."""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from tests.unit.checkpoints.tiny_early import made

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import dalle_mini
from mindseye.networks import bart, vqgan
from mindseye.networks.vae import Tower

CODES = vqgan.Config(
    encoder=Tower(channels=(32, 64), blocks=(1, 1)),
    decoder=Tower(channels=(32, 64), blocks=(2, 2)),
    codes=24,
    code_channels=8,
    z_channels=8,
    attention=(1,),
    positive=True,
)
WRITER = bart.Config(
    width=64, heads=1, hidden=24, encoder=2, decoder=2, vocabulary=280, text_length=8, codes=24, rows=25, length=9,
    start=24,
)  # fmt: skip
SETTINGS = {"model_type": "dallebart", "decoder_start_token_id": 24, "use_glu": True, "normalize_text": True,
            "encoder_attention_heads": 1, "decoder_attention_heads": 1}  # fmt: skip


def packed(value) -> bytes:
    """MessagePack as Flax writes it: tables, and arrays as its extension 1."""
    if isinstance(value, dict):
        head = bytes([0x80 | len(value)]) if len(value) < 16 else b"\xde" + struct.pack(">H", len(value))
        return head + b"".join(packed(key) + packed(each) for key, each in value.items())
    if isinstance(value, str):
        raw = value.encode()
        return (bytes([0xA0 | len(raw)]) if len(raw) < 32 else b"\xd9" + bytes([len(raw)])) + raw
    if isinstance(value, int):
        return bytes([value]) if value < 128 else b"\xcd" + struct.pack(">H", value)
    if isinstance(value, bytes):
        return b"\xc6" + struct.pack(">I", len(value)) + value
    if isinstance(value, tuple):
        return bytes([0x90 | len(value)]) + b"".join(map(packed, value))
    array = np.ascontiguousarray(value)
    inside = packed((tuple(array.shape), str(array.dtype), array.tobytes()))
    return b"\xc9" + struct.pack(">I", len(inside)) + b"\x01" + inside


def nested(tensors) -> dict:
    """Tables within tables from names with dots."""
    table: dict = {}
    for name, tensor in tensors.items():
        *path, last = name.split(".")
        inner = table
        for each in path:
            inner = inner.setdefault(each, {})
        inner[last] = tensor.detach().contiguous().numpy()
    return table


def scanned(table: dict) -> dict:
    """The layers of both halves stacked, as Flax scans over them."""
    for half, side in (("encoder", "Encoder"), ("decoder", "Decoder")):
        layers = table["model"][half]["layers"]
        names = sorted(layers)

        def stack(parts):
            if isinstance(parts[0], dict):
                return {key: stack([part[key] for part in parts]) for key in parts[0]}
            return np.stack(parts)

        table["model"][half]["layers"] = {f"FlaxBart{side}Layers": stack([layers[name] for name in names])}
    return table


def network():
    return made(bart.Bart, WRITER)


def codec():
    return made(vqgan.VQGAN, CODES)


def vocabulary(folder: Path, ending: str = "") -> None:
    """Bytes, two merges, BART's special tokens."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    alphabet = [chr(byte) for byte in visible] + [chr(0x100 + rank) for rank in range(256 - len(visible))]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *alphabet, "re", "red", "\u0120red"]
    (folder / f"vocab{ending}.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (folder / f"merges{ending}.txt").write_text("#version: 0.2\nr e\nre d\n\u0120 red\n", encoding="utf-8")


def flax_folder(folder: Path, *, scan: bool = True) -> Path:
    """dalle-mini/dalle-mini, with its VQGAN's repository in it."""
    (folder / "vqgan").mkdir(parents=True)
    table = nested(restore(network().state_dict(), dalle_mini.flax_rules(WRITER)))
    (folder / "flax_model.msgpack").write_bytes(packed(scanned(table) if scan else table))
    (folder / "config.json").write_text(json.dumps(SETTINGS))
    vocabulary(folder)
    codes = nested(restore(codec().state_dict(), dalle_mini.flax_vqgan_rules(CODES)))
    (folder / "vqgan" / "flax_model.msgpack").write_bytes(packed(codes))
    return folder


def min_dalle_folder(folder: Path, ending: str = "") -> Path:
    """kuprel/min-dalle, half precision and all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = restore(network().state_dict(), dalle_mini.min_dalle_rules(WRITER))
    for half in ("encoder", "decoder"):
        own = {
            key.removeprefix(f"{half}."): value.half().contiguous() for key, value in tensors.items() if half in key[:7]
        }
        torch.save(own, folder / f"{half}{ending}.pt")
    state = {
        key: value for key, value in codec().state_dict().items() if not key.startswith(("encoder.", "quant_conv."))
    }
    rules = [rule for rule in dalle_mini.detoker_rules(CODES) if not rule.ours.startswith(("encoder.", "quant_conv."))]
    torch.save({key: value.contiguous() for key, value in restore(state, rules).items()}, folder / "detoker.pt")
    vocabulary(folder, ending)
    return folder
