from dataclasses import replace

import pytest
import torch

from mindseye.checkpoints.save import load_part, save_part
from mindseye.networks.clip import (
    CLIP,
    HALF,
    OPENAI_MEAN,
    OPENAI_STD,
    POCKET,
    POCKET_RESNET,
    RN50,
    VIT_B_32,
    Config,
    Inserts,
    ResNet,
    Text,
    ViT,
)
from mindseye.networks.clip_resnet import AttentionPool, Bottleneck

TINY = Config(
    text=Text(vocabulary=50, length=12, width=16, layers=3, heads=2),
    image=ViT(size=16, patch=4, width=24, layers=2, heads=2),
    embed=8,
)
TINY_RESNET = replace(TINY, image=ResNet(size=64, width=4, layers=(1, 1, 1, 1), heads=2))
LARGE_TEXT = Text(width=768, heads=12)


def noise(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (VIT_B_32, 151_277_313),
        (Config(image=ViT(patch=16)), 149_620_737),
        (Config(text=LARGE_TEXT, image=ViT(patch=14, width=1024, layers=24, heads=16), embed=768), 427_616_513),
        (RN50, 102_007_137),
        (Config(image=ResNet(layers=(3, 4, 23, 3))), 119_688_033),
        (
            Config(
                text=Text(width=640, heads=10),
                image=ResNet(size=288, width=80, layers=(4, 6, 10, 6), heads=40),
                embed=640,
            ),
            178_300_601,
        ),
    ],
    ids=["ViT-B/32", "ViT-B/16", "ViT-L/14", "RN50", "RN101", "RN50x4"],
)
def test_published_sizes(config, count):
    with torch.device("meta"):
        assert parameters(CLIP(config)) == count


@pytest.mark.parametrize("config", [POCKET, POCKET_RESNET], ids=["vit", "resnet"])
def test_pocket_parts_fit_and_survive_a_file(config, tmp_path):
    clip = CLIP(config).eval()
    save_part(tmp_path / "clip.safetensors", clip, dtype=torch.float16)
    assert (tmp_path / "clip.safetensors").stat().st_size <= 8_000_000
    again = load_part(tmp_path / "clip.safetensors")
    assert again.config == config
    pixels = noise(2, 3, config.image.size, config.image.size).clamp(-1, 1)
    with torch.no_grad():
        torch.testing.assert_close(again.image(pixels), clip.image(pixels), rtol=0.02, atol=0.02)


def test_pocket_resnet_tower_is_small():
    assert parameters(CLIP(POCKET_RESNET).image_tower) <= 2_100_000


@pytest.fixture(scope="module")
def tiny():
    return CLIP(TINY).eval()


def test_shapes(tiny):
    ids = torch.tensor([[48, 3, 4, 49], [48, 7, 49, 49]])
    tokens, pooled = tiny.text(ids)
    assert tokens.shape == (2, 4, 16)
    assert pooled.shape == (2, 8)
    assert tiny.image(noise(2, 3, 16, 16)).shape == (2, 8)
    assert CLIP(TINY_RESNET).eval().image(noise(2, 3, 64, 64)).shape == (2, 8)
    assert tiny.logit_scale.exp().item() == pytest.approx(1 / 0.07)


def test_what_follows_the_end_changes_nothing_before(tiny):
    full = torch.tensor([[48, 3, 4, 49, 0, 0, 0], [48, 3, 4, 49, 49, 49, 49]])
    tokens, pooled = tiny.text(full)
    short_tokens, short_pooled = tiny.text(full[:1, :4])
    torch.testing.assert_close(tokens[:, :4], short_tokens.expand(2, 4, 16))
    torch.testing.assert_close(pooled, short_pooled.expand(2, 8))
    assert not torch.allclose(tokens[0, 4:], tokens[1, 4:])


def test_pooled_is_the_projected_token_at_the_end(tiny):
    ids = torch.tensor([[48, 3, 49, 0], [48, 3, 4, 49]])
    tokens, pooled = tiny.text(ids)
    ends = torch.stack([tokens[0, 2], tokens[1, 3]])
    torch.testing.assert_close(pooled, ends @ tiny.text_tower.projection)


def test_skipped_blocks(tiny):
    ids = torch.tensor([[48, 3, 4, 49]])
    tower = tiny.text_tower
    raw, pooled = tiny.text(ids, skip=3, final_norm=False)
    torch.testing.assert_close(raw, tower.embedding.weight[ids] + tower.positions[:4])
    shallow = CLIP(replace(TINY, text=replace(TINY.text, layers=2)))
    shallow.load_state_dict(tiny.state_dict(), strict=False)
    torch.testing.assert_close(tiny.text(ids, skip=1)[0], shallow.text(ids)[0])
    torch.testing.assert_close(pooled, tiny.text(ids)[1])  # always of the whole stack


def test_text_encoder_alone():
    encoder = CLIP(replace(TINY, image=None, embed=None))
    tokens, pooled = encoder.text(torch.tensor([[48, 3, 49]]))
    torch.testing.assert_close(pooled, tokens[:, 2])
    with pytest.raises(ValueError, match="cannot look"):
        encoder.image(noise(1, 3, 16, 16))
    with pytest.raises(ValueError, match="common space"):
        CLIP(replace(TINY, embed=None))


def test_pictures_are_normalised_inside(tiny):
    pixels = noise(2, 3, 16, 16).clamp(-1, 1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (OPENAI_MEAN, OPENAI_STD))
    plain = CLIP(replace(TINY, mean=HALF, std=HALF))
    plain.load_state_dict(tiny.state_dict())
    torch.testing.assert_close(tiny.image(pixels), plain.image(((pixels + 1) / 2 - mean) / std), rtol=1e-4, atol=1e-5)


def test_refusals(tiny):
    with pytest.raises(ValueError, match="20 x 16.*16 x 16"):
        tiny.image(noise(1, 3, 16, 20))
    with pytest.raises(ValueError, match="13 tokens.*12"):
        tiny.text(torch.zeros(1, 13, dtype=torch.long))


@pytest.mark.parametrize("config", [TINY, TINY_RESNET], ids=["vit", "resnet"])
def test_gradients_reach_pixels_and_every_parameter(config):
    clip = CLIP(config)
    pixels = noise(3, 3, config.image.size, config.image.size).requires_grad_()
    image, (_, text) = clip.image(pixels), clip.text(torch.tensor([[48, 3, 49], [48, 4, 49], [48, 5, 49]]))
    (clip.logit_scale.exp() * (image * text * noise(3, 8)).sum()).backward()
    assert pixels.grad.abs().sum() > 0
    assert [name for name, parameter in clip.named_parameters() if parameter.grad is None] == []


def test_attention_pool_without_questions_is_a_mean():
    pool, x = AttentionPool(2, 8, 2, 5), noise(3, 8, 2, 2)
    torch.nn.init.zeros_(pool.query.weight)
    places = x.flatten(2).transpose(1, 2)
    places = torch.cat([places.mean(1, keepdim=True), places], 1) + pool.positions
    torch.testing.assert_close(pool(x), pool.out(pool.value(places).mean(1)), rtol=1e-5, atol=1e-5)


def test_bottleneck_starts_as_its_shortcut():
    x = noise(2, 16, 8, 8)
    torch.testing.assert_close(Bottleneck(16, 4).eval()(x), x.relu())
    strided = Bottleneck(16, 4, stride=2).eval()
    mean = x.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2))
    torch.testing.assert_close(strided(x), strided.shortcut(mean).relu(), rtol=1e-5, atol=1e-5)


def test_inserted_vectors_are_read_in_place_of_embeddings():
    config = Config(text=Text(vocabulary=20, length=6, width=8, layers=2, heads=2), image=None, embed=None)
    tower, ids = CLIP(config).eval(), torch.tensor([[1, 2, 3, 19, 0, 0], [1, 4, 5, 19, 0, 0]])
    other = ids.clone()
    other[1, 2] = 7
    vectors = tower.text_tower.embedding.weight[7:8]
    told = tower.text(ids, inserts=Inserts(torch.tensor([1]), torch.tensor([2]), vectors))
    for got, wanted in zip(told, tower.text(other), strict=True):
        torch.testing.assert_close(got, wanted, rtol=0, atol=0)
    assert not torch.equal(told[0], tower.text(ids)[0])
