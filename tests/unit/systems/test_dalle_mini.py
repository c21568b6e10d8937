"""DALL-E mini as a system: grids, start pictures, spellings, parts that do not belong together."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from tests.unit.checkpoints import tiny_dalle_mini as tiny

from mindseye.errors import OptionError, WeightsError
from mindseye.networks.bart import Bart
from mindseye.networks.vqgan import VQGAN
from mindseye.noise import Noise
from mindseye.request import Request, candidate_seed, drain
from mindseye.systems.dalle_mini import DalleMini, Knobs
from mindseye.systems.writing import begun
from mindseye.text.bart_tokenizer import BartTokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("words")
    tiny.vocabulary(folder)
    return BartTokenizer.read(folder, 8)


@pytest.fixture
def system(tokenizer):
    return DalleMini(network=tiny.network(), codec=tiny.codec(), tokenizer=tokenizer)


def ask(**changes):
    return Request(**{"prompt": "red", "size": (6, 6), "guidance": 3.0, "seed": 0, **changes})


def drawn(system, seeds=(5,), seen=None, request=None, **knobs):
    steps = system.synthesize(request or ask(), Knobs(**knobs), Noise(seeds))
    return drain(steps, None if seen is None else seen.append)


def test_draws_with_previews(system):
    seen = []
    pixels = drawn(system, (5, 6), seen)
    assert pixels.shape == (2, 3, 6, 6) and torch.isfinite(pixels).all()
    assert [each.step for each in seen] == list(range(1, 10)) and seen[0].total == 9
    assert [image.size for image in seen[3].peek()] == [(6, 6), (6, 6)]
    torch.testing.assert_close(pixels[1:], drawn(system, (6,)), atol=1e-5, rtol=1e-5)


def test_guidance_and_the_negative_prompt_change_it(system):
    plain = drawn(system, temperature=0.0)
    assert not torch.equal(plain, drawn(system, request=ask(guidance=30.0), temperature=0.0))
    # Away from the prompt itself there is nowhere to go: as if it were alone.
    alone = drawn(system, request=ask(guidance=1.0))
    torch.testing.assert_close(drawn(system, request=ask(negative="red", guidance=7.0)), alone, atol=1e-5, rtol=1e-5)


def test_a_grid_holds_ordinary_pictures(system):
    grid = drawn(system, grid=2)
    assert grid.shape == (1, 3, 12, 12)
    for number in range(4):
        row, column = 6 * (number // 2), 6 * (number % 2)
        alone = drawn(system, (candidate_seed(5, number),))
        torch.testing.assert_close(grid[:, :, row : row + 6, column : column + 6], alone, atol=1e-5, rtol=1e-5)


def test_a_joined_grid_is_one_picture(system):
    apart, joined = drawn(system, grid=2), drawn(system, grid=2, joined=True)
    assert joined.shape == apart.shape and not torch.allclose(joined, apart, atol=1e-3)
    torch.testing.assert_close(drawn(system, joined=True), drawn(system), atol=1e-5, rtol=1e-5)
    # The same codes: encoding is by the nearest, and a codebook's entry decoded alone is what it is.
    seen = []
    drawn(system, (5, 6), seen, grid=2, joined=True)
    assert [image.size for image in seen[-1].peek()] == [(12, 12), (12, 12)]


def test_another_size_is_scaled_to_and_said(system):
    assert drawn(system, request=ask(size=(8, 4))).shape == (1, 3, 4, 8)
    assert system.notices(ask()) == []
    assert system.notices(ask(size=(8, 4))) == ["it draws 6x6: the picture is scaled to 8x4"]


def test_words_that_do_not_fit_are_said(system):
    (said,) = system.notices(ask(prompt="red red red red red red blue green"))
    assert said == "only 8 tokens of a prompt are read; not this: blue green"


def test_the_upper_part_of_a_start_picture_is_kept(system):
    image = Image.effect_noise((6, 6), 80).convert("RGB")
    kept = drawn(system, request=ask(image=image, strength=0.0))
    again = drawn(system, request=ask(image=image, strength=0.0), seeds=(9,))
    torch.testing.assert_close(kept, again)
    free = drawn(system, request=ask(image=image, strength=1.0))
    torch.testing.assert_close(free, drawn(system), atol=1e-5, rtol=1e-5)
    for strength, prime, kept in ((0.6, 0, 3), (0.3, 0, 6), (0.8, 2, 6)):
        codes = begun(ask(image=image, strength=strength), system.codec, (3, 3), prime)
        assert codes is not None and codes.shape == (1, kept)


@pytest.mark.parametrize(
    ("changes", "knobs", "said"),
    [
        ({"mask": Image.new("L", (6, 6))}, {}, "repaints nothing under a mask"),
        ({}, {"grid": 2}, "a grid is drawn from a prompt alone"),
        ({}, {"prime": 4}, "4 rows cannot be kept of 3"),
    ],
)
def test_what_a_start_picture_is_not_for(system, changes, knobs, said):
    with pytest.raises(OptionError, match=said):
        drawn(system, request=ask(image=Image.new("RGB", (6, 6)), **changes), **knobs)


def test_without_an_encoder_there_is_no_start(system):
    codec = VQGAN(replace(tiny.CODES, encoder=None)).eval()
    with pytest.raises(WeightsError, match="without an encoder"):
        drawn(replace(system, codec=codec), request=ask(image=Image.new("RGB", (6, 6))))


def test_spelling_is_an_option(system):
    first = drawn(system, request=ask(prompt="RED!"), temperature=0.0)
    assert torch.equal(first, drawn(system, request=ask(prompt="red"), temperature=0.0))
    other = system._spelled("as it is").encode(["RED!"])[0]
    assert not torch.equal(other, system._spelled("plain").encode(["RED!"])[0])


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"vocabulary": 200}, "263 tokens and the network reads 200"),
        ({"vocabulary": 9000}, "263 tokens and the network reads 9,000"),
        ({"pad": 3}, "filled with 1, and the network reads 8 filled with 3"),
        ({"text_length": 7}, "8 ids filled with 1, and the network reads 7"),
        ({"codes": 23, "start": 23}, "23 different tokens and the codec has 24"),
        ({"length": 8}, "8 codes, which are no square"),
    ],
)
def test_parts_that_do_not_belong_together(system, part, said):
    with pytest.raises(WeightsError, match=said):
        replace(system, network=Bart(replace(tiny.WRITER, **part)))


def test_damaged_weights_are_said(system):
    network = Bart(tiny.WRITER)
    network.decoder.head.weight.data.fill_(float("nan"))
    with pytest.raises(WeightsError, match="not finite"):
        drawn(replace(system, network=network.requires_grad_(False)))
