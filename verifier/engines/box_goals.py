"""Disjuncts on many boxes: each by one atom, or by the best weighted sum of its atoms, all linear in the input."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from verifier.engines.box_bounds import Affine

ROUNDS = 40
RATE, DECAY = 4.0, 0.92
STEP = 1.0  # of a premise's multiplier in the first round


@dataclass(frozen=True, eq=False)
class Members:
    """The rows that speak of one disjunct: its goals, and the premises that hold besides."""

    goals: Tensor
    premises: Tensor

    @property
    def all(self) -> Tensor:
        return torch.cat([self.goals, self.premises])


@dataclass(frozen=True, eq=False)
class Refutation:
    """How near each disjunct is to being refuted on each box; scores and doubts are in units of the atoms' own size.

    score: (boxes, disjuncts), above `doubt` where refuted, within it where rounding decides; weights: (boxes, goals), the
    multipliers behind the score, each goal counting for its own disjunct; bound: (boxes,) of each disjunct's best goal. Where
    nothing refutes a disjunct, the weights are those of its goals, of sum 1 in their units, with the best of its premises.
    """

    score: Tensor
    doubt: Tensor
    weights: Tensor
    bound: Tensor


def refute(lower: Affine, radius: Tensor, members: Sequence[Members], doubt: Tensor) -> Refutation:
    """What lower bounds of rows refute over boxes of a radius. doubt: (rows, boxes), what a bound must pass to be sure."""
    unit = (lower.constant.abs() + (lower.slopes.abs() * radius).sum(-1)).clamp(min=1e-30)
    least = lower.least(radius)
    ratio, unsure = least / unit, doubt / unit
    weights = torch.zeros(least.shape[1], least.shape[0], dtype=least.dtype)
    scores, doubts, bounds = [], [], []
    for own in members:
        score, chosen = _best(ratio, own.goals, own)
        if len(own.premises):
            alone, premise = _best(ratio, own.premises, own)
            # sound: a premise that fails all over the box leaves nothing of it
            by_premise = (alone > (premise * unsure[own.all]).sum(0)) & (alone > score)
            score, chosen = torch.where(by_premise, alone, score), torch.where(by_premise, premise, chosen)
        rest = (score <= unsure[own.all].amax(0)).nonzero()[:, 0]
        if len(own.all) > 1 and len(rest):
            part = own.all[:, None]
            scaled = unit[part, rest]
            mixed, mixture = conjoined(
                lower.slopes[part, rest] / scaled[..., None],
                lower.constant[part, rest] / scaled,
                radius[rest],
                premises=len(own.premises),
            )
            better = mixed > score[rest]
            score = score.index_put((rest[better],), mixed[better])
            chosen[:, rest[better]] = mixture[:, better]
        scores.append(score)
        doubts.append((chosen * unsure[own.all]).sum(0))
        bounds.append(least[own.goals].amax(0))
        weights[:, own.all] = (chosen / unit[own.all]).T
    return Refutation(torch.stack(scores, 1), torch.stack(doubts, 1), weights, torch.stack(bounds, 1))


def _best(ratio: Tensor, among: Tensor, own: Members) -> tuple[Tensor, Tensor]:
    """The best single row of each box (boxes,), and it as weights of all the disjunct's rows (rows, boxes)."""
    score, best = ratio[among].max(0)
    offset = 0 if among is own.goals else len(own.goals)
    return score, one_hot(best + offset, len(own.all)).T.to(ratio.dtype)


def conjoined(slopes: Tensor, constant: Tensor, radius: Tensor, *, premises: int = 0) -> tuple[Tensor, Tensor]:
    """Weights >= 0 under which the weighted sum of affine forms has a large minimum over each box.

    slopes: (forms, boxes, inputs), constant: (forms, boxes), in like units; the weights of the last `premises` forms are free,
    those of the others have sum 1. Returns minima (boxes,) and weights (forms, boxes). The minimum is concave in the weights;
    exponentiated gradient (Kivinen and Warmuth 1997) for those of sum 1, projected steps for the free ones.
    """
    goals = len(constant) - premises
    logits = torch.zeros_like(constant[:goals])
    free = torch.zeros_like(constant[goals:])
    best = torch.full_like(constant[0], -torch.inf)
    kept = torch.zeros_like(constant)
    rate = 1.0
    for _ in range(ROUNDS):
        weights = torch.cat([logits.softmax(0), free]) if premises else logits.softmax(0)
        slope = torch.einsum("fb,fbi->bi", weights, slopes)
        value = (weights * constant).sum(0) - (slope.abs() * radius).sum(-1)
        better = value > best
        best, kept = torch.where(better, value, best), torch.where(better, weights, kept)
        at = constant - (slopes * (slope.sign() * radius)).sum(-1)
        logits = logits + RATE * rate * at[:goals]
        free = (free + STEP * rate * at[goals:]).clamp(min=0)
        rate *= DECAY
    return best, kept
