"""The verifier and Marabou on the same instances in one go: who answers what, in how many seconds, and the ratio.

SPECMINE_BENCH_SECONDS sets the limit for each instance. Run by `make bench`.
"""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import pytest

from verifier.bench import Instance, Row, Settings, read_instances, run_bench

ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
LIMIT_S = float(os.environ.get("SPECMINE_BENCH_SECONDS", "60"))
RUNS = 3
INSTANCES = [
    ("acasxu", "*run2a_1_1_* *prop_1.vnnlib"),
    ("acasxu", "*run2a_2_2_* *prop_2.vnnlib"),
    ("acasxu", "*run2a_1_1_* *prop_3.vnnlib"),
    ("acasxu", "*run2a_3_3_* *prop_4.vnnlib"),
    ("mnist_fc", "*256x2* *prop_0_0.03.vnnlib"),
    ("mnist_fc", "*256x4* *prop_2_0.03.vnnlib"),
]
SCRIPT = Path(__file__).parent / "marabou_once.py"

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)"),
    pytest.mark.skipif(find_spec("maraboupy") is None, reason="no maraboupy; pip install specmine[bench]"),
]


@pytest.mark.parametrize(("family", "only"), INSTANCES)
def test_seconds_beside_marabou(family: str, only: str) -> None:
    (instance,) = read_instances(BENCHMARKS / family, timeout_s=LIMIT_S, only=only)
    ours, theirs = [], []
    for _ in range(RUNS):  # in turn, so that what else the machine does hits both
        ours.append(our_run(instance))
        theirs.append(marabou_run(instance))
    answers = {row.verdict for row in ours if row.solved} | {word for word, _ in theirs if word in ("sat", "unsat")}
    our_s = median(row.solver_s if row.solved and row.solver_s is not None else LIMIT_S for row in ours)
    their_s = median(seconds for _, seconds in theirs)
    said = f"{ours[0].verdict:9} {our_s:8.3f} s   marabou {theirs[0][0]:9} {their_s:8.3f} s   ratio {our_s / their_s:6.2f}"
    print(f"\n{family:9} {Path(instance.onnx).stem} {Path(instance.vnnlib).stem}: {said}")
    assert len(answers) <= 1, f"the two disagree: {answers}"
    assert not any(row.wrong for row in ours)


def our_run(instance: Instance) -> Row:
    (row,) = [row for row in run_bench([instance], Settings(threads=1)) if row is not None]
    return row


def marabou_run(instance: Instance) -> tuple[str, float]:
    """Its answer and its solver's seconds; the limit stands for one that never came."""
    command = [sys.executable, str(SCRIPT), instance.network_file, instance.query_file, str(LIMIT_S)]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S + 30)
    except subprocess.TimeoutExpired:
        return "hung", LIMIT_S
    lines = run.stdout.strip().splitlines()
    assert run.returncode == 0 and lines, run.stderr[-2000:]
    word, seconds = lines[-1].split()
    return word.lower(), min(float(seconds), LIMIT_S) if word.lower() in ("sat", "unsat") else LIMIT_S
