"""What runs speak for: classes, labels, a user's column, a predicate of a later layer; and how little memory they may hold."""

import numpy as np
import pytest
import toy

from specmine.cli import main
from specmine.errors import BadClause, BadConfig, BadData
from specmine.pipeline import mine, open_run
from specmine.pipeline.propose import propose
from specmine.predicates.families import FAMILIES

EFFORT = {
    "timeout_s": 1.0,
    "budget_s": 4.0,
    "exports": ("prolog",),
    "jobs": 1,
    "thresholds": 3,
    "synthesis": ("threshold", "smallest"),
}


def test_a_predicate_of_a_later_layer_is_derived_from_earlier_ones(tmp_path):
    spec = mine(
        toy.network(),
        toy.arrays(),
        out=tmp_path / "run",
        head="active(h1,0)",
        sites=("x", "z1", "h1"),
        families=("unary", "binary"),
        compare_families=False,
        **EFFORT | {"timeout_s": 10.0, "budget_s": 60.0},
    )
    assert {str(clause.head) for clause in spec.clauses} == {"active(h1,0)"}
    assert {site for clause in spec.clauses for p in clause.body for site in p.arguments if isinstance(site, str)} == {"x"}
    proved = [str(claim.clause) for claim in spec.claims if claim.outcome.verdict == "proved"]
    assert "active(h1,0) :- less(x,1,x,0)." in proved, proved
    strongest = open_run(tmp_path / "run").strongest
    assert {strong.head for strong in strongest} == {"active(h1,0)"}


def test_clauses_of_the_last_hidden_layer_need_no_site_to_mine(tmp_path):
    spec = mine(toy.network(), toy.arrays(), out=tmp_path / "run", sites=("x",), **EFFORT | {"synthesis": ("peel",)})
    assert {p.arguments[0] for clause in spec.clauses for p in clause.body} == {"h1"}


@pytest.mark.parametrize(("head", "names"), [("label", {"0", "1"}), ("right", {"right"}), ("class", {"0", "1"})])
def test_predicates_are_ranked_for_words(tmp_path, head, names):
    x, y = toy.arrays()
    x = np.concatenate([x, [[0.5, 0.5]]])  # a tie: the network gives no class
    spec = mine(toy.network(), (x, np.append(y, 0)), out=tmp_path / "run", head=head, **EFFORT)
    assert {strong.head for strong in open_run(tmp_path / "run").strongest} <= names | {"wrong"}
    assert bool(spec.clauses) == (head == "class"), "labels are no values of the network, so no clause derives them"


def test_predicates_are_ranked_for_a_column(tmp_path):
    x, y = toy.arrays()
    np.savez(tmp_path / "columns.npz", bright=(x.sum(axis=1) > 1).astype(np.int64))
    mine(toy.network(), (x, y), out=tmp_path / "run", head=f"{tmp_path}/columns.npz:bright", sites=("x",), **EFFORT)
    strongest = open_run(tmp_path / "run").strongest
    best = min(strongest, key=lambda strong: strong.evidence.mine.q)
    assert best.head in ("0", "1") and best.evidence.mine.q < 0.01
    with pytest.raises(BadData, match="no column 'brigt'; nearest are bright"):
        mine(toy.network(), (x, y), out=tmp_path / "other", head=f"{tmp_path}/columns.npz:brigt", **EFFORT)


def test_heads_that_there_are_not(tmp_path):
    with pytest.raises(BadData, match="no head 'clas'; nearest are class"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "a", head="clas", **EFFORT)
    with pytest.raises(BadClause, match="no site comes before the layer of active\\(x,0\\)"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "b", head="active(x,0)", **EFFORT)
    with pytest.raises(BadClause, match="there is no form 'activ'"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "c", head="activ(h1,0)", **EFFORT)


@pytest.mark.parametrize("head", ["clas", "active(h9,0)", "active(x,0)", "missing.npz:a"])
def test_a_bad_head_leaves_no_folder_behind(tmp_path, head):
    with pytest.raises((BadClause, BadData)):
        mine(toy.network(), toy.arrays(), out=tmp_path / "run", head=head, **EFFORT)
    assert not (tmp_path / "run" / "manifest.json").exists()


def test_a_run_without_clauses_says_where_to_look(tmp_path, capsys):
    np.savez(tmp_path / "data.npz", x=toy.arrays()[0], y=toy.arrays()[1])
    mine(toy.network(), tmp_path / "data.npz", out=tmp_path / "run", head="label", **EFFORT)
    assert main(["show", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "found no clause for 'label'" in said.err and "--predicates" in said.err and "recall" not in said.out


def test_a_run_that_may_hold_little_gives_the_same(tmp_path):
    made = []
    for memory in (1024.0, 0.02):
        spec = mine(
            toy.network(), toy.arrays(400), out=tmp_path / f"{memory}", memory_mb=memory, families=("unary", "binary"), **EFFORT
        )
        run = open_run(tmp_path / f"{memory}")
        made.append(([str(clause) for clause in spec.clauses], run.strongest, run.read("families.json"), spec.coverage))
        assert (run.folder / "exports" / "prolog" / "clauses.pl").exists()
    assert made[0] == made[1]


def test_a_cluster_gives_the_same_bytes(tmp_path):
    distributed = pytest.importorskip("dask.distributed")
    options = {"families": ("unary", "binary"), "synthesis": ("threshold",), "compare_families": False}
    mine(toy.network(), toy.arrays(400), out=tmp_path / "here", **EFFORT | options)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        mine(toy.network(), toy.arrays(400), out=tmp_path / "there", cluster=cluster.scheduler_address, **EFFORT | options)
    tables = [tmp_path / name / "predicates.zarr" for name in ("here", "there")]
    files = [{p.relative_to(t): p.read_bytes() for p in t.rglob("*") if p.is_file()} for t in tables]
    assert files[0] == files[1] and len(files[0]) > 2


def test_a_cluster_that_does_not_answer(tmp_path, monkeypatch):
    pytest.importorskip("dask.distributed")
    monkeypatch.setattr("specmine.pipeline.cluster.TIMEOUT_S", 1.0)
    with pytest.raises(BadConfig, match="no scheduler answers at"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "run", cluster="tcp://127.0.0.1:9", **EFFORT)


def test_a_table_that_is_too_large_is_refused_before_it_is_built(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 100})())
    with pytest.raises(BadConfig, match="candidates on 60 samples make a table of"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "run", **EFFORT)


def test_clauses_are_made_of_as_many_candidates_as_memory_holds(tmp_path):
    options = {"families": ("unary", "binary"), "compare_families": False}
    mine(toy.network(), toy.arrays(), out=tmp_path / "run", memory_mb=2e-4, **EFFORT | options)
    run = open_run(tmp_path / "run", memory_mb=2e-4)
    proposed = propose(run.source, run.dataset, run.config, run.folder)
    few, all_rows = proposed.rows(2e-4), proposed.rows(1024.0)
    assert 0 < len(few) < len(all_rows) == len(proposed.table.predicates)
    unary = [row for row, p in enumerate(proposed.table.predicates) if p.form in FAMILIES["unary"].forms]
    assert set(unary) <= set(few.tolist()) or set(few.tolist()) <= set(unary)
