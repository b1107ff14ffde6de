"""The values of a network as linear forms of its input and its activations: all that is linear in between, multiplied out."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

import torch
from scipy.sparse import csr_array, vstack
from torch import Tensor

from verifier.domains.choices import Choices, Rows, unit_rows
from verifier.domains.linear import lower_bounds
from verifier.domains.relaxations import relaxed_nodes
from verifier.network import Network
from verifier.ops import Array

NUMBERS_AT_ONCE = 8_000_000
MOST_ROWS = 256
MOST_ENTRIES = 30_000_000  # that are not 0, of all values that activations read


@dataclass(frozen=True, eq=False)
class Forms:
    """matrix @ (input, activations) + shift, a row for each entry; the activations stand in the order of their nodes."""

    matrix: csr_array
    shift: Array


def starts_of(network: Network) -> dict[str, int]:
    """Where the input and each activation begin on the axis of the forms, by name."""
    names = [network.input, *(node.output for node in relaxed_nodes(network))]
    return dict(zip(names, accumulate([0, *(network.size(name) for name in names)]), strict=False))


@torch.no_grad()
def forms_of(network: Network, rows: Rows) -> tuple[Tensor, Tensor]:
    """Rows (batch, spec) as forms (batch, spec, width) and their constants (batch, spec); float64."""
    count = len(rows.constant)
    starts = starts_of(network)
    seen: dict[str, Tensor] = {}
    one = torch.ones(1, 1, dtype=torch.float64)
    # no bound is used before the pass stops; a Relu that may be on keeps its column
    anything = {v: (-one.expand(count, network.size(v)), one.expand(count, network.size(v))) for v in network.shapes}
    constants = lower_bounds(network, anything, rows, Choices({}), seen=seen, stop=starts)
    forms = torch.zeros(*constants.shape, sum(network.size(name) for name in starts), dtype=torch.float64)
    for name, start in starts.items():
        if name in seen:
            forms[..., start : start + network.size(name)] = seen[name]
    return forms, constants


def entry_forms(network: Network, value: str, entries: Tensor) -> Forms:
    """Some entries of a value."""
    starts = starts_of(network)
    width = sum(network.size(name) for name in starts)
    at_once = max(1, min(MOST_ROWS, NUMBERS_AT_ONCE // width))
    matrices, shifts = [csr_array((0, width))], [torch.zeros(0, dtype=torch.float64)]
    for some in entries.split(at_once) if len(entries) else ():
        forms, constants = forms_of(network, unit_rows(value, some[None], torch.ones(1, len(some), dtype=torch.float64)))
        matrices.append(csr_array(forms[0].numpy()))
        shifts.append(constants[0])
    return Forms(csr_array(vstack(matrices)), torch.cat(shifts).numpy())


@lru_cache(maxsize=4)
def read_forms(network: Network) -> Mapping[str, Forms] | None:
    """Of every value that an activation reads, all its entries; None where they have too many coefficients."""
    found: dict[str, Forms] = {}
    for node in relaxed_nodes(network):
        value = node.inputs[0]
        if value not in found:
            found[value] = entry_forms(network, value, torch.arange(network.size(value)))
            if sum(forms.matrix.nnz for forms in found.values()) > MOST_ENTRIES:
                return None
    return found
