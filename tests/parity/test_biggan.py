"""BigGAN-deep against the release: its own code where it is installed, and its formulas written out straight.

`paint` is the forward pass as the fact sheet has it, on the release's own key names, in double precision, a line for a
line; nothing of ours takes part in it.
"""

import importlib.util
import json
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mindseye.checkpoints.layouts import biggan as layout
from mindseye.checkpoints.manifest import read_manifest
from mindseye.checkpoints.save import from_json
from mindseye.errors import WeightsError
from mindseye.networks.biggan import Config

pytestmark = pytest.mark.parity

LAYERS = [(False, 16, 16), (True, 16, 8), (True, 8, 4), (False, 4, 4), (True, 4, 2), (True, 2, 1)]
ATTENTION, WIDTH, CLASSES, Z, ROWS = 3, 8, 10, 8, 51
TRUNCATIONS = (0.4, 0.405, 0.41, 0.58, 0.94, 1.0)


def _under_norm(state, name, *shape, generator):
    """A weight and the vectors of a power iteration that has settled."""
    weight = torch.randn(*shape, generator=generator, dtype=torch.double) / math.sqrt(math.prod(shape[1:]))
    left, _, right = torch.linalg.svd(weight.flatten(1), full_matrices=False)
    state[f"{name}.weight_orig"] = weight
    # Not quite singular vectors: a file's never are, and its quotient is what counts.
    state[f"{name}.weight_u"] = F.normalize(left[:, 0] + 0.01 * left[:, 1], dim=0)
    state[f"{name}.weight_v"] = F.normalize(right[0] + 0.02 * right[1], dim=0)


@pytest.fixture(scope="module")
def state():
    """A file of the release's, small and random."""
    generator = torch.Generator().manual_seed(0)
    found = {}

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.double)

    found["embeddings.weight"] = random(Z, CLASSES)
    _under_norm(found, "generator.gen_z", 16 * 16 * WIDTH, 2 * Z, generator=generator)
    found["generator.gen_z.bias"] = 0.1 * random(16 * 16 * WIDTH)

    def norm(name, width, conditional):
        found[f"{name}.running_means"] = 0.3 * random(ROWS, width)
        found[f"{name}.running_vars"] = 0.5 + random(ROWS, width).abs()
        if conditional:
            for end in ("scale", "offset"):
                _under_norm(found, f"{name}.{end}", width, 2 * Z, generator=generator)
        else:
            found[f"{name}.weight"], found[f"{name}.bias"] = 1 + 0.1 * random(width), 0.1 * random(width)

    place = 0
    for number, (_, wide, out) in enumerate(LAYERS):
        if number == ATTENTION:
            base, width = f"generator.layers.{place}", wide * WIDTH
            found[f"{base}.gamma"] = torch.tensor([0.7], dtype=torch.double)
            for name, (a, b) in {"theta": (8, 1), "phi": (8, 1), "g": (2, 1), "o_conv": (1, 2)}.items():
                _under_norm(found, f"{base}.snconv1x1_{name}", width // a, width // b, 1, 1, generator=generator)
            place += 1
        base, inner = f"generator.layers.{place}", wide * WIDTH // 4
        sizes = [(wide * WIDTH, inner, 1), (inner, inner, 3), (inner, inner, 3), (inner, out * WIDTH, 1)]
        for k, (a, b, side) in enumerate(sizes):
            norm(f"{base}.bn_{k}", a, True)
            _under_norm(found, f"{base}.conv_{k}", b, a, side, side, generator=generator)
            found[f"{base}.conv_{k}.bias"] = 0.1 * random(b)
        place += 1
    norm("generator.bn", WIDTH, False)
    _under_norm(found, "generator.conv_to_rgb", WIDTH, WIDTH, 3, 3, generator=generator)
    found["generator.conv_to_rgb.bias"] = 0.1 * random(WIDTH)
    return found


def paint(state, z, classes, truncation, *, repaired=False):
    """The release's forward pass, one line after the other; with three axes Big Sleep's: a row for each site."""

    def weight(name):
        whole = state[f"{name}.weight_orig"]
        return whole / torch.dot(state[f"{name}.weight_u"], torch.mv(whole.flatten(1), state[f"{name}.weight_v"]))

    def statistics(name):
        tables = state[f"{name}.running_means"], state[f"{name}.running_vars"]
        if repaired:
            place = torch.tensor(truncation, dtype=torch.double) * 50
            low = int((place + 1e-9).floor())
            share = float(place) - low if abs(float(place) - low) > 1e-9 else 0.0
            return [t[low] * (1 - share) + (t[low + 1] * share if share else 0) for t in tables]
        share, low = math.modf(truncation / (1.0 / 50))
        low = int(low)
        return [t[low] * share + t[low + 1] * (1 - share) if share else t[low] for t in tables]

    def normed(x, name, told=None):
        mean, variance = (each[None, :, None, None] for each in statistics(name))
        if told is None:
            scale, offset = state[f"{name}.weight"][None], state[f"{name}.bias"][None]
        else:
            scale, offset = 1 + told @ weight(f"{name}.scale").T, told @ weight(f"{name}.offset").T
        return (x - mean) / torch.sqrt(variance + 1e-4) * scale[:, :, None, None] + offset[:, :, None, None]

    told = torch.cat([z, classes @ state["embeddings.weight"].T], -1)
    rows = [told] * (1 + len(LAYERS)) if told.ndim == 2 else told.unbind(1)
    x = rows[0] @ weight("generator.gen_z").T + state["generator.gen_z.bias"]
    x = x.view(-1, 4, 4, 16 * WIDTH).permute(0, 3, 1, 2)
    place = 0
    for number, (up, _, out) in enumerate(LAYERS):
        if number == ATTENTION:
            base = f"generator.layers.{place}"
            b, c, h, w = x.shape
            theta = F.conv2d(x, weight(f"{base}.snconv1x1_theta")).view(b, c // 8, h * w)
            phi = F.max_pool2d(F.conv2d(x, weight(f"{base}.snconv1x1_phi")), 2).view(b, c // 8, h * w // 4)
            g = F.max_pool2d(F.conv2d(x, weight(f"{base}.snconv1x1_g")), 2).view(b, c // 2, h * w // 4)
            attention = torch.softmax(torch.bmm(theta.transpose(1, 2), phi), -1)
            read = torch.bmm(g, attention.transpose(1, 2)).view(b, c // 2, h, w)
            x = x + state[f"{base}.gamma"] * F.conv2d(read, weight(f"{base}.snconv1x1_o_conv"))
            place += 1
        base, before = f"generator.layers.{place}", x
        for k in range(4):
            x = F.relu(normed(x, f"{base}.bn_{k}", rows[1 + number]))
            if up and k == 1:
                x = F.interpolate(x, scale_factor=2)
            x = F.conv2d(x, weight(f"{base}.conv_{k}"), state[f"{base}.conv_{k}.bias"], padding=int(k in (1, 2)))
        before = before[:, : out * WIDTH]
        x = x + (F.interpolate(before, scale_factor=2) if up else before)
        place += 1
    x = F.relu(normed(x, "generator.bn"))
    x = F.conv2d(x, weight("generator.conv_to_rgb"), state["generator.conv_to_rgb.bias"], padding=1)
    return torch.tanh(x[:, :3])


@pytest.fixture(scope="module")
def network(state, tmp_path_factory):
    """Ours, from such a file; every second block doubles the side only by its config.json."""
    folder = tmp_path_factory.mktemp("biggan")
    torch.save({key: value.float() for key, value in state.items()}, folder / "pytorch_model.bin")
    (folder / "config.json").write_text(json.dumps({"layers": LAYERS, "eps": 1e-4}))
    return layout.load_biggan(folder)


@pytest.fixture(scope="module")
def given():
    """Noise and a soft class."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, Z, generator=generator), torch.softmax(torch.randn(2, CLASSES, generator=generator), 1)


@pytest.mark.parametrize("truncation", TRUNCATIONS)
def test_as_the_release_paints_and_as_it_meant_to(state, network, given, truncation):
    """compat=True is the release; without it, rows are interpolated the right way round."""
    z, classes = given
    with torch.no_grad():
        for compat in (True, False):
            theirs = paint(state, z.double(), classes.double(), truncation, repaired=not compat)
            assert theirs.std() > 0.05
            assert (network(z, classes, truncation, compat=compat) - theirs).abs().max() < 1e-5


@pytest.mark.parametrize("truncation", [0.405, 0.58, 0.94])
def test_the_release_errs_where_the_facts_say(network, given, truncation):
    """Swapped weights between rows, and row 28 for 0.58, row 46 for 0.94."""
    with torch.no_grad():
        assert (network(*given, truncation, compat=True) - network(*given, truncation)).abs().max() > 1e-3


@pytest.fixture(scope="module")
def rows():
    """Noise and a mixture of classes for every site, of two pictures."""
    generator = torch.Generator().manual_seed(2)
    shape = (2, 1 + len(LAYERS))
    return torch.randn(*shape, Z, generator=generator), torch.rand(*shape, CLASSES, generator=generator)


def test_each_site_hears_its_row_as_in_big_sleep(state, network, rows):
    """Row 0 the first layer, row k the k-th block, whatever attention stands between."""
    with torch.no_grad():
        theirs = paint(state, rows[0].double(), rows[1].double(), 1.0)
        assert (network(*rows, 1.0) - theirs).abs().max() < 1e-5
        assert (network(rows[0].flip(1), rows[1], 1.0) - theirs).abs().max() > 1e-2


def test_big_sleep_itself(network, rows):
    """Its own code, by file: the package's import asks for CUDA."""
    pytest.importorskip("boto3")
    found = importlib.util.find_spec("big_sleep")
    if found is None or found.origin is None:
        pytest.skip("big_sleep is not installed")
    file = importlib.util.spec_from_file_location("big_sleep_biggan", Path(found.origin).with_name("biggan.py"))
    peer = importlib.util.module_from_spec(file)
    file.loader.exec_module(peer)
    theirs, told = layout.to_release(network)
    other = peer.BigGAN(peer.BigGANConfig.from_dict(told))
    other.load_state_dict(theirs)
    other.eval()
    with torch.no_grad():
        for picture in range(2):
            alone = [each[picture] for each in rows]
            assert (other(*alone, 1.0) - network(*rows, 1.0)[picture : picture + 1]).abs().max() < 1e-5


def test_back_to_the_release(state, network, given):
    """What is exported paints the same by the release's formulas, and has the release's names and shapes."""
    theirs, told = layout.to_release(network)
    assert {key: value.shape for key, value in theirs.items()} == {key: value.shape for key, value in state.items()}
    assert [tuple(layer) for layer in told["layers"]] == LAYERS
    z, classes = given
    with torch.no_grad():
        again = paint({key: value.double() for key, value in theirs.items()}, z.double(), classes.double(), 0.4)
        assert (network(z, classes, 0.4) - again).abs().max() < 1e-5


def test_the_release_itself(network, given):
    """Its own code, where it is installed."""
    peer = pytest.importorskip("pytorch_pretrained_biggan")
    theirs, told = layout.to_release(network)
    other = peer.BigGAN(peer.BigGANConfig.from_dict(told))
    other.load_state_dict(theirs)
    other.eval()
    with torch.no_grad():
        for truncation in TRUNCATIONS:
            assert (other(*given, truncation) - network(*given, truncation, compat=True)).abs().max() < 1e-5


def test_known_by_its_table_of_contents(state, tmp_path):
    """What the file is, and that a stranger is none."""
    path = tmp_path / "pytorch_model.bin"
    torch.save({key: value.float() for key, value in state.items()}, path)
    (tmp_path / "config.json").write_text(json.dumps({"layers": LAYERS}))
    found = layout.release(path, read_manifest(path))
    assert (found.family, found.native) == ("biggan", (64, 64))
    assert from_json(Config, json.loads(found.parts["generator"].config)) == layout.load_biggan(path).config
    torch.save({"a": torch.zeros(1)}, path)
    assert layout.release(path, read_manifest(path)) is None


def test_files_that_are_none(state, tmp_path):
    """A lost vector, another model's config.json, and what is no BigGAN: a sentence each."""
    less = {key: value.float() for key, value in state.items() if key != "generator.gen_z.weight_u"}
    torch.save(less, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"layers": LAYERS}))
    with pytest.raises(WeightsError, match="gen_z.weight_u is missing"):
        layout.load_biggan(tmp_path)
    torch.save({key: value.float() for key, value in state.items()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"layers": LAYERS[:-1]}))
    with pytest.raises(WeightsError, match="another model's"):
        layout.load_biggan(tmp_path)
    torch.save({"a": torch.zeros(1)}, tmp_path / "pytorch_model.bin")
    with pytest.raises(WeightsError, match="no BigGAN-deep"):
        layout.load_biggan(tmp_path)
