"""Multipliers on the relations of a premise, by a linear program at one value: exact where that value decides a goal alone.

A body that confines a whole layer, by its literals on single neurons and by sums and differences of them, proves its head
without a look at how the layer comes about: the least of the goal over the polytope is a program of the size of the layer. Its
dual is where a pass begins. Programs only propose: what is recorded is a backward pass with these multipliers.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from highspy import Highs, HighsLp, HighsModelStatus, MatrixFormat
from scipy.sparse import csr_array
from torch import Tensor

from verifier.device import array_of, tensor_of
from verifier.domains.choices import Atoms, Choices
from verifier.domains.relaxations import Interval
from verifier.ops import Array

MOST_ENTRIES = 4_000_000  # of the relations' coefficients


def stopped_at(
    value: str, seen: Tensor, start: Choices, atoms: Atoms, bounds: Mapping[str, Interval], wanted: Tensor
) -> Choices | None:
    """The choices of `start` with the multipliers on relations and bounds of a value that make the least of what arrives there.

    seen: (batch, spec, size), what arrives; wanted: (batch, spec), which rows are asked for. Only relations about this value
    alone take part. None where there are none, or they are too many.
    """
    matrix = atoms.coefficients.get(value)
    if matrix is None or start.atoms is None or matrix[0].numel() > MOST_ENTRIES:
        return None
    elsewhere = [(c != 0).any(-1) for v, c in atoms.coefficients.items() if v != value]
    about = (matrix != 0).any(-1) & ~torch.stack([torch.zeros_like(atoms.bias, dtype=torch.bool), *elsewhere]).any(0)
    multipliers, left = start.atoms.clone(), seen.clone()
    low, high = bounds[value]
    for b, s in wanted.nonzero().tolist():
        forms, bias = array_of(matrix[b][about[b]]), array_of(atoms.bias[b][about[b]])
        found = _multipliers(array_of(seen[b, s]), forms, bias, array_of(low[b]), array_of(high[b]))
        multipliers[b, s, about[b]] = tensor_of(found)
        left[b, s] += tensor_of(found @ forms)
    # what is left meets the bounds; where there is none it goes on backwards
    lower, upper = left.clamp(min=0) * low.isfinite()[:, None], (-left).clamp(min=0) * high.isfinite()[:, None]
    return replace(start, lower={**start.lower, value: lower}, upper={**start.upper, value: upper}, atoms=multipliers)


def _multipliers(goal: Array, forms: Array, bias: Array, low: Array, high: Array) -> Array:
    """Multipliers >= 0 (forms,) of the least of goal . v over low <= v <= high and forms v + bias <= 0; zeros without one."""
    if not len(forms):
        return np.zeros(0)
    matrix = csr_array(forms)
    model = HighsLp()
    model.num_col_, model.num_row_ = len(goal), len(forms)
    model.col_cost_, model.col_lower_, model.col_upper_ = goal, low, high
    model.row_lower_, model.row_upper_ = np.full(len(forms), -np.inf), -bias
    model.a_matrix_.format_ = MatrixFormat.kRowwise
    model.a_matrix_.start_, model.a_matrix_.index_, model.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
    solver = Highs()
    solver.setOptionValue("output_flag", False)
    solver.setOptionValue("threads", 1)
    solver.passModel(model)
    solver.run()
    if solver.getModelStatus() != HighsModelStatus.kOptimal:
        return np.zeros(len(forms))
    return np.maximum(-np.array(solver.getSolution().row_dual), 0.0)
