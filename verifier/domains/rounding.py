"""Outward rounding of float64 arithmetic: how far a computed number can be from the exact one."""

from functools import lru_cache

import torch
from torch import Tensor

UNIT = 2.0**-53
# Larger than every error that underflow can cause in a sum of up to a million products, flushed to zero or not.
TINY = 1e-300


@lru_cache(maxsize=4096)
def gamma(terms: int) -> float:
    """A bound on the relative error of an inner product of `terms` products, summed in any order (Higham 2002, Lemma 3.1).

    Doubled and padded, so that it also covers the rounding of the error term itself and of the few operations around it.
    """
    count = 2 * terms + 32
    assert count * UNIT < 0.01, f"an inner product of {terms} terms is too long for the error bound"
    return 1.01 * count * UNIT


def below(x: Tensor) -> Tensor:
    """The next float64 towards -inf: a lower bound on the exact result that was rounded to x; an undefined x gives -inf."""
    # sound: round-to-nearest is off by less than one step, and an overflow to +inf steps back to the largest float
    return torch.nan_to_num(torch.nextafter(x, x.new_full((), -torch.inf)), nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)


def above(x: Tensor) -> Tensor:
    """The next float64 towards +inf: an upper bound on the exact result that was rounded to x; an undefined x gives +inf."""
    return -below(-x)


def center_radius(lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Tensors c, r with c - r <= lower and upper <= c + r in exact arithmetic."""
    center = 0.5 * lower + 0.5 * upper
    radius = torch.maximum(upper - center, center - lower)
    # sound: a difference is off by at most UNIT times itself (differences never underflow)
    return center, radius * (1 + 4 * UNIT)
