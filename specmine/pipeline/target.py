"""What clauses are to derive."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.predicates.predicate import Predicate


@dataclass(frozen=True, eq=False)
class Target:
    """The head, and the mining rows (samples,) that its clauses should cover and those they must not.

    holdout: which hold-out rows (samples,) its clauses should cover, where there are such and the head is a class.
    """

    head: Predicate
    positives: NDArray[np.bool_]
    negatives: NDArray[np.bool_]
    holdout: NDArray[np.bool_] | None = None
