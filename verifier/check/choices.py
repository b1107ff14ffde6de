"""The free choices of a certificate, checked: right shapes, finite, within the limits that make them sound."""

from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import Lemmas, Plane, Relaxation, Step
from verifier.check.float_maps import Dense
from verifier.check.float_model import FloatModel, Jump, least_slope
from verifier.network import Node
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, Array, MaxPool, Product, Relu

NUMBER_LIMIT = 2.0**900
BATCH_ENTRIES = 2**22


class Rejected(Exception):
    """The reason why a certificate proves nothing; `check` turns it into a result."""


def require(condition: bool | np.bool_, reason: str) -> None:
    """Raises Rejected with the reason unless the condition holds."""
    if not condition:
        raise Rejected(reason)


def validated(model: FloatModel, relaxation: Relaxation, rows: int, atoms: int) -> Relaxation:
    """The relaxation with float64 arrays of the right shapes and values; an empty array of atoms becomes zeros."""
    require(isinstance(relaxation, Relaxation), f"a relaxation was expected, got {type(relaxation).__name__}")
    slopes, upper_slopes = (
        {name: _slopes(model, name, array, rows, is_upper=is_upper) for name, array in side.items()}
        for side, is_upper in ((relaxation.slopes, False), (relaxation.upper_slopes, True))
    )
    multipliers: list[Mapping[str, Array]] = []
    for given in (relaxation.lower, relaxation.upper):
        for name in given:
            require(name in model.network.shapes, f"multipliers name {name!r}, which the network lacks")
        multipliers.append({name: _multipliers(a, (rows, model.network.size(name)), name) for name, a in given.items()})
    of_atoms = relaxation.atoms if np.size(relaxation.atoms) else np.zeros((rows, atoms))
    planes = {name: _plane(model, name, plane) for name, plane in relaxation.planes.items()}
    kept = _multipliers(of_atoms, (rows, atoms), "the atoms")
    return Relaxation(slopes, multipliers[0], multipliers[1], kept, upper_slopes, planes)


def some_rows(relaxation: Relaxation, batch: slice, rows: int) -> Relaxation:
    """The part of a step's validated relaxation of `rows` rows that concerns a batch of them."""

    def cut(arrays: Mapping[str, NDArray]) -> dict[str, NDArray]:
        return {name: array[batch] if len(array) == rows else array for name, array in arrays.items()}

    sides = cut(relaxation.slopes), cut(relaxation.lower), cut(relaxation.upper)
    return Relaxation(*sides, relaxation.atoms[batch], cut(relaxation.upper_slopes))


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
    # a bool is an int of Python's, but as an index of numpy's it is a mask
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < size:
        raise Rejected(f"{what} {value!r} is out of range; there are {size}")
    return int(value)


def is_finite_number(value: object) -> bool:
    """Whether a value is a real number that float64 holds."""
    given = np.array(value)
    return given.shape == () and given.dtype.kind in "fiu" and bool(np.isfinite(given))


def step_rows(model: FloatModel, step: Step) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A step's indices and signs, checked."""
    require(isinstance(step, Step), f"a step was expected, got {type(step).__name__}")
    require(not getattr(step.relaxation, "planes", None), "a step has planes, which stand in closes alone")
    return _signed_entries(model, step, "a step")


def lemma_rows(model: FloatModel, given: Lemmas) -> tuple[NDArray[np.int64], NDArray[np.int64], Array]:
    """The indices, signs and numbers of lemmas, checked, and that there is a tree for each."""
    indices, signs = _signed_entries(model, given, "a lemma")
    ats = numbers(given.ats, "a lemma's numbers")
    require(ats.shape == indices.shape, "lemmas have not one number each")
    require(isinstance(given.trees, tuple) and len(given.trees) == len(indices), "lemmas have not one tree each")
    return indices, signs, ats


def _signed_entries(model: FloatModel, given: Step | Lemmas, what: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    require(given.value in model.network.shapes, f"{what} bounds a value that the network lacks")
    size = model.network.size(given.value)
    indices, signs = (
        numbers(given.indices, f"{what}'s indices", whole=True),
        numbers(given.signs, f"{what}'s signs", whole=True),
    )
    require(indices.shape == signs.shape == (indices.size,), f"{what}'s indices and signs are not vectors of one length")
    require(((indices >= 0) & (indices < size)).all(), f"{what}'s index is out of range for {given.value!r}")
    require(((signs == 1) | (signs == -1)).all(), f"{what}'s signs must be 1 or -1")
    return indices, signs


def row_batches(model: FloatModel, rows: int) -> Iterator[slice]:
    """Slices of rows, so many at a time that no matrix of coefficients grows past some tens of megabytes."""
    widest = max(model.network.size(name) for name in model.network.shapes)
    step = max(1, BATCH_ENTRIES // widest)
    return (slice(first, first + step) for first in range(0, rows, step))


def within_limits(model: FloatModel, name: str, values: NDArray, *, is_upper: bool) -> NDArray[np.bool_]:
    """Which slopes of a node are allowed: (..., size) as `values`, whole numbers for a MaxPool; none where there are none."""
    node = model.network.producers.get(name)
    if node is not None and isinstance(node.op, CURVE_OPS):
        return np.abs(values) <= NUMBER_LIMIT
    if node is not None and isinstance(node.op, Product):
        return (values >= 0) & (values <= 1)
    if node is None or is_upper:
        return np.zeros(values.shape, dtype=bool)
    if name in model.windows:
        return (values[..., None] == model.windows[name]).any(axis=-1) & (values >= 0)
    if isinstance(node.op, ACTIVATION_OPS):
        return (values >= least_slope(node)) & (values <= 1)
    return np.zeros(values.shape, dtype=bool)


def under_planes(model: FloatModel, name: str) -> Jump | None:
    """The affine map under a Relu node, where planes may stand above it; None where they may not, or there is no such node."""
    node = model.network.producers.get(name)
    jump = model.jumps.get(node.inputs[0]) if node is not None and isinstance(node.op, Relu) else None
    if jump is None:
        return None
    part = jump.mapped.parts[0]
    return jump if isinstance(part, Dense) and part.copies == 1 else None


def has_plane_shapes(model: FloatModel, name: str, plane: Plane) -> bool:
    """Whether a plane's arrays are plain, with places in range that increase, and shapes that fit."""
    jump, types = under_planes(model, name), (plane.entries, plane.columns, plane.shares, plane.weights)
    if jump is None or not all(type(array) is np.ndarray for array in types):
        return False
    if plane.entries.dtype != np.int64 or plane.columns.dtype != np.int64 or plane.shares.dtype != np.uint8:
        return False
    places = ((plane.entries, model.network.size(name)), (plane.columns, model.network.size(jump.source)))
    # sound: places that increase name no entry twice
    if not all(a.ndim == 1 and ((a >= 0) & (a < n)).all() and (np.diff(a) > 0).all() for a, n in places):
        return False
    shape = (1, len(plane.entries), len(plane.columns))
    return plane.shares.shape == shape and plane.weights.shape == shape[:2] and plane.weights.dtype.kind == "f"


def _plane(model: FloatModel, name: str, plane: Plane) -> Plane:
    require(type(plane) is Plane and has_plane_shapes(model, name, plane), f"the planes of {name!r} do not fit there")
    weights = numbers(plane.weights, f"the weights of the planes of {name!r}")
    require(((weights >= 0) & (weights <= 1)).all(), f"a weight of the planes of {name!r} is outside [0, 1]")
    return Plane(plane.entries.copy(), plane.columns.copy(), plane.shares.copy(), weights)


def _slopes(model: FloatModel, name: str, array: NDArray, rows: int, *, is_upper: bool) -> NDArray:
    node = model.network.producers.get(name)
    takes_two = node is not None and isinstance(node.op, (*CURVE_OPS, Product))
    if is_upper and not takes_two:
        raise Rejected(f"upper slopes name {name!r}, which is no curve or product of the network")
    if node is None or not (takes_two or name in model.windows or isinstance(node.op, ACTIVATION_OPS)):
        raise Rejected(f"slopes name {name!r}, which is no activation, maximum, curve or product of the network")
    size, is_pool = model.network.size(name), name in model.windows
    values = numbers(array, f"the slopes of {name!r}", whole=is_pool)
    require(values.shape in ((1, size), (rows, size)), f"the slopes of {name!r} have shape {values.shape}")
    if not within_limits(model, name, values, is_upper=is_upper).all():
        raise Rejected(_beyond(node, name))
    return values


def _beyond(node: Node, name: str) -> str:
    if isinstance(node.op, MaxPool):
        return f"a window of {name!r} is represented by an entry outside it"
    if isinstance(node.op, CURVE_OPS):
        return f"a slope of {name!r} is beyond 2**900"
    least = least_slope(node) if isinstance(node.op, ACTIVATION_OPS) else 0
    return f"a slope of {name!r} is outside [{least:g}, 1]"


def _multipliers(array: NDArray, shape: tuple[int, int], name: str) -> Array:
    values = numbers(array, f"the multipliers of {name}")
    require(values.shape == shape, f"the multipliers of {name} have shape {values.shape}, not {shape}")
    require((values >= 0).all(), f"a multiplier of {name} is negative")
    return values
