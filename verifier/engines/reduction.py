"""A network of Relus cut down to the neurons that some trees leave undecided: how `reduced` comes about."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from verifier.device import array_of, tensor_of
from verifier.domains.choices import Atoms, Rows
from verifier.domains.relaxations import Interval, relaxed_nodes
from verifier.engines.forms import SparseForms, forms_of, known_forms, starts_of
from verifier.engines.linear_map import LinearMap, linear_map, work_of
from verifier.engines.planes import Place, fans_of
from verifier.engines.reduced import Block, Forms, Reduced
from verifier.network import Network
from verifier.ops import Relu

MOST_WORK = 12_000_000  # of a pass: beyond, the network's own operators are cheaper
MOST_FORMED = 16_000  # entries whose forms are worked out
MOST_MERGED = 40_000_000  # coefficients of the neurons that are on, once they are multiplied out

Places = NDArray[np.int64]
Cut = Callable[[SparseForms], SparseForms]
"""Forms over all activations to forms over those that are left."""


def reduce(
    network: Network,
    bounds: Mapping[str, Interval],
    free: Mapping[str, Tensor],
    rows: Rows,
    atoms: Atoms | None,
    *,
    merged: bool,
) -> Reduced | None:
    """What is left of some trees over one network; None where it has other nonlinear nodes than Relu, or is too large.

    bounds: those of the roots, (trees, size); free: (size,) entries of watched values on which multipliers may always act, by
    the watched values in network order; rows: the goals, one for each tree, and atoms its relations. merged: multiply out
    the neurons that are on in every tree, and not only where that makes a pass cheaper.
    """
    nodes = relaxed_nodes(network)
    readers = {node.inputs[0]: node.output for node in nodes}
    if len(readers) < len(nodes) or not all(isinstance(node.op, Relu) for node in nodes):
        return None
    if not all(bool(side.float().isfinite().all()) for v in (*free, network.input) for side in bounds[v]):
        return None
    left = _Left(network, readers, *_entries(bounds, free, readers))
    if left.formed > MOST_FORMED or left.merged_work > MOST_WORK:
        return None
    reduction = None if merged else _Reduction(left, _without(left), left.on)
    if (reduction is None or left.merged_work < reduction.work) and left.multiplied_out <= MOST_MERGED:
        reduction = _Reduction(left, _merging(left), {v: on[:0] for v, on in left.on.items()})
    return None if reduction is None or reduction.work > MOST_WORK else reduction.reduced(bounds, rows, atoms)


def _entries(
    bounds: Mapping[str, Interval], free: Mapping[str, Tensor], readers: Mapping[str, str]
) -> tuple[dict[str, Places], dict[str, Places]]:
    """Which entries of each watched value are kept, and which others are on in every tree."""
    kept, on = {}, {}
    for v, always in free.items():
        low, high = bounds[v]
        above, below = (low >= 0).all(0), (high <= 0).all(0)
        chosen = always | ~(above | below) if v in readers else always
        kept[v] = array_of(chosen.nonzero()[:, 0])
        on[v] = array_of((above & ~chosen).nonzero()[:, 0]) if v in readers else kept[v][:0]
    return kept, on


@dataclass(frozen=True, eq=False)
class _Left:
    """readers: the activation that reads a value; kept, on: entries of the watched values, in network order."""

    network: Network
    readers: Mapping[str, str]
    kept: Mapping[str, Places]
    on: Mapping[str, Places]

    @property
    def formed(self) -> int:
        """How many entries have forms."""
        return sum(len(kept) + len(self.on[v]) for v, kept in self.kept.items())

    @property
    def multiplied_out(self) -> int:
        """How many coefficients the neurons that are on have at most, in terms of what is kept."""
        kept = sum(len(kept) for v, kept in self.kept.items() if v in self.readers)
        return sum(map(len, self.on.values())) * (self.network.size(self.network.input) + kept)

    @property
    def merged_work(self) -> int:
        """The multiplications of a pass where all that is on is multiplied out, at most."""
        sizes = [len(kept) for kept in self.kept.values()]
        read = [len(kept) if v in self.readers else 0 for v, kept in self.kept.items()]
        before = accumulate([self.network.size(self.network.input), *read])
        return sum(size * width for size, width in zip(sizes, before, strict=False))

    def columns(self, chosen: Mapping[str, Sequence[Places]]) -> Places:
        """The places on the axis of forms of all inputs, then of chosen entries of the activations by the values they read."""
        starts = starts_of(self.network)
        parts = [starts[self.readers[v]] + part for v, parts in chosen.items() if v in self.readers for part in parts]
        return np.concatenate([np.arange(self.network.size(self.network.input)), *parts])

    def forms(self, value: str, entries: Places) -> SparseForms:
        """Of some entries of a watched value."""
        return known_forms(self.network).of(value, entries)


def _without(left: _Left) -> Cut:
    """Leave out the neurons that are off."""
    columns = left.columns({v: (left.kept[v], left.on[v]) for v in left.kept})
    return lambda forms: SparseForms(forms.matrix[:, columns], forms.shift)


def _merging(left: _Left) -> Cut:
    """Leave out the neurons that are off, and put the forms of those that are on in their places."""
    columns, starts = left.columns({v: (left.kept[v],) for v in left.kept}), starts_of(left.network)
    known: list[tuple[Places, SparseForms]] = []

    def cut(forms: SparseForms) -> SparseForms:
        matrix, shift = forms.matrix[:, columns], forms.shift
        for places, those in known:
            part = forms.matrix[:, places]
            if part.nnz:
                matrix, shift = csr_array(matrix + part @ those.matrix), shift + part @ those.shift
        return SparseForms(matrix, shift)

    for value, on in left.on.items():
        if len(on):
            known.append((starts[left.readers[value]] + on, cut(left.forms(value, on))))
    return cut


class _Reduction:
    """The blocks of a network that is cut; passed_on: the entries that are on and stay, by watched value."""

    def __init__(self, left: _Left, cut: Cut, passed_on: Mapping[str, Places]) -> None:
        self.left, self.cut = left, cut
        self.work = 0  # the multiplications of a pass
        self.blocks = self._blocks(passed_on)

    def _blocks(self, passed_on: Mapping[str, Places]) -> tuple[Block, ...]:
        blocks: list[Block] = []
        watched = active = carried = 0
        inputs = self.left.network.size(self.left.network.input)
        for value, kept in self.left.kept.items():
            entries = np.concatenate([kept, passed_on[value]])
            if not len(entries) or self.work > MOST_WORK:
                continue
            forms = self.cut(self.left.forms(value, entries))
            of_carried = csr_array(forms.matrix[:, inputs:])
            columns = _used(of_carried)
            of_inputs, of_carried = csr_array(forms.matrix[:, :inputs]), csr_array(of_carried[:, columns])
            self.work += work_of(of_inputs) + work_of(of_carried)
            if self.work > MOST_WORK:
                continue
            read = value in self.left.readers
            block = Block(
                slice(watched, watched + len(kept)),
                slice(active, active + len(kept)) if read else None,
                slice(carried, carried + len(entries)) if read else None,
                columns,
                _map(of_inputs),
                _map(of_carried),
                tensor_of(forms.shift).float(),
                value,
                tensor_of(kept),
            )
            blocks.append(block)
            watched += len(kept)
            active, carried = (active + len(kept), carried + len(entries)) if read else (active, carried)
        self.width = carried
        return tuple(blocks)

    def reduced(self, bounds: Mapping[str, Interval], rows: Rows, atoms: Atoms | None) -> Reduced:
        left, network = self.left, self.left.network
        sizes = {v: network.size(v) for v in left.kept}
        starts = dict(zip(sizes, accumulate([0, *sizes.values()]), strict=False))
        nodes = [node.output for node in relaxed_nodes(network)]
        slopes = dict(zip(nodes, accumulate([0, *(network.size(name) for name in nodes)]), strict=False))
        low, high = bounds[network.input]
        if bool((low == low[0]).all() and (high == high[0]).all()):
            low, high = low[:1], high[:1]
        nothing = torch.zeros(0, dtype=torch.long)
        read = [block for block in self.blocks if block.active is not None]
        places = {
            b.value: Place(b.watched, b.active, b.carried, b.entries)
            for b in self.blocks
            if b.active is not None and b.carried is not None
        }
        return Reduced(
            torch.cat([nothing, *(block.entries + starts[block.value] for block in self.blocks)]),
            torch.cat([nothing, *(block.entries + slopes[left.readers[block.value]] for block in read)]),
            self.blocks,
            self._cut_rows(rows)[:, 0],
            None if atoms is None else self._cut_rows(Rows(atoms.coefficients, atoms.bias)),
            ((0.5 * low + 0.5 * high).float(), (0.5 * high - 0.5 * low).float()),
            network.size(network.input),
            self.width,
            torch.cat([torch.zeros(0), *(block.shift for block in read)]),
            torch.cat([nothing, *(torch.arange(block.watched.start, block.watched.stop) for block in read)]),
            fans_of(network, places, bounds),
        )

    def _cut_rows(self, rows: Rows) -> Forms:
        """Rows (batch, spec) over what is left, in float32."""
        matrix, shift = forms_of(self.left.network, rows)
        forms = self.cut(SparseForms(csr_array(array_of(matrix.flatten(0, 1))), array_of(shift.flatten())))
        dense = tensor_of(forms.matrix.toarray()).float().view(*shift.shape, -1)
        inputs = self.left.network.size(self.left.network.input)
        of_inputs = dense[..., :inputs].contiguous() if bool(dense[..., :inputs].any()) else None
        return Forms(dense[..., inputs:].contiguous(), of_inputs, tensor_of(forms.shift).float().view(shift.shape))


def _used(matrix: csr_array) -> slice:
    """From the first to the last column that is not 0 all over."""
    used = np.unique(matrix.nonzero()[1])
    return slice(int(used[0]), int(used[-1]) + 1) if len(used) else slice(0, 0)


def _map(matrix: csr_array) -> LinearMap | None:
    return linear_map(matrix) if matrix.nnz else None
