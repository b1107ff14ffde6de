"""Multipliers by linear programs: the least of a goal over a polytope of one value, against scipy's program for the same."""

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from verifier.domains.choices import Atoms, Choices, Rows
from verifier.domains.linear import lower_bounds
from verifier.engines.premise import stopped_at
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array

SIZE = 5


def network(draw):
    weight = frozen_array(draw.normal(size=(SIZE, 3)))
    nodes = (Node("z", Linear(weight, frozen_array(np.zeros(SIZE))), ("x",)), Node("h", Relu(), ("z",)))
    return Network("x", (3,), nodes, "h")


@pytest.mark.parametrize("seed", range(20))
def test_the_pass_gives_the_least_over_the_polytope(seed):
    draw = np.random.default_rng(seed)
    net, goal = network(draw), draw.normal(size=SIZE)
    low, high, point = np.zeros(SIZE), draw.random(SIZE) * 3, draw.random(SIZE)
    forms = draw.integers(-1, 2, (4, SIZE)).astype(np.float64)
    high = np.maximum(high, point)
    bias = -(forms @ point) - draw.random(4) * 0.2
    wide = torch.full((1, 3), 100.0, dtype=torch.float64)
    far = torch.full((1, SIZE), 1e4, dtype=torch.float64)
    bounds = {"x": (-wide, wide), "z": (-far, far), "h": tuple(torch.from_numpy(side)[None] for side in (low, high))}
    atoms = Atoms({"h": torch.from_numpy(forms)[None]}, torch.from_numpy(bias)[None])
    zeros = torch.zeros(1, 1, SIZE, dtype=torch.float64)
    slopes = {"h": torch.zeros(1, 1, SIZE, dtype=torch.float64)}
    start = Choices(slopes, {"h": zeros}, {"h": zeros}, torch.zeros(1, 1, 4, dtype=torch.float64))
    rows = Rows({"h": torch.from_numpy(goal)[None, None]}, torch.zeros(1, 1, dtype=torch.float64))
    found = stopped_at("h", rows.coefficients["h"], start, atoms, bounds, torch.ones(1, 1, dtype=torch.bool))
    assert found is not None and (found.atoms >= 0).all() and (found.lower["h"] >= 0).all() and (found.upper["h"] >= 0).all()
    solved = linprog(goal, A_ub=forms, b_ub=-bias, bounds=np.column_stack([low, high]), method="highs")
    bound = float(lower_bounds(net, bounds, rows, found, atoms=atoms))
    assert bound == pytest.approx(solved.fun, abs=1e-6)
    plain = float(lower_bounds(net, bounds, rows, start, atoms=atoms))
    assert plain < bound - 1, "without multipliers the pass goes on to far wider bounds"


def test_relations_of_other_values_take_no_part():
    atoms = Atoms({"z": torch.ones(1, 1, SIZE, dtype=torch.float64)}, torch.zeros(1, 1, dtype=torch.float64))
    start = Choices({}, atoms=torch.zeros(1, 1, 1, dtype=torch.float64))
    side = torch.zeros(1, SIZE, dtype=torch.float64)
    seen, wanted = torch.ones(1, 1, SIZE, dtype=torch.float64), torch.ones(1, 1, dtype=torch.bool)
    assert stopped_at("h", seen, start, atoms, {"h": (side, side)}, wanted) is None
