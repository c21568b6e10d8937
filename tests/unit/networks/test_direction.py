import pytest

from mindseye.errors import UnknownName
from mindseye.networks.direction import DIRECTIONS, Plan, plan


def test_each_direction_begins_where_it_says():
    first = {name: plan(3, 4, name).order[0] for name in DIRECTIONS}
    assert first == {
        "top-left": (0, 0),
        "top-right": (0, 3),
        "bottom-left": (2, 0),
        "bottom-right": (2, 3),
        "left": (0, 0),
        "right": (0, 3),
        "outward": (1, 1),
    }
    assert plan(2, 3, "top-right").order == ((0, 2), (0, 1), (0, 0), (1, 2), (1, 1), (1, 0))
    assert plan(2, 3, "left").order == ((0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2))


def test_what_is_given_comes_first_and_outward_goes_on_from_it():
    found = plan(1, 5, "outward", given=[(0, 3)])
    assert found.order == ((0, 3), (0, 2), (0, 4), (0, 1), (0, 0))
    corner = plan(2, 2, "bottom-right", given=[(0, 1), (0, 0)])
    assert corner.order == ((0, 0), (0, 1), (1, 1), (1, 0))
    # Every new patch of an outward plan touches one that is done.
    walk = plan(4, 5, "outward", given=[(2, 2)])
    assert all(walk.context(step) for step in range(1, len(walk)))


def test_a_patch_sees_the_earlier_ones_around_it():
    found = plan(3, 3, "top-left")
    assert found.context(0) == ()
    assert found.context(4) == (0, 1, 2, 3)
    assert found.context(3) == (0, 1)
    assert plan(3, 3, "top-left", reach=(0, 2)).context(8) == (6, 7)


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_what_is_needed_is_what_will_be_seen(direction):
    found = plan(3, 5, direction)
    for step in range(len(found)):
        later = {seen for after in range(step + 1, len(found)) for seen in found.context(after)}
        assert set(found.needed(step)) == {each for each in later if each <= step}


def test_what_is_kept_does_not_grow_with_the_canvas():
    for columns in (8, 64):
        strip = plan(2, columns, "left")
        assert max(len(strip.needed(step)) for step in range(len(strip))) == 3
        rows = plan(columns, 2, "top-left")
        assert max(len(rows.needed(step)) for step in range(len(rows))) == 3


def test_edges():
    found = plan(2, 3, "top-left")
    assert found.edges(0) == (True, False, True, False)
    assert found.edges(4) == (False, True, False, False)
    assert plan(1, 1).edges(0) == (True, True, True, True)


def test_no_plan_is_refused():
    with pytest.raises(UnknownName, match="no direction named 'top-lift'"):
        plan(2, 2, "top-lift")
    with pytest.raises(ValueError, match="not all of"):
        plan(2, 2, given=[(2, 0)])
    for order in (((0, 0),), ((0, 0), (0, 0)), ((0, 0), (0, 2))):
        with pytest.raises(ValueError, match="no order of 1 x 2 patches"):
            Plan(1, 2, order)
    with pytest.raises(ValueError, match="no order"):
        plan(0, 2)
