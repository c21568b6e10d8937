"""Any layout into any other: exact there and back, whole or not at all."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mindseye.checkpoints import convert as conversion
from mindseye.checkpoints.convert import convert
from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.releases import EARLY, FAMILIES, WRITERS, identify
from mindseye.checkpoints.save import load_part
from mindseye.cli.convert import convert as command
from mindseye.errors import OptionError, OutputError, WeightsError
from mindseye.request import Progress
from mindseye.text.tokenizer import Tokenizer

WHOLE = [family for family in FAMILIES if family not in (*EARLY, *WRITERS)]
WRITTEN = [family for family in WHOLE if family != "ldm-text2img"]


def run(source: Path, target: Path, to: str = "mindseye", **more) -> tuple[Path, tuple[str, ...]]:
    steps = convert(source, target, to, **more)
    while True:
        try:
            progress = next(steps)
            assert isinstance(progress, Progress) and 1 <= progress.step <= progress.total
        except StopIteration as stop:
            return target, stop.value


def weights(path: Path) -> dict[str, torch.Tensor]:
    """All tensors below a path, by file."""
    if path.is_file():
        return load_file(path)
    files = sorted(path.rglob("*.safetensors"))
    return {f"{file.relative_to(path)}:{key}": value for file in files for key, value in load_file(file).items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(a[key].dtype == b[key].dtype and torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize(
    ("family", "dtype"), [*((family, torch.float16) for family in WRITTEN), ("sd1", torch.float32)]
)
def test_folder_to_ours_to_original_to_folder(tmp_path: Path, tiny, family: str, dtype: torch.dtype) -> None:
    source = tiny(family, dtype).folder(tmp_path / "theirs", "v_prediction", rescale_betas_zero_snr=True)
    ours, left = run(source, tmp_path / "ours")
    assert left == ()
    original, _ = run(ours, tmp_path / "one.safetensors", "original")
    back, _ = run(original, tmp_path / "back", "diffusers")
    same(weights(source), weights(back))
    first, last = identify(source), identify(back)
    for release in (identify(ours), identify(original), last):
        assert (release.family, release.facts, release.native) == (first.family, first.facts, first.native)
    for name, part in first.parts.items():
        assert json.loads(last.parts[name].config) == json.loads(part.config)
        same(load_foreign(identify(ours).parts[name], None).state_dict(), load_foreign(part, None).state_dict())


def rewritten(folder: Path, form: str) -> dict[str, torch.Tensor]:
    """The folder's weights in another form of files; what they were, by part."""
    before = {}
    for file in sorted(folder.rglob("*.safetensors")):
        tensors = load_file(file)
        before |= {f"{file.parent.name}:{key}": value for key, value in tensors.items()}
        file.unlink()
        stem = file.stem if "bin" not in form or file.stem != "model" else "pytorch_model"
        ending = ("fp16." if "fp16" in form else "") + ("bin" if "bin" in form else "safetensors")
        names = dict.fromkeys(tensors, f"{stem}.{ending}")
        if "shards" in form:
            names = {key: f"{stem}-0000{1 + n % 2}-of-00002.{ending}" for n, key in enumerate(sorted(tensors))}
            (folder / file.parent.name / f"{stem}.{ending}.index.json").write_text(json.dumps({"weight_map": names}))
        for name in set(names.values()):
            some = {key: value for key, value in tensors.items() if names[key] == name}
            save = torch.save if "bin" in form else save_file
            save(some, file.with_name(name))
    return before


@pytest.mark.parametrize(("family", "form"), [("sdxl", "fp16 shards"), ("sd1", "bin"), ("sd1", "bin shards")])
def test_every_form_of_folder_there_and_back(tmp_path: Path, tiny, family: str, form: str) -> None:
    """Variants, shards and pickles through our format and the original one: to the bit, in the dtype they had."""
    before = rewritten(tiny(family, torch.float16).folder(tmp_path / "theirs"), form)
    ours, left = run(tmp_path / "theirs", tmp_path / "ours")
    original, _ = run(ours, tmp_path / "one.safetensors", "original")
    back, _ = run(original, tmp_path / "back", "diffusers")
    assert left == () and len(before) > 100
    files = sorted(back.rglob("*.safetensors"))
    same(before, {f"{file.parent.name}:{key}": value for file in files for key, value in load_file(file).items()})


@pytest.mark.parametrize("family", WHOLE)
def test_original_to_ours(tmp_path: Path, tiny, family: str) -> None:
    model = tiny(family)
    ours, left = run(model.file(tmp_path / "x.ckpt"), tmp_path / "ours")
    for name, network in model.networks.items():
        state = load_part(ours / f"{name}.safetensors").state_dict()  # our own reader
        assert all(
            torch.equal(state[key], value) for key, value in network.state_dict().items() if key != "logit_scale"
        )
    if family.startswith("sd2"):
        assert "Stable Diffusion 2 reads the block before it" in left[0]
    if family == "ldm-text2img":
        for to in ("diffusers", "original"):
            with pytest.raises(WeightsError, match="ldm-text2img is not written"):
                run(ours, tmp_path / "other.safetensors", to)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "x.ckpt"]


@pytest.mark.parametrize("family", ["sd1", "sdxl", "sdxl-inpaint", "sdxl-refiner"])
def test_original_and_back_is_the_same_file(tmp_path: Path, tiny, family: str) -> None:
    source = tiny(family, torch.bfloat16).file(tmp_path / "x.safetensors")
    ours, _ = run(source, tmp_path / "ours")
    back, _ = run(ours, tmp_path / "back.safetensors", "original")
    kept = {key: value for key, value in load_file(source).items() if key not in ("betas", "model_ema.decay")}
    same(kept, load_file(back))


def test_dtype(tmp_path: Path, tiny) -> None:
    source = tiny("sd1").folder(tmp_path / "theirs")
    ours, _ = run(source, tmp_path / "ours", dtype=torch.bfloat16)
    found = weights(ours)
    assert {value.dtype for key, value in found.items() if "latents_" not in key and "logit" not in key} == {
        torch.bfloat16
    }
    assert found["codec.safetensors:latents_std"].dtype == torch.float32


def test_tokenizers_come_along(tmp_path: Path, tiny) -> None:
    source = tiny("sdxl").folder(tmp_path / "theirs")
    (source / "tokenizer").mkdir()
    (source / "tokenizer" / "vocab.json").write_text("{}")
    ours, _ = run(source, tmp_path / "ours")
    assert (ours / "tokenizer" / "vocab.json").read_text() == "{}"
    assert identify(ours).tokenizers == {"tokenizer": ours / "tokenizer", "tokenizer_2": None}
    back, _ = run(ours, tmp_path / "back", "diffusers")
    assert (back / "tokenizer" / "vocab.json").read_text() == "{}"
    # Where the source had none, the packaged vocabulary is written.
    assert identify(back).facts["pad_2"] == 0
    written, packaged = Tokenizer.clip(back / "tokenizer_2"), Tokenizer.packaged()
    texts = ["a red fox, \u00fcber 3 cats!", ""]
    assert torch.equal(written.encode(texts)[0], packaged.encode(texts)[0])


def test_nothing_is_overwritten_and_nothing_half_made_is_left(tmp_path: Path, tiny, monkeypatch) -> None:
    source = tiny("sd1").file(tmp_path / "x.safetensors")
    (tmp_path / "there").mkdir()
    with pytest.raises(OutputError, match="exists; nothing is overwritten"):
        run(source, tmp_path / "there")
    for to in conversion.TARGETS:
        steps = convert(source, tmp_path / "out", to)
        next(steps), next(steps)
        assert len(list(tmp_path.iterdir())) == 3
        steps.close()  # the user stopped it
        assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "x.safetensors"]

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OutputError, match="No space"):
        run(source, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there", "x.safetensors"]


def test_damage_is_not_copied(tmp_path: Path, tiny) -> None:
    tensors = tiny("sd1").single()
    tensors["first_stage_model.decoder.conv_in.bias"][0] = float("nan")
    save_file(tensors, tmp_path / "x.safetensors")
    for to in conversion.TARGETS:
        with pytest.raises(WeightsError, match=r"conv_in\.bias holds NaN"):
            run(tmp_path / "x.safetensors", tmp_path / "out", to)
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ({}, "format None"),
        ({"format": 2}, "format 2"),
        ({"format": 1}, "damaged"),
        ({"parts": {"unet": "../../etc/passwd"}}, "no file of this folder"),
        ({"parts": {"unet": "/etc/passwd"}}, "no file of this folder"),
        ({"family": "sd9"}, "family sd9"),
        ({"native": [1]}, "damaged"),
        ({"parts": {"unet": "gone.safetensors"}}, "not there"),
    ],
)
def test_damaged_cards(tmp_path: Path, tiny, card: dict, said: str) -> None:
    ours, _ = run(tiny("sd1").file(tmp_path / "x.safetensors"), tmp_path / "ours")
    whole = json.loads((ours / "card.json").read_text())
    (ours / "card.json").write_text(json.dumps(card if "format" in card or not card else whole | card))
    with pytest.raises(WeightsError, match=said):
        identify(ours)


def test_the_command(tmp_path: Path, tiny, capsys) -> None:
    source = tiny("sd2").file(tmp_path / "x.safetensors")
    command(source, tmp_path / "ours", to="mindseye", dtype="float16", quiet=False)
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'ours'}\n" and "left out" in err
    assert identify(tmp_path / "ours").family == "sd2"
    for wrong in ({"to": "onnx"}, {"dtype": "int8"}, {"to": "original"}):
        with pytest.raises(OptionError):
            command(source, tmp_path / "other", **{"to": "mindseye", "dtype": "", "quiet": True, **wrong})
    with pytest.raises(OptionError, match="onnx"):
        next(convert(source, tmp_path / "other", "onnx"))
