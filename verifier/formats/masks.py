"""Masks of attention scores: entries that are minus infinity, or as good as that, read as keys that Softmax leaves out.

A stored -inf, and any constant of MASK_LIMIT or less that is added to a value or chosen in its place, masks entries of a value.
Its level there is what the mask adds: the model's value is the network's plus the level, where a chosen mask counts as added
to 0. A Softmax gives masked entries no share, as float32 exponentials do; nothing else than Softmax, and what moves or scales
entries on the way to it, may read a masked value.

Under the model's own name the network has the whole value, level included, beside what goes on to the Softmax; a value that is
minus infinity somewhere has no name of its own. From the added levels `verifier.check` knows which scores must be small
against their mask: only then is leaving them out what the model does.
"""

import numpy as np
from numpy.typing import NDArray

from verifier.ops import MASK_LIMIT, Array, Op, Reshape, Scale, Select, Shape, Sum, Transpose, frozen_array

Levels = NDArray[np.float64]
"""What masks add to the entries of a value; 0 at those that are not masked."""


def levels_of(constant: Array) -> Levels:
    """The levels of a constant that is added or chosen."""
    return np.where(constant <= MASK_LIMIT, constant, 0.0)


def unmasked(constant: Array) -> Array:
    """The constant with 0 at entries that are masks."""
    masks = constant <= MASK_LIMIT
    return frozen_array(np.where(masks, 0.0, constant)) if masks.any() else constant


def passed_on(op: Op, levels: list[Levels], shape: Shape) -> Levels | None:
    """The levels of op's result, by those of each input; None where op may not read masked entries."""
    match op:
        case Reshape():
            return levels[0].reshape(shape)
        case Transpose(permutation=permutation):
            return levels[0].transpose(permutation)
        case Select(indices=indices):
            return np.where(indices >= 0, levels[0].reshape(-1)[indices], 0.0).reshape(shape)
        case Scale(factor=factor) if (factor > 0).all():
            # sound: factor * (v + level) + offset = (factor * v + offset) + factor * level
            return _still_masks(factor * levels[0])
        case Sum(coefficients=coefficients) if min(coefficients) > 0:
            return _still_masks(np.sum([c * part for c, part in zip(coefficients, levels, strict=True)], axis=0))
        case _:
            return None


def _still_masks(levels: Levels) -> Levels | None:
    """The levels, if none was scaled down to a number that a score may reach."""
    return levels if ((levels == 0) | (levels <= MASK_LIMIT)).all() else None
