"""Every family of the benchmark folder with a short limit: solved, expected and PAR-2, and not one wrong answer.

SPECMINE_BENCH_SECONDS sets the limit for each instance (the family's own, if that is shorter). Run by `make bench`.
"""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from verifier.bench import Settings, read_instances, run_bench, summarise

ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
LIMIT_S = float(os.environ.get("SPECMINE_BENCH_SECONDS", "60"))
FAMILIES = sorted(path.parent.name for path in BENCHMARKS.glob("*/instances.csv"))

pytestmark = pytest.mark.bench


@pytest.mark.skipif(not FAMILIES, reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(family: str) -> None:
    instances = [replace(i, timeout_s=min(i.timeout_s, LIMIT_S)) for i in read_instances(BENCHMARKS / family)]
    rows = [row for row in run_bench(instances, Settings()) if row is not None]
    s = summarise(rows)
    median = "-" if s.median_s is None else f"{s.median_s:.2f}"
    print(
        f"\n{family:20} solved {s.solved:3} of {s.instances:3} ({s.sat} sat, {s.unsat} unsat), known {s.agree:3} of "
        f"{s.expected:3}, WRONG {s.wrong}, not replayed {s.unreplayed}, errors {s.errors}, "
        f"median {median} s, PAR-2 {s.par2_s:.1f} s"
    )
    assert len(rows) == len(instances)
    assert not [row for row in rows if row.wrong]
    assert not [row for row in rows if row.replayed == "no"]
