"""A network small enough to reason about by hand, data for it, and a run on both.

h1 = relu(x0 - x1, x1 - x0), y = h1: class 0 where x0 > x1, class 1 where x1 > x0, a tie where they are equal.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from specmine.config import Config, make_config
from specmine.data import Dataset, from_arrays
from specmine.pipeline.inputs import Inputs
from specmine.pipeline.run import Run, start_run
from specmine.pipeline.stages import make_claims
from specmine.rules.syntax import parse_clauses
from verifier.network import Network, Node
from verifier.ops import Linear, Relu, frozen_array

CLAUSES = """
class(0) :- above(h1,0,0.125).
class(1) :- above(h1,1,0.25).
class(0) :- inactive(h1,1).
class(1) :- above(h1,1,2.0).
"""
VERDICTS = ("proved", "proved", "refuted", "vacuous")


def network() -> Network:
    difference = frozen_array([[1.0, -1.0], [-1.0, 1.0]])
    nodes = (
        Node("pre", Linear(difference, frozen_array([0.0, 0.0])), ("input",)),
        Node("post", Relu(), ("pre",)),
        Node("out", Linear(frozen_array(np.eye(2)), frozen_array([0.0, 0.0])), ("post",)),
    )
    return Network("input", (1, 2), nodes, "out")


def arrays(samples: int = 60) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    x = np.random.default_rng(0).random((samples, 2)).round(3)
    return x, (x[:, 1] > x[:, 0]).astype(np.int64)


def dataset() -> Dataset:
    x, y = arrays()
    return from_arrays(x, y, name="toy", lower=0.0, upper=1.0)


def config(**overrides: object) -> Config:
    return make_config(**({"timeout_s": 5.0, "exports": ("json",)} | overrides))


def run(folder: Path, clauses: str = CLAUSES, **overrides: object) -> Run:
    """A run whose claims are the given clauses over the whole domain, not yet verified."""
    started = start_run(folder, Inputs(network(), dataset(), None), config(**overrides))
    parsed = parse_clauses(clauses, sites=started.sites)
    started.write_claims(make_claims(started, parsed, started.config.regions, tried=len(parsed)))
    return started
