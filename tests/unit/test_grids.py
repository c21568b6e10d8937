import json
import subprocess
import sys
import time

import pytest
from PIL import Image

from mindseye import grids
from mindseye.errors import LimitError, MindseyeError, OptionError, UnknownName
from mindseye.grids import Plot, axis, matrix, parse_values, plan
from mindseye.metadata import parse_infotext
from mindseye.request import Progress, Request, Result, drain

KINDS = {"tint": float, "grain": int, "frame": bool, "mood": str, "two_words": str}


def check(request):
    if request.sampler == "none":
        raise UnknownName("sampler", "none", ["euler"])
    from dataclasses import replace

    return replace(request, size=request.size or (16, 16), steps=request.steps or 4)


def made(name, text, request=None):
    return axis(name, text, request or Request(prompt="a red fox"), kinds=KINDS)


def planned(*named, request=None, seed=7):
    request = request or Request(prompt="a red fox")
    return plan(request, [made(*each, request) for each in named], check=check, seed=seed)


def draw(request):
    """A picture whose colour is the seed."""
    total = request.steps or 4
    for step in range(total):
        yield Progress("draw", step + 1, total, tuple)
    image = Image.new("RGB", request.size or (16, 16), (request.seed % 256, 0, 0))
    return Result(images=(image,), seeds=(request.seed,), request=check(request), seconds=1.0)


@pytest.mark.parametrize(
    ("text", "kind", "values"),
    [
        ("20, 30,40", int, (20, 30, 40)),
        ("1-5", int, (1, 2, 3, 4, 5)),
        ("1-5 (+2)", int, (1, 3, 5)),
        ("10-5 (-3)", int, (10, 7)),
        ("10-4 (-3)", int, (10, 7, 4)),
        ("3-1", int, (3, 2, 1)),
        ("1-10 [5]", int, (1, 3, 5, 7, 10)),
        ("1-9[3]", int, (1, 5, 9)),
        ("7, 1-3, 0-10 [3]", int, (7, 1, 2, 3, 0, 5, 10)),
        ("-5--3", int, (-5, -4, -3)),
        ("4 [1]", None, ("4 [1]",)),
        ("1-4 [1]", int, (1,)),
        ("0-1 (+0.25)", float, (0, 0.25, 0.5, 0.75, 1)),
        ("0-1 (+0.3)", float, (0, 0.3, 0.6, 0.9)),
        ("0-1 [6]", float, (0, 0.2, 0.4, 0.6, 0.8, 1)),
        ("1-0 (-0.5)", float, (1, 0.5, 0)),
        ("7.5", float, (7.5,)),
        (".5-1.5", float, (0.5, 1.5)),
        ('a cat, "a dog, sleeping" , x', str, ("a cat", "a dog, sleeping", "x")),
        ('"say ""hi""",b', str, ('say "hi"', "b")),
        ("1-5", str, ("1-5",)),
        ("1-3", None, (1, 2, 3)),
        ("0.5, 1", None, (0.5, 1.0)),
        ("yes, 1", None, ("yes", "1")),
        ("a,,b,", str, ("a", "b")),
    ],
)
def test_values_as_the_xyz_script_has_them(text, kind, values):
    found = parse_values(text, kind)
    assert found == pytest.approx(values) if kind is float else found == values
    assert all(type(each) is (kind or type(values[0])) for each in found)


def test_nothing_is_a_value_where_it_may_be():
    assert parse_values(",xy", str, empty=True) == ("", "xy")
    assert made("mood", ",wild").labels == ("mood -", "mood wild")


@pytest.mark.parametrize(
    ("text", "kind", "said"),
    [
        ("", int, "no values"),
        (" , ,", int, "no values"),
        ("x", int, "'x' is no whole number"),
        ("1.5", int, "no whole number"),
        ("1-", float, "no number"),
        ("1-5 (-1)", int, "never gets from 1 to 5"),
        ("1-5 (+0)", int, "never gets"),
        ("5-1 (2)", int, "never gets"),
        ("0-1000000000000", int, "has 1,000,000,000,001 values"),
        ("0-1 [0]", float, "has 0 values"),
        ("0-1 [999999999]", float, "has 999,999,999 values"),
        ("0-1 (+0.0000000001)", float, "values"),
        ("1-600,1-600", int, "at most 1,000 values"),
        ("one" + chr(10) + "two", str, "cannot be read"),
        ("1e999999999999", int, "no whole number"),
    ],
)
def test_values_that_cannot_be_read(text, kind, said):
    with pytest.raises(MindseyeError, match=said.replace("(", r"\(")):
        parse_values(text, kind)


def test_values_are_read_in_linear_time(second):
    started = time.process_time()
    for hostile in ("1-" * 50_000, "1" * 100_000 + "-", "(" * 100_000, '"' * 100_001, " " * 100_000 + "x"):
        with pytest.raises(MindseyeError):
            parse_values(hostile, int)
    assert time.process_time() - started < second


def test_an_axis_of_every_kind():
    grid = planned(("steps", "2,3"), ("guidance", "1-2"), ("two-words", "x,y"))
    assert grid.cells[(1, 0, 1)].steps == 3
    assert grid.cells[(1, 1, 0)].guidance == 2.0
    assert grid.cells[(1, 0, 1)].options == {"two_words": "y"}
    assert grid.axes[0].labels == ("steps 2", "steps 3") and grid.axes[1].labels == ("guidance 1", "guidance 2")
    sized = Request(prompt="a", size=(64, 32))
    assert planned(("width", "8,16"), request=sized).cells[(1, 0, 0)].size == (16, 32)
    assert planned(("height", "8,16"), request=sized).cells[(0, 0, 0)].size == (64, 8)
    assert planned(("size", "8x16,32")).cells[(1, 0, 0)].size == (32, 32)
    assert planned(("text", "x,y")).cells[(1, 0, 0)].prompt == "y"
    assert planned(("frame", "true,false")).cells[(1, 0, 0)].options == {"frame": "false"}


def test_search_and_replace():
    request = Request(prompt="a red fox, red sky", negative="red")
    grid = planned(("prompt", 'red,blue,"dark, green"'), request=request)
    prompts = [grid.cells[(index, 0, 0)].prompt for index in range(3)]
    assert prompts == ["a red fox, red sky", "a blue fox, blue sky", "a dark, green fox, dark, green sky"]
    assert grid.cells[(1, 0, 0)].negative == "blue"
    with pytest.raises(OptionError, match="'green' is in neither prompt"):
        made("prompt", "green,red")


def test_prompt_order():
    request = Request(prompt="red, round and shiny!")
    grid = planned(("prompt-order", "red,shiny,round"), request=request)
    found = {cell.prompt for cell in grid.cells.values()}
    assert len(found) == 6 and {"red, round and shiny!", "shiny, red and round!"} <= found
    assert planned(("prompt-order", "round,red"), request=request).cells[(0, 0, 0)].prompt == "round, red and shiny!"
    with pytest.raises(OptionError, match="'blue' is not in the prompt"):
        made("prompt-order", "red,blue", request)
    with pytest.raises(LimitError, match="more than 1,000 orders"):
        made("prompt-order", ",".join("abcdefgh"), request)


def test_the_costliest_axis_is_outermost_and_rows_come_one_by_one():
    grid = planned(("model", "one,two"), ("steps", "1,2"))
    assert list(grid.cells) == [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 0)]
    grid = planned(("steps", "1,2"), ("guidance", "1,2"))
    assert list(grid.cells) == [(0, 0, 0), (1, 0, 0), (0, 1, 0), (1, 1, 0)]
    models = [cell.model for cell in planned(("steps", "1-3"), ("model", "a,b"), ("guidance", "1-2")).cells.values()]
    assert models == ["a"] * 6 + ["b"] * 6


def test_one_seed_for_all_unless_it_is_an_axis():
    assert {cell.seed for cell in planned(("steps", "1-3")).cells.values()} == {7}
    own = Request(prompt="a", seed=5, count=4)
    assert {(cell.seed, cell.count) for cell in planned(("steps", "1-3"), request=own).cells.values()} == {(5, 1)}
    assert [cell.seed for cell in planned(("seed", "1-3")).cells.values()] == [1, 2, 3]


def test_everything_is_checked_before_anything_is_drawn():
    with pytest.raises(UnknownName, match="none"):
        planned(("sampler", "euler,none"))
    with pytest.raises(UnknownName, match="axis named 'stpes'"):
        made("stpes", "1")
    with pytest.raises(OptionError, match="one to three axes"):
        planned()
    with pytest.raises(OptionError, match="all different"):
        planned(("steps", "1"), ("steps", "2"))
    with pytest.raises(LimitError, match="1,600 pictures"):
        planned(("steps", "1-40"), ("seed", "1-40"))
    with pytest.raises(LimitError, match="268 megapixels"):
        planned(("size", "16384x16384,8"[:11]))
    with pytest.raises(OptionError, match="there is none"):
        planned(("width", "8"))
    for size in ("8x8x8", "big", "8x", "-8x8"):
        with pytest.raises(OptionError, match="is no size"):
            planned(("size", size))


def test_drawing_reports_over_all_cells_and_keeps_what_is_done():
    plot, seen = Plot(planned(("steps", "2,6"), ("seed", "1-2"))), []
    drain(plot.steps(draw), lambda progress: seen.append(progress))
    assert [each.step for each in seen] == sorted(each.step for each in seen)
    assert seen[-1][:3] == ("4 of 4", 16, 16)
    assert len(plot.done) == 4 and plot.done[(1, 1, 0)].seeds == (2,)

    stopped = Plot(plot.grid)
    steps = stopped.steps(draw)
    while len(stopped.done) < 2:
        next(steps)
    steps.close()
    assert len(stopped.done) == 2 and stopped.sheet().size == plot.sheet().size
    assert [cell["done"] for cell in stopped.account()["cells"]] == [True, True, False, False]
    again = []
    drain(stopped.steps(lambda request: again.append(request) or draw(request)))
    assert len(again) == 2 and len(stopped.done) == 4


def test_closing_reaches_what_is_drawn():
    closed = []

    def endless(request):
        try:
            while True:
                yield Progress("draw", 0, 1, tuple)
        finally:
            closed.append(request.seed)

    steps = Plot(planned(("steps", "1-2"))).steps(endless)
    next(steps)
    steps.close()
    assert closed == [7]


def test_the_sheet_has_its_pictures_in_place_and_its_axes_in_its_metadata():
    plot = Plot(planned(("seed", "50,250"), ("tint", "0-1 (+0.5)"), ("mood", "calm,wild")))
    drain(plot.steps(draw))
    sheet = plot.sheet()
    spots = [(x, y) for y in range(sheet.height) for x in range(sheet.width) if sheet.getpixel((x, y)) == (50, 0, 0)]
    bright = [(x, y) for y in range(sheet.height) for x in range(sheet.width) if sheet.getpixel((x, y)) == (250, 0, 0)]
    assert len(spots) == len(bright) == 6 * 16 * 16
    assert max(x for x, _ in spots) < min(x for x, _ in bright)
    dark = (
        sum(sum(pixel) < 300 and pixel[1] > 20 for pixel in sheet.get_flattened_data())
        if hasattr(sheet, "get_flattened_data")
        else 1
    )
    assert dark > 0
    chunks = plot.texts()
    info = parse_infotext(chunks["parameters"])
    assert info.prompt == "a red fox" and info.fields["Seed"] == "50"
    assert (info.fields["X Type"], info.fields["X Values"]) == ("seed", "50,250")
    assert (info.fields["Y Values"], info.fields["Z Type"]) == ("0-1 (+0.5)", "mood")
    account = json.loads(chunks["mindseye-grid"])
    assert account["cells"][-1]["changes"] == {"seed": 250, "options": {"tint": 1.0, "mood": "wild"}}
    assert "mindseye" not in chunks  # it is not one picture, and cannot be drawn as one


def test_nothing_done_has_no_metadata():
    with pytest.raises(OptionError):
        Plot(planned(("steps", "1"))).texts()


def test_a_prompt_matrix_has_all_subsets():
    grid = matrix(Request(prompt="a house|at night | in [snow|rain]|red"), check=check, seed=1)
    prompts = [cell.prompt for cell in grid.cells.values()]
    assert len(prompts) == len(set(prompts)) == 8
    assert prompts[0] == "a house" and grid.cells[(3, 1, 0)].prompt == "a house, at night, in [snow|rain], red"
    assert grid.about == "Prompt matrix" and grid.axes[0].labels == (
        "-",
        "at night",
        "in [snow|rain]",
        "at night, in [snow|rain]",
    )
    assert len(matrix(Request(prompt="a|b"), check=check, seed=1).axes) == 1
    with pytest.raises(OptionError, match="needs parts"):
        matrix(Request(prompt="a house"), check=check, seed=1)
    with pytest.raises(LimitError, match="1,048,576 combinations"):
        matrix(Request(prompt="|".join("abcdefghijklmnopqrstu")), check=check, seed=1)


def test_planning_wakes_no_torch():
    modules = "mindseye.grids, mindseye.animation, mindseye.cli.grid, mindseye.cli.morph"
    code = f"import sys, {modules}; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"


def test_grids_are_bounded():
    assert grids.MOST_CELLS <= 1000 and grids.MOST_PIXELS <= 200_000_000
