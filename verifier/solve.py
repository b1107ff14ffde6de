"""Decide queries: one strategy that goes from cheap to dear, many queries over one network at a time.

A `Proved` from bound propagation or from a search by cases carries a certificate that `verifier.check` has accepted, with
every rounding accounted for; Z3 proves exactly without one. A `Refuted` has been replayed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from verifier.device import device_named
from verifier.errors import BadQuery
from verifier.ops import Array
from verifier.query import Query
from verifier.strategy import OnProgress, Progress, Strategy, Turn
from verifier.verdict import Decision

ENGINES: Mapping[str, tuple[Turn, ...]] = {
    "auto": (
        Turn("bound"),
        Turn("lp", 0.3, splits=100, most_cases=12),  # knows no other queries: an attack shares its draws with all of them
        Turn("falsify", 0.2, at_least_s=2.0, rounds=1),
        Turn("boxes", 0.15, at_least_s=2.0, at_most_s=20.0, splits=200),
        Turn("climb", 0.1, at_least_s=1.0, most_cases=12),
        Turn("smt", 0.1, at_least_s=2.0, at_most_s=2.0, most_cases=12),
        Turn("boxes", 0.2, at_least_s=2.0, at_most_s=30.0, splits=4000, most_inputs=12),
        Turn("climb", 0.1, at_least_s=2.0),
        Turn("boxes", 0.02, at_least_s=0.5, at_most_s=5.0, splits=4000),
        Turn("lp", 0.1, most_cases=150),
        Turn("split", 0.45, most_cases=150),
        Turn("lp", 0.8, most_cases=150),
        Turn("smt", 0.1, at_most_s=2.0, most_cases=150),
        Turn("falsify", 0.05, at_least_s=1.0, rounds=6),
        Turn("optimise", 0.2, at_least_s=1.0),
        Turn("milp", 0.2, at_most_s=5.0, most_cases=150),
        Turn("falsify", 0.05),
        Turn("boxes", 0.7, most_inputs=12),
        Turn("smt", 0.3, most_cases=40),
        Turn("lemmas", 0.4, splits=4000),
        Turn("split", 0.95),
        Turn("falsify", 0.5),
        Turn("smt"),
    ),
    "falsify": (Turn("falsify"),),
    "bound": (Turn("bound"), Turn("climb", 0.1), Turn("optimise")),
    "boxes": (Turn("bound"), Turn("boxes")),
    "split": (Turn("bound"), Turn("climb", 0.05), Turn("optimise", 0.2), Turn("split")),
    "lemmas": (Turn("bound"), Turn("lemmas", 0.5), Turn("split")),
    "lp": (Turn("bound"), Turn("lp")),
    "milp": (Turn("milp"),),
    "smt": (Turn("smt"),),
}
"""The turns of each engine that can be named, in order."""

QUERIES_AT_ONCE = 32

OnDecision = Callable[[int, Decision], None]


def verify(
    query: Query,
    *,
    timeout_s: float = 60.0,
    engine: str = "auto",
    starts: Array | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_progress: OnProgress | None = None,
) -> Decision:
    """Decide one query within about timeout_s seconds. starts: inputs (samples, size) that attacks begin from.

    engine: auto, or one of the other ENGINES alone. device, on_progress: as for `verify_many`. Raises BadQuery for another
    engine, and for a device that torch cannot use.
    """
    (decision,) = verify_many(
        [query], timeout_s=timeout_s, engine=engine, starts=starts, seed=seed, device=device, on_progress=on_progress
    )
    return decision


def verify_many(
    queries: Sequence[Query],
    *,
    timeout_s: float = 60.0,
    engine: str = "auto",
    starts: Array | None = None,
    seed: int = 0,
    device: str = "cpu",
    on_decision: OnDecision | None = None,
    on_progress: OnProgress | None = None,
) -> list[Decision]:
    """Decide queries, sharing bound propagation between those over one network; timeout_s is the time for each.

    device: where bounds, searches and attacks are computed, as torch names it, such as cuda; linear programs, Z3 and replays
    stay on the processor. on_decision(index, decision) is called once for each query, as soon as it is decided;
    on_progress(index, progress) now and then with the best bound and the splits of one that is being worked on.
    """
    if engine not in ENGINES:
        raise BadQuery(f"no engine {engine!r}; choose one of {', '.join(ENGINES)}")
    place = device_named(device)
    decisions: dict[int, Decision] = {}
    by_network: dict[str, list[int]] = {}
    for index, query in enumerate(queries):
        by_network.setdefault(query.network.sha256, []).append(index)
    for indices in by_network.values():
        for first in range(0, len(indices), QUERIES_AT_ONCE):
            part = indices[first : first + QUERIES_AT_ONCE]
            asked = [queries[i] for i in part]
            told = None if on_progress is None else partial(_told, on_progress, part)
            strategy = Strategy(
                asked,
                ENGINES[engine],
                name=engine,
                timeout_s=timeout_s,
                starts=starts,
                seed=seed,
                device=place,
                on_progress=told,
            )
            for position, decision in strategy.run():
                decisions[part[position]] = decision
                if on_decision is not None:
                    on_decision(part[position], decision)
    return [decisions[i] for i in range(len(queries))]


def _told(on_progress: OnProgress, indices: Sequence[int], position: int, progress: Progress) -> None:
    on_progress(indices[position], progress)
