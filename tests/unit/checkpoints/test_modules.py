"""Modules that were pickled whole: read in either container, run in none; and what of them is a dVAE."""

import os
import pickle
import sys
import time
import zipfile

import pytest
import torch
from tests.unit.checkpoints import tiny_dalle as tiny
from tests.unit.checkpoints.tiny_early import made

from mindseye.checkpoints import kinds
from mindseye.checkpoints.layout import restore
from mindseye.checkpoints.layouts.dalle_pytorch import vae_config
from mindseye.checkpoints.layouts.enhancing import vit_vqgan_config
from mindseye.checkpoints.layouts.openai_dvae import dvae_config, dvae_rules
from mindseye.checkpoints.load import load_foreign
from mindseye.checkpoints.manifest import open_pickle
from mindseye.checkpoints.modules import is_modules, read_modules
from mindseye.checkpoints.releases import identify
from mindseye.errors import WeightsError, WeightsMissing
from mindseye.networks.dvae import DVAE, OPENAI


@pytest.fixture(params=[False, True], ids=["zip", "legacy"])
def legacy(request):
    return request.param


def test_the_tensors_of_both_containers(legacy, tmp_path):
    path = tiny.dvae_files(tmp_path / "encoder.pkl", legacy=legacy)
    theirs = restore(made(DVAE, tiny.DVAE).state_dict(), dvae_rules(tiny.DVAE))
    assert is_modules(path) and zipfile.is_zipfile(path) is not legacy
    for half in ("encoder", "decoder"):
        found, _ = read_modules(path.with_name(f"{half}.pkl"))
        assert set(found) == {key for key in theirs if key.startswith(half)}
        assert all(torch.equal(found[key], theirs[key]) for key in found)
    assert open_pickle(path)[0].keys() == read_modules(path)[0].keys()
    assert not any(name.startswith("dall_e") for name in sys.modules)


@pytest.mark.parametrize("named", ["encoder.pkl", "decoder.pkl", "."])
def test_either_file_or_the_folder_is_the_whole(named, legacy, tmp_path):
    tiny.dvae_files(tmp_path / "encoder.pkl", legacy=legacy)
    path = tmp_path / named
    assert kinds.look(path) == kinds.Seen(kind="model", family="dvae")
    release = identify(path)
    assert (release.family, release.native, release.multiple) == ("dvae", (256, 256), 2)
    assert [each.name for each in release.parts["codec"].files] == ["encoder.pkl", "decoder.pkl"]
    network = load_foreign(release.parts["codec"])
    assert isinstance(network, DVAE) and network.config == tiny.DVAE
    wanted = made(DVAE, tiny.DVAE).state_dict()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())


def test_a_folder_of_more_is_a_folder(tmp_path):
    tiny.dvae_files(tmp_path / "encoder.pkl")
    assert kinds.is_unit(tmp_path)
    torch.save({}, tmp_path / "other.pt")
    assert not kinds.is_unit(tmp_path)


def test_renamed_and_half_of_one(tmp_path):
    tiny.dvae_files(tmp_path / "encoder.pkl")
    for half in ("encoder", "decoder"):
        (tmp_path / f"{half}.pkl").rename(tmp_path / f"openai-{half}.pkl")
    assert identify(tmp_path / "openai-decoder.pkl").family == "dvae"
    (tmp_path / "openai-decoder.pkl").unlink()
    with pytest.raises(WeightsMissing, match="its decoder is not beside it") as caught:
        identify(tmp_path / "openai-encoder.pkl")
    assert "openai-decoder.pkl" in caught.value.hint
    # Another encoder under the other's name.
    (tmp_path / "openai-decoder.pkl").write_bytes((tmp_path / "openai-encoder.pkl").read_bytes())
    with pytest.raises(WeightsMissing, match="not beside it"):
        identify(tmp_path / "openai-encoder.pkl")


class Hostile:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_code_is_refused_and_not_run(legacy, tmp_path):
    mark = tmp_path / "ran"
    path = tiny.dvae_files(tmp_path / "encoder.pkl", legacy=legacy, helper=Hostile(mark))
    with pytest.raises(WeightsError, match=r"code in it \(posix.mkdir\): it was not opened"):
        identify(path)
    assert "posix.mkdir" in kinds.look(path).problem
    assert not mark.exists()


class Unknown:
    pass


def test_so_is_an_object_of_another_class(legacy, tmp_path):
    path = tiny.dvae_files(tmp_path / "encoder.pkl", legacy=legacy, helper=Unknown())
    with pytest.raises(WeightsError, match=r"code in it \(.*Unknown\)"):
        identify(path)


def test_cut_short(legacy, tmp_path):
    path = tiny.dvae_files(tmp_path / "encoder.pkl", legacy=legacy)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 3, len(whole) // 2, len(whole) - 100):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError):
            identify(path)


def test_most_pickles_are_nothing_to_us(tmp_path):
    path = tmp_path / "table.pkl"
    for content in (pickle.dumps({"a": 1}), pickle.dumps(Hostile(tmp_path / "ran")), b"", b"PK\x03\x04 nonsense"):
        path.write_bytes(content)
        assert kinds.look(path) == kinds.Seen(kind=None)
    assert not (tmp_path / "ran").exists()


def test_a_pickle_of_nothing_is_not_read_to_its_end(tmp_path, second):
    """A small archive of a long list, packed."""
    path = tmp_path / "bomb.pkl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb/data.pkl", b"\x80\x02" + b"N" * 30_000_000 + b".")
    began = time.process_time()
    assert not is_modules(path)
    assert time.process_time() - began < second


def test_a_promise_of_many_tensors_takes_no_time(tmp_path, second):
    """Counts in the older container that the file does not hold."""
    path = tiny.dvae_files(tmp_path / "encoder.pkl", legacy=True)
    raw = path.read_bytes()
    weight = made(DVAE, tiny.DVAE).encoder.input.weight
    at = raw.index(weight.numpy().tobytes()) - 8
    for count in (2**62, 2**60, -1, 0):
        path.write_bytes(raw[:at] + count.to_bytes(8, "little", signed=True) + raw[at + 8 :])
        began = time.process_time()
        with pytest.raises(WeightsError):
            read_modules(path)
        assert time.process_time() - began < 2 * second


def test_the_published_one_by_its_shapes():
    with torch.device("meta"):
        state = restore(DVAE(OPENAI).state_dict(), dvae_rules(OPENAI))
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    assert shapes["encoder.blocks.group_2.block_1.id_path.w"] == (512, 256, 1, 1)
    assert shapes["decoder.blocks.group_1.block_1.id_path.w"] == (2048, 128, 1, 1)
    assert shapes["decoder.blocks.group_4.block_2.res_path.conv_1.w"] == (64, 256, 1, 1)
    found = dvae_config(shapes)
    assert (tuple(found["channels"]), tuple(found["blocks"])) == (OPENAI.channels, OPENAI.blocks)
    assert (found["codes"], found["code_channels"], found["kernel"]) == (8192, 128, 7)


@pytest.mark.parametrize(
    ("read", "shapes", "said"),
    [
        (dvae_config, {"encoder.blocks.input.w": (8, 3, 7, 7)}, "group_1"),
        (vae_config, {"codebook.weight": (8, 4), "encoder.0.0.weight": (8, 1, 4, 4)}, "1 channels"),
        (
            vit_vqgan_config,
            {
                "encoder.transformer.layers.0.1.fn.net.0.weight": (32, 64),
                "encoder.transformer.layers.0.0.fn.to_qkv.weight": (96, 64),
            },
            "attends with 32 channels",
        ),
    ],
)
def test_what_is_not_supported_is_said(read, shapes, said):
    with pytest.raises((KeyError, ValueError), match=said):
        read(shapes)


def test_inside_a_dalle(tmp_path):
    """DALLE-pytorch keeps the discrete VAE beside its transformer: its own, or OpenAI's under shorter names."""
    path = tiny.vae_file(tmp_path / "dalle.pt", "vae.")
    release = identify(path)
    assert (release.native, release.notes, release.parts["codec"].prefix) == ((64, 64), (), "vae.")
    names = {"encoder": "vae.enc", "decoder": "vae.dec"}
    theirs = restore(made(DVAE, tiny.DVAE).state_dict(), dvae_rules(tiny.DVAE))
    weights = {f"{names[key.partition('.')[0]]}.{key.partition('.')[2]}": value for key, value in theirs.items()}
    torch.save({"weights": weights, "vae_class_name": "OpenAIDiscreteVAE"}, path)
    network = load_foreign(identify(path).parts["codec"])
    assert isinstance(network, DVAE) and network.config == tiny.DVAE
