"""Lines beside curves: on their side everywhere, touching somewhere, for every slope and all bounds; McCormick's planes."""

from dataclasses import dataclass

import mpmath
import numpy as np
import pytest
import torch
from laws.networks import chain
from scipy.special import erf

from verifier.domains.choices import Choices, Rows
from verifier.domains.curves import bends, default_slope, intercept, slope_range
from verifier.domains.interval import interval_bounds
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import planes
from verifier.network import Network, Node
from verifier.ops import Cos, Erf, Exp, Floor, Linear, Power, Product, Reciprocal, Sigmoid, Sign, Sin, Sqrt, Tanh, frozen_array


@dataclass(frozen=True)
class Case:
    """An operator, the same function for numpy's long doubles and for mpmath, and the numbers to draw bounds from."""

    op: object
    wide: object
    exact: object
    reach: float


CASES = {
    "sigmoid": Case(Sigmoid(), lambda z: 1 / (1 + np.exp(-z)), lambda z: 1 / (1 + mpmath.exp(-z)), 8.0),
    "tanh": Case(Tanh(), np.tanh, mpmath.tanh, 5.0),
    "sin": Case(Sin(), np.sin, mpmath.sin, 12.0),
    "cos": Case(Cos(), np.cos, mpmath.cos, 12.0),
    "exp": Case(Exp(), np.exp, mpmath.exp, 6.0),
    "reciprocal": Case(Reciprocal(), lambda z: 1 / z, lambda z: 1 / z, 4.0),
    "root": Case(Sqrt(), np.sqrt, mpmath.sqrt, 4.0),
    "erf": Case(Erf(), lambda z: erf(z.astype(np.float64)), mpmath.erf, 4.0),
    "square": Case(Power(2), lambda z: z**2, lambda z: z**2, 4.0),
    "cube": Case(Power(3), lambda z: z**3, lambda z: z**3, 4.0),
    "fifth": Case(Power(5), lambda z: z**5, lambda z: z**5, 2.0),
    "sixth": Case(Power(6), lambda z: z**6, lambda z: z**6, 2.0),
}


def boxes(case: Case, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Bounds of many widths, some of them points; on one side of 0 for 1/z."""
    middle = rng.uniform(-case.reach, case.reach, count)
    width = case.reach * 10.0 ** rng.uniform(-9, 0, count) * (rng.uniform(size=count) < 0.9)
    low, high = middle - width, middle + width
    if isinstance(case.op, Reciprocal):
        sign = rng.choice([-1.0, 1.0], count)
        ends = sign * (0.01 + np.abs(middle)), sign * (0.01 + np.abs(middle) + width)
        low, high = np.minimum(*ends), np.maximum(*ends)
    if isinstance(case.op, Sqrt):
        low, high = 0.01 + np.abs(middle), 0.01 + np.abs(middle) + width
    return torch.from_numpy(low), torch.from_numpy(high)


@pytest.mark.parametrize("lowest", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_a_line_of_any_slope_stays_on_its_side_and_touches(name: str, lowest: bool) -> None:
    case, rng = CASES[name], np.random.default_rng(7)
    low, high = boxes(case, rng, 120)
    least, greatest = slope_range(case.op, low, high)
    share = torch.from_numpy(rng.uniform(-0.5, 1.5, (8, 120)))
    slopes = torch.cat([least + share * (greatest - least), torch.from_numpy(rng.normal(size=(8, 120)) * 3)])
    shift = intercept(case.op, slopes, low, high, lowest=lowest)
    assert shift.isfinite().all()
    sign = 1 if lowest else -1
    z = (low + (high - low) * torch.linspace(0, 1, 401, dtype=torch.float64)[:, None]).numpy().astype(np.longdouble)
    z = np.clip(z, low.numpy(), high.numpy())
    value = case.wide(z)
    scale = 1 + np.abs(value).max(0)
    for k in range(len(slopes)):
        lines = slopes[k].numpy().astype(np.longdouble) * z
        gaps = sign * (value - lines - shift[k].numpy())
        size = scale + np.abs(lines).max(0)
        assert (gaps.min(0) >= -1e-13 * size).all()
        # the samples lie width / 400 apart, and near the place of contact the gap grows as the square of the distance
        curved = (np.abs(np.diff(value - lines, 2, axis=0)).max(0) if len(z) > 2 else 0.0) + 1e-12 * size
        assert (gaps.min(0) <= curved).all()


@pytest.mark.parametrize("lowest", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_default_lines_hold_at_fifty_digits(name: str, lowest: bool) -> None:
    case, rng = CASES[name], np.random.default_rng(11)
    low, high = boxes(case, rng, 25)
    slopes = default_slope(case.op, low, high, lowest=lowest)
    shift = intercept(case.op, slopes, low, high, lowest=lowest)
    with mpmath.workdps(50):
        for k in range(len(low)):
            a, b = mpmath.mpf(low[k].item()), mpmath.mpf(high[k].item())
            for share in range(25):
                z = a + (b - a) * share / 24
                gap = case.exact(z) - mpmath.mpf(slopes[k].item()) * z - mpmath.mpf(shift[k].item())
                assert (gap if lowest else -gap) >= -mpmath.mpf(1e-13) * (1 + abs(case.exact(z)) + abs(gap))


@pytest.mark.parametrize("name", CASES)
def test_the_default_leaves_no_more_than_the_chord_or_the_tangent_in_the_middle(name: str) -> None:
    case, rng = CASES[name], np.random.default_rng(3)
    low, high = boxes(case, rng, 300)
    keep = high - low > 1e-3
    low, high = low[keep], high[keep]
    middle = (low + high) / 2
    value = [torch.from_numpy(case.wide(side.numpy())) for side in (low, high)]
    for lowest in (True, False):
        slope = default_slope(case.op, low, high, lowest=lowest)
        at_middle = slope * middle + intercept(case.op, slope, low, high, lowest=lowest)
        chord = (value[1] - value[0]) / (high - low)
        of_chord = chord * middle + intercept(case.op, chord, low, high, lowest=lowest)
        sign = 1 if lowest else -1
        assert (sign * (at_middle - of_chord) >= -1e-9 * (1 + of_chord.abs())).all()


EXTREME = [0.0, 1e-310, 1.0, 1e6, 1e300, torch.inf]


@pytest.mark.parametrize("name", CASES)
def test_extreme_bounds_give_true_lines_or_none_and_never_nan(name: str) -> None:
    case = CASES[name]
    ends = sorted({sign * e for e in EXTREME for sign in (-1.0, 1.0)})
    pairs = [(a, b) for a in ends for b in ends if a <= b and (a, b) not in ((torch.inf,) * 2, (-torch.inf,) * 2)]
    low, high = torch.tensor(pairs, dtype=torch.float64).T
    for lowest in (True, False):
        default = default_slope(case.op, low, high, lowest=lowest)
        assert default.isfinite().all()
        for slope in (default, torch.zeros_like(low), torch.full_like(low, 0.2), torch.full_like(low, -1e10)):
            shift = intercept(case.op, slope, low, high, lowest=lowest)
            assert not shift.isnan().any()
            for k, (a, b) in enumerate(pairs):
                check_line(case, a, b, slope[k].item(), shift[k].item(), lowest)


def check_line(case: Case, low: float, high: float, slope: float, shift: float, lowest: bool) -> None:
    if np.isinf(shift):
        assert (shift < 0) == lowest
        return
    spots = {z for z in (low, high, low / 2, high / 2, 0.0, 1.0, -1.0, 3.0, -3.0) if low <= z <= high and np.isfinite(z)}
    with mpmath.workdps(330):
        for spot in spots:
            if abs(spot) > 1e4 and isinstance(case.op, Exp | Sigmoid | Tanh | Erf):
                continue  # mpmath takes long, and the ends have said it
            z = mpmath.mpf(spot)
            value, line = case.exact(z), mpmath.mpf(slope) * z
            gap = value - line - mpmath.mpf(shift)
            assert (gap if lowest else -gap) >= -mpmath.mpf(1e-12) * (1e-300 + abs(value) + abs(line) + abs(mpmath.mpf(shift)))


def test_one_over_zero_has_no_line() -> None:
    network = chain((1, 2), Reciprocal())
    bounds = {"x": torch.tensor([[-1.0, 1.0], [1.0, 2.0]], dtype=torch.float64).unbind(1)}
    low, high = torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    bounds = {"x": (low, high), "v1": (torch.full((1, 2), -torch.inf).double(), torch.full((1, 2), torch.inf).double())}
    forms = torch.tensor([[[1.0, 1.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]]).double()
    found = lower_bounds(network, bounds, Rows({"v1": forms}, torch.zeros(1, 4).double()), Choices({}))
    assert found[0, 0] == found[0, 1] == -torch.inf
    # chord 1.5 - z / 2 above; the tangent in the middle, 4 / 3 - 4 z / 9, below
    assert found[0, 2].item() == pytest.approx(4 / 9)
    assert found[0, 3].item() == pytest.approx(-1.0)


def test_a_gradient_of_a_row_without_bound_is_not_nan() -> None:
    network = chain((1, 2), Reciprocal())
    low, high = torch.tensor([[-1.0, 1.0]]).double(), torch.tensor([[1.0, 2.0]]).double()
    bounds = {"x": (low, high), "v1": (torch.full((1, 2), -torch.inf).double(), torch.full((1, 2), torch.inf).double())}
    slopes, above = (torch.tensor([[[0.0, s]]], dtype=torch.float64, requires_grad=True) for s in (-0.4, -0.6))
    rows = Rows({"v1": torch.tensor([[[1.0, 1.0], [0.0, 1.0]]]).double()}, torch.zeros(1, 2).double())
    found = lower_bounds(network, bounds, rows, Choices({"v1": slopes}, upper_slopes={"v1": above}))
    gradients = torch.autograd.grad(found.sum(), (slopes, above))
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("lowest", [True, False])
def test_planes_hold_at_every_point_of_the_rectangle(lowest: bool) -> None:
    rng = np.random.default_rng(0)
    ends = torch.from_numpy(np.sort(rng.normal(size=(2, 2, 1, 200)) * 3, axis=1))
    (p, q), weight = (tuple(side) for side in ends), torch.from_numpy(rng.uniform(size=(1, 5, 200)))
    a, b, c = planes(p, q, weight, lowest=lowest)
    for s in np.linspace(0, 1, 9):
        for t in np.linspace(0, 1, 9):
            x, y = (low + share * (high - low) for share, (low, high) in ((s, p), (t, q)))
            gap = x * y - (a * x + b * y + c)
            assert ((gap if lowest else -gap) >= -1e-12).all()
    corner = [x * y - (a * x + b * y + c) for x, y in ((p[0], q[0]), (p[1], q[1]), (p[0], q[1]), (p[1], q[0]))]
    assert torch.stack(corner).abs().amin(0).max() <= 1e-12  # two corners lie on both planes


def test_products_and_steps_by_hand() -> None:
    nodes = (Node("p", Product(), ("x", "y")), Node("s", Sign(), ("p",)), Node("f", Floor(), ("x",)))
    double = Linear(frozen_array([[2.0]]), frozen_array([0.0]))
    network = Network("x", (1, 1), (Node("y", double, ("x",)), *nodes), "s")
    known = interval_bounds(network, torch.tensor([[1.0]]).double(), torch.tensor([[2.5]]).double())
    bounds = {name: (known.lower[name], known.upper[name]) for name in known.lower}
    zero, one = torch.zeros(1, 2).double(), torch.tensor([[[1.0], [-1.0]]]).double()
    # x * 2x with x in [1, 2.5], y in [2, 5]: below 2x + y - 2 >= 2; above 5x + y - 5 and 2x + 2.5y - 5, at x = 2.5 both 12.5
    first = Choices({"p": torch.ones(1, 1, 1).double()}, upper_slopes={"p": torch.ones(1, 1, 1).double()})
    assert lower_bounds(network, bounds, Rows({"p": one}, zero), first).tolist() == [pytest.approx([2.0, -12.5])]
    assert lower_bounds(network, bounds, Rows({"s": one}, zero), first).tolist() == [[1.0, -1.0]]
    assert lower_bounds(network, bounds, Rows({"f": one}, zero), first).tolist() == [[1.0, -2.0]]


def test_bends_lie_where_the_second_derivative_changes_sign() -> None:
    for name in ("sigmoid", "tanh", "erf", "sin", "cos", "cube"):
        case = CASES[name]
        for z in bends(case.op, torch.linspace(-9, 9, 40, dtype=torch.float64)):
            z = z.numpy().astype(np.longdouble)
            second = [case.wide(z + s + 1e-3) + case.wide(z + s - 1e-3) - 2 * case.wide(z + s) for s in (-0.1, 0.1)]
            assert (second[0] * second[1] < 0).all()


@pytest.mark.parametrize("lowest", [True, False])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 30.0, 1e30, 1e300])
@pytest.mark.parametrize("op", [Sigmoid(), Tanh()])
def test_the_quick_way_for_finite_bounds_gives_what_the_general_one_gives(op: object, scale: float, lowest: bool) -> None:
    torch.manual_seed(0)
    low = torch.randn(1, 300, dtype=torch.float64) * scale
    high = low + torch.rand(1, 300, dtype=torch.float64) * scale
    slopes = torch.rand(40, 300, dtype=torch.float64) * 1.4 - 0.2
    slopes[:2], slopes[2:4] = 0.0, slopes[2:4] * 1e300
    slopes.requires_grad_()
    quick = intercept(op, slopes, low, high, lowest=lowest)
    # one entry without a bound sends all of them the general way
    endless = torch.full((1, 1), torch.inf, dtype=torch.float64)
    wide = torch.cat([slopes, torch.zeros(40, 1, dtype=torch.float64)], 1)
    general = intercept(op, wide, torch.cat([low, -endless], 1), torch.cat([high, endless], 1), lowest=lowest)[:, :-1]
    assert not bool(quick.isnan().any())
    assert torch.allclose(quick, general, rtol=1e-12, atol=1e-12)
    moved, expected = (torch.autograd.grad(part[4:].sum(), slopes)[0] for part in (quick, general))
    assert torch.allclose(moved, expected)
