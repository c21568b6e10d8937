"""NUWA: step by step the same as at once, for pictures and clips."""

from dataclasses import replace

import pytest
import torch

from mindseye.autoregression import Reader, TokenModel
from mindseye.checkpoints.save import load_part, save_part
from mindseye.networks.nuwa import NUWA, NUWA_870M, POCKET, Config
from mindseye.networks.parti import Text

TINY = Config(
    text=Text(vocabulary=30, length=6, layers=1, pad=29),
    codes=11,
    grid=(3, 3, 3),
    reach=(1, 1, 1),
    width=16,
    layers=2,
    heads=2,
    hidden=24,
)
TEXT = torch.tensor([[28, 3, 5, 7, 29, 29], [28, 4, 29, 29, 29, 29]])


@pytest.fixture
def network():
    torch.manual_seed(0)
    found = NUWA(TINY).eval().double().requires_grad_(False)
    for value in found.parameters():
        value.add_(torch.randn(value.shape) * 0.3)
    return found


@pytest.fixture
def ids():
    return torch.randint(11, (2, 27), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("frames", [1, 3])
def test_step_by_step_is_at_once(network, ids, frames):
    clip = network.frames(frames)
    assert isinstance(clip, TokenModel) and isinstance(clip, Reader)
    assert (clip.length, clip.codes) == (9 * frames, 11)
    wanted = network(TEXT, ids[:, : clip.length])[1]
    state = clip.start(TEXT)
    steps = [clip.next(ids[:, place - 1] if place else None, state) for place in range(clip.length)]
    torch.testing.assert_close(torch.stack(steps, 1), wanted, atol=1e-10, rtol=1e-8)
    state = clip.start(TEXT)
    torch.testing.assert_close(clip.read(ids[:, :8], state), wanted[:, 8], atol=1e-10, rtol=1e-8)


def test_a_picture_is_the_first_frame_of_a_clip(network, ids):
    assert torch.allclose(network(TEXT, ids[:, :9])[1], network(TEXT, ids)[1][:, :9], atol=1e-6)


def test_one_block_sees_no_further_than_its_reach(ids):
    torch.manual_seed(0)
    network = NUWA(replace(TINY, layers=1, reach=(1, 1, 1))).eval().double().requires_grad_(False)
    first = network(TEXT, ids)[1]
    other = network(TEXT, ids.index_fill(1, torch.tensor([0]), 10))[1]
    changed = (first != other).any(-1).any(0).nonzero()[:, 0].tolist()
    # The token of frame 0, row 0, column 0 is seen by the next one written and by what is near it in all three.
    assert set(changed) <= {n for n in range(1, 27) if n == 1 or (n // 9 <= 1 and n // 3 % 3 <= 1 and n % 3 <= 1)}
    assert {1, 3, 4, 9, 10, 12, 13} <= set(changed)


def test_a_clip_has_the_frames_it_was_made_for(network):
    for frames in (0, 4):
        with pytest.raises(ValueError, match=f"1 to 3 frames, not {frames}"):
            network.frames(frames)
    state = network.frames(1).start(TEXT)
    with pytest.raises(ValueError, match="room for 9 places"):
        network.frames(3).read(torch.zeros(2, 9, dtype=torch.long), state)


def test_saved_and_loaded(network, ids, tmp_path):
    save_part(tmp_path / "part.safetensors", network.float())
    again = load_part(tmp_path / "part.safetensors")
    assert again.config == TINY
    assert torch.equal(again(TEXT, ids)[1], network(TEXT, ids)[1])


def test_sizes():
    with torch.device("meta"):
        published, pocket = NUWA(NUWA_870M), NUWA(POCKET)
    blocks = sum(value.numel() for name, value in published.named_parameters() if "blocks." in name)
    assert blocks == pytest.approx(870e6, rel=0.01)
    assert sum(value.numel() for value in pocket.parameters()) <= 4_600_000
