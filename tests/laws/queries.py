"""Random small queries over the networks of `laws.networks`, on the grid where float64 evaluation is exact."""

from fractions import Fraction

import numpy as np
from laws.networks import random_box, random_network

from verifier.evaluate import evaluate
from verifier.formula import And, Formula, Or, at_least, at_most, atom
from verifier.query import Query
from verifier.region import Ball, Box, Polytope, Region


def random_query(kind: str, *, seed: int, hidden: bool = True) -> Query:
    """A query whose atoms lie near the values at one random input of the region, some of them with a tie there."""
    rng = np.random.default_rng(seed)
    network = random_network(kind, seed=seed, grid=True)
    lower, upper = (side[0] for side in random_box(network, seed=seed))
    region: Region = Box(lower, upper)
    x = np.round((lower + rng.uniform(size=lower.size) * (upper - lower)) * 16) / 16
    values = {name: v.flatten().tolist() for name, v in evaluate(network, x[None]).items()}
    y = values[network.output]
    parts: list[Formula] = [_goal(network.output, y, rng)]
    for name in rng.choice(list(values), size=2) if hidden else ():
        index = int(rng.integers(len(values[name])))
        gap = Fraction(int(rng.integers(-2, 9)), 8)
        strict = bool(rng.integers(2))
        if rng.integers(2):
            parts.append(at_least(name, index, Fraction(values[name][index]) - gap, strict=strict))
        else:
            parts.append(at_most(name, index, Fraction(values[name][index]) + gap, strict=strict))
    if seed % 3 == 0:
        region = Ball(x, 0.25, Box(lower, upper))
    elif seed % 3 == 1:
        cut = atom({("x", 0): 1, ("x", lower.size - 1): 1}, -Fraction(x[0] + x[-1]))
        region = Polytope(Box(lower, upper), (cut,))
    return Query(network, region, And(tuple(parts)))


def _goal(output: str, y: list[float], rng: np.random.Generator) -> Formula:
    """y[0] or y[1] exceeds its value by a margin, or y[0] passes y[1]; a margin of 0 leaves a tie."""
    margin = Fraction(int(rng.integers(-4, 17)), 16)
    strict = bool(rng.integers(2))
    passes = atom({(output, 0): -1, (output, 1): 1}, Fraction(y[0]) - Fraction(y[1]) + margin, strict=strict)
    return Or((passes, And((at_least(output, 0, Fraction(y[0]) + 2 * margin), at_most(output, 1, Fraction(y[1]))))))
