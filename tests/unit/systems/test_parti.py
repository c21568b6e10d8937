"""Parti and the two NUWAs on tiny random networks: seeds, guidance, start pictures, sizes, and what is refused."""

from dataclasses import replace

import pytest
import torch
from PIL import Image

from mindseye.engine import options as engine_options
from mindseye.errors import OptionError, SizeError, WeightsError
from mindseye.networks import nuwa, nuwa_infinity, parti, wdsr
from mindseye.networks.vae import Tower
from mindseye.networks.vqgan import VQGAN
from mindseye.networks.vqgan import Config as Codec
from mindseye.noise import Noise
from mindseye.pixels import from_image, to_images
from mindseye.request import Request, drain
from mindseye.systems.base import System
from mindseye.systems.nuwa import NUWA, NUWAInfinity
from mindseye.systems.parti import Parti
from mindseye.systems.writing import begun
from mindseye.text.tokenizer import Tokenizer

TEXT = parti.Text(vocabulary=520, length=16, layers=1, pad=519)
SIZES = {"text": TEXT, "codes": 20, "width": 16, "layers": 1, "heads": 2, "hidden": 24}


def random(kind, config):
    torch.manual_seed(0)
    module = kind(config)
    for value in module.parameters():
        value.data.add_(torch.randn(value.shape) * 0.2)
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    tower = Tower(channels=(8, 8), blocks=(1, 1))
    codec = VQGAN(Codec(encoder=tower, decoder=tower, codes=20, code_channels=4, z_channels=4, patch=2, groups=4))
    codec.quantizer.weight.data.normal_()
    words = ["a red circle on the left", "a blue square", "stars and hearts"]
    return {"codec": codec.eval().requires_grad_(False), "tokenizer": Tokenizer.train(words, 520, length=16)}


@pytest.fixture(scope="module")
def a_parti(parts):
    return Parti(network=random(parti.Parti, parti.Config(**SIZES, grid=(3, 4), reach=None)), **parts)


@pytest.fixture(scope="module")
def a_nuwa(parts):
    return NUWA(network=random(nuwa.NUWA, nuwa.Config(**SIZES, grid=(3, 3, 3), reach=(1, 1, 1))), **parts)


@pytest.fixture(scope="module")
def infinite(parts):
    return NUWAInfinity(network=random(nuwa_infinity.NUWAInfinity, nuwa_infinity.Config(**SIZES, patch=2)), **parts)


def ask(system, *, size=None, **changes):
    size = size or getattr(system, "native", (16, 8))
    options = changes.pop("options", {})
    request = Request(**{"prompt": "a red circle", "size": size, "guidance": 2.0, "steps": 1, "seed": 5, **changes})
    return request, engine_options.build(system.Options, options, owner="test")


def draw(system, *, seeds=(5,), **changes):
    return drain(system.synthesize(*ask(system, **changes), Noise(seeds)))


@pytest.fixture(params=["a_parti", "a_nuwa", "infinite"])
def system(request):
    return request.getfixturevalue(request.param)


def test_a_seed_is_a_picture_alone_and_in_a_batch(system):
    assert isinstance(system, System)
    both = draw(system, seeds=(5, 6))
    width, height = ask(system)[0].size
    assert both.shape == (2, 3, height, width)
    torch.testing.assert_close(draw(system, seeds=(6,)), both[1:], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(both[0], both[1])


def test_words_guide_and_negative_words_too(system):
    plain, others = draw(system, guidance=5.0), ["stars and hearts", "a blue square", "on the left"]
    # A random network may find some of them all the same.
    for name in ("prompt", "negative"):
        assert any(not torch.equal(draw(system, guidance=5.0, **{name: text}), plain) for text in others)


def test_the_likeliest_picture_has_no_seed(system):
    one, other = (draw(system, seeds=(seed,), options={"temperature": 0}) for seed in (1, 2))
    assert torch.equal(one, other)


def test_progress_shows_pictures(system):
    request, options = ask(system)
    steps = system.synthesize(request, options, Noise([5]))
    seen = [next(steps) for _ in range(3)]
    assert [each.step for each in seen] == [1, 2, 3]
    assert seen[-1].peek()[0].size == request.size
    steps.close()


def test_words_that_do_not_fit_are_said(system):
    long = "a red circle on the left of a blue square"
    assert any("16 tokens of a prompt are read" in said for said in system.notices(ask(system, prompt=long)[0]))
    assert system.notices(ask(system)[0]) == []


def test_what_does_not_belong_together_is_refused(system, parts):
    text = system.network.config.text
    kind = type(system.network)
    for changes, said in (
        ({"text": replace(text, vocabulary=521)}, "520 tokens and the network reads 521"),
        ({"text": replace(text, length=7)}, "16 ids filled with 519, and the network reads 7"),
        ({"text": replace(text, pad=1)}, "reads 16 filled with 1"),
        ({"codes": 21}, "writes 21 different tokens and the codec has 20"),
    ):
        with pytest.raises(WeightsError, match=f"{said}.*do not belong together"):
            replace(system, network=kind(replace(system.network.config, **changes)))


def checkered(width, height):
    values = torch.rand(1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(3)) * 2 - 1
    return to_images(values.repeat_interleave(4, 2).repeat_interleave(4, 3))[0]


def test_the_upper_part_of_a_start_picture_is_kept(a_parti, a_nuwa):
    for each, share in ((a_parti, 1 / 3), (a_nuwa, 1 / 3)):
        image = checkered(*each.native)
        ids = each.codec.to_ids(from_image(image))
        columns = each.native[0] // 4
        grid = (each.native[1] // 4, columns)
        prime = begun(ask(each, image=image, strength=share)[0], each.codec, grid, 0)
        assert torch.equal(prime, ids[:, : 2 * columns])
        assert torch.equal(
            draw(each, image=image, strength=0.0), each.codec.from_ids(ids, (each.native[1] // 4, columns))
        )
        with pytest.raises(OptionError, match="under a mask"):
            draw(each, image=image, mask=Image.new("L", image.size, 255))


def test_parti_is_enlarged_where_that_is_needed(a_parti):
    def doubled():
        return random(wdsr.WDSR, wdsr.Config(width=4, layers=1))

    system = replace(a_parti, upsampler=doubled(), upsampler_2=doubled())
    for size, count in (((16, 12), 0), ((32, 24), 1), ((64, 48), 2), ((40, 40), 2)):
        assert draw(system, size=size).shape[2:] == size[::-1]
        request = ask(system, size=size)[0]
        assert len(system._enlargers(request)) == count
        assert bool(system.notices(request)) == (size == (40, 40))
    assert "it draws 16x12" in a_parti.notices(ask(a_parti, size=(32, 24))[0])[0]
    assert draw(a_parti, size=(32, 24)).shape[2:] == (24, 32)


def test_a_frame_is_that_of_the_clip(a_nuwa):
    request, options = ask(a_nuwa, options={"frames": 3, "frame": 1})
    clip = drain(a_nuwa.clip(request, options, Noise([5])))
    assert clip.shape == (1, 3, 3, 12, 12)
    picture = draw(a_nuwa)
    # The same seed, so the same picture first; of a longer clip more numbers are drawn, and the first stay first.
    torch.testing.assert_close(clip[:, 0], picture, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(draw(a_nuwa, options={"frames": 3, "frame": 1}), clip[:, 1], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(draw(a_nuwa, options={"frames": 3, "frame": -1}), clip[:, 2], atol=1e-5, rtol=1e-5)


def test_a_clip_goes_on_from_a_picture(a_nuwa):
    image = checkered(12, 12)
    clip = drain(a_nuwa.clip(*ask(a_nuwa, image=image, options={"frames": 2}), Noise([5])))
    wanted = a_nuwa.codec.from_ids(a_nuwa.codec.to_ids(from_image(image)), (3, 3))
    torch.testing.assert_close(clip[:, 0], wanted, atol=1e-5, rtol=1e-5)


def test_frames_that_are_not_there_are_refused(a_nuwa):
    with pytest.raises(OptionError, match="up to 3 frames"):
        draw(a_nuwa, options={"frames": 5, "frame": 4})
    with pytest.raises(OptionError, match="of 2 frames has no frame 2"):
        draw(a_nuwa, options={"frames": 2, "frame": 2})


def test_a_canvas_has_any_size_of_whole_patches(infinite):
    assert infinite.multiple == 8
    for size in ((8, 8), (40, 8), (8, 32), (24, 16)):
        assert draw(infinite, size=size).shape[2:] == size[::-1]
    with pytest.raises(SizeError, match="20x8: sides must be multiples of 8"):
        draw(infinite, size=(20, 8))


def test_the_direction_says_what_is_kept_of_a_start_picture(infinite):
    image = checkered(24, 8)
    own = infinite.codec.to_ids(from_image(image)).view(2, 6)
    for direction, columns in (("left", slice(0, 4)), ("right", slice(2, 6))):
        request, options = ask(infinite, size=(24, 8), image=image, strength=1 / 3, options={"direction": direction})
        chain = infinite._chain(request, options, None, (1, 3))
        assert (chain.ready, chain.length) == (2, 4)
        kept = nuwa_infinity.from_patches(chain.given, chain.plan, 2).view(2, 6)
        assert torch.equal(kept[:, columns], own[:, columns])


def test_guidance_leads_to_the_neighbours_too_where_there_are_some(infinite):
    text_alone = {"guide_nearby": False}
    first, other = (draw(infinite, size=(24, 8), options=each) for each in ({}, text_alone))
    assert not torch.allclose(first, other)
    for same in ({"guidance": 1.0}, {"guidance": 0.5}, {"size": (8, 8)}):
        changes = {"size": (24, 8), **same}
        assert torch.equal(draw(infinite, **changes), draw(infinite, **changes, options=text_alone))


def test_what_a_mask_leaves_is_kept_to_the_pixel(infinite):
    image = checkered(16, 16)
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 12))
    drawn = draw(infinite, size=(16, 16), image=image, mask=mask)
    real = from_image(image)
    assert torch.equal(drawn[..., :8], real[..., :8]) and torch.equal(drawn[:, :, 12:], real[:, :, 12:])
    assert not torch.allclose(drawn[..., :12, 8:], real[..., :12, 8:])
    # Without pasting it is what the codec makes of the same tokens.
    whole = draw(infinite, size=(16, 16), image=image, mask=Image.new("L", (16, 16), 0), options={"paste": False})
    ids = infinite.codec.to_ids(real)
    torch.testing.assert_close(whole, infinite.codec.from_ids(ids, (4, 4)))


def test_a_picture_grows_by_its_margins(infinite):
    image = checkered(16, 8)
    request, options = ask(infinite, image=image, options={"extend_right": 16, "extend_up": 8, "feather": 0})
    placed = infinite.placed(replace(request, size=None), options)
    assert placed.size == (32, 16)
    drawn = drain(infinite.synthesize(placed, options, Noise([5])))
    assert drawn.shape[2:] == (16, 32)
    assert torch.equal(drawn[:, :, 8:, :16], from_image(image))
    other = drain(infinite.synthesize(placed, options, Noise([6])))
    assert not torch.allclose(drawn[..., 16:], other[..., 16:])
    # A size that was rounded to whole patches: the picture stays where it is.
    drawn = drain(infinite.synthesize(replace(placed, size=(24, 16)), options, Noise([5])))
    assert torch.equal(drawn[:, :, 8:, :16], from_image(image))
    with pytest.raises(OptionError, match="no picture was given"):
        infinite.placed(replace(request, image=None), options)
    assert infinite.placed(request, replace(options, extend_right=0, extend_up=0)) is None
