"""Foreign weights into our networks: strict, in the wanted dtype, without a second copy, or not at all."""

import copy
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mindseye.checkpoints import load
from mindseye.checkpoints.layout import KeysMismatch
from mindseye.checkpoints.load import Files, load_foreign
from mindseye.checkpoints.manifest import read_manifest
from mindseye.checkpoints.releases import PartFile, identify, identify_codec
from mindseye.checkpoints.save import load_part, save_part
from mindseye.codec import Tiled
from mindseye.errors import UnknownName, WeightsError, WeightsMissing
from mindseye.networks.unet import UNet
from mindseye.networks.vae import AutoencoderKL
from mindseye.nn.layers import settle
from mindseye.nn.seamless import Seamless

HALVES = (torch.float16, torch.bfloat16, torch.float32)


@pytest.fixture
def part(tmp_path: Path, tiny) -> PartFile:
    """A U-Net in half precision."""
    return identify(tiny("sd1", torch.float16).folder(tmp_path)).parts["unet"]


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("stored", HALVES)
def test_dtypes(tmp_path: Path, tiny, dtype: torch.dtype, stored: torch.dtype) -> None:
    model = tiny("sdxl", stored)
    release = identify(model.file(tmp_path / "x.safetensors"))
    for name in ("unet", "text_2"):
        loaded = load_foreign(release.parts[name], dtype)
        assert not loaded.training and not any(value.requires_grad for value in loaded.parameters())
        for key, value in model.networks[name].state_dict().items():
            ours = loaded.state_dict()[key]
            assert ours.dtype == dtype and torch.equal(ours, value.to(stored).to(dtype)), key
    kept = load_foreign(release.parts["unet"], None)
    assert {value.dtype for value in kept.parameters()} == {stored}


def test_nothing_is_copied_that_needs_no_conversion(part: PartFile) -> None:
    """The weights are the file: what is written into it shows, until then nothing of it was read twice."""
    network = load_foreign(part, torch.float16)
    entry = read_manifest(part.files)["conv_in.weight"]
    with part.files[0].open("r+b") as file:
        file.seek(entry.offset)
        file.write(torch.tensor([5.0], dtype=torch.float16).numpy().tobytes())
    assert network.conv_in.weight.flatten()[0] == 5
    with torch.no_grad():
        network.conv_in.weight.fill_(3)  # and not the other way round
    assert load_file(part.files[0])["conv_in.weight"].flatten()[0] == 5


def test_conversion_in_pieces(part: PartFile, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load_foreign(part, torch.bfloat16).state_dict()
    monkeypatch.setattr(load, "CHUNK", 7)
    pieces = load_foreign(part, torch.bfloat16).state_dict()
    assert all(torch.equal(whole[key], pieces[key]) for key in whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_layers_that_wait_for_their_first_call(part: PartFile, dtype: torch.dtype) -> None:
    """They are the file until then, and afterwards as if they had been loaded so."""
    eager = load_foreign(part, dtype, memory_format=torch.channels_last)
    late = load_foreign(part, dtype, memory_format=torch.channels_last, later=True)
    assert next(late.parameters()).dtype == dtype and late.norm_out.weight.dtype == dtype
    waiting = sum(value.numel() for value in late.parameters() if value.dtype == torch.float16)
    assert waiting > 0.9 * sum(value.numel() for value in late.parameters())
    text = torch.randn(2, 7, late.config.transformers.context, dtype=dtype)
    given = torch.randn(2, late.config.in_channels, 8, 8, dtype=dtype), torch.tensor([3.0, 900.0]), text
    with torch.inference_mode():
        assert torch.equal(late(*given), eager(*given))
    assert {value.dtype for value in late.parameters()} == {dtype}
    assert all(torch.equal(value, eager.state_dict()[key]) for key, value in late.state_dict().items())


def answers(network: torch.nn.Module) -> list[torch.Tensor]:
    """What the ways into a network give that go through its layers otherwise than by calling it."""
    torch.manual_seed(0)
    if isinstance(network, UNet):
        vector = None if network.config.vector is None else torch.randn(2, network.config.vector)
        text = torch.randn(2, 7, network.config.transformers.context)
        x = torch.randn(2, network.config.in_channels, 8, 8)
        return [Seamless(network)(x, torch.tensor([3.0, 900.0]), text, vector)]
    if isinstance(network, AutoencoderKL):
        return [Tiled(network, tile=4).decode(torch.randn(1, 4, 16, 16)), network.encode(torch.rand(1, 3, 32, 32))]
    return list(network.text(torch.tensor([[3, 5, 7, 89, *[89] * 12]])))


def test_every_part_waits_and_answers_the_same(tmp_path: Path, tiny) -> None:
    for part in identify(tiny("sdxl-inpaint", torch.float16).file(tmp_path / "x.safetensors")).parts.values():
        late, eager = (load_foreign(part, later=later) for later in (True, False))
        assert all(torch.equal(*both) for both in zip(answers(late), answers(eager), strict=True))
        # Whoever walks over the weights instead sees the file's (what does not wait is widened, and loses nothing) ...
        late, stored = load_foreign(part, later=True), load_foreign(part, None).state_dict()
        save_part(tmp_path / "kept.safetensors", late)
        kept = load_part(tmp_path / "kept.safetensors", None).state_dict()
        assert any(value.dtype == torch.float16 for value in kept.values())
        assert all(torch.equal(kept[key].to(value.dtype), value) for key, value in stored.items())
        # ... unless they ask for them as they will be.
        assert {value.dtype for value in copy.deepcopy(late).bfloat16().parameters()} == {torch.bfloat16}
        settle(late)
        assert all(torch.equal(value, eager.state_dict()[key]) for key, value in late.state_dict().items())


def test_waiting_layers_are_checked_at_once(tmp_path: Path, tiny) -> None:
    tensors = tiny("sd1", torch.float16).single()
    tensors["first_stage_model.decoder.conv_out.weight"][0, 0, 0, 0] = float("nan")
    save_file(tensors, tmp_path / "x.safetensors")
    part = identify(tmp_path / "x.safetensors").parts["codec"]
    with pytest.raises(WeightsError, match=r"decoder\.conv_out\.weight holds NaN"):
        load_foreign(part, later=True)


def test_pages_given_back_are_read_again(tmp_path: Path) -> None:
    numbers = torch.randn(64, 1024, generator=torch.Generator().manual_seed(0))
    save_file({"a": torch.ones(3), "x": numbers, "z": torch.ones(3)}, tmp_path / "x.safetensors")
    files, manifest = Files(), read_manifest(tmp_path / "x.safetensors")
    tensors = [files.tensor(manifest[key]) for key in "axz"]
    files.release(tensors[1])
    files.release(torch.ones(5))  # of no file
    assert torch.equal(tensors[1], numbers) and tensors[0].sum() == tensors[2].sum() == 3


def test_channels_last(part: PartFile) -> None:
    network = load_foreign(part, torch.float16, memory_format=torch.channels_last)
    assert network.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(network.conv_in.weight, load_foreign(part, torch.float16).conv_in.weight)


@pytest.mark.parametrize("dtype", HALVES)
def test_channels_last_in_another_dtype(part: PartFile, dtype: torch.dtype) -> None:
    plain = load_foreign(part, dtype).state_dict()
    turned = load_foreign(part, dtype, memory_format=torch.channels_last).state_dict()
    assert all(torch.equal(turned[key], plain[key]) for key in plain)
    filters = [value for value in turned.values() if value.ndim == 4]
    assert filters and all(value.is_contiguous(memory_format=torch.channels_last) for value in filters)


def test_the_scale_of_latents_keeps_its_digits(tmp_path: Path, tiny) -> None:
    codec = load_foreign(identify(tiny("sdxl").folder(tmp_path)).parts["codec"], torch.bfloat16)
    assert next(codec.parameters()).dtype == torch.bfloat16 and codec.latents_std.dtype == torch.float32
    torch.testing.assert_close(codec.latents_std, torch.full((4,), 1 / 0.13025))


def test_tensors_that_are_not_aligned(tmp_path: Path, part: PartFile) -> None:
    """The official writer pads its header; others need not."""
    raw = part.files[0].read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = raw[8 : 8 + length].rstrip() + b" "
    header += b" " * ((len(header) + 1) % 2)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + raw[8 + length :])
    assert read_manifest(path)["conv_in.weight"].offset % 2 == 1
    for dtype in (torch.float16, torch.float32):
        ours = load_foreign(replace(part, files=(path,)), dtype).state_dict()
        assert all(torch.equal(ours[key], value) for key, value in load_foreign(part, dtype).state_dict().items())


def test_normalisation_of_latents(tmp_path: Path, tiny) -> None:
    folder = tiny("sdxl").folder(tmp_path)
    codec = load_foreign(identify(folder).parts["codec"])
    torch.testing.assert_close(codec.latents_std, torch.full((4,), 1 / 0.13025))
    settings = json.loads((folder / "vae" / "config.json").read_text())
    changed = {"latents_mean": [1, 2, 3, 4], "latents_std": [5, 6, 7, 8], "scaling_factor": 0.5}
    (folder / "vae" / "config.json").write_text(json.dumps(settings | changed))
    codec = load_foreign(identify_codec(folder))
    assert codec.latents_mean.tolist() == [1, 2, 3, 4] and codec.latents_std.tolist() == [10, 12, 14, 16]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_numbers_that_are_none(tmp_path: Path, tiny, value: float, dtype: torch.dtype) -> None:
    key = "first_stage_model.decoder.conv_in.bias"
    tensors = tiny("sd1", torch.float16).single()
    tensors[key][0] = value
    save_file(tensors, tmp_path / "x.safetensors")
    with pytest.raises(WeightsError, match=rf"x\.safetensors is damaged: {key} holds NaN or infinity"):
        load_foreign(identify(tmp_path / "x.safetensors").parts["codec"], dtype)


def test_a_sum_that_overflows_is_no_damage(tmp_path: Path, tiny) -> None:
    model = tiny("sd1", torch.float16)
    key = "model.diffusion_model.out.0.weight"
    path = model.file(tmp_path / "x.safetensors", **{key: torch.full((32,), 60_000.0, dtype=torch.float16)})
    assert load_foreign(identify(path).parts["unet"], torch.float16).norm_out.weight[0] == 60_000


def test_keys_that_do_not_fit(part: PartFile) -> None:
    tensors = load_file(part.files[0])
    tensors["ghost"] = tensors.pop("conv_out.bias")
    tensors["conv_in.weight"] = torch.zeros(32, 9, 3, 3)
    save_file(tensors, part.files[0])
    with pytest.raises(KeysMismatch) as caught:
        load_foreign(part)
    assert "1 missing (conv_out.bias)" in str(caught.value) and "1 not known (ghost)" in str(caught.value)
    assert "conv_in.weight [32, 9, 3, 3] instead of [32, 4, 3, 3]" in str(caught.value)


@pytest.mark.parametrize("config", ["", "[]", "{}", '{"channels": 3}', '{"colour": 1}'])
def test_configs_that_are_none(part: PartFile, config: str) -> None:
    with pytest.raises(WeightsError, match="does not have"):
        load_foreign(replace(part, config=config))


def test_layouts_that_are_none(part: PartFile) -> None:
    with pytest.raises(UnknownName, match="layout"):
        load_foreign(replace(part, layout="nobody's"))
    with pytest.raises(WeightsError, match="no network is named"):
        load_foreign(replace(part, layout="mindseye"))
    with pytest.raises(WeightsMissing):
        load_foreign(replace(part, files=(part.files[0].with_name("gone"),)))


def test_a_file_that_shrinks_meanwhile(part: PartFile) -> None:
    entry = read_manifest(part.files)["conv_in.weight"]
    part.files[0].write_bytes(part.files[0].read_bytes()[: entry.offset + 4])
    with pytest.raises(WeightsError, match="changed while"):
        Files().tensor(entry)
    with pytest.raises(WeightsError, match="changed while"):
        list(Files().pieces(entry, 8))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="peaks are counted in other units elsewhere")
def test_peak_memory_is_the_network_and_little_more(tmp_path: Path, tiny) -> None:
    """A table of 64 MB in float32 becomes 32 MB in bfloat16; the file's 64 MB are never in memory."""
    model = tiny("sd1")
    prefix = "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight"
    path = model.file(tmp_path / "x.safetensors", **{prefix: torch.ones(2**18, 64)})
    code = (
        "import resource, sys, torch\nfrom pathlib import Path\n"
        "from mindseye.checkpoints.load import load_foreign\nfrom mindseye.checkpoints.releases import identify\n"
        f"parts = identify(Path({str(path)!r})).parts\n"
        "load_foreign(parts['codec'], torch.bfloat16)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "kept = load_foreign(parts['text'], torch.bfloat16)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=120)
    assert int(done.stdout) / 1024 < 32 * 1.3
