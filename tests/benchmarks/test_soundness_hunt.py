"""Ten thousand small queries, each engine against a judge that shares no code with it. Run by `make bench`.

SPECMINE_HUNT sets how many pairs, SPECMINE_HUNT_FROM the first seed.
"""

import os
from collections import Counter

import pytest
from laws.judge import judge
from laws.networks import KINDS
from laws.queries import random_query

from verifier.check import check, confirms
from verifier.solve import ENGINES, verify
from verifier.verdict import Proved, Refuted

PAIRS = int(os.environ.get("SPECMINE_HUNT", "10000"))
FIRST = int(os.environ.get("SPECMINE_HUNT_FROM", "100000"))


@pytest.mark.bench
def test_no_engine_contradicts_the_judge() -> None:
    counts: Counter[tuple[str, str]] = Counter()
    kinds, engines = list(KINDS), list(ENGINES)
    for number in range(PAIRS):
        seed = FIRST + number
        query = random_query(kinds[number % len(kinds)], seed=seed)
        truth = judge(query, timeout_s=20)
        engine = engines[number // len(kinds) % len(engines)]
        verdict = verify(query, timeout_s=5, engine=engine).verdict
        counts[engine, f"{type(verdict).__name__.lower()} where {truth}"] += 1
        if isinstance(verdict, Proved):
            assert truth != "sat", f"{engine} proved a satisfiable query: kind {kinds[number % len(kinds)]}, seed {seed}"
            assert verdict.certificate is None or check(query, verdict.certificate).accepted
        if isinstance(verdict, Refuted):
            assert truth != "unsat" and confirms(query, verdict.counterexample), f"{engine}, seed {seed}"
    for (engine, outcome), count in sorted(counts.items()):
        print(f"{engine:10} {outcome:30} {count:6}")
