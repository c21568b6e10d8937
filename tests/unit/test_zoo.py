import hashlib

import pytest

from mindseye import zoo
from mindseye.errors import UnknownName


def test_the_default_card_exists():
    assert zoo.find(zoo.DEFAULT).name == zoo.DEFAULT


def test_names_are_unique():
    names = [card.name for card in zoo.ZOO]
    assert len(set(names)) == len(names)


def test_an_unknown_card_names_the_nearest():
    with pytest.raises(UnknownName, match="there is no model named 'stable-difusion'") as caught:
        zoo.find("stable-difusion")
    assert "stable-diffusion-pocket" in caught.value.hint


def test_pocket_files_lie_inside_the_package():
    assert zoo.Pocket("unet").path.name == "unet-pocket.safetensors"
    assert zoo.Pocket("bpe", length=77).path.name == "bpe-pocket.json"
    assert zoo.Pocket("unet").path.parent.name == "pocket"


def test_shipped_parts_say_how_they_came_to_be():
    made = zoo.trained(zoo.find(zoo.DEFAULT))
    assert set(made) == {"unet-pocket", "vae-pocket", "clip-pocket", "bpe-pocket"}
    for name, record in made.items():
        assert set(record["licences"].values()) <= {"Apache-2.0", "MIT", "CC-BY-4.0"}
        shipped = next(zoo.POCKET.glob(f"{name}.safetensors" if "hours" in record else f"{name}.json"))
        assert hashlib.sha256(shipped.read_bytes()).hexdigest() == record["sha256"]
        assert shipped.stat().st_size <= (24e6 if name == "unet-pocket" else 8e6)
