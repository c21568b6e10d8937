"""Networks that write token by token say the same where keys are kept as columns (`mindseye.nn.cache`)."""

import pytest
import torch
from torch import nn

from mindseye.networks import bart, dalle, mindalle, nuwa, nuwa_infinity, parti
from mindseye.networks.direction import plan
from mindseye.nn import cache

WORDS = parti.Text(vocabulary=30, length=6, layers=1, pad=29)
SMALL = {"width": 16, "layers": 2, "heads": 2}
TEXT = torch.tensor([[28, 3, 5, 7, 29, 29], [28, 4, 29, 29, 29, 29]])


def _bart():
    return bart.Bart(
        bart.Config(
            width=16, heads=2, hidden=24, encoder=1, decoder=2, vocabulary=30, text_length=6, codes=11, rows=13,
            length=36, start=12, pad=29,
        )
    )  # fmt: skip


WRITERS = {
    "dalle": lambda: dalle.DALLE(
        dalle.Config(
            **{**SMALL, "layers": 4}, head_width=12, text_tokens=30, text_length=6, image_tokens=11, grid=6,
            attention=("full", "axial_row", "axial_col", "conv_like"),
        )
    ),
    "mindalle": lambda: mindalle.MinDALLE(
        mindalle.Config(**SMALL, text_tokens=30, text_length=6, image_tokens=11, image_length=36)
    ),
    "bart": _bart,
    "parti": lambda: parti.Parti(parti.Config(text=WORDS, codes=11, grid=(6, 6), reach=None, hidden=24, **SMALL)),
    "nuwa": lambda: nuwa.NUWA(
        nuwa.Config(text=WORDS, codes=11, grid=(1, 6, 6), reach=(1, 2, 2), hidden=24, **SMALL)
    ).frames(1),
    "nuwa-infinity": lambda: nuwa_infinity.NUWAInfinity(
        nuwa_infinity.Config(text=WORDS, codes=11, patch=3, hidden=24, **SMALL)
    ).chain(plan(2, 2, "left")),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITERS)
@torch.no_grad()
def test_what_comes_next_is_the_same(name, monkeypatch):
    """Of pictures of 36 places, more than a row of columns holds, and of rows that were selected on the way."""
    torch.manual_seed(0)
    model = WRITERS[name]()
    network = model if isinstance(model, nn.Module) else model.network
    network.eval().double()
    for parameter in network.parameters():
        parameter.add_(torch.randn(parameter.shape) * 0.3)
    ids = torch.randint(11, (3, 36))
    said = {}
    for columns in (False, True):
        monkeypatch.setattr(cache, "_sums_are_faster", lambda like, columns=columns: columns)
        state = model.start(TEXT)
        rows = torch.tensor([1, 0, 1])
        steps = [model.next(None, state)[rows]]
        state = state.select(rows)
        said[columns] = torch.stack([*steps, *(model.next(column, state) for column in ids.T[:-1])])
    torch.testing.assert_close(said[True], said[False], atol=1e-10, rtol=1e-8)
