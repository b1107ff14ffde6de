"""The values of a network as linear forms of its input and its activations: all that is linear in between, multiplied out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array, hstack, vstack
from torch import Tensor

from verifier.device import array_of, tensor_of
from verifier.domains.choices import Choices, Rows, unit_rows
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import relaxed_nodes
from verifier.network import Network
from verifier.ops import Array

NUMBERS_AT_ONCE = 4_000_000
MOST_ROWS = 256


@dataclass(frozen=True, eq=False)
class SparseForms:
    """matrix @ (input, activations) + shift, a row for each entry; the activations stand in the order of their nodes."""

    matrix: csr_array
    shift: Array


@lru_cache(maxsize=2)
def starts_of(network: Network) -> Mapping[str, int]:
    """Where the input and each activation begin on the axis of the forms, by name."""
    names = [network.input, *(node.output for node in relaxed_nodes(network))]
    return dict(zip(names, accumulate([0, *(network.size(name) for name in names)]), strict=False))


@torch.no_grad()
def _substituted(network: Network, rows: Rows) -> tuple[dict[str, Tensor], Tensor]:
    """Coefficients (batch, spec, size) of the input and of the activations that rows reach, by name, and constants."""
    count = len(rows.constant)
    seen: dict[str, Tensor] = {}
    one = torch.ones(1, 1, dtype=torch.float64)
    # no bound is used before the pass stops; a Relu that may be on keeps its column
    anything = {v: (-one.expand(count, network.size(v)), one.expand(count, network.size(v))) for v in network.shapes}
    starts = starts_of(network)
    constants = lower_bounds(network, anything, rows, Choices({}), seen=seen, stop=starts)
    return {name: seen[name] for name in starts if name in seen}, constants


def forms_of(network: Network, rows: Rows) -> tuple[Tensor, Tensor]:
    """Rows (batch, spec) as forms (batch, spec, width) and their constants (batch, spec); float64."""
    seen, constants = _substituted(network, rows)
    starts = starts_of(network)
    forms = torch.zeros(*constants.shape, sum(network.size(name) for name in starts), dtype=torch.float64)
    for name, part in seen.items():
        forms[..., starts[name] : starts[name] + network.size(name)] = part
    return forms, constants


def entry_forms(network: Network, value: str, entries: Tensor) -> SparseForms:
    """Some entries of a value."""
    names = list(starts_of(network))
    width = sum(network.size(name) for name in names)
    at_once = max(1, min(MOST_ROWS, NUMBERS_AT_ONCE // max(network.size(name) for name in network.shapes)))
    matrices, shifts = [csr_array((0, width))], [torch.zeros(0, dtype=torch.float64)]
    for some in entries.split(at_once) if len(entries) else ():
        rows = unit_rows(value, some[None], torch.ones(1, len(some), dtype=torch.float64))
        seen, constants = _substituted(network, rows)
        empty = {name: csr_array((len(some), network.size(name))) for name in names if name not in seen}
        parts = [empty[name] if name in empty else csr_array(array_of(seen[name][0])) for name in names]
        matrices.append(csr_array(hstack(parts)))
        shifts.append(constants[0])
    return SparseForms(csr_array(vstack(matrices)), array_of(torch.cat(shifts)))


class KnownForms:
    """The forms of entries of a network's values, each worked out when it is first asked for."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.places: dict[str, NDArray[np.int64]] = {}
        self.known: dict[str, SparseForms] = {}

    def of(self, value: str, entries: NDArray[np.int64]) -> SparseForms:
        """Of some entries of a value."""
        places = self.places.setdefault(value, np.full(self.network.size(value), -1))
        missing = entries[places[entries] < 0]
        if value not in self.known or len(missing):
            found = entry_forms(self.network, value, tensor_of(missing))
            old = self.known.get(value)
            places[missing] = np.arange(len(missing)) + (0 if old is None else len(old.shift))
            self.known[value] = found if old is None else _stacked(old, found)
        known = self.known[value]
        return SparseForms(known.matrix[places[entries]], known.shift[places[entries]])


def _stacked(first: SparseForms, second: SparseForms) -> SparseForms:
    return SparseForms(csr_array(vstack([first.matrix, second.matrix])), np.concatenate([first.shift, second.shift]))


@lru_cache(maxsize=2)
def known_forms(network: Network) -> KnownForms:
    """What is known of a network: a search asks for the same entries again and again."""
    return KnownForms(network)
