"""GANs as systems: who is told what, who chooses, seeds, masks, and names of classes."""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from torch import nn

from mindseye.errors import ImageError, OptionError, UnknownName
from mindseye.networks.biggan import BigGAN
from mindseye.networks.biggan import Config as BigConfig
from mindseye.networks.clip import CLIP, HALF, Config, Text, ViT
from mindseye.networks.gan import Config as GanConfig
from mindseye.networks.gan import DCGANGenerator
from mindseye.networks.textgan import Config as TextConfig
from mindseye.networks.textgan import TextGenerator
from mindseye.networks.translator import ResNetConfig, ResNetTranslator, UNetConfig, UNetTranslator
from mindseye.noise import Noise
from mindseye.pixels import from_image, to_images
from mindseye.request import Request, drain
from mindseye.systems.base import System
from mindseye.systems.gan import GAN, ClassGAN, TextGAN
from mindseye.systems.translator import Translator
from mindseye.text.tokenizer import Tokenizer

LABELS = ("cat", "dog", "moon", "full moon")
WORDS = ["a cat", "a dog", "a moon", "a full moon", "red", "green", "something else altogether"]


@pytest.fixture(scope="module")
def tokenizer():
    """A few words."""
    return Tokenizer.train(WORDS * 4, 600, length=8)


@pytest.fixture(scope="module")
def clip(tokenizer):
    """Random, and sure of something."""
    torch.manual_seed(0)
    text = Text(vocabulary=tokenizer.vocabulary, length=8, width=16, layers=1, heads=2)
    config = Config(text=text, image=ViT(size=8, patch=4, width=16, layers=1, heads=2), embed=12, mean=HALF, std=HALF)
    return CLIP(config).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def painter():
    """A DCGAN of 16x16."""
    torch.manual_seed(0)
    made = DCGANGenerator(GanConfig(z_dim=6, widths=(16, 8)))
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def classes():
    """A BigGAN of 8x8."""
    torch.manual_seed(0)
    config = BigConfig(
        z_dim=6, class_dim=4, num_classes=4, width=16, layers=((True, 1, 1),), attention=None, rows=3, labels=LABELS
    )
    return BigGAN(config).eval().requires_grad_(False)


def asked(prompt="a cat", size=(16, 16), **more):
    """A request with nothing open."""
    return Request(prompt=prompt, size=size, seed=0, steps=more.pop("steps", 5), guidance=1.0, sampler="", **more)


def run(system, request, seeds=(0, 1), **options):
    """The pictures."""
    return drain(system.synthesize(request, system.Options(**options), Noise(list(seeds))))


def test_a_seed_is_a_place_in_the_noise(painter):
    """And it is said that nobody reads, unless there is something to choose from."""
    system = GAN(painter)
    assert isinstance(system, System)
    assert torch.allclose(run(system, asked())[1], painter(Noise([1]).normal(6))[0], atol=1e-6)
    assert any("nobody reads" in said for said in system.notices(asked()))
    assert system.notices(asked(candidates=8)) == []


@pytest.mark.parametrize("kind", ["plain", "class", "text", "image", "mask"])
def test_a_picture_is_the_same_alone_and_in_a_batch(kind, painter, classes, clip, tokenizer):
    """Noise and search are each picture's own."""
    image = Image.new("RGB", (16, 16), (200, 40, 40))
    more = {}
    if kind == "class":
        system = ClassGAN(classes, clip, tokenizer)
    elif kind == "text":
        system = text_gan(clip, tokenizer)
    else:
        system = GAN(painter, clip, tokenizer)
        more = {"image": {"image": image}, "mask": {"image": image, "mask": Image.new("L", (16, 16), 255)}}.get(
            kind, {}
        )
    both = run(system, asked(**more), seeds=[4, 5])
    assert both.shape == (2, 3, 16, 16)
    assert torch.allclose(run(system, asked(**more), seeds=[5])[0], both[1], atol=1e-4)
    assert (both[0] - both[1]).abs().max() > 1e-3


def test_truncation_draws_towards_the_middle(painter, classes):
    """At 0 every seed is the same picture."""
    for system in (GAN(painter), ClassGAN(classes)):
        middle = run(system, asked(), truncation=0.0)
        assert torch.allclose(middle[0], middle[1], atol=1e-6)
        apart = [
            float((pictures[0] - pictures[1]).abs().mean())
            for pictures in (run(system, asked(), truncation=t) for t in (0.3, 1.0))
        ]
        assert 0 < apart[0] < apart[1]


def test_classes_by_name_number_and_weight(classes, clip, tokenizer):
    """As the option says them, as the prompt names them, as CLIP guesses them."""
    system = ClassGAN(classes, clip, tokenizer)

    def weights(prompt="x", **options):
        return system.classes(asked(prompt), system.Options(**options)).tolist()

    assert weights(classes="dog") == [0, 1, 0, 0]
    assert weights(classes="3") == [0, 0, 0, 1]
    assert weights(classes="Cat:3, dog:1") == [0.75, 0.25, 0, 0]
    assert weights("a cat and two dogs") == [0.5, 0.5, 0, 0]
    assert weights("a full moon") == [0, 0, 0, 1]
    assert weights("the moon") == [0, 0, 1, 0]
    mixed = weights("something else altogether", mix=2)
    assert sum(each > 0 for each in mixed) == 2 and sum(mixed) == pytest.approx(1)
    for wrong in ("fox", "4", "-1"):
        with pytest.raises(UnknownName):
            weights(classes=wrong)
    for wrong in ("cat:much", "cat:-1", "cat:0", ","):
        with pytest.raises(OptionError):
            weights(classes=wrong)


def test_what_a_prompt_was_taken_for_is_said(classes, clip, tokenizer):
    """Only where it names no class; and without names there is nothing to guess from."""
    system = ClassGAN(classes, clip, tokenizer)
    (said,) = system.notices(asked("something else altogether", size=(8, 8)))
    assert "names no class" in said and any(label in said for label in LABELS)
    assert system.notices(asked("a cat", size=(8, 8))) == []
    assert "scaled to 16x16" in system.notices(asked("a cat"))[0]
    torch.manual_seed(0)
    unnamed = BigGAN(replace(classes.config, labels=())).eval()
    with pytest.raises(OptionError, match="4 classes") as caught:
        run(ClassGAN(unnamed, clip, tokenizer), asked())
    assert "classes=207" in caught.value.hint
    assert run(ClassGAN(unnamed), asked(), classes="2").shape == (2, 3, 16, 16)


def test_a_thousand_classes_are_imagenets(clip, tokenizer):
    """The public BigGAN names none of them itself."""
    config = BigConfig(z_dim=6, class_dim=4, num_classes=1000, width=16, layers=((True, 1, 1),), attention=None, rows=3)
    system = ClassGAN(BigGAN(config).eval().requires_grad_(False), clip, tokenizer)
    weights = system.classes(asked("a goldfish and a castle"), system.Options())
    assert weights.nonzero().flatten().tolist() == [1, 483] and weights[1] == 0.5
    assert system.classes(asked("x"), system.Options(classes="golden retriever"))[207] == 1
    assert system.notices(asked("a goldfish", size=(8, 8))) == []
    (said,) = system.notices(asked("a dog", size=(8, 8), options={"mix": 2}))
    assert "Maltese dog (50%)" in said
    (said,) = system.notices(asked("a goldfsh", size=(8, 8)))
    assert "painted as goldfish (100%)" in said
    with pytest.raises(UnknownName) as caught:
        system.classes(asked("x"), system.Options(classes="goldfsh"))
    assert "goldfish" in caught.value.hint and "950 more" in caught.value.message


def test_a_mixture_is_painted(classes):
    """Half of each is neither."""
    system = ClassGAN(classes)
    cat, dog, both = (run(system, asked(), classes=each, seeds=[0]) for each in ("cat", "dog", "cat, dog"))
    assert min((both - cat).abs().max(), (both - dog).abs().max(), (cat - dog).abs().max()) > 1e-3


def text_gan(clip, tokenizer):
    """A text-conditional generator of 16x16 in which nothing is zero."""
    torch.manual_seed(0)
    config = TextConfig(z_dim=6, vector=12, tokens=16, length=8, mixed=12, widths=(16, 8), attention=(1,), heads=2)
    generator = TextGenerator(config).eval()
    for parameter in generator.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return TextGAN(generator.requires_grad_(False), clip, tokenizer, clip, tokenizer)


def test_the_text_is_heard(clip, tokenizer):
    """Another prompt, another picture of the same noise, as the generator paints it of CLIP's vectors."""
    system = text_gan(clip, tokenizer)
    red, green = (run(system, asked(prompt), seeds=[2]) for prompt in ("red", "green"))
    assert (red - green).abs().max() > 1e-4
    tokens, pooled = clip.text(tokenizer.encode(["red"])[0])
    vector = nn.functional.normalize(pooled, dim=-1) * 12**0.5
    assert torch.allclose(red, system.generator(Noise([2]).normal(6), vector, tokens), atol=1e-5)


def test_a_start_picture_is_found_in_the_noise(painter):
    """What the generator can paint it finds nearly again; strength 1 forgets it."""
    target = painter(0.7 * torch.randn(1, 6, generator=torch.Generator().manual_seed(9)))
    image = to_images(target)[0]
    near = run(GAN(painter), asked(image=image, strength=0.0, steps=40), seeds=[0])
    start = run(GAN(painter), asked(), seeds=[0])
    wanted = from_image(image)
    assert (near - wanted).square().mean() < 0.3 * (start - wanted).square().mean()
    far = run(GAN(painter), asked(image=image, strength=1.0), seeds=[0])
    assert torch.allclose(far, start, atol=1e-4)


def test_under_a_mask_the_rest_stays(painter):
    """Kept pixels are the picture's own; progress tells of both stages."""
    image = Image.effect_noise((16, 16), 60).convert("RGB")
    mask = Image.new("L", (16, 16), 0)
    mask.paste(255, (8, 0, 16, 16))
    system = GAN(painter)
    steps = system.synthesize(asked(image=image, mask=mask, steps=3), system.Options(), Noise([0]))
    stages = []
    pixels = drain(steps, lambda progress: (stages.append(progress.stage), progress.peek()))
    assert torch.allclose(pixels[..., :8], from_image(image)[..., :8], atol=1e-6)
    assert (pixels[..., 8:] - from_image(image)[..., 8:]).abs().max() > 0.05
    assert stages == ["find"] * 3 + ["draw"]


def test_a_translator_translates():
    """A picture for a picture; none, no picture; under a mask only what is white; sketches on demand."""
    torch.manual_seed(0)
    system = Translator(ResNetTranslator(ResNetConfig(size=16, width=4, blocks=1)).eval())
    image = Image.effect_noise((32, 16), 60).convert("RGB")
    assert isinstance(system, System) and system.multiple == 4
    with pytest.raises(ImageError, match="none was given"):
        run(system, asked())
    pixels = run(system, asked(size=(32, 16), image=image))
    assert torch.allclose(pixels[0], system.network(from_image(image))[0], atol=1e-5)
    mask = Image.new("L", (32, 16), 0)
    assert torch.allclose(run(system, asked(size=(32, 16), image=image, mask=mask))[0], from_image(image)[0], atol=1e-6)
    drawn = run(system, asked(size=(32, 16), image=image), sketch=True)
    assert (drawn - pixels).abs().max() > 1e-4
    assert system.notices(asked())
    noisy = Translator(UNetTranslator(UNetConfig(size=16, width=4, levels=2, noise=4)).eval())
    several = run(noisy, asked(image=image), seeds=[0, 1])
    assert (several[0] - several[1]).abs().max() > 1e-6
    assert torch.allclose(run(noisy, asked(image=image), seeds=[1])[0], several[1], atol=1e-5)


def test_from_one_seed_to_another(painter, clip, tokenizer):
    system = GAN(painter, clip, tokenizer)

    def ask(seed, **options):
        settings = system.Options(**options)
        return drain(system.synthesize(asked(), settings, Noise([seed])))

    alone = drain(GAN(painter).synthesize(asked(), GAN.Options(), Noise([7])))
    assert torch.equal(ask(3, variation_seed=7, variation_strength=1.0), alone)
    half, end = ask(3, variation_seed=7, variation_strength=0.5), ask(3, variation_seed=7, variation_strength=1.0)
    assert not torch.equal(half, end)
