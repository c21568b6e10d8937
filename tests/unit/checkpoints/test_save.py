"""Our file format: it describes itself, round-trips exactly, and says in a sentence what is wrong with a bad file."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mindseye.checkpoints.save import load_part, read_header, save_part
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks.clip import CLIP, HALF, Config, ResNet, Text, ViT
from mindseye.networks.vae import AutoencoderKL, Tower
from mindseye.networks.vae import Config as VAEConfig

TEXT = Text(vocabulary=64, length=8, width=32, layers=1, heads=2)
CONFIGS = {
    "vit": Config(text=TEXT, image=ViT(size=16, patch=8, width=32, layers=1, heads=2), embed=16, mean=HALF, std=HALF),
    "resnet": Config(text=TEXT, image=ResNet(size=32, width=8, layers=(1, 1, 1, 1), heads=4), embed=16),
    "text alone": Config(text=TEXT, image=None, embed=None),
}
VAE = VAEConfig(
    encoder=Tower(channels=(8, 16), blocks=(1, 1), middle=False),
    decoder=Tower(channels=(8, 16), blocks=(1, 1), middle=False, taper=True),
    latent_channels=4,
    patch=2,
    groups=4,
    quant_conv=False,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "vae.safetensors"
    save_part(path, AutoencoderKL(VAE), {"hours": 1.5})
    return path


@pytest.mark.parametrize("name", CONFIGS)
def test_a_part_round_trips_with_its_config(tmp_path: Path, name: str) -> None:
    network = CLIP(CONFIGS[name])
    save_part(tmp_path / "clip.safetensors", network)
    loaded = load_part(tmp_path / "clip.safetensors")
    assert loaded.config == CONFIGS[name]
    assert all(
        torch.equal(a, b) for a, b in zip(network.state_dict().values(), loaded.state_dict().values(), strict=True)
    )
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())


def test_the_header_tells_without_loading(file: Path) -> None:
    header = read_header(file)
    assert header["network"] == "mindseye.networks.vae:AutoencoderKL"
    assert header["config"]["latent_channels"] == 4 and header["provenance"] == {"hours": 1.5}


def test_half_precision_is_stored_half_and_loaded_whole(tmp_path: Path) -> None:
    network = AutoencoderKL(VAE)
    save_part(tmp_path / "a.safetensors", network)
    save_part(tmp_path / "b.safetensors", network, dtype=torch.float16)
    assert (tmp_path / "b.safetensors").stat().st_size < 0.65 * (tmp_path / "a.safetensors").stat().st_size
    loaded = load_part(tmp_path / "b.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    pixels = torch.zeros(1, 3, 16, 16)
    torch.testing.assert_close(loaded.encode(pixels), network.encode(pixels), rtol=2e-2, atol=2e-2)


def test_nothing_half_written_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "vae.safetensors"
    path.write_bytes(b"the old one")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_part(path, AutoencoderKL(VAE))
    assert path.read_bytes() == b"the old one" and list(tmp_path.iterdir()) == [path]


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsMissing, match="not there"):
        load_part(tmp_path / "none.safetensors")


def test_a_truncated_file(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="no whole safetensors file"):
        load_part(file)


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", b"version https://git-lfs.github.com/spec/v1\noid sha256:0"]
)
def test_something_else_under_that_name(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(WeightsError):
        load_part(file)


def test_a_foreign_safetensors_file(tmp_path: Path) -> None:
    save_file({"x": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match="not a part that mindseye wrote"):
        load_part(tmp_path / "x.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_none(tmp_path: Path, value: float) -> None:
    network = AutoencoderKL(VAE)
    with torch.no_grad():
        network.decoder.conv_in.weight[0, 0, 0, 0] = value
    save_part(tmp_path / "bad.safetensors", network)
    with pytest.raises(WeightsError, match=r"decoder\.conv_in\.weight holds NaN or infinity"):
        load_part(tmp_path / "bad.safetensors")


def rewrite(file: Path, tensors: dict[str, torch.Tensor], **changes: str) -> None:
    header = read_header(file)
    metadata = {"network": header["network"], "config": json.dumps(header["config"]), **changes}
    save_file(tensors, file, metadata)


def test_keys_that_do_not_fit_are_named(file: Path) -> None:
    state = dict(AutoencoderKL(VAE).state_dict())
    state.pop("decoder.conv_in.weight")
    state["ghost"] = torch.zeros(1)
    rewrite(file, state)
    with pytest.raises(WeightsError, match=r"1 missing \(decoder.conv_in.weight\); 1 not known \(ghost\)"):
        load_part(file)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("mindseye.networks.vae:Nothing", "does not have"),
        ("mindseye.networks.nowhere:AutoencoderKL", "does not have"),
        ("os:system", "not a part that mindseye wrote"),
    ],
)
def test_a_network_that_this_version_does_not_have(file: Path, network: str, said: str) -> None:
    rewrite(file, dict(AutoencoderKL(VAE).state_dict()), network=network)
    with pytest.raises(WeightsError, match=said):
        load_part(file)


def test_a_config_with_an_unknown_field(file: Path) -> None:
    config = {**read_header(file)["config"], "colour": 3}
    rewrite(file, dict(AutoencoderKL(VAE).state_dict()), config=json.dumps(config))
    with pytest.raises(WeightsError, match="has no colour"):
        load_part(file)
