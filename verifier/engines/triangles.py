"""The triangle relaxation of a Relu network as one linear program, kept in HiGHS while its bounds and its objective change.

Columns are the inputs, then for each neuron kept its value above zero and its value below zero: z = above - below, both >= 0.
Between lower < 0 < upper the pair lies under the line from (upper, 0) to (0, -lower), which is the triangle of Ehlers (2017);
where a bound decides the neuron one of the two is zero. The multipliers of an optimum are slopes and multipliers of a backward
pass that gives the same bound: such a pass is what is recorded, so that nothing here has to be trusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import highspy
import numpy as np
import torch
from highspy import HighsBasis, HighsModelStatus
from numpy.typing import NDArray
from scipy.sparse import csr_array, vstack
from torch import Tensor

from verifier.domains.choices import Choices
from verifier.domains.optimise import pinned
from verifier.domains.relaxations import Interval
from verifier.engines.problem import Batch
from verifier.engines.reduced import Reduced
from verifier.engines.subproblems import Roots
from verifier.ops import Array

OPTIONS = (("output_flag", False), ("threads", 1), ("presolve", "off"), ("simplex_scale_strategy", 0))
"""One program after the other from the last basis: to presolve or to scale each costs more than it saves."""
SMALL = 1e-12  # of a coefficient, whose slope does not matter


@dataclass(frozen=True, eq=False)
class Optimum:
    """value: the least of the objective, inf where the program is infeasible; point: (inputs,) and z: (watched,) where it lies.

    above, below: (neurons,) reduced costs of the two parts of each; of_rows: multipliers of the rows. Those of an infeasible
    program are a ray along which the dual objective grows without an end; its point and its z mean nothing.
    """

    value: float
    point: Array
    z: Array
    above: Array
    below: Array
    of_rows: Array


class Triangles:
    """The program of one tree: `restrict` sets the bounds of the neurons kept, the `minimise` methods solve.

    Its rows: the forms of the watched entries, the lines above the neurons, the relations of the premise.
    """

    def __init__(self, roots: Roots, reduced: Reduced) -> None:
        self.roots, self.reduced = roots, reduced
        self.inputs, self.count = reduced.inputs, reduced.sloped.numel()
        self.watched = reduced.watched.numpy()
        self.columns = self.inputs + 2 * self.count
        self.above = self.inputs + np.arange(self.count)
        self.below = self.above + self.count
        self.neuron = np.full(len(self.watched), -1)
        for block in reduced.blocks:
            if block.active is not None:
                self.neuron[block.watched] = np.arange(block.active.start, block.active.stop)
        self.read, self.free = np.flatnonzero(self.neuron >= 0), np.flatnonzero(self.neuron < 0)
        self.forms, self.shift = self._forms()
        self.relations, self.limits = self._relations()
        self.chords = len(self.watched)
        self.first_relation = self.chords + self.count
        self.goal = np.concatenate([reduced.goal.whole(self.inputs)[0].double().numpy(), np.zeros(self.count)])
        self.goal_shift = float(reduced.goal.constant[0])
        self.slope = np.ones(self.count)
        self.low = self.high = np.full(len(self.watched), np.nan)
        self.solver = self._solver()

    def _forms(self) -> tuple[Array, Array]:
        """A row for each watched entry: its form over inputs and earlier activations, less the entry itself."""
        rows = np.zeros((len(self.watched), self.columns))
        for block in self.reduced.blocks:
            forms = block.rows(torch.arange(block.kept), self.reduced.width).whole(self.inputs)
            rows[block.watched, : forms.shape[1]] = forms.double().numpy()
        rows[self.read, self.above], rows[self.read, self.below] = -1.0, 1.0
        return rows, np.concatenate([np.zeros(0), *(block.shift.double().numpy() for block in self.reduced.blocks)])

    def _relations(self) -> tuple[Array, Array]:
        """rows @ columns <= limits."""
        atoms = self.reduced.atoms
        if atoms is None:
            return np.zeros((0, self.columns)), np.zeros(0)
        forms = atoms.whole(self.inputs)[0].double().numpy()
        return np.hstack([forms, np.zeros((len(forms), self.count))]), -atoms.constant[0].double().numpy()

    def _solver(self) -> Any:  # highspy's stubs lack half of its methods
        places = np.concatenate([self.above, self.below])
        pairs = csr_array((np.ones(2 * self.count), (np.tile(np.arange(self.count), 2), places)), (self.count, self.columns))
        matrix = csr_array(vstack([csr_array(self.forms), pairs, csr_array(self.relations)]))
        center, radius = (side[0].double().numpy() for side in self.reduced.box)
        anything = np.full(2 * self.count, np.inf)
        model = highspy.HighsLp()
        model.num_col_, model.num_row_ = self.columns, matrix.shape[0]
        model.col_cost_ = np.zeros(self.columns)
        model.col_lower_ = np.concatenate([center - radius, np.zeros(2 * self.count)])
        model.col_upper_ = np.concatenate([center + radius, anything])
        model.row_lower_ = np.concatenate([-self.shift, -anything[: self.count], np.full(len(self.limits), -np.inf)])
        model.row_upper_ = np.concatenate([-self.shift, anything[: self.count], self.limits])
        model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        model.a_matrix_.start_, model.a_matrix_.index_ = matrix.indptr, matrix.indices
        model.a_matrix_.value_ = matrix.data
        solver = highspy.Highs()
        for option, value in OPTIONS:
            solver.setOptionValue(option, value)
        solver.passModel(model)
        return solver

    def restrict(self, bounds: Mapping[str, Interval]) -> None:
        """Set the bounds of the watched entries; bounds: (1, size) by value."""
        low, high = (self._kept(bounds, side) for side in (0, 1))
        if len(self.free):
            self._set_rows(self.free, (low - self.shift)[self.free], (high - self.shift)[self.free])
        changed = np.flatnonzero((low != self.low)[self.read] | (high != self.high)[self.read])
        if len(changed):
            self._set_neurons(changed, low[self.read][changed], high[self.read][changed])
        self.low, self.high = low, high

    def _kept(self, bounds: Mapping[str, Interval], side: int) -> Array:
        flat = torch.cat([bounds[v][side][0] for v in self.roots.watched.names])
        kept: Array = flat.double().numpy()[self.watched]
        return kept

    def _set_neurons(self, neurons: NDArray[np.int64], low: Array, high: Array) -> None:
        open_ = (low < 0) & (high > 0)
        for places, side, other in ((self.above, low, high), (self.below, -high, -low)):
            least, most = np.where(open_, 0.0, np.maximum(side, 0.0)), np.where(open_, np.inf, np.maximum(other, 0.0))
            self.solver.changeColsBounds(len(neurons), places[neurons].astype(np.int32), least, most)
        slope = np.divide(high, high - low, out=np.ones_like(high), where=open_)
        self._set_rows(self.chords + neurons, np.full(len(neurons), -np.inf), np.where(open_, -slope * low, np.inf))
        self.slope[neurons] = slope
        for neuron, s in zip(neurons[open_].tolist(), slope[open_].tolist(), strict=True):
            self.solver.changeCoeff(self.chords + neuron, self.inputs + neuron, 1.0 - s)
            self.solver.changeCoeff(self.chords + neuron, self.inputs + self.count + neuron, s)

    def _set_rows(self, rows: NDArray[np.int64], low: Array, high: Array) -> None:
        self.solver.changeRowsBounds(len(rows), rows.astype(np.int32), low, high)

    def leave_out(self, relation: int) -> None:
        """Do without one relation of the premise, until it is taken in again."""
        self.solver.changeRowBounds(self.first_relation + relation, -np.inf, np.inf)

    def take_in(self, relation: int) -> None:
        """Hold the points to a relation of the premise again."""
        self.solver.changeRowBounds(self.first_relation + relation, -np.inf, self.limits[relation])

    def minimise_goal(self, basis: HighsBasis | None = None) -> Optimum | None:
        """The least of the goal's left side, from a basis where one is given; None where the solver fails."""
        if basis is not None:
            self.solver.setBasis(basis)
        return self._minimised(self.goal, self.goal_shift)

    def minimise_entry(self, place: int, sign: float) -> Optimum | None:
        """The least of sign * z at a neuron, by its place among the watched entries; None where the solver fails."""
        cost = np.zeros(self.columns)
        cost[self.above[self.neuron[place]]], cost[self.below[self.neuron[place]]] = sign, -sign
        return self._minimised(cost, 0.0)

    def basis(self) -> HighsBasis:
        """Where the last program was solved, to begin again from."""
        basis: HighsBasis = self.solver.getBasis()
        return basis

    def _minimised(self, cost: Array, shift: float) -> Optimum | None:
        self.solver.changeColsCost(self.columns, np.arange(self.columns, dtype=np.int32), cost)
        found = self._run(shift)
        if found is None:  # a basis that has gone bad: once more without one
            self.solver.clearSolver()
            found = self._run(shift)
        return found

    def _run(self, shift: float) -> Optimum | None:
        self.solver.run()
        status = self.solver.getModelStatus()
        if status == HighsModelStatus.kInfeasible:
            return self._infeasible()
        if status != HighsModelStatus.kOptimal:
            return None
        solution = self.solver.getSolution()
        values, of_columns = np.array(solution.col_value), np.array(solution.col_dual)
        z = np.zeros(len(self.watched))
        z[self.read] = values[self.above] - values[self.below]
        value = self.solver.getObjectiveValue() + shift
        above, below = of_columns[self.above], of_columns[self.below]
        return Optimum(value, values[: self.inputs], z, above, below, np.array(solution.row_dual))

    def _infeasible(self) -> Optimum | None:
        _, known, ray = self.solver.getDualRay()
        if not known or not np.any(ray):
            return None
        rows = np.array(ray) / np.abs(ray).max()
        lines = rows[self.chords : self.first_relation]
        every = -(rows[: self.chords] @ self.forms) - rows[self.first_relation :] @ self.relations
        above, below = every[self.above] - lines * (1.0 - self.slope), every[self.below] - lines * self.slope
        return Optimum(np.inf, np.zeros(self.inputs), np.zeros(len(self.watched)), above, below, rows)

    def nothing(self) -> Optimum:
        """In the place of an optimum that is not wanted: no multipliers at all."""
        none = np.zeros(self.count)
        rows = np.zeros(self.first_relation + len(self.limits))
        return Optimum(-np.inf, np.zeros(self.inputs), np.zeros(len(self.watched)), none, none, rows)

    def choices(self, optima: Sequence[Optimum], batch: Batch, *, scale: float = 1.0) -> Choices:
        """Slopes and multipliers of passes that give what these optima say, a row each: (1, optima, size).

        batch: of the one entry whose bounds the program has. scale: of the multipliers, for rays.
        """
        above, below, rows = (np.stack([getattr(o, n) for o in optima]) for n in ("above", "below", "of_rows"))
        low, high = self.low[self.read], self.high[self.read]
        on, off = low >= 0, (low < 0) & (high <= 0)
        # where the line above and one part's own bound meet is an end of z: they stand for a multiplier on that bound of z
        line = np.where(on | off, 0.0, (-rows[:, self.chords : self.first_relation]).clip(min=0.0))
        at_low = np.minimum(above, line).clip(min=0.0)
        at_high = np.minimum(below, line - at_low).clip(min=0.0)
        # what arrives at the neuron is shared out between the two lines below it
        arrived = above + below - line
        slopes = np.tile((high > -low).astype(np.float64), (len(optima), 1))
        slopes = np.divide(below - at_high, arrived, out=slopes, where=arrived > SMALL).clip(0.0, 1.0)
        ends = self.slope * at_low - (1.0 - self.slope) * at_high
        multipliers = np.zeros((len(optima), len(self.watched)))  # > 0 on lower bounds, < 0 on upper ones
        multipliers[:, self.read] = scale * np.where(on, above, np.where(off, -below, ends))
        multipliers[:, self.free] = scale * rows[:, self.free]
        lower, upper = (self._by_value(side.clip(min=0.0)) for side in (multipliers, -multipliers))
        atoms = None if batch.atoms is None else torch.from_numpy(scale * (-rows[:, self.first_relation :]).clip(min=0.0))[None]
        flat = torch.zeros(1, len(optima), self.roots.sloped.width, dtype=torch.float64)
        flat[:, :, self.reduced.sloped] = torch.from_numpy(slopes)
        found = Choices(self.roots.sloped.parts(flat), lower, upper, atoms)
        return pinned(batch.network, batch.bounds, found)

    def _by_value(self, multipliers: Array) -> dict[str, Tensor]:
        """Multipliers on the watched entries, (1, rows, size) by value; values that have none are left out."""
        flat = torch.zeros(1, len(multipliers), self.roots.watched.width, dtype=torch.float64)
        flat[:, :, torch.from_numpy(self.watched)] = torch.from_numpy(multipliers)
        return {v: part for v, part in self.roots.watched.parts(flat).items() if bool(part.any())}
