"""The tiny autoencoder: shapes, the soft limit, and the release's real weights on a photograph."""

import shutil

import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from mindseye.checkpoints.layout import convert, restore
from mindseye.checkpoints.layouts import taesd
from mindseye.codec import Codec
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks.taesd import TAESD, Config, TinyAutoencoder
from mindseye.pixels import from_images

TINY = Config(latent_channels=5, width=8, encoder=(1, 2, 1), decoder=(2, 0, 3), pooled=True)


def fresh(config=TINY):
    torch.manual_seed(0)
    return TinyAutoencoder(config).eval().requires_grad_(False)


def shapes(state):
    return {key: tuple(value.shape) for key, value in state.items()}


def test_it_is_a_codec_of_the_stated_factor():
    codec = fresh()
    assert isinstance(codec, Codec) and codec.factor == 4 and TAESD.factor == 8
    latents = codec.encode(torch.rand(2, 3, 16, 24) * 2 - 1)
    assert latents.shape == (2, 5, 4, 6) and codec.decode(latents).shape == (2, 3, 16, 24)
    with pytest.raises(ValueError, match="multiples of 4, not 24x17"):
        codec.encode(torch.zeros(1, 3, 17, 24))


def test_the_public_size():
    network = TinyAutoencoder(TAESD)
    assert sum(weight.numel() for weight in network.parameters()) == 2_445_063


def test_latents_beyond_the_soft_limit_make_no_difference():
    codec = fresh()
    far = torch.full((1, 5, 4, 4), 30.0)
    assert torch.equal(codec.decode(far), codec.decode(far * 3))
    assert not torch.equal(codec.decode(far), codec.decode(far / 30))


def test_only_a_pooled_one_sees_the_whole_picture():
    for pooled in (False, True):
        codec = fresh(Config(width=8, encoder=(0, 1), decoder=(0, 1), pooled=pooled))
        picture = torch.zeros(1, 3, 96, 16)
        other = picture.clone()
        other[..., :4, :] = 1
        far = (codec.encode(picture) - codec.encode(other))[..., -4:, :].abs().max()
        assert (far > 0) == pooled


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_the_config_is_read_from_one_file_of_the_release(half):
    state = {key: value for key, value in fresh().state_dict().items() if key.startswith(half)}
    theirs = restore(state, taesd.half_rules(TINY, half))
    found = taesd.config(shapes(theirs))
    assert found is not None and getattr(found, half) == getattr(TINY, half)
    assert (found.width, found.latent_channels, found.pooled) == (8, 5, True)
    assert taesd.half_of(shapes(theirs)) == half


@pytest.mark.parametrize("rules", [taesd.rules, taesd.diffusers_rules])
def test_names_go_there_and_back(rules):
    state = fresh().state_dict()
    theirs = restore(state, rules(TINY))
    assert taesd.config(shapes(theirs)) == TINY and set(theirs).isdisjoint(state)
    for other in (taesd.rules, taesd.diffusers_rules):
        back = convert(theirs, other(TINY))
        assert all(torch.equal(back[key], value) for key, value in state.items()) and set(back) == set(state)


def test_other_networks_are_not_taken_for_it():
    assert taesd.config({"unet.conv_in.weight": (320, 4, 3, 3)}) is None
    assert taesd.config({}) is None
    # The release of factor 32: two strided convolutions with biases at the start, of different widths.
    large = {"0.weight": (32, 3, 3, 3), "2.weight": (64, 32, 3, 3), "18.weight": (32, 64, 3, 3)}
    large |= {f"{key.partition('.')[0]}.bias": shape[:1] for key, shape in large.items()}
    large |= {"4.conv.0.weight": (64, 64, 3, 3), "5.weight": (64, 64, 3, 3)}
    assert taesd.config(large) is None
    assert taesd.config({"0.weight": (8, 3, 3, 3), "0.bias": (8,), "1.weight": (4, 8, 3, 3), "1.bias": (4,)}) is None


def halves(folder, config=TINY):
    """The two files of a release."""
    network = fresh(config)
    for half in ("encoder", "decoder"):
        state = {key: value for key, value in network.state_dict().items() if key.startswith(half)}
        torch.save(dict(restore(state, taesd.half_rules(config, half))), folder / f"tae_{half}.pth")
    return network


def test_a_half_finds_the_other_beside_it(tmp_path):
    network = halves(tmp_path)
    latents = torch.randn(1, 5, 4, 4)
    for half in ("encoder", "decoder"):
        loaded = taesd.load_tiny(tmp_path / f"tae_{half}.pth")
        assert loaded.config == TINY and torch.equal(loaded.decode(latents), network.decode(latents))
    (tmp_path / "tae_encoder.pth").unlink()
    with pytest.raises(WeightsMissing, match="holds only the decoder") as told:
        taesd.load_tiny(tmp_path / "tae_decoder.pth")
    assert "encoder" in told.value.hint
    with pytest.raises(WeightsMissing, match="not there"):
        taesd.load_tiny(tmp_path / "tae_encoder.pth")


def test_what_is_none_is_refused_in_words(tmp_path):
    path = tmp_path / "tae_encoder.pth"
    for content, said in ((b"version https://git-lfs", "LFS pointer"), (b"", "is empty"), (b"PK", "cut short")):
        path.write_bytes(content)
        with pytest.raises(WeightsError, match=said):
            taesd.load_tiny(path)
    torch.save({"conv_in.weight": torch.zeros(3)}, path)
    with pytest.raises(WeightsError, match="no tiny autoencoder"):
        taesd.load_tiny(path)
    torch.save([1, 2], path)
    with pytest.raises(WeightsError, match="not named weights"):
        taesd.load_tiny(path)
    halves(tmp_path)
    state = torch.load(path, weights_only=True)
    state["0.bias"][0] = float("nan")
    torch.save(state, path)
    with pytest.raises(WeightsError, match="0.bias holds NaN"):
        taesd.load_tiny(path)


def test_real_weights_return_a_photograph(material, tmp_path):
    folder = material / "taef2"
    if not folder.is_dir():
        pytest.skip("the material has no taef2")
    codec = taesd.load_tiny(folder / "taef2_decoder.pth")
    assert codec.config == Config(latent_channels=32, pooled=True)
    photograph = Image.open(material / "vaelight_sd" / "example1.jpg").convert("RGB").resize((256, 256), Image.LANCZOS)
    pixels = from_images([photograph])
    latents = codec.encode(pixels)
    assert latents.shape == (1, 32, 32, 32)
    error = F.mse_loss(codec.decode(latents).clamp(-1, 1), pixels)
    assert 10 * torch.log10(4 / error) > 28  # the range is 2
    shutil.copy(folder / "taef2_encoder.pth", tmp_path / "renamed-one.pth")
    shutil.copy(folder / "taef2_decoder.pth", tmp_path / "renamed-two.pth")
    same = taesd.load_tiny([tmp_path / "renamed-two.pth", tmp_path / "renamed-one.pth"], torch.bfloat16)
    assert same.encode(pixels[..., :32, :32].bfloat16()).dtype == torch.bfloat16
