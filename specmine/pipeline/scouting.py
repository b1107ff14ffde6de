"""For which sub-boxes a proof is likely, and where to cut the others: plain float bounds of many boxes at a time.

Nothing here is a proof. It saves the verifier the questions whose answer would be that it does not know, since most sub-boxes
of a domain are too wide for a proof and are only cut.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from verifier.engines.bound import start_batch, tighten
from verifier.engines.boxes import SLOPE_SHARE, BoxSearch, can_split_inputs
from verifier.engines.problem import groups
from verifier.ops import Array
from verifier.query import Query
from verifier.strategy import target_of


def scout_of(query: Query) -> "Scout | None":
    """A scout for sub-boxes of the query's region, a box; None for a network or an assertion that it cannot bound."""
    found = groups(query)
    if not can_split_inputs(query.network) or not found or not all(group.goals for group in found):
        return None
    return Scout(query)


class Scout:
    """Bounds of a query's goals over sub-boxes of its region."""

    def __init__(self, query: Query) -> None:
        batch = tighten(start_batch(groups(query)))
        self._searches = [
            BoxSearch(batch, place, frozenset(group.disjuncts), target_of(batch), ())
            for place, group in enumerate(batch.groups)
        ]

    @torch.no_grad()
    def look(self, lower: Array, upper: Array) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Of boxes (boxes, inputs): whether bounds seem to refute the query there (boxes,), and the side to cut (boxes,).

        The side is that of the most slack in the worst of what is left open; -1 where nothing is.
        """
        low, high = torch.from_numpy(np.ascontiguousarray(lower)), torch.from_numpy(np.ascontiguousarray(upper))
        sides = torch.full((len(low),), -1, dtype=torch.long)
        for search in self._searches:
            at_once = search.model.at_once
            own = [_sides(search, a, b) for a, b in zip(low.split(at_once), high.split(at_once), strict=True)]
            sides = torch.where(sides < 0, torch.cat(own), sides)
        return (sides < 0).numpy(), sides.numpy()


def _sides(search: BoxSearch, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """The side to cut of each box (boxes,), -1 where everything is refuted."""
    known = search.model.start()[:, :, :0].expand(len(low), -1, -1)
    found = search.model.bounded(low, high, known, search.members, search.target)
    refuted = (found.how.score > found.how.doubt) | found.empty[:, None]
    sides = torch.full((len(low),), -1, dtype=torch.long)
    kept = (~refuted).any(1).nonzero()[:, 0]
    if not len(kept):
        return sides
    worst = torch.where(refuted[kept], torch.inf, found.how.score[kept]).argmin(1)
    weights = found.how.weights.double()[kept]
    mixture = torch.zeros_like(weights)
    for place, own in enumerate(search.members):
        mixture[:, own.all] = torch.where((worst == place)[:, None], weights[:, own.all], 0.0)
    slopes, slack = found.blame(kept, mixture)
    scores = slack + SLOPE_SHARE * slopes.abs() * (high - low)[kept]
    sides[kept] = scores.argmax(1)
    return sides
