"""Masks of attention scores: entries that are minus infinity, read as keys that Softmax leaves out.

A stored -inf, and any constant of -1e30 or less that is added to a value or chosen in its place, marks entries of a value
as minus infinity. Float32 exponentials of either are 0, and so are the shares that Softmax gives to such entries here. The
network's value holds the number without the mask at a marked entry, or 0 where the mask stands in its place; nothing but a
Softmax, and what moves entries or keeps their order on the way to it, may read a marked value.
"""

import numpy as np
from numpy.typing import NDArray

from verifier.ops import Array, Op, Reshape, Scale, Select, Shape, Sum, Transpose, frozen_array

MASK_LIMIT = -1e30

Entries = NDArray[np.bool_]


def is_mask(constant: Array) -> bool:
    """Whether some entry of a constant stands for minus infinity."""
    return bool((constant <= MASK_LIMIT).any())


def unmasked(constant: Array) -> Array:
    """The constant with 0 at entries that stand for minus infinity."""
    return frozen_array(np.where(constant <= MASK_LIMIT, 0.0, constant)) if is_mask(constant) else constant


def passed_on(op: Op, marks: list[Entries], shape: Shape) -> Entries | None:
    """The marked entries of op's result, by those of each input; None where op may not read marked entries."""
    match op:
        case Reshape():
            return marks[0].reshape(shape)
        case Transpose(permutation=permutation):
            return marks[0].transpose(permutation)
        case Select(indices=indices):
            return (marks[0].reshape(-1)[indices] & (indices >= 0)).reshape(shape)
        case Scale(factor=factor) if (factor > 0).all():
            return marks[0]
        case Sum(coefficients=coefficients) if min(coefficients) > 0:
            return np.any(marks, axis=0)
        case _:
            return None
