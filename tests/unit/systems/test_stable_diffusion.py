"""The system on tiny random networks; that it equals the published one is tests/parity/test_pipeline.py."""

import dataclasses

import pytest
import torch
from PIL import Image

from mindseye.diffusion.schedule import SCHEDULES, spacing
from mindseye.engine.engine import Engine
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


def test_texts_beyond_one_window_are_read_in_chunks_and_it_is_said(system):
    long = "apple " * 9 + "sofa"
    notices = system.notices(request(prompt=long, negative="none"))
    assert [notice.split(" chunks")[0] for notice in notices] == ["the prompt is read in 4"]
    assert system.notices(request(prompt="red <lora:some-very-long-name-of-an-adapter:0.5>")) == []
    read = system.reader(Options(), (32, 24)).read([long], ["none"])
    assert {told.tokens.shape for told in read.values()} == {(1, 32, WIDTH)}
    # Also what stands in the last chunk is drawn.
    assert (draw(system, prompt=long) - draw(system, prompt="apple " * 9 + "table")).abs().max() > 1e-5


@pytest.mark.parametrize(
    "prompt",
    ["a (red:1.0) apple", "a [red:red:2] apple", "a red apple AND table :0", "<lora:bold:0.5>a red apple"],
)
def test_what_says_nothing_changes_nothing(system, prompt):
    assert (draw(system, prompt=prompt) - draw(system, prompt="a red apple")).abs().max() < 1e-5


def test_the_prompt_language_is_understood(system):
    base = draw(system)
    for prompt in ("a (red:1.5) apple", "a [red] apple", "[a red apple:table:0.5]", "[a red apple|table]",
                   "a red apple AND table :0.5", "a red BREAK apple", r"a \(red\) apple"):  # fmt: skip
        assert (draw(system, prompt=prompt) - base).abs().max() > 1e-5, prompt
    plain = draw(system, prompt="a (red:1.5) apple", options=Options(emphasis="none"))
    assert (plain - draw(system, prompt="a (red:1.5) apple")).abs().max() > 1e-5
    for prompt in ("(((", "[[[a:", "a:b|c", "AND AND", "\\", ":1.2", "[|||:::]"):
        assert draw(system, prompt=prompt, negative=prompt).isfinite().all(), prompt


def test_an_edited_prompt_switches_where_the_web_interface_does(system):
    """Steps are counted from 0 and compared with the last step of the first text: one more of it is drawn."""
    first, second = draw(system, prompt="red", steps=4), draw(system, prompt="table", steps=4)
    assert torch.equal(draw(system, prompt="[red:table:4]", steps=4), first)
    assert torch.equal(draw(system, prompt="[red:table:3]", steps=4), first)
    switched = draw(system, prompt="[red:table:2]", steps=4)
    assert not torch.equal(switched, first)
    assert not torch.equal(switched, second)


def test_half_way_to_another_prompt(system):
    ends = draw(system), draw(system, prompt="table")
    assert torch.equal(draw(system, options=Options(toward="table", toward_amount=1.0)), ends[1])
    middle = draw(system, options=Options(toward="table", toward_amount=0.5))
    assert all((middle - end).abs().max() > 1e-5 for end in ends)


def test_learned_words_take_the_place_of_tokens(system):
    like = system.text.text_tower.embedding.weight.detach()
    ids, _ = system.tokenizer.encode(["red"])
    named = dataclasses.replace(
        system, words={"crimson": {"text": like[ids[0, 1 : int((ids[0] == system.tokenizer.eot).nonzero()[0])]]}}
    )
    assert torch.allclose(draw(named, prompt="a Crimson apple"), draw(system, prompt="a red apple"), atol=1e-5)
    assert (draw(system, prompt="a Crimson apple") - draw(system, prompt="a red apple")).abs().max() > 1e-5


def test_a_variation_lies_between_two_seeds(system):
    def varied(strength):
        return draw(system, 7, options=Options(variation_seed=9, variation_strength=strength))

    assert torch.equal(varied(0.0), draw(system, 7))
    torch.testing.assert_close(varied(1.0), draw(system, 9), rtol=0, atol=1e-4)
    assert (varied(0.2) - draw(system, 7)).abs().mean() < (varied(0.7) - draw(system, 7)).abs().mean()


def test_a_batch_of_variations_of_one_seed(system):
    """As four pictures with a variation seed are in AUTOMATIC1111: one seed, the next variation seed for each."""
    options = Options(variation_of=7, variation_strength=0.3)
    (got,) = [drain(system.synthesize(request(count=2, seed=9), options, Noise((9, 10))))]
    for row, seed in enumerate((9, 10)):
        one = draw(system, 7, options=Options(variation_seed=seed, variation_strength=0.3))
        torch.testing.assert_close(got[row : row + 1], one, rtol=0, atol=1e-4)
    assert torch.equal(draw(system, 9, options=Options(variation_of=7)), draw(system, 9))


def test_previews_of_large_pictures(system):
    """Small ones are the codec's; large ones a sketch, or what a small codec makes of them."""

    class Glance:
        factor = 8

        def encode(self, pixels):
            raise AssertionError("nobody encodes for a look")

        def decode(self, latents):
            return torch.zeros(len(latents), 3, 8, 8)

    def looked(system, size):
        seen = []
        steps = system.synthesize(request(size=size, steps=1), Options(), Noise((7,)))
        drain(steps, lambda progress: seen.append(progress.peek()[0].size))
        return seen[0]

    factor = system.codec.factor
    assert looked(system, (4 * factor, 4 * factor)) == (4 * factor, 4 * factor)
    assert looked(system, (36 * factor, 36 * factor)) == (36, 36)
    assert looked(dataclasses.replace(system, glance=Glance()), (4 * factor, 4 * factor)) == (8, 8)


@pytest.mark.parametrize("upscaler", ["latent", "latent-antialiased", "pixels"])
def test_a_second_pass_is_larger(system, upscaler):
    seen = []
    got = drain(
        system.synthesize(request(), Options(hires=2.0, hires_steps=3, hires_upscaler=upscaler), Noise((7,))),
        seen.append,
    )
    assert got.shape == (1, 3, 48, 64)
    assert [(each.stage, each.step) for each in seen] == [
        *(("draw", step) for step in (1, 2, 3, 4)),
        *(("enlarge", step) for step in (1, 2, 3)),  # all of them, at whatever strength
    ]
    with pytest.raises(OptionError, match="second pass"):
        draw(system, image=photo(), options=Options(hires=2.0))


def test_the_second_pass_starts_from_the_first_ones_latents(system, monkeypatch):
    seen = []

    def decode(latents):
        seen.append(latents)
        return latents[:, :3].repeat_interleave(4, 2).repeat_interleave(4, 3)

    monkeypatch.setattr(system.codec, "decode", decode)
    draw(system)
    for strength in (0.0, 1.0):
        draw(system, options=Options(hires=2.0, hires_strength=strength))
    first, still, moved = seen
    enlarged = torch.nn.functional.interpolate(first, scale_factor=2, mode="bilinear")
    torch.testing.assert_close(still, enlarged, rtol=0, atol=1e-5)
    assert (moved - enlarged).abs().max() > 1e-2


def test_the_second_pass_is_that_of_the_web_interface(system, monkeypatch):
    """Sides rounded down, the last steps of a longer run, the seeds' noise from its beginning, and what follows it."""
    seen = []

    def choose(name, eta):
        def sampler(denoise, x, sigmas, noise):
            seen.append((x, sigmas, noise))
            yield from ()
            return x

        return sampler

    monkeypatch.setattr("mindseye.systems.stable_diffusion.choose", choose)
    table = dataclasses.replace(system, prediction="eps", schedule="scaled-linear")
    options = Options(hires=1.3, hires_steps=3, hires_strength=0.5, spacing="karras", variation_seed=9,
                      variation_strength=0.2)  # fmt: skip
    assert draw(table, 7, options=options).shape == (1, 3, 28, 40)  # of 31.2 and 41.6
    (first, _, _), (second, sigmas, after) = seen
    noise = Noise((7,)).varied([9], 0.2)
    assert torch.equal(sigmas, spacing("karras", SCHEDULES["scaled-linear"](), 6)[-4:])
    enlarged = torch.nn.functional.interpolate(first, size=(7, 10), mode="bilinear")
    torch.testing.assert_close(second, enlarged + float(sigmas[0]) * noise.normal(4, 7, 10))
    assert torch.equal(after.normal(3), noise.normal(3))
    # Where no run can be so long, as many of the longest one as the strength says.
    draw(table, options=dataclasses.replace(options, spacing="lcm", hires_steps=8, hires_strength=0.1))
    assert torch.equal(seen[-1][1], spacing("lcm", SCHEDULES["scaled-linear"](), 50)[-6:])


@pytest.mark.parametrize("axes", ["x", "y", "xy"])
def test_seamless_pictures_are_drawn_on_a_torus(system, axes):
    before = draw(system)
    seam = draw(system, options=Options(seamless=axes))
    assert seam.isfinite().all()
    assert not torch.equal(seam, before)
    assert torch.equal(draw(system), before)  # no trace is left in the networks


def test_tiles_decode_what_the_whole_decodes(system):
    whole, tiled = draw(system, size=(64, 48)), draw(system, size=(64, 48), options=Options(tile=32))
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-3)


def engine_for(system, card_like):
    engine = Engine(device="cpu", cards=[])
    engine.add(card_like, system)
    return engine


def test_outpainting_grows_the_picture_and_keeps_it(system, painter_card):
    card = painter_card(name="tiny", system="mindseye.systems.stable_diffusion:StableDiffusion", multiple=8)
    image = photo((32, 24))
    asked = Request(
        prompt="red",
        model="tiny",
        image=image,
        steps=3,
        sampler="euler",
        seed=1,
        options={"extend_left": 16, "feather": 4},
    )
    result = engine_for(system, card).generate(asked)
    assert result.images[0].size == (48, 24)
    assert result.request.size == (48, 24)
    assert not result.notices
    kept = from_image(result.images[0])[..., 16 + 4 :]
    torch.testing.assert_close(kept, from_image(image)[..., 4:], rtol=0, atol=1e-6)
    with pytest.raises(OptionError, match="no picture"):
        engine_for(system, card).generate(dataclasses.replace(asked, image=None))


def test_only_what_is_masked_is_drawn_and_set_back(system, painter_card):
    card = painter_card(name="tiny", system="mindseye.systems.stable_diffusion:StableDiffusion", multiple=8)
    image, mask = photo((96, 64)), Image.new("L", (96, 64), 0)
    mask.paste(255, (40, 20, 56, 36))
    asked = Request(
        prompt="red", model="tiny", image=image, mask=mask, size=(32, 32), steps=3, sampler="euler", seed=1,
        options={"only_masked": True, "padding": 8},
    )  # fmt: skip
    drawn = engine_for(system, card).generate(asked).images[0]
    assert drawn.size == image.size
    changed = (from_image(drawn) - from_image(image)).abs().amax(1)[0] > 0
    rows, columns = changed.nonzero(as_tuple=True)
    assert 20 <= rows.min()
    assert rows.max() < 36
    assert 40 <= columns.min()
    assert columns.max() < 56
    assert changed[20:36, 40:56].float().mean() > 0.9


@pytest.mark.parametrize("masked", ["fill", "noise", "nothing"])
def test_what_lies_under_the_mask_can_be_something_else(system, masked):
    picture = {"image": photo(), "mask": left_half(), "strength": 0.5}
    assert (draw(system, **picture, options=Options(masked=masked)) - draw(system, **picture)).abs().max() > 1e-4


def test_a_network_made_for_inpainting_is_shown_what_is_kept(system):
    seen = []

    class Shown(unet.UNet):
        def forward(self, x, timesteps, tokens=None, vector=None):
            seen.append(x)
            return super().forward(x, timesteps, tokens, vector)

    config = dataclasses.replace(system.unet.config, in_channels=9)
    inpainting = dataclasses.replace(system, unet=randomised(Shown(config), 1))
    image = photo()
    got = draw(inpainting, image=image, mask=left_half(), strength=1.0)
    planes = seen[0][:1, 4:]
    assert planes.shape == (1, 5, 6, 8)
    assert torch.equal(planes[:, 0, :, :4], torch.ones(1, 6, 4))
    assert not planes[:, 0, :, 4:].any()
    grey = from_image(image)
    grey[..., :16] = 0
    torch.testing.assert_close(planes[:, 1:], system.codec.encode(grey).detach(), rtol=0, atol=1e-5)
    assert torch.equal(got[..., 16:], from_image(image)[..., 16:])
    assert draw(inpainting).isfinite().all()  # without a picture all of it is painted


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
