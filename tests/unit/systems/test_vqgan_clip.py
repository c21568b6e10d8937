"""VQGAN-CLIP on a tiny codec and critic."""

import dataclasses

import pytest
import torch
from PIL import Image
from tests.unit.ascent.tiny import ask, critic, likeness, randomised, tokenizer

from mindseye.ascent.codebook import CodebookCanvas, random_codes
from mindseye.errors import ImageError, SizeError
from mindseye.networks import discrete_vae, dvae
from mindseye.networks.discrete_vae import DiscreteVAE
from mindseye.networks.dvae import DVAE
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN, Config
from mindseye.nn.seamless import Seamless
from mindseye.noise import Noise
from mindseye.pixels import from_image, to_images
from mindseye.request import Request, Result, drain
from mindseye.systems.base import System
from mindseye.systems.motion import Motion, film
from mindseye.systems.vqgan_clip import VQGANCLIP


def codec(quantizer="nearest"):
    """Sides a quarter as long."""
    torch.manual_seed(5)
    tower = Tower(channels=(8, 8, 8), blocks=(1, 1, 1), middle=False)
    config = Config(
        encoder=tower, decoder=tower, codes=24, code_channels=4, z_channels=4, quantizer=quantizer, groups=4
    )  # fmt: skip
    found = randomised(VQGAN(config), 5)
    with torch.no_grad():
        found.quantizer.weight.normal_(generator=torch.Generator().manual_seed(5))
    return found


@pytest.fixture(scope="module")
def system():
    return VQGANCLIP(codec=codec(), clip=critic(), tokenizer=tokenizer())


@pytest.fixture(scope="module")
def gumbel():
    return VQGANCLIP(codec=codec("gumbel"), clip=critic(), tokenizer=tokenizer())


@pytest.fixture(scope="module")
def shares():
    torch.manual_seed(5)
    config = dvae.Config(channels=(8, 16, 16), blocks=(1, 1, 1), codes=24, code_channels=8, kernel=3)
    return VQGANCLIP(codec=randomised(DVAE(config), 5), clip=critic(), tokenizer=tokenizer())


@pytest.fixture(scope="module")
def plain():
    torch.manual_seed(5)
    config = discrete_vae.Config(layers=2, codes=24, code_channels=6, hidden=8)
    return VQGANCLIP(codec=randomised(DiscreteVAE(config), 5), clip=critic(), tokenizer=tokenizer())


def image():
    """A picture."""
    found = Image.new("RGB", (32, 32), (40, 90, 200))
    found.paste((220, 200, 40), (8, 8, 24, 24))
    return found


@pytest.mark.parametrize("kind", ["system", "gumbel", "shares"])
def test_the_critic_comes_to_like_what_it_asked_for(kind, request):
    system = request.getfixturevalue(kind)
    before = likeness(system, ask(system, steps=1, options={"lr": 1e-7}), "a red apple")
    after = likeness(system, ask(system, steps=60, options={"lr": 0.1}), "a red apple")
    assert after > before + 0.03


def test_a_seed_is_a_seed_in_any_batch(system):
    alone, both = ask(system, seeds=(6,)), ask(system, seeds=(5, 6))
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    assert not torch.allclose(both[0], both[1], atol=1e-2)


@pytest.mark.parametrize("kind", ["system", "gumbel", "shares", "plain"])
def test_a_start_picture_is_its_own_codes(kind, request):
    system = request.getfixturevalue(kind)
    got = ask(system, image=image(), strength=0.0)
    own = system.codec.from_ids(system.codec.to_ids(from_image(image())))
    assert torch.allclose(got, own.clamp(-1, 1), atol=1e-5)
    # Forgotten altogether, it is as if it had not been.
    assert torch.equal(ask(system, image=image(), strength=1.0), ask(system))


def test_pictures_in_files_are_aims_as_the_one_given_is(system, tmp_path):
    path, other = tmp_path / "a: 1.png", tmp_path / "b.png"
    image().save(path), image().rotate(90).save(other)
    quick, aim = {"lr": 1.0}, {"lr": 1.0, "picture": "aim", "likeness": 0.5}
    given = ask(system, image=image(), options=aim)
    assert torch.equal(ask(system, options={**quick, "images": f"{path}:0.5"}), given)
    assert not torch.equal(given, ask(system, options=quick))
    # Both at once are neither.
    both = ask(system, image=image(), options={**aim, "images": f"{other}:0.5"})
    assert not torch.equal(both, given)
    assert not torch.equal(both, ask(system, options={**quick, "images": f"{other}:0.5"}))
    for wrong in (str(tmp_path / "none.png"), "https://a.b:80/c.png:2", "\0"):
        with pytest.raises(ImageError):
            ask(system, options={"images": wrong})


def test_all_codes_may_be_mixed_by_their_shares(shares):
    one, mixed = (ask(shares, steps=0, options={"shares": what}) for what in ("one", "all"))
    assert not torch.allclose(one, mixed, atol=1e-2)
    cold = ask(shares, steps=0, options={"shares": "all", "temperature": 1e-3})
    # But for places where two codes are wanted about equally.
    assert (cold - one).abs().median() < 1e-3 and (cold - one).abs().mean() < 0.1 * (mixed - one).abs().mean()


def test_logits_are_masked_seamless_and_their_seeds_own(shares):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 14, 32))
    got = ask(shares, image=image(), mask=mask, strength=0.6, steps=10, options={"seamless": "x"})
    assert torch.equal(got[..., 16:], from_image(image())[..., 16:])
    alone, both = ask(shares, seeds=(6,)), ask(shares, seeds=(5, 6))
    assert torch.allclose(both[1], alone[0], atol=1e-4)
    with pytest.raises(SizeError, match="multiples of 4"):
        ask(shares, size=(30, 32))


def test_codes_are_pulled_to_the_start(system):
    start = ask(system, image=image(), strength=0.0)
    free, held = (
        ask(system, image=image(), strength=0.9, steps=20, options={"pull_codes": pull, "lr": 0.2})
        for pull in (0.0, 1e5)
    )
    assert (held - start).square().mean() < 0.5 * (free - start).square().mean()


@pytest.mark.parametrize("strength", [0.6, 1.0])
def test_what_the_mask_keeps_is_kept_to_the_bit(system, strength):
    mask = Image.new("L", (32, 32), 0)
    mask.paste(255, (0, 0, 14, 32))
    got = ask(system, image=image(), mask=mask, strength=strength, steps=10)
    assert torch.equal(got[..., 14:], from_image(image())[..., 14:])
    assert (got - from_image(image()))[..., :14].abs().max() > 0.05


def test_edges_meet_when_asked(system):
    """Codes pushed around a torus are the picture pushed around; the codec is as it was afterwards."""
    codes = random_codes(system.codec.codebook, Noise([1]), (8, 8))
    for edges, shifts, same in (("xy", (3, 5), True), ("x", (0, 5), True), ("x", (3, 0), False), ("", (3, 5), False)):
        got = ask(system, steps=1, options={"lr": 1e-7, "seamless": edges})
        codec = Seamless(system.codec, x="x" in edges, y="y" in edges)
        pushed = CodebookCanvas(codec, system.codec.codebook, codes.roll(shifts, (2, 3))).final()
        back = pushed.roll((-4 * shifts[0], -4 * shifts[1]), (2, 3))
        assert torch.allclose(back, got, atol=1e-4) == same
    assert not [module for module in system.codec.modules() if "_conv_forward" in module.__dict__]


@pytest.mark.parametrize("size", [(30, 32), (32, 34)])
def test_sides_are_multiples_of_the_factor(system, size):
    with pytest.raises(SizeError, match="multiples of 4"):
        ask(system, size=size)
    assert ask(system, size=(40, 24), steps=1).shape == (1, 3, 24, 40)


def test_a_film_repaints_every_frame(system):
    def draw(request):
        settings = system.Options(cuts=2)
        pixels = yield from system.synthesize(request, settings, Noise([request.seed]))
        return Result(images=to_images(pixels), seeds=(request.seed,), request=request, seconds=0.0)

    done = []
    request = Request(prompt="a red apple", size=(32, 32), steps=4, seed=1, strength=0.5, guidance=1.0, sampler="")
    drain(film(request, Motion.of({"zoom": "1.2", "angle": "5"}), 3, draw, done))
    assert len(done) == 3 and {each.images[0].size for each in done} == {(32, 32)}
    assert done[1].images[0].tobytes() != done[2].images[0].tobytes()


def test_half_precision_codecs_serve():
    system = VQGANCLIP(codec=codec().to(torch.bfloat16), clip=critic().to(torch.bfloat16), tokenizer=tokenizer())
    got = ask(system, image=image(), strength=0.5, steps=4)
    assert got.dtype == torch.float32 and torch.isfinite(got).all()


def test_options_have_help(system):
    assert isinstance(system, System)
    assert all(field.metadata.get("help") for field in dataclasses.fields(VQGANCLIP.Options))
