"""Points of a search are judged by their own disjunct's box, and near misses are polished now and then."""

import numpy as np
import torch
from laws.networks import chain

from verifier.check import confirms
from verifier.engines.points import point_test
from verifier.formula import FALSE, And, Or, at_least, at_most
from verifier.ops import Linear, Relu
from verifier.query import Query
from verifier.region import Box

NETWORK = chain((1, 3), Linear(np.array([[1.0, 2.0, -1.0]]), np.zeros(1)), Relu())


def query(assertion) -> Query:
    return Query(NETWORK, Box(-np.ones(3), np.ones(3)), assertion)


def test_a_counterexample_among_points_is_returned() -> None:
    goal = query(at_least("v2", 0, 2))
    hit = point_test(goal)(torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]], dtype=torch.float64))
    assert hit is not None and hit.tolist() == [1.0, 1.0, 0.0] and confirms(goal, hit)


def test_points_outside_a_disjuncts_box_do_not_count() -> None:
    """The goal holds at the first point, which lies in neither disjunct's half of the region."""
    left, right = at_most("x", 0, -0.5), at_least("x", 0, 0.5)
    goal = query(Or((And((left, at_least("v2", 0, 1))), And((right, at_least("v2", 0, 3))))))
    points = torch.tensor([[0.0, 1.0, 0.0], [-0.5, 1.0, -0.5], [0.0, 1.0, -1.0]], dtype=torch.float64)
    hit = point_test(goal)(points)
    assert hit is not None and hit.tolist() == [-0.5, 1.0, -0.5]


def test_near_misses_are_polished_in_time() -> None:
    """No point shown is a counterexample, but a step from the best of them is one."""
    goal = query(at_least("v2", 0, 3.9))
    test = point_test(goal)
    rng = torch.Generator().manual_seed(0)
    near = torch.tensor([0.9, 0.95, -0.9], dtype=torch.float64)
    hits = [test(near - 0.1 * torch.rand((64, 3), generator=rng, dtype=torch.float64)) for _ in range(20)]
    found = [hit for hit in hits if hit is not None]
    assert found and all(confirms(goal, hit) for hit in found)


def test_nothing_is_found_where_nothing_is() -> None:
    points = torch.zeros((500, 3), dtype=torch.float64)
    assert point_test(query(at_least("v2", 0, 4, strict=True)))(points) is None
    assert point_test(query(FALSE))(points) is None
    assert point_test(query(at_least("v2", 0, 0)))(points[:0]) is None
