"""Names of classes in prompts."""

import subprocess
import sys

import pytest

from mindseye.text.classes import imagenet, known_as, likely, named, place_of, title, told

LABELS = ("cat", "dog", "moon", "full moon", "")


def titles(places):
    return [title(imagenet()[place]) for place in places]


def test_imagenets_classes_are_in_its_order():
    names = imagenet()
    assert len(names) == 1000 and all(names)
    # Numbers that everybody knows by heart, from the first to the last.
    for place, name in {0: "tench", 1: "goldfish", 207: "golden retriever", 483: "castle", 980: "volcano"}.items():
        assert title(names[place]) == name
    assert names[999] == "toilet tissue|toilet paper|bathroom tissue"
    assert known_as((), 1000) == names and known_as((), 33) == () and known_as(["a"], 1000) == ("a",)


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("a castle in the clouds", ["castle"]), ("two goldfishes", ["goldfish"]),
        ("Golden Retrievers", ["golden retriever"]),
        ("a St. Bernard", ["Saint Bernard"]), ("toilet paper", ["toilet tissue"]), ("a red thing", []),
        ("a castle beside a volcano, a castle", ["castle", "volcano"]), ("a tiger cat", ["tiger cat"]),
    ],
)  # fmt: skip
def test_the_classes_that_a_prompt_names(prompt, found):
    assert titles(named(prompt, imagenet())) == found


def test_the_longer_name_counts_and_of_two_alike_the_first():
    assert named("a full moon", LABELS) == [3] and named("the moon, a full moon", LABELS) == [2, 3]
    assert named("a goldfish in moonlight", LABELS) == [] and named("", LABELS) == [] and named("a cat", ()) == []
    assert named("a crane", imagenet()) == [134]
    # Called so first, not also.
    assert named("x", ("a|x", "x")) == [1]


def test_what_a_prompt_may_mean_that_names_none():
    dogs = titles(likely("a dog", imagenet()))
    assert dogs[0] == "Maltese dog" and len(dogs) > 2
    assert titles(likely("a goldfsh", imagenet())) == ["goldfish"]
    for prompt in ("a house", "a planet", "something else", ""):
        assert likely(prompt, imagenet()) == []
    assert likely("full moons", ("blue moon",)) == [0]


def test_a_class_by_name_or_number():
    assert [place_of(name, LABELS, 5) for name in ("Dog", " full  moon ", "4", "5", "-1", "fox")] == [
        1,
        3,
        4,
        None,
        None,
        None,
    ]
    assert place_of("7", ("7",), 9) == 0


def test_no_torch():
    code = "import sys, mindseye.text.classes as c; c.imagenet(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_critic_reads_for_a_class():
    """Its first name with an article, unless it is a text that has one."""
    assert [told(label) for label in ("cat|kitty", "a red square", "The sea")] == ["a cat", "a red square", "The sea"]
