"""Whether linear forms of one layer, each at least its threshold, add up to the margins of a linear read-out.

Over all values h of the layer with a_l h >= t_l for each form l, the margin w h + b is at least b + max sum_l m_l t_l over
multipliers m >= 0 with sum_l m_l a_l = w (<= w where every h is at least 0): linear programming duality, one small program for
each rival. Forms without a multiplier have nothing to say.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import highspy
import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from verifier.ops import Array

_IDLE = 1e-7


@dataclass(eq=False)
class Margins:
    """forms: (forms, neurons) of small coefficients; goals: (rivals, neurons) and offsets: (rivals,) of the margins; floor:
    whether every neuron is at least 0.

    After `solve`, margins (rivals,) and multipliers (rivals, forms) are the last answers; -infinity and zeros for a rival whose
    margin no multipliers bound.
    """

    forms: Array
    goals: Array
    offsets: Array
    floor: bool
    margins: Array = field(init=False)
    multipliers: Array = field(init=False)
    _solvers: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.margins = np.full(len(self.goals), -np.inf)
        self.multipliers = np.zeros((len(self.goals), len(self.forms)))
        columns = scipy.sparse.csc_matrix(self.forms.T)
        self._solvers = [_solver(columns, goal, self.floor) for goal in self.goals]

    @property
    def used(self) -> NDArray[np.int64]:
        """The forms that some margin needs, ascending."""
        return np.flatnonzero((self.multipliers > _IDLE).any(axis=0))

    def solve(self, thresholds: Array) -> float:
        """The least margin for thresholds (forms,); a margin that no multipliers bound is minus infinity."""
        places = np.arange(len(self.forms), dtype=np.int32)
        for rival, solver in enumerate(self._solvers):
            solver.changeColsCost(len(places), places, thresholds.astype(np.float64))
            self.margins[rival], self.multipliers[rival] = self._answer(rival)
        return float(self.margins.min())

    def without(self, gone: Sequence[int] | NDArray[np.int64], *, least: float) -> bool:
        """Whether every margin stays above `least` without these forms; then they are gone for good."""
        changed = np.flatnonzero((self.multipliers[:, gone] > _IDLE).any(axis=1))
        self._allow(changed, gone, np.inf, forbid=True)
        answers = {}
        for rival in changed.tolist():
            answers[rival] = self._answer(rival)
            if answers[rival][0] <= least:
                self._allow(changed, gone, np.inf, forbid=False)
                return False
        for rival, (margin, multipliers) in answers.items():
            self.margins[rival], self.multipliers[rival] = margin, multipliers
        self._allow(np.arange(len(self.goals)), gone, np.inf, forbid=True)
        return True

    def _allow(self, rivals: NDArray[np.int64], forms: Any, most: float, *, forbid: bool) -> None:
        places = np.asarray(forms, dtype=np.int32)
        upper = np.full(len(places), 0.0 if forbid else most)
        for rival in rivals.tolist():
            self._solvers[rival].changeColsBounds(len(places), places, np.zeros(len(places)), upper)

    def _answer(self, rival: int) -> tuple[float, Array]:
        solver = self._solvers[rival]
        solver.run()
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return -np.inf, np.zeros(len(self.forms))
        value = solver.getInfo().objective_function_value + self.offsets[rival]
        return float(value), np.maximum(np.array(solver.getSolution().col_value), 0.0)


def _solver(columns: Any, goal: Array, floor: bool) -> Any:
    """The program of one rival, which keeps its basis from one call to the next."""
    neurons, forms = columns.shape
    model = highspy.HighsLp()
    model.num_col_, model.num_row_ = forms, neurons
    model.sense_ = highspy.ObjSense.kMaximize
    model.col_cost_, model.col_lower_, model.col_upper_ = np.zeros(forms), np.zeros(forms), np.full(forms, np.inf)
    model.row_lower_, model.row_upper_ = np.full(neurons, -np.inf) if floor else goal, goal
    model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
    model.a_matrix_.start_, model.a_matrix_.index_ = columns.indptr, columns.indices
    model.a_matrix_.value_ = columns.data.astype(np.float64)
    solver = highspy.Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    return solver
