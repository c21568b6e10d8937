"""Boxes: where each family puts them, and that they belong to their picture."""

import pytest
import torch

from mindseye.critique import cuts as families
from mindseye.critique.cuts import FAMILIES, Cuts, scheme
from mindseye.errors import OptionError, UnknownName
from mindseye.noise import Noise

HEIGHT, WIDTH, SIZE = 96, 160, 32


def boxes(scheme, *seeds, share=0.5, size=SIZE, height=HEIGHT, width=WIDTH):
    return scheme.draw(height, width, size, share, Noise(seeds or (0,)))[0]


@pytest.mark.parametrize("name", FAMILIES)
def test_a_picture_has_the_same_cuts_in_any_company(name):
    one = scheme(name, count=9, augment=True)
    (alone, changed), (many, all_changed) = (
        one.draw(HEIGHT, WIDTH, SIZE, 0.3, Noise(seeds)) for seeds in ((7,), (3, 7, 8))
    )
    for mine, theirs in ((alone.boxes, many.boxes), (alone.grey, many.grey), (alone.flip, many.flip)):
        assert torch.equal(mine[0], theirs[1])
    assert torch.equal(changed.colour[0], all_changed.colour[1])
    assert torch.equal(changed.where[0], all_changed.where[1])
    assert torch.equal(changed.grain[0], all_changed.grain[1])
    again = boxes(one, 7, share=0.3)
    assert torch.equal(again.boxes, alone.boxes)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "disco"])
@pytest.mark.parametrize("size", [SIZE, 200])
def test_boxes_lie_in_the_picture(name, size):
    found = boxes(scheme(name, count=300), size=size).boxes
    left, top, wide, high = found.unbind(2)
    assert (found == found.round()).all() and (wide >= 1).all() and (high >= 1).all()
    assert (left >= 0).all() and (top >= 0).all() and (left + wide <= WIDTH).all() and (top + high <= HEIGHT).all()


def test_crowson_sides():
    sides = boxes(families.crowson(4000)).boxes[..., 2]
    assert (sides.min(), sides.max()) == (SIZE, HEIGHT - 1)
    # Evenly spread: mean of the floor of an even draw.
    assert sides.mean().item() == pytest.approx((HEIGHT + SIZE) / 2 - 0.5, abs=1)
    squared = boxes(families.crowson(4000, 2.0)).boxes[..., 2]
    assert squared.mean().item() == pytest.approx(SIZE + (HEIGHT - SIZE) / 3 - 0.5, abs=1)
    # Larger than the picture is the critic: every cut is the whole short side.
    assert (boxes(families.crowson(20), size=200).boxes[..., 2] == HEIGHT).all()


def test_every_place_has_its_turn():
    found = boxes(families.crowson(20_000), height=36, width=36, size=34).boxes[0]
    for side in (34, 35):
        corners = found[found[:, 2] == side][:, :2].long()
        counts = torch.zeros(37 - side, 37 - side).index_put_(
            (corners[:, 0], corners[:, 1]), torch.ones(()), accumulate=True
        )
        assert (counts / counts.mean() - 1).abs().max() < 0.1


def test_big_sleep_sides():
    sides = boxes(families.big_sleep(4000)).boxes[..., 2]
    assert (sides.min(), sides.max()) == (HEIGHT // 2, int(HEIGHT * 0.95))
    # Pr(N(.8, .3) > .95) = 0.3085 are all clipped to it.
    assert (sides == int(HEIGHT * 0.95)).float().mean().item() == pytest.approx(0.3085, abs=0.03)


def test_deep_daze_sides():
    sides = boxes(families.deep_daze(4000)).boxes[..., 2]
    assert sides.min() == int(0.1 * HEIGHT) and sides.max() == HEIGHT - 1
    rising = families.deep_daze(4000, saturate=True)
    assert boxes(rising, share=1.0).boxes[..., 2].min() >= int(0.75 * HEIGHT)
    assert boxes(rising, share=0.0).boxes[..., 2].min() < 0.2 * HEIGHT


def test_deep_daze_gauss_is_gaussian_and_once_was_not():
    right, slip = (
        boxes(families.deep_daze(6000, gauss=True, compat=compat)).boxes[..., 2] / HEIGHT for compat in (False, True)
    )
    assert right.std().item() == pytest.approx(0.2, abs=0.02)
    assert slip.std().item() == pytest.approx(0.9 / 12**0.5, abs=0.02)


def test_centred_cuts_are_nearer_to_the_middle():
    def spread(centre):
        found = boxes(families.big_sleep(3000, centre=centre)).boxes
        middle = found[..., 0] + found[..., 2] / 2
        return (middle - WIDTH / 2).std().item()

    assert spread(2.0) < 0.85 * spread(0.0)


def test_pooling_shows_the_whole():
    found = boxes(families.pooling(3), 1, 2).boxes
    assert torch.equal(found, torch.tensor([0.0, 0, WIDTH, HEIGHT]).expand(2, 3, 4))


@pytest.mark.parametrize(
    ("views", "grey", "flip"),
    [(1, [0], [0]), (4, [0, 1, 0, 1], [0, 0, 1, 1]), (3, [0, 1, 0], [0, 0, 1]), (6, [0] * 6, [0] * 6)],
)
def test_disco_views(views, grey, flip):
    made = families.disco(overview=lambda _: views, inner=lambda _: 0, grey=lambda _: 0, batches=1)
    found = boxes(made)
    # 160 wide, 96 high: 32 rows of black above and below.
    assert torch.equal(found.boxes[0], torch.tensor([0.0, -32, 160, 160]).expand(views, 4))
    assert found.grey[0].tolist() == [bool(each) for each in grey]
    assert found.flip[0].tolist() == [bool(each) for each in flip]


def test_disco_follows_its_schedule():
    made = families.disco(batches=3)
    for share, views in ((0.0, 12), (0.39, 12), (0.41, 4), (1.0, 4)):
        found = boxes(made, share=share)
        assert len(found) == 3 * 16
        assert (found.boxes[0, :16, 3] == WIDTH).sum() == views
    greys = [boxes(families.disco(inner=lambda _: 10, batches=1, compat=compat), share=0.0) for compat in (False, True)]
    assert [int(each.grey.sum()) for each in greys] == [2, 3]
    # The slip shows where no grey is wanted at all.
    late = [boxes(families.disco(batches=1, compat=compat), share=0.9).grey[0, 4:] for compat in (False, True)]
    assert [int(each.sum()) for each in late] == [0, 1]


def test_disco_changed_all_cuts_alike():
    shared = families.disco(batches=2, compat=True).draw(HEIGHT, WIDTH, SIZE, 0.5, Noise((0,)))[1]
    apart = families.disco(batches=2).draw(HEIGHT, WIDTH, SIZE, 0.5, Noise((0,)))[1]
    assert (shared.colour[0, :16] == shared.colour[0, 0]).all() and (
        shared.colour[0, 16:] == shared.colour[0, 16]
    ).all()
    assert not (apart.gains[0, :16] == apart.gains[0, 0]).all()
    assert len(set(shared.grain[0].tolist())) == 32


@pytest.mark.parametrize(
    "make",
    [
        lambda: families.crowson(0),
        lambda: families.guided(4, 0.0),
        lambda: families.deep_daze(4, low=0.5, high=0.2),
        lambda: families.deep_daze(4, low=float("nan")),
        lambda: families.disco(batches=0),
        lambda: boxes(families.disco(overview=lambda _: 0, inner=lambda _: 0)),
    ],
)
def test_numbers_out_of_range(make):
    with pytest.raises(OptionError):
        make()


def test_unknown_family():
    with pytest.raises(UnknownName, match="crowsen"):
        scheme("crowsen", count=1)


def test_parts():
    found = boxes(families.crowson(5))
    whole = found.part(0, 2).and_(found.part(2, 9))
    assert isinstance(whole, Cuts) and len(whole) == 5 and torch.equal(whole.boxes, found.boxes)
