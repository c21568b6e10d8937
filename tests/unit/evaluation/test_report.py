"""The whole evaluation, of painters that are perfect, blind or copying, by a judge that reads shades of grey."""

import io
import json
import math
import re
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from rich.console import Console

from mindseye.data.colours import COLOURS
from mindseye.data.scenes import MOTIONS
from mindseye.data.shapes import coverage
from mindseye.evaluation import plan, report, words
from mindseye.evaluation.album import Album
from mindseye.evaluation.drawing import Painter
from mindseye.evaluation.figures import Report, Row
from mindseye.evaluation.intervals import Estimate
from mindseye.evaluation.motion import OPPOSITES, Clips, motion
from mindseye.evaluation.strips import LONG, Strips
from mindseye.request import drain

PLAN = plan.Plan(
    full=plan.Sizes(pairs=24),
    quick=plan.Sizes(pairs=24, concepts=12, repeats=1, relations=8, training=300),
    bars={"colour_shape": plan.Bar(0.75, 0.95), "r_precision_pairs": plan.Bar(0.5)},
    seconds=60,
)
SPOTS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}


def shaded(shade, seed=0):
    """A flat picture of one shade, with a faint pattern that the seed decides."""
    grain = np.random.default_rng(seed).integers(-9, 10, (16, 16, 1)).clip(-shade, 255 - shade)
    return Image.fromarray((shade + grain).repeat(3, 2).astype(np.uint8))


def shapes(*things):
    canvas = np.full((128, 128, 3), 255.0)
    for colour, shape, x, y in things:
        alpha = coverage(shape, (x * 128, y * 128), 22, 128)[..., None]
        canvas = canvas * (1 - alpha) + alpha * np.array(COLOURS[colour])
    return Image.fromarray(canvas.round().astype(np.uint8))


def obey(prompt, seed):
    """Paint exactly what a caption says."""
    if match := re.fullmatch(r"shade (\d+)", prompt):
        return shaded(int(match[1]), seed)
    if match := report._RELATION.match(prompt):
        dx, dy = SPOTS[match["where"]]
        one = (match["colour1"], match["shape1"], 0.5 + 0.25 * dx, 0.5 + 0.25 * dy)
        other = (match["colour2"], match["shape2"], 0.5 - 0.25 * dx, 0.5 - 0.25 * dy)
        return shapes(one, other)
    _, colour, shape = prompt.split()
    return shapes((colour, shape, 0.5, 0.5))


@dataclass(frozen=True)
class Example:
    caption: str
    seed: int

    def picture(self):
        return obey(self.caption, self.seed)


class Corpus:
    """Shades 0 to 255; every second one is held out."""

    relations = (
        "a red circle to the left of a blue square",
        "an orange star right of a green ring on a white background",
        "a black heart above a cyan cross",
        "a pink diamond below a brown hexagon",
        "a pink diamond next to a brown hexagon",
        "a fox left of an owl",
    )

    def held_out(self, split, seed=0):
        if split == "relations":
            return [Example(caption, 0) for caption in self.relations]
        start = 0 if split == "pairs" else 1
        return [Example(f"shade {shade}", 5_000 + shade) for shade in range(start, 256, 4)]

    def train_examples(self, count, seed=0):
        return [Example(f"shade {i % 128 * 2 + 1}", 10_000 + i) for i in range(count)]


class Judge:
    """Puts a picture's mean shade, and a caption's number, on a half circle."""

    size = 16

    def embed_text(self, prompts):
        return self.place(torch.tensor([float(prompt.split()[-1]) for prompt in prompts]))

    def embed_image(self, pixels):
        return self.place((pixels.mean((1, 2, 3)) + 1) * 127.5)

    @staticmethod
    def place(shade):
        angle = shade / 255 * math.pi
        return torch.stack([angle.cos(), angle.sin()], 1)


def shrink(patch):
    patch.setattr(report, "ASKED_COLOURS", ("red", "orange", "blue"))
    patch.setattr(report, "ASKED_SHAPES", ("circle", "star"))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    shrink(monkeypatch)


def measure(draw, **options):
    calls, stages = [], []

    def generate(prompts, seeds):
        calls.append((list(prompts), list(seeds)))
        return [draw(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    given = {"plan": PLAN, "quick": True, "batch": 8, **options}
    steps = report.evaluate("a-card", generate, Corpus(), Judge(), **given)
    return drain(steps, lambda progress: stages.append(progress)), calls, stages


def figures(result):
    return {row.key: row for row in result.rows}


@pytest.fixture(scope="module")
def obedient():
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        return measure(obey, facts={"steps": 20})


def test_a_painter_that_obeys_gets_full_marks(obedient):
    rows = figures(obedient[0])
    for key in ("r_precision_pairs", "r_precision_concepts", "colour_shape", "relations"):
        assert rows[key].estimate.value == 1, rows[key]
    assert rows["r_precision_pairs"].real == rows["relations"].real == rows["judge_top5"].estimate.value == 1
    assert rows["clip_score_pairs"].estimate.value == pytest.approx(2.5, abs=0.01)
    assert rows["copies_pixels"].estimate.value <= 0.1
    assert rows["precision"].estimate.value > 0.8
    assert rows["frechet"].estimate.value < 0.1


def test_every_figure_says_how_many_pictures_and_the_unreadable_relations_are_left_out(obedient):
    rows = figures(obedient[0])
    counts = {key: row.estimate.n for key, row in rows.items()}
    assert counts["r_precision_pairs"] == counts["frechet"] == counts["copies_features"] == 24
    assert counts["r_precision_concepts"] == 12
    assert counts["colour_shape"] == 6
    assert counts["relations"] == 4
    assert "among 64 captions" in rows["r_precision_pairs"].label  # as many as the split has, and so it says
    assert rows["seconds"].estimate.value > 0


def test_every_picture_has_its_own_seed_and_every_batch_is_reported(obedient):
    _, calls, stages = obedient
    seeds = [seed for _, part in calls for seed in part]
    assert len(set(seeds)) == len(seeds) == 24 + 12 + 6 + 4
    assert max(len(prompts) for prompts, _ in calls) == 8
    drawn = [progress for progress in stages if progress.stage == "colour and shape"]
    assert [(progress.step, progress.total) for progress in drawn][-1] == (6, 6)
    assert len(drawn[0].peek()) == 6
    assert {"pairs", "concepts", "relations", "training pictures"} <= {progress.stage for progress in stages}


def test_the_pictures_are_kept_with_their_verdicts(obedient):
    result = obedient[0]
    assert set(result.drawn) == {"pairs", "concepts", "colour and shape", "relations"}
    prompt, made, right = result.drawn["colour and shape"][0]
    assert (prompt, right) == ("a red circle", True)
    assert made.size == (128, 128)
    assert any(prompt == "an orange star" for prompt, *_ in result.drawn["colour and shape"])
    assert len(result.suspects) == 16
    assert result.suspects[0][2] <= result.suspects[1][2]


def test_json_holds_every_figure(obedient):
    read = json.loads(obedient[0].json())
    assert (read["card"], read["quick"], read["facts"]) == ("a-card", True, {"steps": 20})
    figure = read["figures"]["colour_shape"]
    assert (figure["value"], figure["high"], figure["n"], figure["at_least"]) == (1.0, 1.0, 6, 0.75)
    assert figure["low"] == pytest.approx(0.6097, abs=1e-3)
    assert read["figures"]["precision"]["low"] is None


def test_the_same_seed_asks_the_same(obedient):
    _, calls, _ = measure(obey)
    assert calls == obedient[1]
    _, other, _ = measure(obey, seed=9)
    assert [prompts for prompts, _ in other[:3]] != [prompts for prompts, _ in calls[:3]]


def test_a_blind_painter_gets_what_chance_gives():
    rows = figures(measure(lambda prompt, seed: shaded(seed * 37 % 256, seed))[0])
    assert rows["r_precision_pairs"].estimate.value < 0.2
    assert rows["colour_shape"].estimate.value == rows["relations"].estimate.value == 0
    assert rows["relations"].real == 1


def test_a_painter_of_one_picture_covers_nothing():
    rows = figures(measure(lambda prompt, seed: shaded(128, seed))[0])
    assert rows["recall"].estimate.value < 0.1
    assert rows["frechet"].estimate.value > 10 * rows["frechet"].real


def test_a_copying_painter_is_caught():
    training = Corpus().train_examples(300)
    result = measure(lambda prompt, seed: training[seed % 300].picture())[0]
    rows = figures(result)
    assert rows["copies_pixels"].estimate.value == 1
    assert rows["copies_pixels"].real < 0.05
    made, original, ratio = next(pair for pair in reversed(result.suspects))
    assert ratio == 0
    assert made.tobytes() == original.tobytes()


def test_right_shape_in_the_wrong_colour_is_half_right():
    result = measure(
        lambda prompt, seed: obey(
            re.sub(r"(?<=^a )\w+(?= \w+$)|(?<=^an )\w+(?= \w+$)", "gray", prompt) if "shade" not in prompt else prompt,
            seed,
        )
    )[0]
    row = figures(result)["colour_shape"]
    assert row.estimate.value == 0
    assert "the colour 0%, the shape 100%" in row.note


def test_a_corpus_without_held_out_pictures_is_measured_as_far_as_it_goes():
    class Bare(Corpus):
        def held_out(self, split, seed=0):
            return []

    steps = report.evaluate(
        "bare", lambda p, s: [obey(*each) for each in zip(p, s, strict=True)], Bare(), Judge(), True, plan=PLAN
    )
    assert list(figures(drain(steps))) == ["colour_shape", "seconds"]


def test_a_painter_that_returns_too_few_is_an_error():
    with pytest.raises(ValueError, match="8 pictures were asked for and 1 drawn"):
        drain(report.evaluate("x", lambda p, s: [shaded(1)], Corpus(), Judge(), True, plan=PLAN, batch=8))


def test_closing_early_stops():
    steps = report.evaluate(
        "x", lambda p, s: [obey(*each) for each in zip(p, s, strict=True)], Corpus(), Judge(), True, plan=PLAN
    )
    next(steps)
    steps.close()
    with pytest.raises(StopIteration):
        next(steps)


class Fooled(Judge):
    """Finds every picture right that its own painter made: it reads a caption's number off the picture's corner."""

    def embed_image(self, pixels):
        return self.place((pixels[:, :, 0, 0].mean(1) + 1) * 127.5)


def signed(prompt, seed):
    """A picture of any shade, with what was asked written into the corner."""
    picture = shaded(seed * 37 % 256, seed) if "shade" in prompt else obey(prompt, seed)
    if "shade" in prompt:
        picture.paste((int(prompt.split()[1]),) * 3, (0, 0, 1, 1))
    return picture


def test_the_critic_that_guided_stands_beside_the_judge():
    sizes = plan.Plan(full=plan.Sizes(pairs=24), quick=plan.Sizes(pairs=24))
    rows = figures(measure(signed, plan=sizes, critic=Fooled())[0])
    assert set(rows) >= {"r_precision_pairs", "clip_score_pairs", "seconds"} and "relations" not in rows
    assert rows["r_precision_pairs"].critic == 1 and rows["r_precision_pairs"].estimate.value < 0.2
    assert rows["clip_score_pairs"].critic > rows["clip_score_pairs"].estimate.value
    assert rows["frechet"].critic is None


def test_bars_are_the_plans():
    rows = figures(measure(obey, plan=PLAN, quick=False)[0])
    assert (rows["r_precision_pairs"].at_least, rows["seconds"].at_most) == (0.5, 60)
    assert "colour_shape" not in rows and rows["clip_score_pairs"].at_least is None


def test_what_was_drawn_is_not_drawn_again(tmp_path):
    album = Album(tmp_path, {"card": "x"})
    first, calls, _ = measure(obey, album=album)
    again, none, _ = measure(obey, album=album)
    assert calls and not none
    assert figures(again) == figures(first)
    # Half of it, as after a stop; and nothing of other conditions.
    for path in sorted(tmp_path.iterdir())[::2]:
        path.write_bytes(b"half a picture")
    third, some, _ = measure(obey, album=album)
    assert 0 < sum(len(prompts) for prompts, _ in some) < sum(len(prompts) for prompts, _ in calls)
    assert [picture.tobytes() for _, picture, _ in third.drawn["pairs"]] == [
        picture.tobytes() for _, picture, _ in first.drawn["pairs"]
    ]
    assert len(measure(obey, album=Album(tmp_path, {"card": "y"}))[1]) == len(calls)


CLASSED = plan.Plan(full=plan.Sizes(pairs=24), quick=plan.Sizes(pairs=24, classes=3))
TONES = {"dark": 40, "grey": 128, "light": 215}


def tone_of(caption):
    """The class of a shade, if it is near one."""
    near = [label for label, shade in TONES.items() if abs(int(caption.split()[-1]) - shade) < 12]
    return near[0] if near else None


@pytest.mark.parametrize("wrong", [False, True])
def test_classes_are_recognised_by_a_classifier_that_never_met_the_painter(monkeypatch, wrong):
    monkeypatch.setattr("mindseye.evaluation.recognition._kind", tone_of)
    monkeypatch.setattr("mindseye.evaluation.recognition.LOOKED", 300)

    def paint(prompt, seed):
        label = prompt.split()[-1]
        if label not in TONES:
            return obey(prompt, seed)
        return shaded(TONES["dark" if wrong else label], seed)

    rows = figures(measure(paint, plan=CLASSED, classes=("dark", "grey", "light", "unheard of"))[0])
    row = rows["classes"]
    assert row.estimate.n == 9 and row.estimate.value == pytest.approx(1 / 3 if wrong else 1)
    assert row.real == 1 and "3 classes" in row.label
    assert "classes" not in figures(measure(paint, plan=CLASSED)[0])


CHOSEN = plan.Plan(
    full=plan.Sizes(pairs=24),
    quick=plan.Sizes(pairs=24, chosen=12, combinations=2, training=40),
    bars={"choosing": plan.Bar(0.1)},
    candidates=5,
)


def guess(prompt, seed):
    """Right for every fourth seed."""
    return obey(prompt, seed) if seed % 4 == 0 else shaded(255 if int(prompt.split()[1]) < 128 else 0, seed)


def test_what_choosing_gains_is_measured_on_the_seeds_of_single_samples(monkeypatch, tmp_path):
    monkeypatch.setattr(words, "COMBINATIONS", ("shade 33", "shade 500"))
    asked, albums = [], [Album(tmp_path, {"candidates": count}) for count in (1, 5)]

    def choose(prompts, seeds):
        asked.extend(zip(prompts, seeds, strict=True))
        return [obey(prompt, seed) for prompt, seed in zip(prompts, seeds, strict=True)]

    given = {"plan": CHOSEN, "choose": Painter(choose, albums[1]), "album": albums[0], "critic": Fooled()}
    result, calls, stages = measure(guess, **given)
    rows = figures(result)
    assert "best of 5" in rows["r_precision_pairs_chosen"].label
    assert rows["r_precision_pairs_chosen"].estimate[:1] + rows["r_precision_pairs_chosen"].estimate[3:] == (1, 12)
    gain = rows["choosing"]
    assert (gain.estimate.value, gain.estimate.n, gain.at_least, gain.reached) == (0.75, 12, 0.1, True)
    assert "a single sample of the same captions 25.0%" in rows["r_precision_pairs_chosen"].note
    assert gain.critic is not None and rows["combinations"].critic is not None
    single = [pair for prompts, seeds in calls for pair in zip(prompts, seeds, strict=True)]
    assert asked[:12] == single[:12]
    # The combinations: one sample each and the best of several, with the same seeds; one of the two was trained on.
    assert asked[12:] == single[24:28] and [prompt for prompt, _ in asked[12:]] == ["shade 33"] * 2 + ["shade 500"] * 2
    assert rows["combinations_chosen"].estimate.n == rows["combinations"].estimate.n == 4
    assert "some have: shade 33" in rows["combinations"].note and '"shade 500"' in rows["combinations_chosen"].note
    assert set(result.drawn) >= {"pairs, best of 5", "unseen combinations", "unseen combinations, best of 5"}
    assert [each.total for each in stages if each.stage == "pairs, best of 5"] == [12] * 12
    again, none, _ = measure(guess, **given)
    assert not none and len(asked) == 16 and figures(again) == figures(result)


def strip(seam):
    """A painter of grey noise, every patch of it lighter by ``seam`` than the one before, or darker."""

    def paint(prompts, seeds):
        pictures = []
        for seed in seeds:
            grain = np.random.default_rng(seed).integers(100, 140, (16, 16 * LONG, 1))
            steps = np.arange(16 * LONG)[None, :, None] // 16 % 2 * seam
            pictures.append(Image.fromarray((grain + steps).repeat(3, 2).astype(np.uint8)))
        return pictures

    return Strips(Painter(paint), 16, 4)


def test_strips_without_seams_are_told_from_others():
    asked = plan.Plan(
        full=plan.Sizes(pairs=24), quick=plan.Sizes(pairs=24, strips=20), bars={"seams": plan.Bar(0.9, at_most=1.1)}
    )
    whole, cut = (measure(obey, plan=asked, strips=strip(seam))[0] for seam in (0, 30))
    row = figures(whole)["seams"]
    assert row.reached and row.estimate.low < row.estimate.value < row.estimate.high and row.estimate.n == 20
    assert 0.7 < row.real < 1.3
    assert (row.at_least, row.at_most) == (0.9, 1.1) and not figures(cut)["seams"].reached
    assert all(prompt.startswith("a row of ") for prompt, *_ in whole.drawn["strips"])
    assert "seams" not in figures(measure(obey, plan=asked)[0])


def frame_of(share):
    """A painter of one frame of clips that do as they are told: from the first, -0.5, to the last, 0.5."""

    def paint(prompts, seeds):
        pictures = []
        for prompt in prompts:
            dx, dy, growth = next(change for phrase, change in MOTIONS.items() if phrase in prompt)
            x, y, radius = (32 + 24 * share * dx, 32 + 24 * share * dy, 16 * (1 + share * growth))
            picture = Image.new("RGB", (64, 64), (240, 240, 240))
            ImageDraw.Draw(picture).ellipse((x - radius, y - radius, x + radius, y + radius), fill=(200, 30, 30))
            pictures.append(picture)
        return pictures

    return Painter(paint)


def test_clips_that_move_as_told_are_told_from_others():
    asked = plan.Plan(full=plan.Sizes(pairs=24), quick=plan.Sizes(pairs=24, clips=24))
    ways = {"right": (-0.5, 0.5), "backwards": (0.5, -0.5), "still": (0, 0)}
    found = {
        name: measure(obey, plan=asked, clips=Clips(*map(frame_of, shares), 64))[0] for name, shares in ways.items()
    }
    rows = {name: figures(each)["motion"] for name, each in found.items()}
    assert [rows[name].estimate.value for name in ways] == [1, 0, 0] and rows["right"].estimate.n == 24
    assert rows["right"].real > 0.95
    assert rows["backwards"].note.endswith("100% do the opposite") and rows["still"].note.endswith("0% do the opposite")
    assert {hit for *_, hit in found["right"].drawn["last frames"]} == {True}
    assert len(found["right"].drawn["first frames"]) == 24
    assert "motion" not in figures(measure(obey, plan=asked)[0])


@pytest.mark.parametrize("phrase", MOTIONS)
def test_what_a_thing_does_between_two_frames(phrase):
    made = [frame_of(share).generate([phrase], [0])[0] for share in (-0.5, 0.5)]
    assert motion(*made) == {phrase}
    assert motion(*made[::-1]) == {OPPOSITES[phrase]} != {phrase}
    assert motion(made[0], made[0]) == motion(made[0], Image.new("RGB", (64, 64))) == set()


EDITED = plan.Plan(full=plan.Sizes(pairs=24), quick=plan.Sizes(pairs=24, edits=8))


def halfway(phrase, seed, start):
    """The start with a little of the phrase's shade."""
    return Image.blend(start, obey(phrase, 0), 0.5)


@pytest.mark.parametrize(
    ("edit", "share", "left"),
    [
        (lambda phrase, seed, start: start, 0, 1.0),
        (lambda phrase, seed, start: obey(phrase, seed), 1, 0.5),
        (halfway, 1, 0.9),
    ],
    ids=["nothing", "a new picture", "half way"],
)
def test_an_edit_must_say_the_phrase_and_keep_the_picture(edit, share, left):
    rows = figures(measure(obey, plan=EDITED, edit=edit)[0])
    assert rows["edits"].estimate.value == share and rows["edits"].estimate.n == 8
    value = rows["edits_ssim"].estimate.value
    assert value == pytest.approx(1) if left == 1 else value < 0.5 if left == 0.5 else 0.3 < value < 1


def test_the_table_shows_figures_intervals_and_what_is_missing():
    rows = (
        Row(
            key="a",
            label="share [of all]",
            estimate=Estimate(0.5, 0.25, 0.75, 1234),
            unit="%",
            real=0.875,
            at_least=0.4,
            aim=0.9,
        ),
        Row(key="b", label="time", estimate=Estimate(1.5, 1.25, 2, 8), unit="s", note="in batches", at_most=1.0),
        Row(key="e", label="both", estimate=Estimate(0.5, 0.25, 0.75, 1), at_least=0.4, at_most=0.6),
        Row(key="d", label="fooled", estimate=Estimate(0.125, 0.1, 0.2, 8), unit="%", critic=0.96875),
        Row(key="c", label="nothing", estimate=Estimate(math.nan, math.nan, math.nan, 0)),
    )
    whole = Report(card="x", seed=3, quick=True, rows=rows, facts={}, drawn={}, suspects=())
    assert [row.reached for row in rows] == [True, False, True, True, True]
    console = Console(file=io.StringIO(), width=140)
    console.print(whole.table())
    text = console.file.getvalue()
    for said in (
        "share [of all]",
        "50.0 %",
        "25.0 % to 75.0 %",
        "1,234",
        "87.5 %",
        "1.50 s",
        "in batches",
        "at most 1.00 s",
        "0.4 to 0.6",
        "by its critic",
        "96.9 %",
        "quick",
        "seed 3",
    ):
        assert said in text, said
    assert "nan" not in text
