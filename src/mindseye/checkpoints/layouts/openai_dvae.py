"""Names of openai/DALL-E: the discrete VAE as two files, ``encoder.pkl`` and ``decoder.pkl``, each a pickled module.

They are read without running them (`mindseye.checkpoints.modules`), which also puts ``encoder.`` and ``decoder.``
before their names. Either file, or the folder of both, names the whole. A ``dalle.pt`` of DALLE-pytorch that was
trained on this dVAE holds it under ``vae.enc.`` and ``vae.dec.``.

Groups and blocks are counted from one, in the order in which they run; convolutions have ``w`` and ``b``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mindseye.checkpoints.hub import WEIGHTS
from mindseye.checkpoints.layout import Rule
from mindseye.checkpoints.manifest import Manifest, read_manifest
from mindseye.checkpoints.releases import PartFile, Release
from mindseye.errors import WeightsError, WeightsMissing

if TYPE_CHECKING:
    from mindseye.networks.dvae import Config

__all__ = ["FILES", "alone", "dvae_config", "dvae_rules", "folder", "release"]

Shapes = Mapping[str, tuple[int, ...]]
HALVES = ("encoder", "decoder")
FILES = tuple(f"{half}.pkl" for half in HALVES)
"""What the two are called where they were published."""
_SHORT = {"encoder": "enc", "decoder": "dec"}
PREFIXES = ("", "vae.")


def dvae_rules(config: "Config") -> Iterator[Rule]:
    """Both halves."""
    count = len(config.channels)
    for half in HALVES:
        widths = (
            [config.channels[0], *config.channels] if half == "encoder" else [*config.channels, config.code_channels]
        )
        yield from _conv(half, "input", "input")
        for level, blocks in enumerate(config.blocks):
            group = level + 1 if half == "encoder" else count - level
            same = widths[level] == widths[level + 1]
            for block in range(blocks):
                theirs, ours = f"group_{group}.block_{block + 1}", f"levels.{level}.{block}"
                if not same and block == 0:
                    yield from _conv(half, f"{theirs}.id_path", f"{ours}.shortcut")
                for place in range(4):
                    yield from _conv(half, f"{theirs}.res_path.conv_{place + 1}", f"{ours}.convs.{place}")
        yield from _conv(half, "output.conv", "output")


def _conv(half: str, theirs: str, ours: str) -> Iterator[Rule]:
    for their, our in (("w", "weight"), ("b", "bias")):
        name = f"blocks.{theirs}.{their}"
        yield Rule(f"{half}.{name}", f"{half}.{ours}.{our}", also=(f"{_SHORT[half]}.{name}",))


def dvae_config(shapes: Shapes) -> dict[str, Any]:
    """A `mindseye.networks.dvae.Config` as plain values, from shapes.

    Raises:
        KeyError: Not such a dVAE, or half of one.
        ValueError: One of another kind.
    """
    names = {half: half if f"{half}.blocks.input.w" in shapes else _SHORT[half] for half in HALVES}
    encoder, decoder = (f"{names[half]}.blocks" for half in HALVES)
    channels, blocks = [], []
    while f"{encoder}.group_{len(channels) + 1}.block_1.res_path.conv_4.w" in shapes:
        group = f"{encoder}.group_{len(channels) + 1}"
        channels.append(shapes[f"{group}.block_1.res_path.conv_4.w"][0])
        count = 1
        while f"{group}.block_{count + 1}.res_path.conv_4.w" in shapes:
            count += 1
        blocks.append(count)
    if not channels:
        raise KeyError(f"{encoder}.group_1.block_1.res_path.conv_4.w")
    _, colours, side, _ = shapes[f"{encoder}.input.w"]
    codes, start = shapes[f"{encoder}.output.conv.w"][0], shapes[f"{decoder}.input.w"][0]
    if colours != 3 or shapes[f"{decoder}.output.conv.w"][0] != 6:
        raise ValueError("it is not about pictures of three colours")
    if shapes[f"{decoder}.input.w"][1] != codes:
        raise ValueError(f"its encoder has {codes} codes and its decoder {shapes[f'{decoder}.input.w'][1]}")
    return {"channels": channels, "blocks": blocks, "codes": codes, "code_channels": start, "kernel": side}


def release(path: Path, manifest: Manifest) -> Release | None:
    """The dVAE that a file, or a file and the one beside it, holds, as a release of the family "dvae"; None if none is.

    Args:
        path: The file; its other half is looked for beside it.
        manifest: What is in it.

    Raises:
        WeightsMissing: It is a half, and the other is not there.
        WeightsError: A variant that is not supported.
    """
    files, prefix = (path,), next((each for each in PREFIXES if _halves(manifest, each)), None)
    if prefix is None:
        return None
    halves = _halves(manifest, prefix)
    if len(halves) == 1:
        (half,) = halves
        other = next(each for each in HALVES if each != half)
        beside = path.with_name(path.name.replace(half, other) if half in path.name else f"{other}{path.suffix}")
        if not beside.is_file() or not _halves(read_manifest(beside), prefix).issuperset({other}):
            raise WeightsMissing(
                f"{path} is the {half} of a discrete VAE, and its {other} is not beside it",
                hint=f"put both into one folder; the other is looked for as {beside.name}",
            )
        files = (path, beside) if half == "encoder" else (beside, path)
        manifest = read_manifest(files)
    try:
        config = dvae_config(manifest.under(prefix).shapes())
    except (KeyError, ValueError, IndexError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise WeightsError(f"the discrete VAE in {path} is not supported: {said}") from error
    return Release(
        family="dvae",
        parts={"codec": PartFile(files, "openai-dvae", prefix, json.dumps(config))},
        tokenizers={},
        facts={},
        native=(256, 256),
        multiple=2 ** (len(config["channels"]) - 1),
        licence="Modified MIT",
    )


def alone(path: Path) -> bool:
    """Whether both files lie in a folder, and no other weights."""
    if not all((path / name).is_file() for name in FILES):
        return False
    return {each.name for each in path.iterdir() if each.suffix.lower() in WEIGHTS} == set(FILES)


def folder(path: Path) -> Release | None:
    """The dVAE whose two files lie in a folder; None if they do not.

    Raises:
        WeightsError: They are something else.
    """
    if not all((path / name).is_file() for name in FILES):
        return None
    return release(path / FILES[0], read_manifest(path / FILES[0]))


def _halves(manifest: Mapping[str, Any], prefix: str) -> set[str]:
    """Which halves are there."""
    return {
        half
        for half in HALVES
        if any(f"{prefix}{name}.blocks.input.w" in manifest for name in (half, _SHORT[half]))
        and any(f"{prefix}{name}.blocks.output.conv.w" in manifest for name in (half, _SHORT[half]))
    }
