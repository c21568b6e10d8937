"""What we write, we read: the same change under anybody's names."""

import pytest
import torch
from safetensors import safe_open

from mindseye.checkpoints.adapters import Weights, attach, read_adapter, save_adapter
from mindseye.networks.clip import CLIP
from mindseye.networks.clip import POCKET as POCKET_CLIP
from mindseye.networks.unet import POCKET, UNet


@pytest.fixture(scope="module")
def pocket():
    torch.manual_seed(0)
    return {"unet": UNet(POCKET).requires_grad_(False), "text": CLIP(POCKET_CLIP).requires_grad_(False)}


def factors(parts, rank=3):
    """A LoRA on every matrix and filter of the transformers, by our names."""
    found = {}
    for part, network in parts.items():
        found[part] = {}
        for name, weight in network.named_parameters():
            if weight.ndim in (2, 4) and (".blocks." in name or "projection" in name) and "image" not in name:
                ones = [1] * (weight.ndim - 2)
                down, up = torch.randn(rank, *weight.shape[1:]), torch.randn(weight.shape[0], rank, *ones)
                found[part][name] = (down, up)
    return found


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_the_pocket_base_gets_back_what_was_written(pocket, tmp_path, naming):
    trained = factors(pocket)
    path = tmp_path / "fox.safetensors"
    save_adapter(path, pocket, trained, alpha=6.0, naming=naming, metadata={"modelspec.title": "fox"})
    adapter = read_adapter(path)
    assert adapter.dialect == naming
    assert adapter.metadata["modelspec.title"] == "fox"
    before = {part: {n: p.clone() for n, p in network.named_parameters()} for part, network in pocket.items()}
    with attach(pocket, [(adapter, Weights())]) as attached:
        assert not attached.reports[0].unmatched
        for part, network in pocket.items():
            for name, weight in network.named_parameters():
                delta = weight - before[part][name]
                if name in trained[part]:
                    down, up = trained[part][name]
                    torch.testing.assert_close(delta, 2 * (up.flatten(1) @ down.flatten(1)).reshape(delta.shape))
                else:
                    assert not delta.any()
    with safe_open(path, "pt") as file:
        assert any("attn1" in key for key in file.keys())  # noqa: SIM118
    assert list(tmp_path.iterdir()) == [path]


def test_a_parameter_without_a_public_name(pocket, tmp_path):
    with pytest.raises(ValueError, match="logit_scale has no public name"):
        save_adapter(tmp_path / "x.safetensors", pocket, {"text": {"logit_scale": (torch.ones(1, 1),) * 2}}, alpha=1.0)
