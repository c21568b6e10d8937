"""The system on tiny random networks; that it equals the published one is tests/parity/test_pipeline.py."""

import dataclasses

import pytest
import torch
from PIL import Image

from mindseye.engine.options import build, knobs
from mindseye.errors import OptionError, SizeError, UnknownName
from mindseye.networks import clip, unet, vae
from mindseye.noise import Noise
from mindseye.pixels import from_image
from mindseye.request import Request, drain
from mindseye.systems.stable_diffusion import StableDiffusion
from mindseye.text.tokenizer import Tokenizer

WIDTH = 12
Options = StableDiffusion.Options


def randomised(module, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return module.eval()


@pytest.fixture(scope="module")
def system():
    tokenizer = Tokenizer.train(["a red apple on a table"], 520, length=8)
    text = clip.Text(vocabulary=tokenizer.vocabulary, length=8, width=WIDTH, layers=1, heads=2)
    attends = unet.Transformers(depth=(0, 1), middle=1, context=WIDTH, heads=2)
    tower = vae.Tower(channels=(8, 8), blocks=(1, 1), middle=False)
    return StableDiffusion(
        unet=randomised(
            unet.UNet(
                unet.Config(
                    in_channels=4,
                    out_channels=4,
                    channels=(8, 16),
                    blocks=1,
                    transformers=attends,
                    embedding=16,
                    vector=WIDTH,
                    groups=4,
                )
            ),
            1,
        ),
        codec=randomised(
            vae.AutoencoderKL(vae.Config(encoder=tower, decoder=tower, latent_channels=4, patch=2, groups=4)), 2
        ),
        text=randomised(clip.CLIP(clip.Config(text=text, image=None, embed=WIDTH)), 3),
        tokenizer=tokenizer,
    )


def request(**more):
    asked = {"prompt": "a red apple", "size": (32, 24), "steps": 4, "guidance": 3.0, "sampler": "euler", "seed": 0}
    return Request(**{**asked, **more})


def draw(system, *seeds, options=None, **more):
    return drain(system.synthesize(request(**more), options or Options(), Noise(seeds or (7,))))


def photo(size=(32, 24)):
    return Image.effect_noise(size, 80).convert("RGB")


def left_half():
    mask = Image.new("L", (32, 24), 0)
    mask.paste(255, (0, 0, 16, 24))
    return mask


@pytest.mark.parametrize("sampler", StableDiffusion.samplers)
def test_every_sampler_draws_and_a_seed_is_a_picture(system, sampler):
    alone = draw(system, 7, sampler=sampler)
    assert alone.shape == (1, 3, 24, 32)
    assert alone.dtype == torch.float32
    assert alone.isfinite().all()
    torch.testing.assert_close(draw(system, 6, 7, 8, sampler=sampler)[1:2], alone, rtol=0, atol=1e-4)
    assert (draw(system, 8, sampler=sampler) - alone).abs().max() > 1e-3


def test_words_guidance_and_negative_prompt_matter(system):
    base = draw(system)
    for change in ({"prompt": "table"}, {"guidance": 6.0}, {"negative": "table"}):
        assert (draw(system, **change) - base).abs().max() > 1e-4, change


def test_at_guidance_one_the_negative_prompt_does_not(system):
    assert torch.equal(draw(system, guidance=1.0), draw(system, guidance=1.0, negative="table"))


def test_progress_counts_and_previews(system):
    seen = []
    drain(system.synthesize(request(), Options(), Noise((1, 2))), seen.append)
    assert [(each.stage, each.step, each.total) for each in seen] == [("draw", step, 4) for step in (1, 2, 3, 4)]
    assert [image.size for image in seen[1].peek()] == [(32, 24)] * 2


def test_peeking_changes_nothing(system):
    looked = drain(system.synthesize(request(), Options(), Noise((7,))), lambda each: each.peek())
    assert torch.equal(looked, draw(system))


def test_no_gradient_is_kept_though_the_weights_want_one(system):
    assert next(system.unet.parameters()).requires_grad
    for sampler in ("euler", "heun", "unipc"):
        assert not draw(system, sampler=sampler).requires_grad
    assert not draw(system, image=photo(), mask=left_half()).requires_grad


def test_from_a_picture_strength_says_how_far(system):
    image = photo()
    original = system.codec.decode(system.codec.encode(from_image(image))).detach()
    off = [
        float((draw(system, image=image, strength=strength) - original).abs().mean()) for strength in (0, 0.3, 0.8, 1)
    ]
    assert off[0] < 1e-5
    assert off[0] < off[1] < off[2] < off[3]


def test_a_picture_of_another_size_is_fitted(system):
    assert draw(system, image=photo((64, 40))).shape == (1, 3, 24, 32)


@pytest.mark.parametrize("sampler", ["euler", "ddpm", "heun", "dpm++-2m"])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_the_mask_is_kept_to_the_last_bit(system, sampler, strength):
    image = photo()
    got = draw(system, 1, 2, image=image, mask=left_half(), sampler=sampler, strength=strength)
    original = from_image(image)
    assert torch.equal(got[..., 16:], original[..., 16:].expand(2, -1, -1, -1))
    assert (got[..., :16] - original[..., :16]).abs().mean() > 0.01
    raw = draw(system, image=image, mask=left_half(), sampler=sampler, strength=strength, options=Options(paste=False))
    assert not torch.equal(raw[..., 16:], original[..., 16:])


def test_at_full_strength_what_is_repainted_is_forgotten(system, monkeypatch):
    # An encoder that sees each latent's own pixels only, and a table on which the start still holds some signal.
    monkeypatch.setattr(
        system.codec, "encode", lambda pixels: torch.nn.functional.avg_pool2d(pixels, 4)[:, [0, 1, 2, 0]] * 3
    )
    table = dataclasses.replace(system, prediction="eps", schedule="scaled-linear")
    image = photo()
    other = image.copy()
    other.paste((10, 200, 30), (0, 0, 16, 24))

    def apart(strength):
        return float(
            (
                draw(table, image=image, mask=left_half(), strength=strength)
                - draw(table, image=other, mask=left_half(), strength=strength)
            )[..., :16]
            .abs()
            .max()
        )

    assert apart(1.0) == 0
    assert apart(0.99) > 1e-3


def test_too_many_words_are_named(system):
    notices = system.notices(request(prompt="apple " * 9 + "sofa", negative="none"))
    assert len(notices) == 1
    assert "prompt is too long" in notices[0]
    assert "sofa" in notices[0]
    assert system.notices(request(prompt="red")) == []


def test_the_pooled_vector_is_used(system):
    told = system.condition(["a red apple", ""])
    assert told.tokens.shape == (2, 8, WIDTH)
    torch.testing.assert_close(told.vector.square().mean(1), torch.ones(2))
    assert system.multiple == 8


@pytest.mark.parametrize(
    "options",
    [
        {"spacing": "karras"},
        {"spacing": "linspace"},
        {"shift": 3.0},
        {"rescale": 0.7},
        {"guidance_low": 0.5},
        {"guidance_high": 0.5},
        {"threshold": 0.2},
        {"final": "minimum"},
    ],
)
def test_every_knob_turns_something(system, options):
    got = draw(system, options=build(Options, options, owner="test"))
    assert got.isfinite().all()
    assert (got - draw(system)).abs().max() > 1e-5


def test_eta_turns_euler_into_its_ancestor(system):
    got = draw(system, sampler="ddim", options=Options(eta=1.0))
    assert torch.equal(got, draw(system, sampler="ddpm"))
    with pytest.raises(OptionError, match="has no eta"):
        draw(system, options=Options(eta=0.5))


def test_what_cannot_be_drawn(system):
    with pytest.raises(SizeError, match="multiples of 4"):
        draw(system, size=(30, 24))
    with pytest.raises(UnknownName) as caught:
        draw(system, sampler="eular")
    assert caught.value.nearest == "euler"
    with pytest.raises(OptionError, match="50 are possible"):
        draw(system, steps=60, options=Options(spacing="lcm"))


def test_the_schema_suits_every_door():
    for knob in knobs(Options):
        assert len(knob.help) > 10
        assert knob.type in (str, int, float, bool)
        assert build(Options, {knob.name: knob.default}, owner="test") == Options()
    assert dataclasses.fields(Options)


def test_half_precision_draws_nearly_the_same(system):
    def cast(part):
        twin = type(part)(part.config)
        twin.load_state_dict(part.state_dict())
        return twin.eval().to(torch.bfloat16)

    half = dataclasses.replace(system, unet=cast(system.unet), codec=cast(system.codec), text=cast(system.text))
    got, truth = draw(half), draw(system)
    assert got.dtype == torch.float32
    assert (got - truth).abs().mean() < 0.1 * truth.std() + 0.02
