"""What families add: measured by a run that mines more than one, kept, shown in its report."""

import json
from dataclasses import asdict

import numpy as np
import toy

from specmine.exhibit import Gain
from specmine.pipeline import mine
from specmine.pipeline.run import FAMILIES

EFFORT = {"timeout_s": 1.0, "budget_s": 2.0, "exports": (), "jobs": 1, "thresholds": 3, "synthesis": ("threshold",)}


def test_a_run_over_two_families_compares_them(tmp_path):
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", families=("unary", "binary"), **EFFORT)
    gains = [Gain.read(content) for content in json.loads((tmp_path / "run" / FAMILIES).read_text())]
    assert [gain.families for gain in gains] == [("unary",), ("unary", "binary")]
    assert gains[1].candidates > gains[0].candidates > 0
    for gain in gains:
        for part in (gain.holdout, gain.test):
            precision, recall, f1 = part["precision"], part["recall"], part["f1"]
            assert min(precision, recall) > 0 and max(precision, recall) <= 1 and min(precision, recall) - 0.1 <= f1 <= 1
        assert all(clause.startswith("class(") for clause in gain.clauses)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "What each family adds" in page and "unary + binary" in page
    assert f"{gains[1].holdout['f1']:.4f}" in page
    assert Gain.read(json.loads(json.dumps(asdict(gains[0])))) == gains[0]


def test_heads_that_no_clause_derives_are_not_compared(tmp_path):
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", families=("unary", "binary"), head="label", **EFFORT)
    assert json.loads((tmp_path / "run" / FAMILIES).read_text()) == []


def test_one_family_is_not_compared(tmp_path):
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", **EFFORT)
    assert not (tmp_path / "run" / FAMILIES).exists()
    assert "What each family adds" not in (tmp_path / "run" / "report.html").read_text()


def test_the_comparison_can_be_left_out(tmp_path):
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", families=("unary", "binary"), compare_families=False, **EFFORT)
    assert not (tmp_path / "run" / FAMILIES).exists()


def test_the_choice_sees_the_mining_rows_alone(tmp_path):
    x, y = toy.arrays()
    split = np.arange(len(x)) % 3
    other = np.array(x)
    other[split != 0] = x[split != 0].mean(axis=0)
    chosen = []
    for part in (x, other):
        np.savez(tmp_path / "data.npz", x=part, y=y, split=split, lower=0.0, upper=1.0)
        mine(toy.network(), tmp_path / "data.npz", out=tmp_path / f"run{len(chosen)}", families=("unary", "binary"), **EFFORT)
        chosen.append([gain["clauses"] for gain in json.loads((tmp_path / f"run{len(chosen)}" / FAMILIES).read_text())])
    assert chosen[0] == chosen[1]
