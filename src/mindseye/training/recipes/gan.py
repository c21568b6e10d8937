"""The adversarial recipes: dcgan-pocket, biggan-pocket and textgan-pocket.

All paint 64x64: a contest needs many pictures, and on two cores that is what there is time for. What each is told:
dcgan-pocket nothing, biggan-pocket a class (which a classifier of what frozen clip-pocket sees must recognise),
textgan-pocket the caption as clip-pocket reads it. The first two are judged through trained eyes
(`mindseye.networks.projected`). Scores watch for what losses do not show (`mindseye.adversarial.watch`), through the
features of clip-rn-pocket, which guides nobody.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from mindseye.adversarial import watch
from mindseye.adversarial.guides import ClassGuide, ClipGuide, Guide
from mindseye.adversarial.objective import Adversarial, Rules
from mindseye.adversarial.standing import measure
from mindseye.data.rendered import Rendered
from mindseye.data.scenes import names_plain_shapes
from mindseye.diffusion.denoiser import pooled_vector
from mindseye.networks import biggan, discriminator, gan, projected, textgan
from mindseye.networks.clip import CLIP
from mindseye.networks.vae import AutoencoderKL
from mindseye.objective import Batch, Objective
from mindseye.pictures import sheet
from mindseye.pixels import to_images
from mindseye.request import Progress, Steps, drain
from mindseye.shapes import Pixels
from mindseye.text.tokenizer import Tokenizer
from mindseye.training.classes import classified
from mindseye.training.encodings import distinct, encode_all, fingerprint
from mindseye.training.feeds import order, to_pixels
from mindseye.training.pictures import held_out, training_pictures
from mindseye.training.recipe import Every, Feed, Optimizer, Recipe, Workshop
from mindseye.training.recipes.stable_diffusion import PROMPTS
from mindseye.training.recipes.vqgan import appearance

__all__ = ["CONTEST", "ToldFeed", "biggan_pocket", "channels_last", "dcgan_pocket", "small", "textgan_pocket"]

SIDE: Final = 64
LENGTH: Final = 32
"""Tokens that the text-conditional generator reads, as the U-Net does."""
SEEN: Final = 2048
"""Training pictures that copies are looked for among."""


class ToldFeed:
    """Small pictures and what is said of them.

    Args:
        pictures: ``N S S 3`` bytes.
        tables: By key of the batch: rows, and which row belongs to a picture.
        stream: The pictures of an epoch; one that stands there three times is seen three times.
        pairs: From pixels to a further entry, "source"; None = no such entry.
        seed: Of the order.
    """

    def __init__(
        self,
        pictures: NDArray[np.uint8],
        tables: Mapping[str, tuple[NDArray[Any], NDArray[np.int64]]],
        stream: NDArray[np.int64],
        pairs: Callable[[Pixels], Pixels] | None = None,
        seed: int = 0,
    ) -> None:
        self.pictures, self.tables, self.stream, self.pairs, self.seed = pictures, tables, stream, pairs, seed

    def batch(self, step: int, size: int) -> Batch:
        """``{"pixels": B 3 S S}`` and a row of each table a picture."""
        rows = np.sort(self.stream[order(step, size, len(self.stream), self.seed)])
        told = {
            key: torch.from_numpy(np.asarray(values[which[rows]])).float()
            for key, (values, which) in self.tables.items()
        }
        pixels = to_pixels(self.pictures[rows])
        return {"pixels": pixels, **told} | ({} if self.pairs is None else {"source": self.pairs(pixels)})


def small(workshop: Workshop, rendered: Rendered) -> Steps[NDArray[np.uint8]]:
    """The pictures at `SIDE`, each pixel the mean of those that it stands for, made once and kept."""
    path = workshop.cache / f"small-{rendered.name}-{SIDE}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".part{os.getpid()}.npy")
        store = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(len(rendered), SIDE, SIDE, 3))
        for start in range(0, len(rendered), 256):
            store[start : start + 256] = shrunk(rendered.pictures[start : start + 256])
            yield Progress("shrink", start, len(rendered), tuple)
        store.flush()
        del store
        os.replace(part, path)
    return np.load(path, mmap_mode="r")


def shrunk(pictures: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """``N S S 3`` bytes at `SIDE`, S a multiple of it."""
    factor = pictures.shape[1] // SIDE
    if factor == 1:
        return np.asarray(pictures)
    # Sums of slices: a mean over two axes of bytes takes numpy ten times as long.
    total = np.full((len(pictures), SIDE, SIDE, 3), factor * factor // 2, dtype=np.uint32)
    for row in range(factor):
        for column in range(factor):
            total += pictures[:, row::factor, column::factor]
    return (total // (factor * factor)).astype(np.uint8)


def _class_feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    pictures = yield from small(workshop, rendered)
    labels, found = classified(workshop, rendered.captions)
    counts = np.bincount(found[found >= 0], minlength=len(labels))
    # A class of 150 pictures is seen more often than its share, one of 4,000 less; not alike, or the few are learned
    # by heart.
    often = np.clip(np.round(np.sqrt(counts.max() / np.maximum(counts, 1))), 1, 5).astype(int)
    stream = np.repeat(np.arange(len(found)), np.where(found >= 0, often[found], 0))
    return ToldFeed(pictures, {"classes": (np.eye(len(labels), dtype=np.float32), found)}, stream)


def _plain_feed(workshop: Workshop) -> Steps[Feed]:
    """Of the corpus, the pictures of one thing: nothing says how many there should be. Of a user's own, all."""
    if workshop.data is None:
        return (yield from _class_feed(workshop))
    rendered = yield from training_pictures(workshop)
    return ToldFeed((yield from small(workshop, rendered)), {}, np.arange(len(rendered)))


def _text_feed(workshop: Workshop) -> Steps[Feed]:
    rendered = yield from training_pictures(workshop)
    pictures = yield from small(workshop, rendered)
    captions, where = distinct(rendered.captions)
    clip: CLIP = workshop.parts("clip-pocket")
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)
    folder = workshop.cache / "encodings"
    folder.mkdir(parents=True, exist_ok=True)
    # The names that unet-pocket's recipe uses, for they hold the same numbers.
    read = fingerprint(workshop.part_files("clip-pocket"), workshop.part_files("bpe-pocket"))
    tables = {}
    for place, key in enumerate(("tokens", "vector")):
        name = "tokens" if key == "tokens" else "vectors"
        rows = yield from encode_all(
            folder / f"{name}-{rendered.name}-{read}.npy",
            len(captions),
            lambda start, stop, place=place: encode_text(clip, tokenizer, captions[start:stop])[place],
            stage="encode captions",
        )
        tables[key] = (rows, where)
    plain = np.array([names_plain_shapes(caption) for caption in captions])[where]
    return ToldFeed(pictures, tables, np.repeat(np.arange(len(where)), np.where(plain, 2, 1)))


def encode_text(
    clip: CLIP, tokenizer: Tokenizer, texts: list[str]
) -> tuple[Float[Tensor, "B L D"], Float[Tensor, "B V"]]:
    """Final tokens, and the pooled vector."""
    ids, _ = tokenizer.encode(texts)
    tokens, pooled = clip.text(ids)
    return tokens, pooled_vector(pooled)


def _noise(count: int, size: int, seed: int) -> Float[Tensor, "N Z"]:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def _in_chunks(paint: Callable[[slice], Tensor], count: int, size: int = 64) -> Tensor:
    with torch.no_grad():
        return torch.cat([paint(slice(start, min(start + size, count))) for start in range(0, count, size)])


def features(judge: CLIP, pixels: Pixels) -> Float[Tensor, "N D"]:
    """What the judge sees, as unit rows; everything is shown at the same sharpness, that of `SIDE`."""
    image = judge.config.image
    size = SIDE if image is None else image.size

    def look(rows: slice) -> Tensor:
        shown = pixels[rows] if pixels.shape[-1] == SIDE else F.interpolate(pixels[rows], (SIDE, SIDE), mode="area")
        shown = F.interpolate(shown, (size, size), mode="bilinear") if size != SIDE else shown
        return F.normalize(judge.image(shown), dim=-1)

    return _in_chunks(look, len(pixels))


def _some(count: int, most: int, seed: int = 0) -> NDArray[np.int64]:
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])


def _watched(
    judge: CLIP, made: Float[Tensor, "N D"], unseen: Float[Tensor, "U D"], training: NDArray[np.uint8], rows: Any
) -> dict[str, float]:
    """Recall and precision against pictures never seen, and copies of some of those seen (``rows``)."""
    seen = features(judge, to_pixels(shrunk(training[rows[_some(len(rows), SEEN)]])))
    return {
        "recall": watch.recall(unseen, made),
        "precision": watch.precision(unseen, made),
        "copied": watch.copied(made, seen, unseen),
    }


def _class_scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    generator: biggan.BigGAN = parts["biggan-pocket"]
    judge: CLIP = workshop.parts("clip-rn-pocket")
    shown, kept = drain(training_pictures(workshop)), held_out(workshop, ("pairs",))
    labels, found = classified(workshop, shown.captions)
    _, kept_found = classified(workshop, kept.captions, labels)
    # A classifier apart: on features of a network that the generator never met, fitted on real pictures.
    rows = _of_each(found, len(labels), seed=0)
    seen = features(judge, to_pixels(shrunk(shown.pictures[rows])))
    classifier = watch.Probe.fit(seen, torch.from_numpy(found[rows]), len(labels))
    kept_rows, each = np.flatnonzero(kept_found >= 0)[:1000], 12
    if len(kept_rows) < 2 or np.bincount(found[rows]).max() < each:
        return {}  # a user's own pictures may be too few of any class to say
    unseen = features(judge, to_pixels(shrunk(kept.pictures[kept_rows])))
    wanted = torch.arange(len(labels)).repeat_interleave(each)
    z = 0.7 * biggan.truncated(_noise(len(wanted), generator.config.z_dim, 1))
    one_hot = torch.eye(len(labels))[wanted]
    made = features(judge, _in_chunks(lambda part: generator(z[part], one_hot[part], 0.7), len(z)))
    real = seen.split([int((found[rows] == place).sum()) for place in range(len(labels))])
    real = torch.stack([part[:each] for part in real if len(part) >= each])
    return {
        "class_accuracy": watch.accuracy(classifier, made, wanted),
        "class_accuracy_real": watch.accuracy(classifier, unseen, torch.from_numpy(kept_found[kept_rows])),
        "diversity": watch.diversity(made.unflatten(0, (-1, each))) / watch.diversity(real),
        **_watched(judge, made, unseen, shown.pictures, np.flatnonzero(found >= 0)),
    }


def _plain_scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    generator: gan.DCGANGenerator = parts["dcgan-pocket"]
    judge: CLIP = workshop.parts("clip-rn-pocket")
    shown, kept = drain(training_pictures(workshop)), held_out(workshop)
    z = _noise(512, generator.config.z_dim, 1)
    made = features(judge, _in_chunks(lambda part: generator(z[part]), len(z)))
    unseen = features(judge, to_pixels(shrunk(kept.pictures[_some(len(kept), 512)])))
    scores = _watched(judge, made, unseen, shown.pictures, np.arange(len(shown)))
    return {"diversity": watch.diversity(made[None]) / watch.diversity(unseen[None]), **scores}


def _text_scores(workshop: Workshop, parts: Mapping[str, Any]) -> dict[str, float]:
    generator: textgan.TextGenerator = parts["textgan-pocket"]
    judge, clip = workshop.parts("clip-rn-pocket"), workshop.parts("clip-pocket")
    file = workshop.part_files("bpe-pocket")
    shown, kept = drain(training_pictures(workshop)), held_out(workshop)
    captions, where = distinct(kept.captions)
    chosen = _some(len(captions), 200)
    texts, each = [captions[i] for i in chosen], 4
    with torch.no_grad():
        tokens, vector = encode_text(clip, Tokenizer.from_file(file, LENGTH), texts)
        ids, _ = Tokenizer.from_file(file, judge.config.text.length).encode(texts)
        read = F.normalize(judge.text(ids)[1], dim=-1)
    which = torch.arange(len(texts)).repeat_interleave(each)
    z = _noise(len(which), generator.config.z_dim, 1)
    made = features(
        judge, _in_chunks(lambda part: generator(z[part], vector[which[part]], tokens[which[part]]), len(z))
    )
    unseen = features(judge, to_pixels(shrunk(kept.pictures[np.sort(np.flatnonzero(np.isin(where, chosen))[:600])])))
    # R-precision: is its own text the nearest of 100, the other 99 being the others next to it in the list?
    near = made @ read.T
    others = (which[:, None] + torch.arange(1, min(100, len(texts)))[None]) % len(texts)
    hits = (near.gather(1, which[:, None]) > near.gather(1, others)).all(1)
    scores = _watched(judge, made, unseen, shown.pictures, np.arange(len(shown)))
    spread = watch.diversity(made.unflatten(0, (-1, each))) / watch.diversity(unseen[None])
    return {"r_precision": float(hits.float().mean()), "diversity": spread, **scores}


def _sheet(pixels: Pixels) -> Any:
    return sheet(to_images(pixels), columns=12, side=SIDE)


def _text_samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    generator: textgan.TextGenerator = parts["textgan-pocket"]
    clip = workshop.parts("clip-pocket")
    tokenizer = Tokenizer.from_file(workshop.part_files("bpe-pocket"), LENGTH)
    texts = [prompt for prompt in PROMPTS for _ in range(6)]
    tokens, vector = encode_text(clip, tokenizer, texts)
    return _sheet(generator(_noise(len(texts), generator.config.z_dim, 0), vector, tokens))


def _class_samples(workshop: Workshop, parts: Mapping[str, Any]) -> Any:
    generator: biggan.BigGAN = parts["biggan-pocket"]
    count = generator.config.num_classes
    z = 0.7 * biggan.truncated(_noise(6 * count, generator.config.z_dim, 0))
    return _sheet(generator(z, torch.eye(count).repeat_interleave(6, 0), 0.7))


def _standing(name: str) -> Callable[[Workshop, Mapping[str, Any]], None]:
    """Measure the norms of a finished generator."""

    def finish(workshop: Workshop, parts: Mapping[str, Any]) -> None:
        generator = parts[name]
        size, classes = generator.config.z_dim, getattr(generator.config, "num_classes", 0)

        def draw(truncation: float, number: int) -> object:
            z = _noise(128, size, 10_000 + number)
            if not classes:
                return generator(z)
            told = torch.eye(classes)[torch.arange(128 * number, 128 * (number + 1)) % classes]
            return generator(truncation * biggan.truncated(z), told, truncation)

        measure(generator, getattr(generator.config, "rows", 1), draw)

    return finish


SEEN_BY_CLIP: Final = 3
"""Blocks of clip-pocket whose patches a judge looks at."""


def eyes(workshop: Workshop, told: int = 0) -> projected.Projected:
    """A judge that sees through vae-pocket, which tells strokes, and clip-pocket, which tells things."""
    clip: CLIP = workshop.parts("clip-pocket")
    vae: AutoencoderKL = workshop.parts("vae-pocket")
    encoder = vae.encoder

    def see(pixels: Pixels) -> list[Tensor]:
        patches = (each[:, 1:].transpose(1, 2) for each in appearance(clip, pixels, SEEN_BY_CLIP))
        maps = [each.unflatten(2, (int(each.shape[2] ** 0.5), -1)) for each in patches]
        x = encoder.conv_in(F.pixel_unshuffle(pixels, vae.config.patch))
        for level in encoder.levels:
            maps.append(x)
            x = level(x)
        return [*maps, x]

    with torch.no_grad():
        channels = tuple(each.shape[1] for each in see(torch.zeros(1, 3, SIDE, SIDE)))
    return channels_last(projected.Projected(projected.Config(channels=channels, told=told), see))


def channels_last(network: Any) -> Any:
    """The same network, its filters laid out as CPUs like them."""
    return network.to(memory_format=torch.channels_last)


def _dcgan(workshop: Workshop) -> Objective:
    return Adversarial(
        channels_last(gan.DCGANGenerator(gan.POCKET)),
        eyes(workshop),
        Rules(kind="hinge", policies=("colour", "translation")),
        lambda painter, z, batch: painter(z),
        name="dcgan-pocket",
    )


def _biggan(workshop: Workshop) -> Objective:
    labels, _ = classified(workshop, drain(training_pictures(workshop)).captions)
    config = replace(biggan.POCKET, num_classes=len(labels), labels=labels)
    generator = channels_last(biggan.BigGAN(config))
    judge = eyes(workshop, len(labels))
    # Of a row with a single 1 the network's own start makes an eighth of the noise's loudness, and no class was heard
    # for 1,400 steps; as loud as the noise, it drowned it.
    torch.nn.init.normal_(generator.embeddings.weight, std=0.5)
    # The first layer hears them so; norms, of which every picture's channels would be multiplied and turned round at
    # random dozens of times, are at first hardly told.
    for module in generator.modules():
        if isinstance(module, biggan.ConditionalNorm):
            for layer in (module.scale, module.offset):
                torch.nn.init.orthogonal_(layer.weight, gain=0.1)
    return Adversarial(
        generator,
        judge,
        # No holes are cut: pictures have white grounds, and white holes were soon painted with them.
        Rules(kind="hinge", policies=("translation",), mismatched=0.5, guidance=0.4, seeking=0.1),
        lambda painter, z, batch: painter(z, batch["classes"]),
        name="biggan-pocket",
        told="classes",
        guide=_class_guide(workshop, labels),
    )


def _class_guide(workshop: Workshop, labels: Sequence[str]) -> Guide:
    """A classifier of what clip-pocket sees, fitted on training pictures.

    CLIP's own opinion of the classes' names recognises 30 % of real pictures, for captions tell colours and styles
    besides; this does 63 %.
    """
    clip: CLIP = workshop.parts("clip-pocket")
    shown = drain(training_pictures(workshop))
    _, found = classified(workshop, shown.captions, labels)
    rows = _of_each(found, len(labels), seed=1)
    seen = features(clip, to_pixels(shrunk(shown.pictures[rows])))
    return ClassGuide(clip, watch.Probe.fit(seen, torch.from_numpy(found[rows]), len(labels)))


def _of_each(found: NDArray[np.int64], classes: int, seed: int, most: int = 100) -> NDArray[np.int64]:
    """Rows of some pictures of each class."""
    rng = np.random.default_rng(seed)
    return np.sort(np.concatenate([rng.permutation(np.flatnonzero(found == each))[:most] for each in range(classes)]))


def _textgan(workshop: Workshop) -> Objective:
    clip: CLIP = workshop.parts("clip-pocket")
    return Adversarial(
        channels_last(textgan.TextGenerator(textgan.POCKET)),
        channels_last(discriminator.Discriminator(discriminator.Config(told=textgan.POCKET.vector))),
        # Colours are said in captions: they are not changed.
        Rules(kind="hinge", penalty="matching", weight=2.0, policies=("translation",), mismatched=0.5, guidance=1.0),
        lambda painter, z, batch: painter(z, batch["vector"], batch["tokens"]),
        name="textgan-pocket",
        told="vector",
        guide=ClipGuide(clip),
    )


CONTEST: Final = Optimizer(lr=4e-4, betas=(0.0, 0.99), weight_decay=0.0, warmup=100, clip=10.0)
"""No momentum: what the other side does next makes yesterday's direction wrong."""
EYED: Final = replace(CONTEST, lr=1e-3)
"""Against a judge that sees from the first step on, which does not run away from a painter that learns faster."""


def dcgan_pocket() -> Recipe:
    """Some 50 pictures a second and core; figures as recorded in the part's provenance."""
    return Recipe(
        name="dcgan-pocket",
        about="DCGAN's generator, told nothing, 64x64, against a judge on features of clip-pocket and vae-pocket",
        objective=_dcgan,
        feed=_plain_feed,
        steps=6_000,
        batch=32,
        optimizer=EYED,
        ema=0.998,
        every=Every(sample=1000, checkpoint=500),
        samples=lambda workshop, parts: _sheet(parts["dcgan-pocket"](_noise(96, gan.POCKET.z_dim, 0))),
        scores=_plain_scores,
        finish=_standing("dcgan-pocket"),
    )


def biggan_pocket() -> Recipe:
    """Some 20 pictures a second and core; figures as recorded in the part's provenance."""
    return Recipe(
        name="biggan-pocket",
        about="BigGAN-deep's generator, told one of some forty kinds of thing, 64x64, hinge loss, a classifier's say",
        objective=_biggan,
        feed=_class_feed,
        steps=4_500,
        batch=32,
        optimizer=EYED,
        ema=0.998,
        every=Every(sample=1000, checkpoint=500),
        samples=_class_samples,
        scores=_class_scores,
        finish=_standing("biggan-pocket"),
    )


def textgan_pocket() -> Recipe:
    """Forty minutes on two cores (some 45 pictures a second); figures as recorded in the part's provenance."""
    return Recipe(
        name="textgan-pocket",
        about="a generator that reads captions through clip-pocket, 64x64, matching-aware hinge loss, CLIP's opinion",
        objective=_textgan,
        feed=_text_feed,
        steps=3_200,
        batch=32,
        optimizer=CONTEST,
        ema=0.998,
        every=Every(sample=1000, checkpoint=500),
        samples=_text_samples,
        scores=_text_scores,
    )
