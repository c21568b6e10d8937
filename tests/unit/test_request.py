import json
import subprocess
import sys
from dataclasses import dataclass, field

import pytest
from PIL import Image

from mindseye.errors import LimitError, MindseyeError, OptionError, PromptError, SizeError
from mindseye.request import (
    DEFAULT,
    LONGEST_PROMPT,
    SEEDS,
    Progress,
    Request,
    drain,
    fingerprint,
    from_json,
    resolve,
    round_size,
    to_json,
)


@dataclass(frozen=True)
class Card:
    native: tuple = (128, 96)
    multiple: int = 32
    defaults: dict = field(default_factory=lambda: {"steps": 25, "guidance": 4.0, "sampler": "euler"})
    options: dict = field(default_factory=lambda: {"shift": 3.0, "karras": True})


def refuse(path, sha256):
    raise AssertionError("no picture was stored")


def test_open_fields_come_from_the_card_and_set_fields_stay():
    resolved, notices = resolve(Request(prompt="a fox", steps=7, options={"shift": 1.0}), Card(), seed=42)
    assert resolved == Request(
        prompt="a fox", model=DEFAULT, size=(128, 96), count=1, seed=42, steps=7, guidance=4.0, sampler="euler",
        candidates=1, options={"shift": 1.0, "karras": True},
    )  # fmt: skip
    assert notices == ()


def test_seed_zero_and_guidance_zero_are_wishes_not_gaps():
    resolved, _ = resolve(Request(prompt="a fox", seed=0, guidance=0.0), Card(), seed=42)
    assert (resolved.seed, resolved.guidance) == (0, 0.0)


def test_resolving_twice_changes_nothing():
    once, _ = resolve(Request(prompt="a fox", size=(100, 100)), Card(), seed=1)
    assert resolve(once, Card(), seed=2) == (once, ())


@pytest.mark.parametrize(
    ("asked", "drawn"),
    [((64, 64), (64, 64)), ((100, 50), (96, 64)), ((1, 1), (32, 32)), ((80, 48), (96, 64)), ((79, 47), (64, 32))],
)
def test_size_is_rounded_to_the_nearest_multiple_and_said(asked, drawn):
    size, said = round_size(asked, 32)
    assert size == drawn
    assert bool(said) == (asked != drawn)
    assert not said or (f"{asked[0]}x{asked[1]}" in said[0] and "multiples of 32" in said[0])


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"prompt": "  "}, PromptError),
        ({"prompt": "a\0b"}, PromptError),
        ({"prompt": "a \udcff"}, PromptError),
        ({"negative": "\udcff"}, PromptError),
        ({"prompt": "a" * (LONGEST_PROMPT + 1)}, LimitError),
        ({"count": 0}, OptionError),
        ({"steps": 0}, OptionError),
        ({"guidance": -1.0}, OptionError),
        ({"guidance": float("nan")}, OptionError),
        ({"strength": 1.5}, OptionError),
        ({"seed": -1}, OptionError),
        ({"seed": SEEDS - 1, "count": 2}, OptionError),
        ({"size": (0, 64)}, SizeError),
        ({"mask": Image.new("L", (4, 4))}, OptionError),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, dict) else given.__name__,
)
def test_what_no_system_can_draw_is_refused(changes, kind):
    with pytest.raises(kind):
        resolve(Request(**{"prompt": "a fox", **changes}), Card(), seed=0)


def test_every_seed_below_the_last_is_accepted():
    resolved, _ = resolve(Request(prompt="x", seed=SEEDS - 2, count=2), Card(), seed=0)
    assert resolved.seed == SEEDS - 2


def test_a_picture_of_another_shape_and_a_mask_of_another_size_are_said():
    request = Request(prompt="x", image=Image.new("RGB", (50, 50)), mask=Image.new("L", (10, 10)))
    _, notices = resolve(request, Card(), seed=0)
    assert "50x50" in notices[0] and "128x96" in notices[0]
    assert "the mask is 10x10" in notices[1]


def test_json_round_trip_through_text():
    request, _ = resolve(
        Request(prompt='a "fox", é\n', negative="b: c", options={"name": "x", "flag": False, "n": 3}),
        Card(),
        seed=2**62,
    )
    assert from_json(json.loads(json.dumps(to_json(request))), refuse) == request


def test_json_names_pictures_by_path_and_fingerprint():
    image = Image.new("RGB", (3, 2), "red")
    image.info["path"] = "in.png"
    plain = to_json(Request(prompt="x", image=image))
    assert plain["image"] == {"path": "in.png", "sha256": fingerprint(image)}
    assert "mask" not in plain
    asked = []
    back = from_json(plain, lambda path, sha256: asked.append((path, sha256)) or image)
    assert back.image is image and asked == [("in.png", fingerprint(image))]


def test_fingerprint_is_of_what_is_seen():
    red = Image.new("RGB", (4, 2), "red")
    assert fingerprint(red) == fingerprint(red.convert("RGBA"))
    assert fingerprint(red) != fingerprint(Image.new("RGB", (2, 4), "red"))
    assert fingerprint(red) != fingerprint(Image.new("RGB", (4, 2), "blue"))


@pytest.mark.parametrize(
    "plain",
    [
        {},
        {"prompt": 3},
        {"prompt": "x", "steps": "7"},
        {"prompt": "x", "steps": True},
        {"prompt": "x", "size": [1, 2, 3]},
        {"prompt": "x", "size": "big"},
        {"prompt": "x", "options": {"a": []}},
        {"prompt": "x", "colour": "red"},
        {"prompt": "x", "image": "/etc/passwd"},
    ],
    ids=str,
)
def test_a_stored_request_that_is_not_understood_is_refused(plain):
    with pytest.raises(MindseyeError):
        from_json(plain, refuse)


def test_drain_gives_the_value_and_closes_the_generator_when_the_callback_fails():
    closed = []

    def steps():
        try:
            for step in range(3):
                yield Progress("s", step, 3, tuple)
            return "done"
        finally:
            closed.append(True)

    seen = []
    assert drain(steps(), lambda progress: seen.append(progress.step)) == "done"
    assert seen == [0, 1, 2]

    def stop(progress):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(steps(), stop)
    assert closed == [True, True]


def test_the_light_half_imports_neither_torch_nor_pillow():
    code = (
        "import sys, mindseye, mindseye.request, mindseye.errors, mindseye.zoo, mindseye.cli.main\n"
        "heavy = {'torch', 'PIL', 'numpy', 'tokenizers', 'safetensors', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
