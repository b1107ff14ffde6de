"""Networks whose values pass what float64 holds: any answer must be right, and none may be a crash."""

import numpy as np
import pytest

from verifier.formula import at_least, at_most
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify
from verifier.verdict import Proved, Refuted


def linear(weight: list[list[float]]) -> Linear:
    return Linear(frozen_array(np.array(weight)), frozen_array(np.zeros(len(weight))))


def network(big: float, sign: float) -> Network:
    """|x| is y[1] for sign -1; what is squared beyond float64 is y[0]."""
    nodes = (
        Node("a", linear([[big], [sign * big]]), ("x",)),
        Node("r", Relu(), ("a",)),
        Node("b", linear([[big, -big], [1, -sign]]), ("r",)),
        Node("s", Relu(), ("b",)),
        Node("y", linear([[1, 0], [0, 1]]), ("s",)),
    )
    return Network("x", (1, 1), nodes, "y")


@pytest.mark.parametrize("engine", ["auto", "bound", "split"])
@pytest.mark.parametrize("big", [1e150, 1e200, 1e300])
@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_values_past_float64(sign: float, big: float, engine: str) -> None:
    asked = network(big, sign)
    for assertion, holds_somewhere in (
        (at_most("y", 1, -1), False),
        (at_least("y", 0, 1), sign < 0),
        (at_most("y", 1, 0, strict=True), False),
        (at_least("y", 1, 0, strict=True), sign < 0),
    ):
        verdict = verify(Query(asked, Box([-1.0], [1.0]), assertion), timeout_s=3, engine=engine).verdict
        assert not isinstance(verdict, Proved if holds_somewhere else Refuted), (assertion, verdict)
