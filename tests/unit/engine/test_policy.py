"""What is chosen for what is measured, and that a network arranged small still draws the same."""

import pytest
import torch

from mindseye.engine import policy
from mindseye.engine.engine import Engine
from mindseye.engine.policy import Policy, arrange, choose
from mindseye.networks.unet import Config, Transformers, UNet

CPU = torch.device("cpu")
LARGE = 800_000_000
TINY = Config(
    in_channels=3,
    out_channels=2,
    channels=(8, 16),
    blocks=1,
    transformers=Transformers(depth=(1, 1), middle=1, context=6, head_dim=4, linear=False),
    embedding=16,
    groups=4,
)
SMALL = Policy(dtype=torch.float32, keep=True, memory_format=torch.channels_last)


@pytest.fixture
def machine(monkeypatch):
    """A machine with given gifts."""

    def make(*, half, room):
        monkeypatch.setattr(policy, "half_is_faster", lambda: half)
        monkeypatch.setattr(policy, "available", lambda: room)

    return make


@pytest.mark.parametrize(
    ("half", "room", "parameters", "dtype", "keep"),
    [
        (False, 2**40, LARGE, torch.float32, False),
        (True, 2**40, LARGE, torch.bfloat16, False),
        (True, 2**40, 10_000_000, torch.float32, False),
        (False, 2**32, LARGE, torch.float32, True),
        (True, 2**31, LARGE, torch.bfloat16, False),
        (False, None, LARGE, torch.float32, False),
    ],
)
def test_choice(machine, half, room, parameters, dtype, keep):
    machine(half=half, room=room)
    got = choose(CPU, parameters=parameters)
    assert (got.dtype, got.keep) == (dtype, keep)
    assert got.stored == (None if keep else dtype)


def test_what_somebody_said_is_not_measured(machine, monkeypatch):
    machine(half=None, room=2**40)
    monkeypatch.setattr(policy, "half_is_faster", lambda: pytest.fail("measured"))
    assert choose(CPU, parameters=LARGE, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_the_measurement_says_something_once(monkeypatch):
    policy.half_is_faster.cache_clear()
    threads = torch.get_num_threads()
    assert policy.half_is_faster() in (True, False)
    monkeypatch.setattr(policy, "_work", lambda dtype: pytest.fail("measured twice"))
    policy.half_is_faster()
    assert torch.get_num_threads() == threads
    policy.half_is_faster.cache_clear()


def test_memory_is_told():
    room = policy.available()
    assert room is None or 2**20 < room < 2**50


@torch.no_grad()
def test_weights_kept_narrow_draw_what_they_draw_widened():
    torch.manual_seed(0)
    unet = UNet(TINY).eval()
    for parameter in unet.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    unet = unet.half()
    given = torch.randn(2, 3, 8, 8), torch.tensor([3.0, 900.0]), torch.randn(2, 7, 6)
    wide = UNet(TINY).eval()
    wide.load_state_dict({key: value.float() for key, value in unet.state_dict().items()})
    small = arrange(unet, SMALL)
    # What a caller takes for the network's dtype, and what must be wide to be exact.
    assert next(small.parameters()).dtype == torch.float32
    assert small.norm_out.weight.dtype == torch.float32
    narrow = sum(p.numel() for p in small.parameters() if p.dtype == torch.float16)
    assert narrow > 0.9 * sum(p.numel() for p in small.parameters())
    got = small(*given)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wide(*given), rtol=0, atol=1e-5)


@torch.no_grad()
def test_arranged_in_one_dtype_and_layout():
    unet = arrange(UNet(TINY).half(), Policy(dtype=torch.float32, keep=False, memory_format=torch.channels_last))
    assert {p.dtype for p in unet.parameters()} == {torch.float32}
    assert unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)


def test_where_memory_is_short_pictures_are_decoded_in_bands(monkeypatch):
    assert Engine(device="cpu").load().tile == 0
    monkeypatch.setattr("mindseye.engine.engine.choose", lambda *_, **__: SMALL)
    assert Engine(device="cpu").load().tile == 256
