"""Networks built so that floating point gives another answer than real arithmetic (after Zombori et al. 2021)."""

import numpy as np
import pytest
from laws.judge import judge

from verifier.check import confirms
from verifier.evaluate import evaluate
from verifier.formula import at_least, at_most, conjoin
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array
from verifier.query import Query
from verifier.region import Box
from verifier.solve import ENGINES, verify
from verifier.verdict import Proved, Refuted

LARGE = 2.0**60


def trap(depth: int) -> Network:
    """y = x on [0, 1] in real arithmetic, but floats add x to 2**60 and lose it: they compute 0."""
    nodes = []
    name = "x"
    for k in range(depth):
        up = Linear(frozen_array([[1.0], [0.0]]), frozen_array([LARGE, LARGE]))
        down = Linear(frozen_array([[1.0, -1.0]]), frozen_array([0.0]))
        nodes += [Node(f"z{k}", up, (name,)), Node(f"h{k}", Relu(), (f"z{k}",)), Node(f"y{k}", down, (f"h{k}",))]
        name = f"y{k}"
    return Network("x", (1, 1), tuple(nodes), name)


def test_floats_are_fooled() -> None:
    assert float(evaluate(trap(1), np.array([[0.75]]))["y0"].max()) == 0.0


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_satisfiable_query_is_never_proved(engine: str, depth: int) -> None:
    network = trap(depth)
    query = Query(network, Box([0.0], [1.0]), at_least(network.output, 0, 0.5))
    assert judge(query, timeout_s=10) == "sat"
    verdict = verify(query, timeout_s=3, engine=engine).verdict
    assert not isinstance(verdict, Proved)
    assert not isinstance(verdict, Refuted) or confirms(query, verdict.counterexample)


@pytest.mark.parametrize("depth", [1, 3])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_false_alarm_is_never_refuted(engine: str, depth: int) -> None:
    network = trap(depth)
    query = Query(network, Box([0.0], [1.0]), conjoin(at_least("x", 0, 0.5), at_most(network.output, 0, 0.25)))
    assert judge(query, timeout_s=10) == "unsat"
    assert not isinstance(verify(query, timeout_s=3, engine=engine).verdict, Refuted)
