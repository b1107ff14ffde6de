"""The closes of many proof nodes, those of one kind in one pass. What is not confirmed here is looked at alone."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import Close, Plane, Relaxation
from verifier.check.boxes import Boxes
from verifier.check.choices import NUMBER_LIMIT, has_plane_shapes, within_limits
from verifier.check.float_backward import AtomForms, Choices, Planes, Seen, lower_bounds
from verifier.check.float_model import FloatModel
from verifier.formula import Atom
from verifier.ops import Array, MaxPool

ENTRIES_AT_ONCE = 2**18
SHARES_AT_ONCE = 2**22

# sound: float64 and int64 hold all numbers of these kinds.
FLOATS = frozenset(map(np.dtype, (np.float16, np.float32, np.float64)))
WHOLE = frozenset(map(np.dtype, (np.int8, np.int16, np.int32, np.int64)))

AtomsOf = Callable[[int], tuple[tuple[Atom, ...], AtomForms]]
Where = tuple[int, int]
"""Node and place among its closes."""


def confirm(
    model: FloatModel, boxes: Boxes, closes: Sequence[Sequence[Close]], members: frozenset[int], atoms_of: AtomsOf
) -> list[list[bool]]:
    """For each node, which of its closes are well formed and have a bound above zero."""
    found = [[False] * len(own) for own in closes]
    alike: dict[Hashable, list[Where]] = {}
    for k, own in enumerate(closes):
        for j, close in enumerate(own):
            key = _kind(close, members)
            if key is not None:
                alike.setdefault(key, []).append((k, j))
    at_once = max(1, ENTRIES_AT_ONCE // max(map(model.network.size, model.network.shapes)))
    for places in alike.values():
        (k, j), *_ = places
        _, forms = atoms_of(closes[k][j].disjunct)
        planes = closes[k][j].relaxation.planes.values()
        shares = max((np.size(plane.entries) * np.size(plane.columns) for plane in planes), default=0)
        few = max(1, min(at_once, SHARES_AT_ONCE // max(1, shares)))
        for first in range(0, len(places), few):
            batch = places[first : first + few]
            for (k, j), is_confirmed in zip(batch, _confirm_alike(model, boxes, closes, batch, forms), strict=True):
                found[k][j] = bool(is_confirmed)
    return found


def _kind(close: Close, members: frozenset[int]) -> Hashable | None:
    """What closes of one pass share; None for one that must be looked at alone."""
    if type(close) is not Close or type(close.relaxation) is not Relaxation or type(close.disjunct) is not int:
        return None
    given = close.relaxation
    sides = (given.slopes, given.upper_slopes, given.lower, given.upper, given.planes)
    if close.disjunct not in members or not all(type(side) in (dict, MappingProxyType) for side in sides):
        return None
    if not all(type(plane) is Plane for plane in given.planes.values()):
        return None
    places = tuple((_content(plane.entries), _content(plane.columns)) for plane in given.planes.values())
    return (close.disjunct, *(tuple(side) for side in sides), places)


def _content(array: object) -> Hashable:
    return (array.shape, array.dtype.str, array.tobytes()) if type(array) is np.ndarray else None


def _confirm_alike(
    model: FloatModel, boxes: Boxes, closes: Sequence[Sequence[Close]], places: Sequence[Where], forms: AtomForms
) -> NDArray[np.bool_]:
    confirmed = np.zeros(len(places), dtype=bool)
    given = [closes[k][j].relaxation for k, j in places]
    fit = [i for i, relaxation in enumerate(given) if _has_shapes(model, relaxation, len(forms.bias))]
    if not fit:
        return confirmed
    choices = choices_of([given[i] for i in fit], len(forms.bias))
    allowed = _allowed(model, choices, len(fit))
    if not allowed.all():
        fit = [i for i, is_allowed in zip(fit, allowed, strict=True) if is_allowed]
        if not fit:
            return confirmed
        choices = choices_of([given[i] for i in fit], len(forms.bias))
    seen = Seen(boxes, np.array([places[i][0] for i in fit], dtype=np.int64))
    bounds = lower_bounds(model, seen, {}, (len(fit), 1), choices, forms)[:, 0]
    # sound: where all atoms hold their weighted sum is <= 0, but it is >= bound.
    confirmed[fit] = bounds > 0
    return confirmed


def _has_shapes(model: FloatModel, given: Relaxation, atoms: int) -> bool:
    """Whether all arrays are plain, of the right kind and shape, for one row."""
    network = model.network
    for side in (given.slopes, given.upper_slopes, given.lower, given.upper):
        is_slopes = side is given.slopes or side is given.upper_slopes
        for name, array in side.items():
            if name not in network.shapes or (is_slopes and name not in network.producers):
                return False
            is_whole = is_slopes and isinstance(network.producers[name].op, MaxPool)
            if not _is_plain(array, (1, network.size(name)), WHOLE if is_whole else FLOATS):
                return False
    if not all(has_plane_shapes(model, name, plane) for name, plane in given.planes.items()):
        return False
    return _is_plain(given.atoms, (1, atoms), FLOATS) or (type(given.atoms) is np.ndarray and given.atoms.size == 0)


def _is_plain(array: object, shape: tuple[int, int], kinds: frozenset[np.dtype]) -> bool:
    return type(array) is np.ndarray and array.dtype in kinds and array.shape == shape


def choices_of(given: Sequence[Relaxation], atoms: int | None = None) -> Choices:
    """Relaxations of one kind, one for each node, as the choices of one pass.

    atoms: how many there are, where an empty array may stand for zeros.
    """

    def stacked(sides: Sequence[Mapping[str, NDArray]]) -> dict[str, NDArray]:
        return {name: _stacked([side[name] for side in sides]) for name in sides[0]}

    of_atoms: Array | None
    if atoms is None:
        of_atoms = _stacked([relaxation.atoms for relaxation in given])
    else:
        none = np.zeros((1, atoms))
        of_atoms = _stacked([relaxation.atoms if relaxation.atoms.size else none for relaxation in given])
    return Choices(
        stacked([r.slopes for r in given]),
        stacked([r.lower for r in given]),
        stacked([r.upper for r in given]),
        of_atoms if of_atoms.any() else None,
        stacked([r.upper_slopes for r in given]),
        {name: _planes([r.planes[name] for r in given]) for name in given[0].planes},
    )


def _planes(given: Sequence[Plane]) -> Planes:
    """Planes over the same places."""
    shares, weights = np.stack([plane.shares for plane in given]), np.stack([plane.weights for plane in given])
    return Planes(given[0].entries, given[0].columns, shares / 255.0, weights.astype(np.float64))


def _stacked(arrays: Sequence[NDArray]) -> NDArray:
    """One more axis in front; float64, or int64 for whole numbers."""
    if all(array is arrays[0] for array in arrays):
        together = np.broadcast_to(arrays[0], (len(arrays), *arrays[0].shape))
    else:
        together = np.stack(arrays)
    return together.astype(np.float64 if together.dtype.kind == "f" else np.int64)


def _allowed(model: FloatModel, choices: Choices, nodes: int) -> NDArray[np.bool_]:
    """Which nodes' choices are within the limits that make them sound."""
    allowed = np.ones(nodes, dtype=bool)
    for side, is_upper in ((choices.slopes, False), (choices.upper_slopes, True)):
        for name, values in side.items():
            allowed &= within_limits(model, name, values, is_upper=is_upper).all(axis=(1, 2))
    for planes in choices.planes.values():
        allowed &= ((planes.weights >= 0) & (planes.weights <= 1)).all(axis=(1, 2))
    for values in (*choices.lower.values(), *choices.upper.values(), *(() if choices.atoms is None else (choices.atoms,))):
        allowed &= ((values >= 0) & (values <= NUMBER_LIMIT)).all(axis=(1, 2))
    return allowed
