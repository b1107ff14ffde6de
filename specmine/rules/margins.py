"""Whether linear forms of one layer, each at least its threshold, add up to the margins of a linear read-out.

Over all values h of the layer with a_l h >= t_l for each form l, the margin w h + b is at least b + max sum_l m_l t_l over
multipliers m >= 0 with sum_l m_l a_l = w (<= w where every h is at least 0): linear programming duality, one small program for
each rival. Forms without a multiplier have nothing to say. Of many forms a program holds only those that were once violated
at the point where the margin was least.
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
_FEW_FORMS = 600
_AT_ONCE = 30
_VIOLATED = 1e-7


@dataclass(eq=False)
class Margins:
    """forms: (forms, neurons) of small coefficients; goals: (rivals, neurons) and offsets: (rivals,) of the margins; floor:
    whether every neuron is at least 0.

    After `solve`, margins (rivals,) and multipliers (rivals, forms) are the last answers; -infinity and zeros for a rival whose
    margin no multipliers bound.
    """

    forms: Array | NDArray[np.int8]
    goals: Array
    offsets: Array
    floor: bool
    margins: Array = field(init=False)
    multipliers: Array = field(init=False)
    _programs: list["_Program"] = field(init=False)

    def __post_init__(self) -> None:
        self.margins = np.full(len(self.goals), -np.inf)
        self.multipliers = np.zeros((len(self.goals), len(self.forms)))
        forms = scipy.sparse.csr_matrix(self.forms, dtype=np.float64)
        self._programs = [_Program(forms, goal, self.floor) for goal in self.goals]

    @property
    def used(self) -> NDArray[np.int64]:
        """The forms that some margin needs, ascending."""
        return np.flatnonzero((self.multipliers > _IDLE).any(axis=0))

    def solve(self, thresholds: Array, *, unit: Array | None = None) -> float:
        """The least margin for thresholds (forms,); a margin that no multipliers bound is minus infinity.

        unit: the scale (forms,) of each form's values; with it, a form that is violated by less than a thousandth of its unit
        may be left out, and the margins may be a little less than could be had.
        """
        slack = np.full(len(thresholds), _VIOLATED) if unit is None else 1e-3 * unit
        for rival, program in enumerate(self._programs):
            value, self.multipliers[rival] = program.solve(thresholds, slack)
            self.margins[rival] = value + self.offsets[rival]
        return float(self.margins.min())

    def without(self, gone: Sequence[int] | NDArray[np.int64], *, least: float) -> bool:
        """Whether every margin stays above `least` without these forms; then they are gone for good."""
        places = np.asarray(gone, dtype=np.int64)
        changed = np.flatnonzero((self.multipliers[:, places] > _IDLE).any(axis=1))
        answers = {}
        for rival in changed.tolist():
            self._programs[rival].forbid(places)
            value, multipliers = self._programs[rival].again()
            answers[rival] = value + self.offsets[rival], multipliers
            if answers[rival][0] <= least:
                for done in answers:
                    self._programs[done].allow(places)
                return False
        for rival, (margin, multipliers) in answers.items():
            self.margins[rival], self.multipliers[rival] = margin, multipliers
        self.multipliers[:, places] = 0.0  # idle ones may not be
        for program in self._programs:
            program.forbid(places)
        return True


class _Program:
    """The program of one rival, which keeps its forms and its basis from one call to the next."""

    def __init__(self, forms: Any, goal: Array, floor: bool) -> None:
        self.forms, self.allowed = forms, np.ones(forms.shape[0], dtype=bool)
        self.places = np.full(forms.shape[0], -1)
        self.taken = np.zeros(0, dtype=np.int64)
        self.thresholds = self.slack = np.zeros(forms.shape[0])
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = 0, len(goal)
        model.sense_ = highspy.ObjSense.kMaximize
        model.row_lower_, model.row_upper_ = np.full(len(goal), -np.inf) if floor else goal, goal
        model.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        model.a_matrix_.start_ = np.zeros(1, dtype=np.int32)
        self.solver = highspy.Highs()
        self.solver.setOptionValue("output_flag", False)
        self.solver.setOptionValue("threads", 1)
        self.solver.passModel(model)

    def solve(self, thresholds: Array, slack: Array) -> tuple[float, Array]:
        """The largest sum for thresholds (forms,) and its multipliers (forms,)."""
        self.thresholds, self.slack = thresholds.astype(np.float64), slack
        if not len(self.taken):
            sizes = np.diff(self.forms.indptr)
            self._take(np.flatnonzero((sizes == 1) | (len(sizes) <= _FEW_FORMS)))
        else:
            self.solver.changeColsCost(len(self.taken), np.arange(len(self.taken), dtype=np.int32), self.thresholds[self.taken])
        return self.again()

    def again(self) -> tuple[float, Array]:
        """The same with the forms that are allowed now."""
        while True:
            self.solver.run()
            solved = self.solver.getModelStatus() == highspy.HighsModelStatus.kOptimal
            missing = self._violated() if solved else np.flatnonzero(self.places < 0)
            if not len(missing):
                break
            self._take(missing)
        multipliers = np.zeros(len(self.thresholds))
        if not solved:
            return -np.inf, multipliers
        multipliers[self.taken] = np.maximum(np.array(self.solver.getSolution().col_value), 0.0)
        return float(self.solver.getInfo().objective_function_value), multipliers

    def _violated(self) -> NDArray[np.int64]:
        """Forms that are not taken and violated at the point where the margin is least, the worst of them."""
        outside = (self.places < 0) & self.allowed
        if not outside.any():
            return np.zeros(0, dtype=np.int64)
        point = np.array(self.solver.getSolution().row_dual)
        beyond = np.where(outside, (self.thresholds - self.forms @ point) / (self.slack + 1e-300), 0)
        worst = np.argpartition(-beyond, min(_AT_ONCE, len(beyond) - 1))[:_AT_ONCE]
        return np.sort(worst[beyond[worst] > 1])

    def _take(self, forms: NDArray[np.int64]) -> None:
        self.places[forms] = np.arange(len(self.taken), len(self.taken) + len(forms))
        self.taken = np.concatenate([self.taken, forms])
        columns = self.forms[forms]
        most = np.where(self.allowed[forms], np.inf, 0.0)
        starts, neurons = columns.indptr[:-1].astype(np.int32), columns.indices.astype(np.int32)
        costs = self.thresholds[forms]
        self.solver.addCols(len(forms), costs, np.zeros(len(forms)), most, columns.nnz, starts, neurons, columns.data)

    def forbid(self, forms: NDArray[np.int64]) -> None:
        """No multipliers on these forms from now on."""
        self._bound(forms, 0.0)

    def allow(self, forms: NDArray[np.int64]) -> None:
        """Multipliers on these forms again."""
        self._bound(forms, np.inf)

    def _bound(self, forms: NDArray[np.int64], most: float) -> None:
        self.allowed[forms] = most > 0
        places = self.places[forms]
        places = places[places >= 0].astype(np.int32)
        self.solver.changeColsBounds(len(places), places, np.zeros(len(places)), np.full(len(places), most))
