import errno
import json
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
import toy

import specmine
import verifier
from specmine.document import claim_document
from specmine.errors import BadClause, BadData, BadModel, BadRun
from specmine.folder import locked, writing
from specmine.pipeline import decide, mine, open_run
from specmine.pipeline.entry import check_run, decide_on_run, go_on

EFFORT = {"timeout_s": 5.0, "exports": ("json",), "jobs": 1, "thresholds": 3, "deltas": (0.0, 0.1), "max_clauses": 2}
TIMES = {"seconds"}


def without_times(spec):
    return [{key: value for key, value in claim_document(c).items() if key not in TIMES} for c in spec.claims]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    return folder, mine(toy.network(), toy.arrays(), out=folder, **EFFORT)


def test_a_run_from_arrays_to_proofs(finished):
    folder, spec = finished
    assert spec.verdicts["proved"] >= 2 and spec.verified_recall > 0.5
    assert {claim.clause.head.arguments[0] for claim in spec.claims if claim.outcome.verdict == "proved"} == {0, 1}
    assert (folder / "report.html").exists() and (folder / "exports/json/spec.json").exists()
    assert {"trace", "predicates", "synthesis", "evidence", "verify", "export", "report"} == set(spec.seconds)
    assert [p.name for p in folder.rglob(".*") if ".part" in p.name] == []


def test_the_same_again_gives_the_same(finished, tmp_path):
    spec = mine(toy.network(), toy.arrays(), out=tmp_path / "again", **EFFORT)
    assert without_times(spec) == without_times(finished[1])


def test_a_rerun_reads_what_is_done(finished, monkeypatch):
    monkeypatch.setattr("specmine.pipeline.stages.synthesise", lambda *a: pytest.fail("mined again"))
    monkeypatch.setattr("specmine.verification.proving.verify_many", lambda *a, **o: pytest.fail("asked again"))
    spec = mine(toy.network(), toy.arrays(), out=finished[0], **EFFORT)
    assert without_times(spec) == without_times(finished[1])


def test_without_a_folder_nothing_is_left(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    spec = specmine.mine(toy.network(), toy.arrays(), synthesis=("peel",), **EFFORT)
    assert spec.claims and all(claim.outcome.certificate is None for claim in spec.claims)


def test_a_torch_module_is_mined_like_its_network(tmp_path):
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(2, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    spec = mine(module, toy.arrays(), synthesis=("threshold",), **EFFORT)
    assert spec.claims


@pytest.mark.parametrize(
    ("change", "words"), [({"seed": 1}, "config.seed was 0 there and is 1 here"), ({"recall": 0.5}, "recall")]
)
def test_another_configuration_needs_another_folder(finished, change, words):
    with pytest.raises(BadRun, match=words):
        mine(toy.network(), toy.arrays(), out=finished[0], **(EFFORT | change))


def test_another_version_needs_another_folder(finished, monkeypatch):
    monkeypatch.setattr(verifier, "__version__", "99")
    with pytest.raises(BadRun, match=r"versions\.verifier was '0\.1\.0' there and is '99' here"):
        mine(toy.network(), toy.arrays(), out=finished[0], **EFFORT)


def test_other_data_needs_another_folder(finished):
    x, y = toy.arrays()
    with pytest.raises(BadRun, match="data was"):
        mine(toy.network(), (x / 2, y), out=finished[0], **EFFORT)


def test_more_time_may_be_given_to_the_same_run(finished):
    spec = mine(toy.network(), toy.arrays(), out=finished[0], **(EFFORT | {"timeout_s": 6.0, "budget_s": 60.0}))
    assert len(spec.claims) == len(finished[1].claims)


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadRun, match=r"holds other files \(thesis.tex\)"):
        mine(toy.network(), toy.arrays(), out=tmp_path, **EFFORT)
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith(".")) == ["thesis.tex"]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadRun, match="cannot write"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "file" / "run", **EFFORT)


def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("specmine.folder.os.fsync", full)
    with pytest.raises(BadRun, match="No space left on device"):
        mine(toy.network(), toy.arrays(), out=tmp_path / "run", **EFFORT)
    assert [p.name for p in (tmp_path / "run").iterdir()] == [".lock"]


def test_two_runs_in_one_folder(tmp_path):
    with locked(tmp_path), pytest.raises(BadRun, match="another run works in"):
        mine(toy.network(), toy.arrays(), out=tmp_path, **EFFORT)


def test_writing_keeps_the_old_file_where_it_fails(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), writing(path) as temporary:
        temporary.write_text("new")
        1 / 0  # noqa: B018
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def _mine_in_a_process(folder):
    torch.set_num_threads(1)
    mine(toy.network(), toy.arrays(), out=folder, **EFFORT)


def test_a_run_killed_before_its_inputs_says_so(finished, tmp_path):
    folder = tmp_path / "run"
    mine(toy.network(), toy.arrays(), out=folder, **EFFORT)
    (folder / "data.npz").unlink()
    with pytest.raises(BadRun, match="stopped before it had written its inputs"):
        open_run(folder)
    assert without_times(mine(toy.network(), toy.arrays(), out=folder, **EFFORT)) == without_times(finished[1])
    assert without_times(open_run(folder).spec) == without_times(finished[1])


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(finished, tmp_path):
    """Killed after ever longer times until it gets through; then it must have reached what an undisturbed run reached."""
    folder, kills = tmp_path / "run", 0
    context = multiprocessing.get_context("fork")
    for wait in [0.05 * 1.35**k for k in range(30)]:
        process = context.Process(target=_mine_in_a_process, args=(folder,))
        process.start()
        process.join(wait)
        if process.exitcode is not None:
            assert process.exitcode == 0
            break
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        if (folder / "data.npz").exists():
            assert len(open_run(folder).spec.claims) in (0, len(finished[1].claims))
    assert kills >= 2
    assert without_times(open_run(folder).spec) == without_times(finished[1])


def test_a_half_finished_run_goes_on_from_its_folder(finished, tmp_path):
    folder = tmp_path / "run"
    mine(toy.network(), toy.arrays(), out=folder, **EFFORT)
    lines = (folder / "verdicts.jsonl").read_bytes().split(b"\n")
    (folder / "verdicts.jsonl").write_bytes(b"\n".join(lines[:2]) + b"\n" + lines[2][:40])
    half = open_run(folder).spec
    assert half.verdicts["unchecked"] > 0 and half.exit_code in (1, 3)
    assert without_times(go_on(folder)) == without_times(finished[1])


def test_every_certificate_is_checked_again(finished):
    spec, checked = check_run(finished[0])
    assert checked.exit_code == 0 and checked.accepted
    assert spec.verdicts == finished[1].verdicts


def test_a_changed_model_in_the_folder_is_noticed(finished, tmp_path):
    folder = tmp_path / "run"
    mine(toy.network(), toy.arrays(), out=folder, **EFFORT)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["identity"]["model"] = "0" * 64
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(BadRun, match="model was '0000"):
        open_run(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "has no manifest.json"), ("{", "cannot read"), ("[]", "not of schema"), ('{"schema": "x"}', "not of schema")],
)
def test_folders_that_are_no_runs(tmp_path, content, message):
    if content is not None:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(BadRun, match=message):
        open_run(tmp_path)


def test_a_head_may_speak_of_any_site() -> None:
    spec = decide(toy.network(), toy.arrays(), "active(z1,0) :- active(h1,0).", timeout_s=5)
    assert [claim.outcome.verdict for claim in spec.claims] == ["proved"]


def test_minus_zero_is_the_threshold_zero() -> None:
    one, other = decide(toy.network(), toy.arrays(), "false :- below(h1,0,-0.0). false :- below(h1,0,0).", timeout_s=5).claims
    assert str(one.clause) == str(other.clause) == "false :- below(h1,0,0.0)."


def test_a_clause_of_ones_own():
    spec = decide(toy.network(), toy.arrays(), "class(0) :- active(x,0), inactive(z1,1).", timeout_s=5)
    (claim,) = spec.claims
    assert claim.outcome.verdict == "refuted" and claim.evidence.test.support > 0


def test_a_clause_of_ones_own_on_a_run(finished):
    spec = decide_on_run(finished[0], "class(1) :- above(h1,1,0.5).", regions=("domain", "ball:0.01"))
    assert spec.exit_code == 0 and len(spec.claims) > 1


def test_no_clause_is_a_mistake():
    with pytest.raises(BadClause, match="no clause given"):
        decide(toy.network(), toy.arrays(), " % nothing")


def test_a_mistake_in_a_clause_names_the_nearest():
    with pytest.raises(BadClause, match=r"line 1, column 13.*nearest"):
        decide(toy.network(), toy.arrays(), "class(0) :- activ(h1,0).")
    with pytest.raises(BadClause, match="h1"):
        decide(toy.network(), toy.arrays(), "class(0) :- active(h7,0).")


def test_bad_inputs():
    x, y = toy.arrays()
    with pytest.raises(BadData, match="no data 'nothing'"):
        mine(toy.network(), "nothing")
    with pytest.raises(BadData, match="numbers each, but the model takes 2"):
        mine(toy.network(), (np.hstack([x, x]), y))
    with pytest.raises(BadModel, match="no model is kept with"):
        mine(None, (x, y))
    with pytest.raises(BadModel, match="a model is an ONNX file"):
        mine(3, (x, y))
