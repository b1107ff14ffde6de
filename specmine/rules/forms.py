"""Linear forms of up to three neurons with coefficients 1 and -1, and the literals that bound them."""

from itertools import combinations, product

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.predicate import Predicate
from verifier.ops import Array


def small_forms(neurons: int) -> NDArray[np.int8]:
    """Every single neuron, pair and triple with every choice of signs that has a literal, (forms, neurons), singles first.

    Of triples those with all signs alike are left out.

    >>> small_forms(2).tolist()
    [[1, 0], [0, 1], [-1, 0], [0, -1], [1, 1], [1, -1], [-1, 1], [-1, -1]]
    """
    unit = np.eye(neurons, dtype=np.int8)
    parts = [unit, -unit]
    for size in (2, 3):
        places = np.array(list(combinations(range(neurons), size)), dtype=np.int64).reshape(-1, size)
        for signs in product((1, -1), repeat=size):
            if abs(sum(signs)) < 3:
                parts.append(
                    sum((s * unit[places[:, k]] for k, s in enumerate(signs)), np.zeros((len(places), neurons), np.int8))
                )
    return np.vstack(parts)


def count_forms(neurons: int) -> int:
    """How many forms `small_forms` gives.

    >>> [count_forms(n) == len(small_forms(n)) for n in (1, 2, 5)]
    [True, True, True]
    """
    return 2 * neurons + 2 * neurons * (neurons - 1) + neurons * (neurons - 1) * (neurons - 2)


def literal_of(site: str, form: Array | NDArray[np.int8], threshold: float) -> Predicate:
    """The literal form . h >= threshold over the values h of a site."""
    plus, minus = np.flatnonzero(form > 0).tolist(), np.flatnonzero(form < 0).tolist()
    least, most = threshold, 0.0 - threshold
    match len(plus), len(minus):
        case 1, 0:
            return Predicate("above", (site, plus[0], least))
        case 0, 1:
            return Predicate("inactive", (site, minus[0])) if most == 0 else Predicate("below", (site, minus[0], most))
        case 2, 0:
            return Predicate("sum_above", (site, plus[0], site, plus[1], least))
        case 0, 2:
            return Predicate("sum_below", (site, minus[0], site, minus[1], most))
        case 1, 1:
            return Predicate("less_by", (site, minus[0], site, plus[0], least))
        case 2, 1:
            return Predicate("sum_over", (site, plus[0], site, plus[1], site, minus[0], least))
        case _:
            return Predicate("sum_under", (site, minus[0], site, minus[1], site, plus[0], most))
