"""Names of the tiny autoencoders: the two files of the release, one file with both halves, and diffusers' folder.

The release numbers the layers of two plain sequences, layers without weights counted: ``3.conv.0.weight``. In its
decoder place 0 is the soft limit, which diffusers (``decoder.layers.N``) does not count, so its numbers are one lower.
The two halves' bare names collide, so a pair of files is read one after the other.

The shape of the network is read from the names alone: an unbiased 3x3 convolution ends a level, ``conv.0`` is a block.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mindseye.checkpoints.layout import Rule, convert
from mindseye.checkpoints.manifest import open_pickle, read_manifest
from mindseye.errors import WeightsError, WeightsMissing

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from mindseye.networks.taesd import Config, TinyAutoencoder

__all__ = ["config", "diffusers_rules", "half_of", "half_rules", "load_tiny", "other_half", "rules"]

Half = Literal["encoder", "decoder"]
Shape = tuple[int, ...]
BOTH = ("weight", "bias")
BLOCK = {"conv.0": "first", "conv.2": "second", "conv.4": "third"}
_NAME = re.compile(r"(?:(encoder|decoder)\.(layers\.)?)?(\d{1,3})\.(.+)")
_COUNTERPARTS = (("encoder", "decoder"), ("decoder", "encoder"), ("enc", "dec"), ("dec", "enc"))


def _block(theirs: str, ours: str, pooled: bool) -> Iterator[Rule]:
    """One block."""
    for name, own in BLOCK.items():
        for end in BOTH:
            yield Rule(f"{theirs}.{name}.{end}", f"{ours}.{own}.{end}")
    if pooled:
        yield Rule(f"{theirs}.pool.0.weight", f"{ours}.pool.up.weight")
        for end in BOTH:
            yield Rule(f"{theirs}.pool.1.{end}", f"{ours}.pool.norm.{end}")
        yield Rule(f"{theirs}.pool.3.weight", f"{ours}.pool.down.weight")


def half_rules(config: "Config", half: Half) -> Iterator[Rule]:
    """One file of the release: bare numbers, no prefix."""
    last = len(config.encoder) - 1
    place = 0 if half == "encoder" else 1
    yield from (Rule(f"{place}.{end}", f"{half}.conv_in.{end}") for end in BOTH)
    # The decoder's first convolution is rectified, its resampling is a layer of its own: both are counted.
    place += 1 if half == "encoder" else 2
    counts = config.encoder if half == "encoder" else config.decoder
    for level in range(last + 1) if half == "encoder" else range(last, -1, -1):
        if half == "encoder" and level:
            yield Rule(f"{place}.weight", f"encoder.downs.{level - 1}.weight")
            place += 1
        for block in range(counts[level]):
            yield from _block(f"{place}", f"{half}.levels.{level}.{block}", config.pooled and level == last)
            place += 1
        if half == "decoder" and level:
            place += 1
            yield Rule(f"{place}.weight", f"decoder.ups.{level - 1}.weight")
            place += 1
    yield from (Rule(f"{place}.{end}", f"{half}.conv_out.{end}") for end in BOTH)


def rules(config: "Config") -> Iterator[Rule]:
    """One file with both halves, numbered as in the release: ``encoder.0.weight``; diffusers' names are read too."""
    for rule in diffusers_rules(config):
        yield Rule(rule.also[0], rule.ours, also=(rule.theirs,))


def diffusers_rules(config: "Config") -> Iterator[Rule]:
    """``AutoencoderTiny``: ``encoder.layers.0.weight``; the names of `rules` are read too."""
    halves: tuple[Half, Half] = ("encoder", "decoder")
    for half in halves:
        for rule in half_rules(config, half):
            number, _, rest = rule.theirs.partition(".")
            theirs = f"{half}.layers.{int(number) - (half == 'decoder')}.{rest}"
            yield Rule(theirs, rule.ours, also=(f"{half}.{rule.theirs}",))


def half_of(shapes: Mapping[str, Shape]) -> Half | None:
    """Which half bare numbers are: an encoder begins at 0 with three channels; None when they are neither."""
    if shapes.get("0.weight", ())[1:2] == (3,):
        return "encoder"
    return "decoder" if "1.weight" in shapes and "3.conv.0.weight" in shapes and "0.weight" not in shapes else None


def config(shapes: Mapping[str, Shape]) -> "Config | None":
    """The network that keys and shapes describe; None when they are no tiny autoencoder of this kind.

    Args:
        shapes: Of either file of the release (the other half is then taken to be its mirror), of both in one, or of
            diffusers' folder.
    """
    from mindseye.networks.taesd import Config

    layers: dict[str, dict[int, dict[str, Shape]]] = {}
    bare = half_of(shapes)
    for key, shape in shapes.items():
        found = _NAME.fullmatch(key)
        if found is None or not (half := found[1] or bare):
            return None
        layers.setdefault(half, {}).setdefault(int(found[3]), {})[found[4]] = shape
    read = {half: _half(places) for half, places in layers.items()}
    if not read or not all(read.values()):
        return None
    counts = {half: list(found[0]) for half, found in read.items() if found}
    if "decoder" in counts:
        counts["decoder"].reverse()
    first = next(found for found in read.values() if found)
    outside = {half: found[1] if half == "decoder" else found[2] for half, found in read.items() if found}
    if len(set(outside.values())) > 1:
        return None
    encoder, decoder = (counts.get(half) or next(iter(counts.values())) for half in ("encoder", "decoder"))
    try:
        return Config(
            latent_channels=next(iter(outside.values())),
            width=first[3],
            encoder=tuple(encoder),
            decoder=tuple(decoder),
            pooled=any(".pool." in key for key in shapes),
        )
    except ValueError:
        return None


def _half(places: Mapping[int, Mapping[str, Shape]]) -> tuple[list[int], int, int, int] | None:
    """Blocks of each level in running order, channels that go in, channels that come out, channels inside."""
    levels, plain, biased = [0], [], []
    for _, layer in sorted(places.items()):
        if "conv.0.weight" in layer:
            levels[-1] += 1
        elif "weight" in layer:
            plain.append(layer["weight"])
            biased.append("bias" in layer)
            if not biased[-1]:
                levels.append(0)
        else:
            return None
    if biased != [True, *[False] * (len(levels) - 1), True] or not any(levels):
        return None  # all but the first and the last resample
    if any(len(shape) != 4 for shape in plain) or len({shape[0] for shape in plain[:-1]}) != 1:
        return None
    return levels, plain[0][1], plain[-1][0], plain[0][0]


def other_half(path: Path) -> Path | None:
    """The file beside this one that holds the other half, by its name (``taesd_encoder``, ``taesd_decoder``)."""
    for here, there in _COUNTERPARTS:
        stem = path.stem.lower()
        if here in stem:
            beside = path.with_name(path.stem[: stem.rindex(here)] + there + path.name[stem.rindex(here) + len(here) :])
            if beside != path and beside.is_file():
                return beside
    return None


def load_tiny(paths: Path | Iterable[Path], dtype: "torch.dtype | None" = None) -> "TinyAutoencoder":
    """The network in a file (its other half found beside it), in two files, or in diffusers' folder.

    Args:
        paths: One path or two.
        dtype: Of the weights; float32 when None.

    Raises:
        WeightsMissing: No such file, or the other half is not there.
        WeightsError: Foreign, damaged, or holding NaN.
    """
    import torch

    from mindseye.checkpoints.save import _Uninitialised
    from mindseye.networks.taesd import TinyAutoencoder

    files = _files([paths] if isinstance(paths, Path) else list(paths))
    states = {path: _state(path) for path in files}
    shapes = {path: {key: tuple(value.shape) for key, value in state.items()} for path, state in states.items()}
    if len(files) == 1 and half_of(shapes[files[0]]):
        half = half_of(shapes[files[0]])
        beside = other_half(files[0])
        if beside is None:
            raise WeightsMissing(
                f"{files[0].name} holds only the {half} of a tiny autoencoder",
                hint=f"put the {'decoder' if half == 'encoder' else 'encoder'} of the same release beside it",
            )
        files.append(beside)
        states[beside] = _state(beside)
        shapes[beside] = {key: tuple(value.shape) for key, value in states[beside].items()}
    joined: dict[str, Tensor] = {}
    for path in files:
        half = half_of(shapes[path])
        joined |= {f"{half}.{key}" if half else key: value for key, value in states[path].items()}
    found = config({key: tuple(value.shape) for key, value in joined.items()})
    if found is None:
        raise WeightsError(
            f"{' and '.join(path.name for path in files)}: no tiny autoencoder of factor 8 in TAESD's layout",
            hint="mindseye models info PATH says what a file is",
        )
    state = {name: value.to(dtype or torch.float32) for name, value in convert(joined, rules(found)).items()}
    with _Uninitialised():
        network = TinyAutoencoder(found)
    network.load_state_dict(state, strict=True, assign=True)
    return network.eval().requires_grad_(False)


def _files(paths: list[Path]) -> list[Path]:
    """The files themselves; of diffusers' folder the safetensors, or else the pickle."""
    for place, path in enumerate(paths):
        if path.is_dir():
            names = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
            paths[place] = next((path / name for name in names if (path / name).is_file()), path / names[0])
        if not paths[place].is_file():
            raise WeightsMissing(f"the weights {paths[place]} are not there")
    return paths


def _state(path: Path) -> "dict[str, Tensor]":
    """All tensors of a file of a few megabytes; nothing in it is executed.

    Raises:
        WeightsError: Corrupt, cut short, code, or holding NaN; says which.
    """
    import torch
    from safetensors.torch import load_file

    manifest = read_manifest(path)
    pickled = any(entry.offset is None for entry in manifest.values())
    state = open_pickle(path)[0] if pickled else load_file(path)
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise WeightsError(f"{path} is damaged: {key} holds NaN or infinity", hint="download or copy it again")
    return state
