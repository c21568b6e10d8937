"""guided-diffusion's names: every key of the public models, told from shapes and written back."""

import dataclasses

import pytest
import torch

from mindseye.checkpoints.layout import convert, match, restore
from mindseye.checkpoints.layouts import guided_diffusion as layout
from mindseye.checkpoints.save import from_json
from mindseye.networks.adm import ADM, KALIYUGA, UNCOND_256, UNCOND_512, Config, SelfAttention
from mindseye.networks.secondary import IMAGENET_2, Secondary
from mindseye.networks.secondary import Config as SecondaryConfig


def meta(network, config):
    with torch.device("meta"):
        return network(config)


IMAGENET_64 = Config(
    width=192, channels=(192, 384, 576, 768), blocks=3, classes=1000,
    attention=SelfAttention(levels=(False, True, True, True), head_dim=64, order="new"),
)  # fmt: skip
IMAGENET_128 = Config(
    width=256, channels=(256, 256, 512, 768, 1024), blocks=2, classes=1000,
    attention=SelfAttention(levels=(False, False, True, True, True), heads=4),
)  # fmt: skip
PORTRAIT = Config(
    width=128, channels=(64, 128, 128, 256, 256, 512, 512), blocks=2,
    attention=SelfAttention(levels=(False, False, False, False, True, True, True), heads=4),
)  # fmt: skip
PUBLIC = {
    "256": UNCOND_256, "512": UNCOND_512, "kaliyuga": KALIYUGA, "64": IMAGENET_64, "128": IMAGENET_128,
    "portrait": PORTRAIT,
}  # fmt: skip


@pytest.mark.parametrize("name", PUBLIC)
def test_shapes_tell_the_public_models(name):
    config = PUBLIC[name]
    ours = meta(ADM, config).state_dict()
    rules = list(layout.adm_rules(config))
    theirs = {key: tuple(value.shape) for key, value in restore(ours, rules).items()}
    assert len(theirs) == len(ours) == len({rule.ours for rule in rules})
    assert layout.is_adm(theirs) and not layout.is_secondary(theirs)
    told = from_json(Config, layout.adm_config(theirs))
    assert told == config
    assert len(match(theirs, {key: tuple(value.shape) for key, value in ours.items()}, rules)) == len(ours)


def test_keys_are_the_published_ones():
    rules = {rule.theirs for rule in layout.adm_rules(UNCOND_256)}
    assert len(rules) == 566
    wanted = (
        "time_embed.2.bias", "input_blocks.0.0.weight", "input_blocks.1.0.in_layers.2.weight",
        "input_blocks.3.0.out_layers.3.bias", "input_blocks.10.1.qkv.weight", "input_blocks.17.1.proj_out.bias",
        "middle_block.1.norm.weight", "output_blocks.2.2.in_layers.0.weight", "output_blocks.17.0.skip_connection.bias",
        "out.2.weight",
    )  # fmt: skip
    assert set(wanted) <= rules
    kaliyuga = {rule.theirs for rule in layout.adm_rules(KALIYUGA)}
    assert {"input_blocks.3.0.op.weight", "output_blocks.2.1.conv.bias", "output_blocks.5.2.conv.weight"} <= kaliyuga


def test_values_survive_the_way_there_and_back():
    config = Config(
        width=32, channels=(16, 32, 32), blocks=1, classes=3, groups=8,
        attention=SelfAttention(levels=(False, True, False), heads=2),
    )  # fmt: skip
    network = ADM(config)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter)
    rules = list(layout.adm_rules(config))
    theirs = restore(network.state_dict(), rules)
    again = ADM(config)
    again.load_state_dict(convert(theirs, rules), strict=True)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
    told = layout.adm_config({key: tuple(value.shape) for key, value in theirs.items()}, heads=2)
    assert from_json(Config, told) == dataclasses.replace(config, groups=32)


def test_what_shapes_cannot_tell_may_be_said():
    theirs = {
        key: tuple(value.shape)
        for key, value in restore(meta(ADM, KALIYUGA).state_dict(), list(layout.adm_rules(KALIYUGA))).items()
    }
    said = layout.adm_config(theirs, head_dim=32, order="new")["attention"]
    assert (said["heads"], said["head_dim"], said["order"]) == (None, 32, "new")
    with pytest.raises(KeyError):
        layout.adm_config({"out.2.weight": (6, 64, 3, 3)})
    assert not layout.is_adm({"input_blocks.0.0.weight": (64, 3, 3, 3)})


@pytest.mark.parametrize("channels", [IMAGENET_2.channels, (8, 16), (8, 16, 16)])
def test_the_secondary_model(channels):
    config = SecondaryConfig(channels=channels)
    ours = meta(Secondary, config).state_dict()
    theirs = {key: tuple(value.shape) for key, value in restore(ours, list(layout.secondary_rules(config))).items()}
    assert layout.is_secondary(theirs) and not layout.is_adm(theirs)
    assert from_json(SecondaryConfig, layout.secondary_config(theirs)) == config
    if len(channels) == 6:
        assert len(theirs) == 49
        assert theirs["timestep_embed.weight"] == (8, 1)
        assert theirs["net.2.main.3.main.3.main.3.main.3.main.4.0.weight"] == (256, 512, 3, 3)
        assert theirs["net.4.weight"] == (3, 64, 3, 3)
