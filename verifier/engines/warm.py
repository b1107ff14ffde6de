"""Where a climb on the bounds of neurons goes on: the choices of the step that bounded them last."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.certificate import Step
from verifier.device import array_of, tensor_of
from verifier.domains.choices import Choices
from verifier.engines.problem import Batch, Group


def known_rows(batch: Batch, value: str, columns: Tensor) -> Iterator[tuple[int, Group, Step, Tensor, NDArray[np.int64]]]:
    """For each group that a step has bounded entries of a value of: its position, itself, the last such step, and which of the
    rows (entries at columns[position], then their negatives) are rows of the step, with their places in it."""
    for b, (group, steps) in enumerate(zip(batch.groups, batch.steps, strict=True)):
        step = next((step for step in reversed(steps) if step.value == value), None)
        if step is None:
            continue
        known = torch.full((batch.network.size(value), 2), -1)
        side = tensor_of((step.signs < 0).astype(np.int64))
        known[tensor_of(step.indices), side] = torch.arange(len(step.indices))
        sources = torch.cat([known[columns[b], 0], known[columns[b], 1]])
        there = (sources >= 0).nonzero()[:, 0]
        yield b, group, step, there, array_of(sources[there])


def warm_choices(batch: Batch, value: str, columns: Tensor, plain: Choices, multiplied: Sequence[str]) -> Choices | None:
    """The choices of earlier steps for the rows of `plain` (groups, 2 * count, ...), its own where there are none.

    Multipliers on the bounds of `multiplied` and on the relations are zero where no step has any. None where nothing is known.
    """
    shape = (len(columns), 2 * columns.shape[1])
    none = {v: torch.zeros(*shape, batch.network.size(v), dtype=torch.float64) for v in multiplied}
    lower, upper = dict(none), {v: zeros.clone() for v, zeros in none.items()}
    slopes, upper_slopes = ({n: t.clone() for n, t in side.items()} for side in (plain.slopes, plain.upper_slopes))
    atoms = None if batch.atoms is None else torch.zeros(*shape, batch.atoms.bias.shape[1], dtype=torch.float64)
    found = False
    for b, group, step, there, source in known_rows(batch, value, columns):
        given, found = step.relaxation, True
        pairs = ((slopes, given.slopes), (upper_slopes, given.upper_slopes), (lower, given.lower), (upper, given.upper))
        for into, known in pairs:
            _write(into, known, b, there, source, rows=len(step.indices))
        if atoms is not None and given.atoms.size and len(given.atoms) == len(step.indices) and group.relations:
            places = [group.common.index(atom) for atom in group.relations]
            atoms[b, there[:, None], torch.arange(len(places))] = tensor_of(given.atoms[source][:, places])
    return Choices(slopes, lower, upper, atoms, upper_slopes) if found else None


def _write(
    into: Mapping[str, Tensor], known: Mapping[str, NDArray], entry: int, there: Tensor, source: NDArray[np.int64], *, rows: int
) -> None:
    for name, tensor in into.items():
        if name in known and len(known[name]) == rows:
            tensor[entry, there] = tensor_of(known[name][source]).to(tensor.dtype)
