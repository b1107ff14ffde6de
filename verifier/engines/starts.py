"""Points of boxes to begin a search from, as different from each other as can be told without knowing the data."""

from itertools import product

import torch
from torch import Tensor

from verifier.device import random_integers, random_like

KINDS = 8
FLAT = 3  # inputs up to which runs make no sense


def center(lower: Tensor, upper: Tensor) -> Tensor:
    """The middle of a box (inputs,), as shape (1, inputs)."""
    return (lower / 2 + upper / 2).unsqueeze(0)


def corners(lower: Tensor, upper: Tensor) -> Tensor:
    """All corners of a box (inputs,): (2 ** inputs, inputs)."""
    sides = torch.tensor(list(product((False, True), repeat=len(lower))))
    return torch.where(sides, upper, lower)


def apart(points: Tensor, values: Tensor, number: int, *, distance: float = 0.02) -> Tensor:
    """Places of up to `number` points (count, inputs), lowest value (count,) first, no two of them within `distance`.

    Where too few lie apart, the best of the others follow.
    """
    order = torch.argsort(values, stable=True)[: 8 * number]
    chosen: list[int] = []
    for place in order.tolist():
        if len(chosen) < number and not (chosen and bool(((points[chosen] - points[place]).abs().amax(1) < distance).any())):
            chosen.append(place)
    chosen += [place for place in order.tolist() if place not in chosen][: number - len(chosen)]
    return torch.tensor(chosen, dtype=torch.int64)


def varied(lower: Tensor, upper: Tensor, number: int, generator: torch.Generator) -> Tensor:
    """Random points of boxes (..., inputs): (..., number, inputs), several kinds taking turns.

    Uniform; corners, also lopsided ones; points of low contrast; sparse changes to a corner; and the same with runs of
    neighbouring inputs moving together, since networks trained on images or series are often dead on white noise.
    """
    shape = (*lower.shape[:-1], number, lower.shape[-1])
    share = random_like(lower, shape, generator)
    kind = torch.arange(number).reshape(-1, 1) % KINDS
    if shape[-1] > FLAT:
        share = torch.where((kind == 3) | (kind >= 6), _runs(share, generator), share)
    density, base, contrast = random_like(lower, (3, *shape[:-1], 1), generator)
    lopsided = (share < density).to(share.dtype)
    flat = base + contrast.square() * (share - base)
    sparse = torch.where(random_like(lower, shape, generator) < density.square(), share, base.round())
    share = torch.where((kind == 1) | (kind == 6), lopsided, share)
    share = torch.where(kind == 4, flat, share)
    share = torch.where((kind == 5) | (kind == 7), sparse, share)
    lower, upper = lower.unsqueeze(-2), upper.unsqueeze(-2)
    return (lower * (1 - share) + upper * share).clamp(lower, upper)


def _runs(share: Tensor, generator: torch.Generator) -> Tensor:
    """The same numbers, each repeated over a run of inputs; the length of the runs differs from point to point."""
    inputs = share.shape[-1]
    longest = max(1, (inputs // 2).bit_length())
    power = random_integers(1, longest + 1, (*share.shape[:-1], 1), generator)
    offset = random_integers(0, inputs, (*share.shape[:-1], 1), generator)
    return share.gather(-1, (torch.arange(inputs) + offset % 2**power) // 2**power % inputs)
