import gc
import sys
import weakref

import pytest
import torch
from PIL import Image

import mindseye
from mindseye.engine.engine import Engine, Limits
from mindseye.errors import LimitError, MemoryShort, UnknownName, WeightsError, WeightsMissing
from mindseye.request import Request
from mindseye.zoo import File


@pytest.fixture
def engine(painter):
    return Engine(device="cpu", cards=[painter])


def ask(**changes):
    return Request(**{"prompt": "a red fox", "model": "painter", "seed": 5, **changes})


def pixels(image):
    return torch.tensor(list(image.tobytes()))


def test_a_result_says_all_that_was_open(engine):
    result = engine.generate(ask(seed=None, count=2, options={"tint": "0.25"}))
    assert [image.size for image in result.images] == [(16, 16)] * 2
    request = result.request
    assert (request.steps, request.sampler, request.size) == (3, "euler", (16, 16))
    assert request.options == {"tint": 0.25, "grain": 1, "frame": False, "mood": "calm", "break_": ""}
    assert result.seeds == (request.seed, request.seed + 1)
    assert result.seconds > 0


def test_the_resolved_request_draws_the_same_again(engine):
    first = engine.generate(ask(seed=None))
    second = engine.generate(first.request)
    assert first.images[0].tobytes() == second.images[0].tobytes()
    assert engine.generate(ask(seed=None)).images[0].tobytes() != first.images[0].tobytes()


def test_picture_n_does_not_depend_on_the_batch(engine, monkeypatch):
    together = engine.generate(ask(count=5))
    alone = [engine.generate(ask(seed=5 + n)).images[0] for n in range(5)]
    assert [image.tobytes() for image in together.images] == [image.tobytes() for image in alone]
    monkeypatch.setattr("mindseye.engine.engine._CHUNK_PIXELS", {"cpu": 2 * 16 * 16})
    cut = engine.generate(ask(count=5))
    assert engine.load("painter").batches[-3:] == [2, 2, 1]
    assert engine.load("painter").asked[-3:] == [(5, 2), (7, 2), (9, 1)]
    assert [image.tobytes() for image in together.images] == [image.tobytes() for image in cut.images]


def test_progress_counts_all_pictures(engine, monkeypatch):
    monkeypatch.setattr("mindseye.engine.engine._CHUNK_PIXELS", {"cpu": 2 * 16 * 16})
    seen = []
    engine.generate(ask(count=4, steps=2), seen.append)
    painted = [(each.step, each.total) for each in seen if each.stage == "paint"]
    assert painted == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[0].stage == "load"
    assert seen[-1].peek()[0].size == (16, 16)


def test_out_of_memory_is_met_with_smaller_batches_and_the_same_pictures(engine):
    whole = engine.generate(ask(count=5))
    engine.load("painter").batches.clear()
    result = engine.generate(ask(count=5, options={"break_": "oom"}))
    assert engine.load("painter").batches == [5, 2, 2, 1]
    assert [a.tobytes() for a in result.images] == [b.tobytes() for b in whole.images]


def test_out_of_memory_for_one_picture_is_a_sentence(engine, monkeypatch):
    def fail(request, options, noise):
        raise torch.OutOfMemoryError("no")
        yield

    monkeypatch.setattr(engine.load("painter"), "synthesize", fail)
    with pytest.raises(MemoryShort, match="16x16") as caught:
        engine.generate(ask())
    assert "--size" in caught.value.hint


def test_other_failures_are_not_mistaken_for_it(engine):
    with pytest.raises(RuntimeError, match="a bug"):
        engine.generate(ask(options={"break_": "bug"}))


def test_nan_is_a_sentence_not_a_black_picture(engine):
    with pytest.raises(WeightsError, match="not finite"):
        engine.generate(ask(options={"break_": "nan"}))


def test_closing_a_run_closes_the_system_and_frees_it(engine):
    system = type(engine.load("painter"))
    steps = engine.stream(ask(steps=50))
    held = weakref.ref(steps)
    for _ in range(3):
        progress = next(steps)
    assert progress.stage == "paint"
    steps.close()
    assert system.closed == 1
    del steps, progress
    gc.collect()
    assert held() is None
    assert engine.generate(ask()).images


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"size": (64, 64)}, "64x64 = 4,096"),
        ({"steps": 11}, "steps: 11"),
        ({"count": 4}, "pictures: 4"),
    ],
)
def test_limits_hold_before_anything_is_loaded(painter, changes, says):
    engine = Engine(device="cpu", cards=[painter], limits=Limits(pixels=1024, steps=10, count=3))
    with pytest.raises(LimitError, match=says):
        next(engine.stream(ask(**changes)))
    assert engine._systems == {}


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [({"model": "paniter"}, "painter"), ({"sampler": "eular"}, "euler"), ({"options": {"tnit": 1}}, "tint")],
)
def test_unknown_names_come_with_the_nearest(engine, changes, nearest):
    with pytest.raises(UnknownName) as caught:
        engine.generate(ask(**changes))
    assert caught.value.nearest == nearest


def test_notices_are_collected(engine):
    result = engine.generate(ask(prompt="one two three four", size=(17, 16)))
    assert len(result.notices) == 2
    assert "rounded to 16x16" in result.notices[0] and "prompt cut" in result.notices[1]


def test_a_mask_of_another_size_reaches_the_system_at_the_pictures_size(engine, monkeypatch):
    seen = []
    system = engine.load("painter")
    draw = system.synthesize
    monkeypatch.setattr(system, "synthesize", lambda request, *rest: seen.append(request) or draw(request, *rest))
    result = engine.generate(ask(image=Image.new("RGB", (20, 20)), mask=Image.new("L", (9, 9))))
    assert seen[0].mask.size == (20, 20)
    assert result.request.mask.size == (9, 9)


def test_a_missing_weights_file_is_a_sentence(painter_card, tmp_path):
    card = painter_card(name="absent", parts={"unet": File(tmp_path / "unet.safetensors")})
    with pytest.raises(WeightsMissing, match=r"unet\.safetensors"):
        Engine(device="cpu", cards=[card]).load("absent")


def test_a_system_built_elsewhere_can_be_handed_in(painter_card):
    engine = Engine(device="cpu", cards=[])
    mine = sys.modules["painter_for_tests"].Painter()
    engine.add(painter_card(name="mine"), mine)
    engine.generate(ask(model="mine"))
    assert mine.batches == [1]


def test_the_package_level_functions_share_one_engine(painter):
    result = mindseye.generate("a red fox", seed=5, count=2, model="painter")
    assert len(result.images) == 2
    assert mindseye.load("painter") is mindseye.load("painter")
    again = mindseye.generate(mindseye.Request(prompt="a red fox", seed=5, model="painter"))
    assert again.images[0].tobytes() == result.images[0].tobytes()


def test_public_names_are_these_and_all_of_them_exist():
    assert mindseye.__all__ == [
        "Engine", "Limits", "MindseyeError", "Progress", "Request", "Result", "__version__", "generate", "load",
        "models", "stream",
    ]  # fmt: skip
    assert all(getattr(mindseye, name) is not None for name in mindseye.__all__)
    assert set(mindseye.__all__) == set(dir(mindseye))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = mindseye.nonsense
