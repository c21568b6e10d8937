"""Autoencoders on their own: what a user's file or folder of kind "vae" becomes.

Three publishers' forms are told apart by what is inside: ours, the TAESD family, and the large autoencoder in the
original names or diffusers'. Each satisfies `mindseye.codec.Codec`, and so may replace the one a model came with as
long as it was made for the same latents, which nothing in it says: latent channels are all that can be compared.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from mindseye.checkpoints.describe import files_of
from mindseye.checkpoints.layouts import taesd
from mindseye.checkpoints.manifest import read_manifest
from mindseye.errors import WeightsError

if TYPE_CHECKING:
    import torch

    from mindseye.networks.taesd import TinyAutoencoder
    from mindseye.networks.vae import AutoencoderKL

__all__ = ["load_codec"]


def load_codec(
    path: Path, dtype: "torch.dtype", *, channels: int | None = None, scale: float | None = None
) -> "AutoencoderKL | TinyAutoencoder":
    """The autoencoder at a path.

    Args:
        path: A file, or a folder that diffusers wrote.
        dtype: Of its weights.
        channels: Latent channels that it must have; not checked when None.
        scale: What latents of a large autoencoder are multiplied by where nothing says it, as `identify_codec`.

    Raises:
        WeightsMissing: It is not there.
        WeightsError: No autoencoder, a damaged one, or one for other latents.
    """
    from mindseye.checkpoints.load import load_foreign
    from mindseye.checkpoints.releases import identify_codec
    from mindseye.checkpoints.save import load_part

    file = next(iter(files_of(path)), path)
    manifest = read_manifest(file)
    if "network" in manifest.metadata:
        codec = load_part(file, dtype=dtype)
    elif taesd.config(manifest.shapes()) is not None:
        codec = taesd.load_tiny(path, dtype)
    else:
        codec = load_foreign(identify_codec(path, scale), dtype=dtype)
    found = getattr(getattr(codec, "config", None), "latent_channels", None)
    if found is None:
        raise WeightsError(f"{path} is a {type(codec).__name__}, no autoencoder")
    if channels is not None and found != channels:
        raise WeightsError(
            f"{path.name} is an autoencoder of {found} latent channels, and this model has {channels}",
            hint="mindseye models list --kind vae",
        )
    return codec  # pyright: ignore[reportReturnType]
