"""Disjuncts on many boxes: each by its best atom, or by the best weighted sum of its atoms, all linear in the input."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from verifier.engines.box_bounds import Affine

ROUNDS = 40
RATE, DECAY = 4.0, 0.92


@dataclass(frozen=True, eq=False)
class Refutation:
    """How near each disjunct is to being refuted on each box; scores and doubts are in units of the atoms' own size.

    score: (boxes, disjuncts), above `doubt` where refuted, within it where rounding decides; weights: (boxes, goals), the
    multipliers behind the score, each goal counting for its own disjunct; bound: (boxes,) of each disjunct's best atom.
    """

    score: Tensor
    doubt: Tensor
    weights: Tensor
    bound: Tensor


def refute(lower: Affine, radius: Tensor, members: Sequence[Tensor], doubt: Tensor) -> Refutation:
    """What lower bounds of the goals refute over boxes of a radius. members: for each disjunct the numbers of its goals.

    doubt: (goals, boxes), what a bound must pass to be sure.
    """
    size = lower.constant.abs() + (lower.slopes.abs() * radius).sum(-1)
    unit = size.clamp(min=1e-30)
    least = lower.least(radius)
    weights = torch.zeros(least.shape[1], least.shape[0], dtype=least.dtype)
    scores, doubts, bounds = [], [], []
    for own in members:
        score, best = (least[own] / unit[own]).max(0)
        chosen = torch.nn.functional.one_hot(best, len(own)).T.to(least.dtype)
        open_ = (score <= (doubt / unit)[own].amax(0)).nonzero()[:, 0]
        if len(own) > 1 and len(open_):
            part = own[:, None]
            scaled = unit[part, open_]
            mixed, mixture = conjoined(
                lower.slopes[part, open_] / scaled[..., None], lower.constant[part, open_] / scaled, radius[open_]
            )
            better = mixed > score[open_]
            score = score.index_put((open_[better],), mixed[better])
            chosen[:, open_[better]] = mixture[:, better]
        scores.append(score)
        doubts.append((chosen * doubt[own] / unit[own]).sum(0))
        bounds.append(least[own].amax(0))
        weights[:, own] = (chosen / unit[own]).T
    return Refutation(torch.stack(scores, 1), torch.stack(doubts, 1), weights, torch.stack(bounds, 1))


def conjoined(slopes: Tensor, constant: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Weights >= 0 of sum 1 under which the weighted sum of affine forms has a large minimum over each box.

    slopes: (forms, boxes, inputs), constant: (forms, boxes), in like units. Returns minima (boxes,) and weights (forms, boxes).
    The minimum is concave in the weights; exponentiated gradient (Kivinen and Warmuth 1997).
    """
    logits = torch.zeros_like(constant)
    best = torch.full_like(constant[0], -torch.inf)
    kept = logits
    rate = RATE
    for _ in range(ROUNDS):
        weights = logits.softmax(0)
        slope = (weights[..., None] * slopes).sum(0)
        value = (weights * constant).sum(0) - (slope.abs() * radius).sum(-1)
        better = value > best
        best, kept = torch.where(better, value, best), torch.where(better, weights, kept)
        logits = logits + rate * (constant - (slopes * (slope.sign() * radius)).sum(-1))
        rate *= DECAY
    return best, kept
