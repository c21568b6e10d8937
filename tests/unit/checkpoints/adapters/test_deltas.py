"""Changes of weights against sums written out one number at a time."""

import itertools
import math

import pytest
import torch

from mindseye.checkpoints.adapters import deltas

OUT, IN, R, K = 6, 4, 2, 3


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + 31 * len(shape) + sum(shape)))


def alpha_of(value: float | None) -> dict[str, torch.Tensor]:
    return {} if value is None else {"alpha": torch.tensor(value)}


def by_hand(shape, number) -> torch.Tensor:
    """A tensor from a function of its indices."""
    out = torch.zeros(shape, dtype=torch.float64)
    for index in itertools.product(*map(range, shape)):
        out[index] = number(*index)
    return out.float()


def close(ours, theirs):
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("alpha", "scale"), [(None, 1), (0.0, 1), (1.0, 1 / R), (3.0, 3 / R)])
def test_low_rank_of_a_matrix(alpha, scale):
    up, down = random(OUT, R), random(R, IN)
    ours = deltas.change({"up": up, "down": down} | alpha_of(alpha), torch.zeros(OUT, IN))
    close(ours, by_hand((OUT, IN), lambda o, i: scale * sum(up[o, r] * down[r, i] for r in range(R))))


def test_low_rank_of_a_convolution_is_the_two_convolutions_in_a_row():
    up, down, x = random(OUT, R, 1, 1), random(R, IN, K, K), random(1, IN, 7, 5)
    ours = deltas.change({"up": up, "down": down}, torch.zeros(OUT, IN, K, K))
    close(torch.conv2d(x, ours, stride=2), torch.conv2d(torch.conv2d(x, down, stride=2), up))


def test_tucker_form_is_three_convolutions_in_a_row():
    up, mid, down, x = random(OUT, R, 1, 1), random(R, 3, K, K), random(3, IN, 1, 1), random(1, IN, 7, 5)
    ours = deltas.change({"up": up, "mid": mid, "down": down}, torch.zeros(OUT, IN, K, K), scale=1.0)
    close(torch.conv2d(x, ours), torch.conv2d(torch.conv2d(torch.conv2d(x, down), mid), up))


def test_factors_of_a_1x1_convolution_fit_a_linear_layer_and_the_other_way_round():
    up, down = random(OUT, R), random(R, IN)
    flat = deltas.change({"up": up, "down": down}, torch.zeros(OUT, IN))
    deep = deltas.change({"up": up[..., None, None], "down": down[..., None, None]}, torch.zeros(OUT, IN))
    close(deep, flat)
    close(deltas.change({"up": up, "down": down}, torch.zeros(OUT, IN, 1, 1)), flat[..., None, None])


def test_hadamard():
    f = {f"hada_w{n}_{x}": random(*s, seed=n) for n in (1, 2) for x, s in (("a", (OUT, R)), ("b", (R, IN)))}
    ours = deltas.change(f | alpha_of(1.0), torch.zeros(OUT, IN))

    def product(n, o, i):
        return sum(f[f"hada_w{n}_a"][o, r] * f[f"hada_w{n}_b"][r, i] for r in range(R))

    close(ours, by_hand((OUT, IN), lambda o, i: product(1, o, i) * product(2, o, i) / R))


def test_hadamard_in_tucker_form():
    f = {}
    for n in (1, 2):
        f |= {f"hada_w{n}_a": random(R, OUT, seed=n), f"hada_w{n}_b": random(R, IN, seed=n)}
        f[f"hada_t{n}"] = random(R, R, K, K, seed=n)
    ours = deltas.change(f, torch.zeros(OUT, IN, K, K))

    def product(n, o, i, y, x):
        a, b, t = (f[name] for name in (f"hada_w{n}_a", f"hada_w{n}_b", f"hada_t{n}"))
        return sum(t[p, q, y, x] * a[p, o] * b[q, i] for p in range(R) for q in range(R))

    close(ours, by_hand((OUT, IN, K, K), lambda *at: product(1, *at) * product(2, *at)))


@pytest.mark.parametrize("first", ["whole", "product"])
@pytest.mark.parametrize(
    ("second", "kernel"),
    [("whole", ()), ("product", ()), ("whole", (K, K)), ("product", (K, K)), ("tucker", (K, K))],
)
def test_kronecker(first, second, kernel):
    (a, b), (c, d) = (2, 2), (3, 2)  # 6 = 2 x 3 rows, 4 = 2 x 2 columns
    f = {}
    if first == "whole":
        f["lokr_w1"] = w1 = random(a, b)
    else:
        f["lokr_w1_a"], f["lokr_w1_b"] = random(a, R), random(R, b)
        w1 = f["lokr_w1_a"] @ f["lokr_w1_b"]
    if second == "whole":
        f["lokr_w2"] = w2 = random(c, d, *kernel)
    elif second == "product":
        size = d * (kernel[0] * kernel[1] if kernel else 1)
        f["lokr_w2_a"], f["lokr_w2_b"] = random(c, R, seed=1), random(R, size, seed=1)
        w2 = (f["lokr_w2_a"] @ f["lokr_w2_b"]).reshape(c, d, *kernel)
    else:
        f["lokr_w2_a"], f["lokr_w2_b"], f["lokr_t2"] = random(R, c), random(R, d), random(R, R, *kernel)
        w2 = torch.einsum("pqyx,pc,qd->cdyx", f["lokr_t2"], f["lokr_w2_a"], f["lokr_w2_b"])
    scale = 1 if first == second == "whole" else 5 / R  # alpha means nothing without a rank
    ours = deltas.change(f | alpha_of(5.0), torch.zeros(a * c, b * d, *kernel))
    close(ours, by_hand(ours.shape, lambda o, i, *k: scale * w1[o // c, i // d] * w2[(o % c, i % d, *k)]))
    assert deltas.extent({name: tensor.shape for name, tensor in f.items()}) == (a * c, ours[0].numel())


@pytest.mark.parametrize("kernel", [(), (K, K)])
@pytest.mark.parametrize("by", ["output", "input", "peft"])
def test_dora_gives_every_row_or_column_its_length(kernel, by):
    weight, up, down = random(OUT, IN, *kernel), random(OUT, R), random(R, IN * (9 if kernel else 1))
    direction = weight + 0.5 * (up @ down).reshape(weight.shape)
    ones = [1] * len(kernel)
    if by == "input":
        lengths = random(IN).abs() + 0.1
        name, stored = "magnitude", lengths.reshape(1, IN, *ones)
    elif by == "output":
        lengths = random(OUT).abs() + 0.1
        name, stored = "magnitude", lengths.reshape(OUT, 1, *ones)
    else:
        lengths = random(OUT).abs() + 0.1
        name, stored = "output_magnitude", lengths.reshape(1, OUT, *ones) if kernel else lengths
    changed = weight + deltas.change({"up": up, "down": down, name: stored} | alpha_of(1.0), weight)
    axis = 1 if by == "input" else 0
    flat, wanted = changed.movedim(axis, 0).flatten(1), direction.movedim(axis, 0).flatten(1)
    close(flat.norm(dim=1), lengths)
    close(torch.nn.functional.normalize(flat), torch.nn.functional.normalize(wanted))
    half = deltas.change({"up": up, "down": down, name: stored} | alpha_of(1.0), weight, 0.5)
    close(half, (changed - weight) / 2)


def test_dora_without_a_change_is_the_weight_and_zero_columns_stay_finite():
    weight = random(OUT, IN)
    weight[:, 2] = 0
    f = {
        "up": torch.zeros(OUT, R),
        "down": random(R, IN),
        "magnitude": weight.norm(dim=0)[None] + 5 * (weight[:1] == 0),
    }
    close(deltas.change(f, weight), torch.zeros(OUT, IN))


def test_ia3_multiplies_outputs_or_inputs():
    weight, rows, columns = random(OUT, IN), random(OUT, 1), random(1, IN)
    close(deltas.change({"ia3": rows}, weight), weight * rows)
    close(deltas.change({"ia3": columns, "on_input": torch.tensor(1)}, weight, 2.0), 2 * weight * columns)


@pytest.mark.parametrize("alpha", [None, 0.01])
def test_a_rotation_keeps_the_lengths_within_its_groups(alpha):
    weight, blocks = random(OUT, IN), random(2, 3, 3)
    f = {"oft_blocks": blocks} | alpha_of(alpha)
    turned = weight + deltas.change(f, weight)
    for group in (slice(0, 3), slice(3, 6)):
        close(turned[group].norm(dim=0), weight[group].norm(dim=0))
    assert (turned - weight).abs().max() > 1e-3
    scaled = weight + deltas.change(f | {"rescale": torch.full((OUT, 1), 3.0)}, weight)
    close(scaled, 3 * turned)


def test_a_rotation_is_that_of_its_angle():
    angle = 0.7
    half = math.tan(angle / 2) / 2  # the blocks are made skew by taking their transpose away, which doubles them
    turned = deltas.change({"oft_blocks": torch.tensor([[[0.0, half], [-half, 0.0]]])}, torch.eye(2)) + torch.eye(2)
    close(turned, torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]))


def test_a_butterfly_is_its_stages_one_after_the_other():
    """Against dense matrices, an output and its partners at a time."""
    rows, size, stages = 16, 4, 2
    blocks, weight = 0.3 * random(stages, rows // size, size, size), random(rows, IN, K, K)
    whole = torch.eye(rows, dtype=torch.float64)
    for stage in range(stages):
        apart = 2**stage * size // 2
        # The outputs of one block: two runs that lie `apart` one from the other, interleaved.
        order = [start + step + half * apart for start in range(0, rows, 2 * apart) for step in range(apart)
                 for half in (0, 1)]  # fmt: skip
        dense = torch.zeros(rows, rows, dtype=torch.float64)
        for number in range(rows // size):
            skew = (blocks[stage, number] - blocks[stage, number].T).double()
            turn = (torch.eye(size) + skew) @ (torch.eye(size) - skew).inverse()
            for i, j in itertools.product(range(size), repeat=2):
                dense[order[size * number + i], order[size * number + j]] = turn[i, j]
        whole = dense @ whole
    wanted = torch.einsum("ab,bikl->aikl", whole, weight.double()).float() - weight
    close(deltas.change({"oft_blocks": blocks}, weight), wanted)
    close(deltas.change({"oft_blocks": blocks}, weight, 0.5), wanted / 2)


@pytest.mark.parametrize("kernel", [(), (K, K)])
@pytest.mark.parametrize("older", [False, True])
def test_generalised_is_the_layer_around_which_it_was_trained(kernel, older):
    one = (1,) * len(kernel)
    weight, a1, a2 = random(OUT, IN, *kernel), random(IN, R, *one, seed=1), random(R, IN, *one, seed=2)
    b1, b2 = random(OUT, R, *one, seed=3), random(R, IN, *kernel, seed=4)
    factors = (a2, a1, b2, b1) if older else (a1, a2, b1, b2)
    f = {f"{name}.weight": factor for name, factor in zip(("a1", "a2", "b1", "b2"), factors, strict=True)}
    assert deltas.misfit({name: factor.shape for name, factor in f.items()}, weight.shape) == ""
    run = torch.nn.functional.conv2d if kernel else torch.nn.functional.linear
    x = random(2, IN, 5, 5) if kernel else random(2, IN)
    changed = run(x, weight + deltas.change(f | alpha_of(1.0), weight, 3.0))
    close(changed, run(x, weight) + 3 / R * (run(run(run(x, a2), a1), weight) + run(run(x, b2), b1)))


def test_full_norm_and_bias():
    weight, diff = random(OUT, IN), random(OUT, IN, seed=1)
    close(deltas.change({"diff": diff}, weight, 0.25), diff / 4)
    close(deltas.change({"w_norm": diff[0]}, weight[0]), diff[0])
    assert deltas.change({"diff_b": diff[0]}, weight) is None
    close(deltas.bias_change({"b_norm": diff[0].half()}), diff[0].half().float())
    assert deltas.bias_change({"diff": diff}) is None


def test_a_scalar_multiplies():
    f = {"up": random(OUT, R), "down": random(R, IN)}
    weight = torch.zeros(OUT, IN)
    close(deltas.change(f | {"scalar": torch.tensor(3.0)}, weight), 3 * deltas.change(f, weight))


@pytest.mark.parametrize(
    ("shapes", "weight", "says"),
    [
        ({"up": (OUT, R), "down": (R, IN)}, (OUT, IN), ""),
        ({"up": (OUT, R), "down": (R, IN)}, (OUT, 8), "made for a weight of 6 x 4, and here it is 6 x 8"),
        ({"up": (OUT, 3), "down": (R, IN)}, (OUT, IN), "does not fit"),
        ({"up": (OUT, R), "down": (R,)}, (OUT, IN), "does not fit"),
        ({"up": (OUT, R)}, (OUT, IN), "no kind"),
        ({"a1.weight": (OUT, R), "b1.weight": (R, IN)}, (OUT, IN), "no kind"),
        (
            {"a1.weight": (IN, R), "a2.weight": (R, 3), "b1.weight": (OUT, R), "b2.weight": (R, IN)},
            (OUT, IN),
            "a1 [4, 2], a2 [2, 3], b1 [6, 2], b2 [2, 4] do not fit a weight of [6, 4]",
        ),
        ({"oft_blocks": (2, 3, 3)}, (OUT, IN), ""),
        ({"oft_blocks": (2, 2, 3, 3)}, (OUT, IN), "2 stages of blocks of 3"),
        ({"oft_blocks": (1, 3, 2, 2)}, (OUT, IN), ""),
        ({"oft_blocks": (2, 3, 2, 2)}, (OUT, IN), "do not divide"),
        ({"oft_blocks": (3, 2)}, (OUT, IN), "turn nothing"),
        ({"oft_blocks": (2, 2, 2)}, (OUT, IN), "turns 4 outputs"),
        ({"up": (OUT, R), "down": (R, IN), "magnitude": (5,)}, (OUT, IN), "magnitude has 5"),
        ({"up": (OUT, R), "down": (R, IN), "output_magnitude": (IN,)}, (OUT, IN), "magnitude has 4"),
        ({"ia3": (7,)}, (OUT, IN), "ia3 has 7"),
        ({"up": (OUT, R, 1, 1), "mid": (R, 3, K, K), "down": (R, IN, 1, 1)}, (OUT, IN, K, K), "mid"),
    ],
)
def test_what_does_not_fit_says_so(shapes, weight, says):
    reason = deltas.misfit(shapes, weight)
    assert says in reason if says else not reason


def test_factors_of_no_kind_are_refused():
    with pytest.raises(ValueError, match="no kind"):
        deltas.change({"up": random(OUT, R)}, torch.zeros(OUT, IN))
