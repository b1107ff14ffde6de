"""The cheapest set of clauses that covers the positives, by weighted set cover in ASP (METHODS 4)."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import clingo
import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadConfig, BadData

_ENCODING = files("specmine.rules").joinpath("encodings", "cover.lp")
_POLL_S = 0.05


@dataclass(frozen=True)
class Cover:
    """chosen: places of the clauses, ascending; cost: price a clause and its literals; lower_bound: no cover costs less;
    optimal: proved; reason: the same in words."""

    chosen: tuple[int, ...]
    cost: int
    lower_bound: int
    optimal: bool
    reason: str


def smallest_cover(
    covered: Sequence[NDArray[np.bool_]], sizes: Sequence[int], *, price: int = 100, timeout_s: float = 5.0
) -> Cover:
    """The cheapest of the clauses that together cover every sample that one of them covers.

    covered: for each clause, which samples (samples,) it covers; sizes: its literals; price: what a clause costs beyond its
    literals. Samples that the same clauses cover count once. Where the time ends, the best cover so far with its gap.

    Raises BadData where the two do not fit each other, BadConfig for a price or time out of range.
    """
    if len(covered) != len(sizes) or len({mask.shape for mask in covered}) > 1:
        raise BadData(f"each clause needs one mask of the same samples and one size, got {len(covered)} and {len(sizes)}")
    if price < 0 or not timeout_s > 0:
        raise BadConfig(f"price must be at least 0 and timeout_s above 0, got {price} and {timeout_s}")
    if not covered:
        return Cover((), 0, 0, True, "no clause to choose from")
    columns = np.unique(np.array(covered, dtype=bool), axis=1)
    facts = [f"clause({place},{size})." for place, size in enumerate(sizes)] + [f"price({price})."]
    facts += [f"covers({place},{sample})." for place, sample in zip(*np.nonzero(columns), strict=True)]
    start = tuple(range(len(sizes)))
    chosen, lower_bound, complete = _solve(" ".join(facts), start, timeout_s)
    cost = sum(price + sizes[place] for place in chosen)
    lower_bound = cost if complete else min(lower_bound, cost)
    words = f"{len(chosen)} of {len(sizes)} clauses"
    reason = f"{words}, proved cheapest" if complete else f"{words}, cost {cost}, a cheapest cover costs {lower_bound} or more"
    return Cover(chosen, cost, lower_bound, lower_bound == cost, reason)


def _solve(facts: str, start: tuple[int, ...], timeout_s: float) -> tuple[tuple[int, ...], int, bool]:
    """The best choice found, a lower bound on its cost, and whether no better one exists."""
    control = clingo.Control(["--opt-strategy=usc"], message_limit=0)
    control.add("base", [], _ENCODING.read_text(encoding="utf-8"))
    control.add("base", [], facts)
    control.ground([("base", [])])
    best, bound = start, 0

    def remember(model: clingo.Model) -> None:
        nonlocal best
        best = tuple(sorted(s.arguments[0].number for s in model.symbols(atoms=True) if s.name == "c"))

    def raise_bound(bounds: Sequence[int]) -> None:
        nonlocal bound
        bound = max(bound, *bounds)

    end = time.monotonic() + timeout_s
    with control.solve(on_model=remember, on_unsat=raise_bound, async_=True) as handle:
        while not handle.wait(max(0.0, min(_POLL_S, end - time.monotonic()))):
            if time.monotonic() >= end:
                handle.cancel()
                break
        complete = bool(handle.get().exhausted)
    return best, bound, complete
