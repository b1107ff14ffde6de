"""The free choices of a certificate, checked: right shapes, finite, within the limits that make them sound."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import Relaxation
from verifier.check.model import Model, least_slope
from verifier.ops import Array, LeakyRelu, Relu


class Rejected(Exception):
    """The reason why a certificate proves nothing; `check` turns it into a result."""


def require(condition: bool | np.bool_, reason: str) -> None:
    """Raises Rejected with the reason unless the condition holds."""
    if not condition:
        raise Rejected(reason)


def validated(model: Model, relaxation: Relaxation, rows: int, atoms: int) -> Relaxation:
    """The relaxation with float64 arrays of the right shapes and values; an empty array of atoms becomes zeros."""
    require(isinstance(relaxation, Relaxation), f"a relaxation was expected, got {type(relaxation).__name__}")
    slopes = {name: _slopes(model, name, array, rows) for name, array in relaxation.slopes.items()}
    multipliers: list[Mapping[str, Array]] = []
    for given in (relaxation.lower, relaxation.upper):
        for name in given:
            require(name in model.network.shapes, f"multipliers name {name!r}, which the network lacks")
        multipliers.append({name: _multipliers(a, (rows, model.network.size(name)), name) for name, a in given.items()})
    of_atoms = relaxation.atoms if np.size(relaxation.atoms) else np.zeros((rows, atoms))
    return Relaxation(slopes, multipliers[0], multipliers[1], _multipliers(of_atoms, (rows, atoms), "the atoms"))


def some_rows(relaxation: Relaxation, batch: slice, rows: int) -> Relaxation:
    """The part of a validated relaxation of `rows` rows that concerns a batch of them."""

    def cut(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        return {name: array[batch] if len(array) == rows else array for name, array in arrays.items()}

    return Relaxation(cut(relaxation.slopes), cut(relaxation.lower), cut(relaxation.upper), relaxation.atoms[batch])


def numbers(array: NDArray, what: str, *, whole: bool = False) -> NDArray:
    """The array as float64, or as int64 where whole numbers are asked for."""
    kinds = "iu" if whole else "fiu"
    require(isinstance(array, np.ndarray) and array.dtype.kind in kinds, f"{what} are not an array of numbers")
    with np.errstate(over="ignore"):
        # sound: a plain copy, since a kind of array of its own (a masked one) may hide entries from the tests below
        values = np.array(array, dtype=np.int64 if whole else np.float64)
    require(np.isfinite(values).all(), f"{what} are not finite")
    return values


def index(value: object, size: int, what: str) -> int:
    """A position below size."""
    if not isinstance(value, int | np.integer) or not 0 <= value < size:
        raise Rejected(f"{what} {value!r} is out of range; there are {size}")
    return int(value)


def _slopes(model: Model, name: str, array: NDArray, rows: int) -> NDArray:
    node = model.network.producers.get(name)
    if node is None or not (name in model.windows or isinstance(node.op, Relu | LeakyRelu)):
        raise Rejected(f"slopes name {name!r}, which is no activation or maximum of the network")
    size, is_pool = model.network.size(name), name in model.windows
    values = numbers(array, f"the slopes of {name!r}", whole=is_pool)
    require(values.shape in ((1, size), (rows, size)), f"the slopes of {name!r} have shape {values.shape}")
    if is_pool:
        inside = (values[:, :, None] == model.windows[name][None]).any(axis=2) & (values >= 0)
        require(inside.all(), f"a window of {name!r} is represented by an entry outside it")
    else:
        least = least_slope(node)
        require(((values >= least) & (values <= 1)).all(), f"a slope of {name!r} is outside [{least:g}, 1]")
    return values


def _multipliers(array: NDArray, shape: tuple[int, int], name: str) -> Array:
    values = numbers(array, f"the multipliers of {name}")
    require(values.shape == shape, f"the multipliers of {name} have shape {values.shape}, not {shape}")
    require((values >= 0).all(), f"a multiplier of {name} is negative")
    return values
