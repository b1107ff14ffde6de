"""An ACAS Xu query under fixed phases of hidden neurons, written as VNN-LIB 2.0 and decided natively. Run by `make bench`.

Solvers without hidden values take 1.6 to 5 s for such queries, after the hidden values are made outputs.
"""

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from verifier.bench.replay import replay
from verifier.bench.replay_types import TOLERANCE, ReplayRequest
from verifier.evaluate import evaluate
from verifier.formats import read_network
from verifier.formats.vnnlib import read_vnnlib
from verifier.formats.vnnlib_write import write_vnnlib
from verifier.formula import Atom, Term, conjoin
from verifier.network import Network
from verifier.ops import Relu
from verifier.query import Query
from verifier.region import inner_bounds

ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
MODEL = BENCHMARKS / "acasxu/onnx/ACASXU_run2a_2_2_batch_2000.onnx"
PROPERTY = BENCHMARKS / "acasxu/vnnlib/prop_2.vnnlib"
LIMIT_S = 60
SAMPLES = 20_000

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)"),
]


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("layer", "neurons"), [(1, 10), (2, 20)])
def test_seconds_under_fixed_phases(tmp_path: Path, layer: int, neurons: int, seed: int) -> None:
    plain = read_vnnlib(PROPERTY, read_network(MODEL))
    premise = fixed_phases(plain, layer, neurons, seed)
    file, proof = tmp_path / "phases.vnnlib", tmp_path / "proof.npz"
    file.write_text(write_vnnlib(Query(plain.network, plain.region, conjoin(*premise, plain.assertion))))
    assert file.read_text().count("declare-hidden") == 1
    command = [sys.executable, "-m", "verifier", "verify", str(file), "--network", f"f={MODEL}", "--timeout", str(LIMIT_S)]
    run = subprocess.run([*command, "--json", "--certificate", str(proof)], capture_output=True, text=True)
    document = json.loads(run.stdout)
    seconds = document["seconds"]
    print(
        f"\n{neurons} phases of layer {layer}, sample {seed}: {document['answer']} by {document['engine']}, "
        f"solver {seconds['solver']:.2f} s, start and read {seconds['start_and_read']:.2f} s, {document['splits']} splits"
    )
    assert document["answer"] in ("sat", "unsat"), run.stderr
    if document["answer"] == "sat":
        found = replay(ReplayRequest(str(MODEL), str(file), tuple(document["counterexample"])))
        assert found.violation is not None and found.violation <= TOLERANCE
    elif document["certificate"]:
        check = [sys.executable, "-m", "verifier", "check", str(proof), "--network", str(MODEL)]
        assert subprocess.run(check, capture_output=True).returncode == 0


def fixed_phases(query: Query, layer: int, neurons: int, seed: int) -> list[Atom]:
    """The phases, at one random input, of the first neurons of a layer that take both phases on many random inputs."""
    name = relu_inputs(query.network)[layer - 1]
    lower, upper = inner_bounds(query.region)
    samples = np.random.default_rng(seed).uniform(lower, upper, (SAMPLES, len(lower)))
    values = evaluate(query.network, samples, keep={name})[name].reshape(SAMPLES, -1).numpy()
    active = values > 0
    undecided = np.flatnonzero(active.any(axis=0) & ~active.all(axis=0))[:neurons]
    assert len(undecided) == neurons
    signs = [-1 if active[0, i] else 1 for i in undecided]
    return [Atom((Term(name, int(i), Fraction(sign)),), Fraction(0)) for i, sign in zip(undecided, signs, strict=True)]


def relu_inputs(network: Network) -> list[str]:
    return [node.inputs[0] for node in network.nodes if isinstance(node.op, Relu)]
