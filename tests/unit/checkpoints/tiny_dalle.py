"""Discrete VAEs in files as their publishers wrote them: whole modules, of a package that is only there for that."""

import sys
import types
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from tests.unit.checkpoints.tiny_early import made, written
from torch import nn

from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts import dalle_pytorch_dvae, enhancing, openai_dvae
from mindseye.networks import discrete_vae, dvae, vit_vqgan

DVAE = dvae.Config(channels=(8, 16), blocks=(1, 2), codes=24, code_channels=12)
PLAIN = discrete_vae.Config(layers=1, codes=24, code_channels=6, hidden=8, blocks=1)
_TOWER = vit_vqgan.Tower(width=64, layers=1, heads=1, hidden=32)
PATCHES = vit_vqgan.Config(encoder=_TOWER, decoder=_TOWER, codes=24, code_channels=4, patch=4, positive=True)


@contextmanager
def package():
    """``dall_e`` as far as its pickles name it; gone afterwards."""
    before = {name: sys.modules.get(name) for name in ("dall_e", "dall_e.encoder", "dall_e.decoder", "dall_e.utils")}
    found = {name: types.ModuleType(name) for name in before}
    for module, names in (("encoder", ("Encoder", "EncoderBlock")), ("decoder", ("Decoder", "DecoderBlock"))):
        for name in names:
            setattr(found[f"dall_e.{module}"], name, type(name, (nn.Module,), {"__module__": f"dall_e.{module}"}))
    found["dall_e.utils"].Conv2d = type("Conv2d", (nn.Module,), {"__module__": "dall_e.utils"})
    sys.modules.update(found)
    try:
        yield types.SimpleNamespace(
            Encoder=found["dall_e.encoder"].Encoder, EncoderBlock=found["dall_e.encoder"].EncoderBlock,
            Decoder=found["dall_e.decoder"].Decoder, DecoderBlock=found["dall_e.decoder"].DecoderBlock,
            Conv2d=found["dall_e.utils"].Conv2d,
        )  # fmt: skip
    finally:
        for name, module in before.items():
            sys.modules.pop(name)
            if module is not None:
                sys.modules[name] = module


def module(classes, half, tensors, **beside):
    """One half, with what such objects hold beside their weights."""
    root = getattr(classes, half.capitalize())()
    root.n_hid, root.device, root.use_mixed_precision = 8, torch.device("cpu"), True
    for name, value in beside.items():
        setattr(root, name, value)
    for name, value in tensors.items():
        *path, leaf = name.split(".")
        at = root
        for place, part in enumerate(path):
            if part not in at._modules:
                last = place == len(path) - 1
                kind = classes.Conv2d if last else getattr(classes, f"{half.capitalize()}Block")
                at.add_module(part, kind() if last or part.startswith("block_") else nn.Sequential())
                if part.startswith("group"):
                    at._modules[part].add_module("pool", nn.MaxPool2d(kernel_size=2))
            at = at._modules[part]
        at.n_in, at.kw, at.requires_grad = 3, 3, False
        at.register_parameter(leaf, nn.Parameter(value.contiguous(), requires_grad=False))
    root.blocks.add_module("relu", nn.ReLU())
    return root


def dvae_files(path: Path, *, legacy: bool = False, config=DVAE, **beside) -> Path:
    """``encoder.pkl`` and ``decoder.pkl`` in the folder of one of them; answers the path that was asked for."""
    state = made(dvae.DVAE, config).state_dict()
    theirs = restore(state, openai_dvae.dvae_rules(config))
    with package() as classes, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the older container looks for the classes' source
        for half in ("encoder", "decoder"):
            own = {key.removeprefix(f"{half}."): value for key, value in theirs.items() if key.startswith(f"{half}.")}
            file = path.with_name(f"{half}.pkl")
            whole = module(classes, half, own, **beside)
            torch.save(whole, file, _use_new_zipfile_serialization=not legacy)
    return path


def vae_file(path: Path, prefix: str = "") -> Path:
    """DALLE-pytorch's own."""
    theirs = restore(made(discrete_vae.DiscreteVAE, PLAIN).state_dict(), dalle_pytorch_dvae.vae_rules(PLAIN))
    weights = {f"{prefix}{key}": value.contiguous() for key, value in theirs.items()}
    told = {"image_size": 64, "num_layers": 1}
    names = {"vae_params": told, "hparams": {"dim": 8}, "opt_state": {"state": {}}} if prefix else {"hparams": told}
    torch.save({**names, "epoch": 1, "version": "1.6.6", "weights": weights}, path)
    return path


def vit_file(path: Path) -> Path:
    """enhancing-transformers'."""
    theirs = restore(made(vit_vqgan.ViTVQGAN, PATCHES).state_dict(), enhancing.vit_vqgan_rules(PATCHES))
    tables = {"encoder.en_pos_embedding": vit_vqgan.places((8, 8), 64)[None]}
    tables["decoder.de_pos_embedding"] = tables["encoder.en_pos_embedding"]
    return written(path, {**theirs, **tables, "loss.discriminator.weight": torch.zeros(2)})
