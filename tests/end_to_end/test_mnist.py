"""MNIST: patterns of the VNN-COMP network mnist-net_256x4, proved over all of [0,1]^784."""

import gzip
import os
import shutil
import time
from pathlib import Path

import pytest

from specmine.cli import main
from specmine.pipeline import open_run

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.benchmarks,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)"),
]


def test_patterns_of_four_classes_over_the_whole_domain(tmp_path):
    (model,) = sorted((BENCHMARKS / "mnist_fc" / "onnx").glob("mnist-net_256x4.onnx*"))
    if model.suffix == ".gz":
        with gzip.open(model) as packed, open(tmp_path / "net.onnx", "wb") as plain:
            shutil.copyfileobj(packed, plain)
        model = tmp_path / "net.onnx"
    (tmp_path / "c.toml").write_text('synthesis = ["threshold"]\ndeltas = [0.05]\nthresholds = 1\nexports = ["json"]\n')
    arguments = ["mine", "mnist", "--model", str(model), "--data-dir", str(BENCHMARKS / "mnist"), "--region", "domain"]
    arguments += ["--config", str(tmp_path / "c.toml"), "--timeout", "30", "--budget", "400", "--quiet"]
    began = time.monotonic()
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 0
    assert time.monotonic() - began < 600
    claims = open_run(tmp_path / "run").spec.claims
    proved = [c for c in claims if c.outcome.verdict == "proved" and c.region.name == "domain"]
    assert len({claim.clause.head.arguments[0] for claim in proved}) >= 4
