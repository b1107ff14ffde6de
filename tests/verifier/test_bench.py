"""The benchmark runner: folders, rows, figures, plots, and whole runs in processes of their own."""

import csv
import gzip
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from model_files import query1, query2, write_distance

from verifier.__main__ import main
from verifier.bench.instances import Instance, read_instances
from verifier.bench.plot import read_seconds, solved_seconds
from verifier.bench.replay import replay
from verifier.bench.replay_types import TOLERANCE, Replay, ReplayRequest
from verifier.bench.resume import refuse_rows, resume
from verifier.bench.rows import RowFile, judge, read_rows
from verifier.bench.summary import summarise, summary_text
from verifier.errors import BadQuery
from verifier.jobs import Ended
from verifier.task import Answer, Reached


@pytest.fixture
def folder(tmp_path):
    """Four instances over one network: sat, unsat, one whose file is missing, one over a packed query with a hidden value."""
    root = tmp_path / "toy"
    write_distance(root / "onnx/net.onnx")
    (root / "vnnlib").mkdir()
    (root / "vnnlib/sat.vnnlib").write_text(query1(0.5))
    (root / "vnnlib/unsat.vnnlib").write_text(query1(1.5))
    (root / "vnnlib/hidden.vnnlib.gz").write_bytes(gzip.compress(query2(0.25, 0.0).encode()))
    lines = [("sat", 60), ("unsat", 60), ("none", 60), ("hidden", 60)]
    (root / "instances.csv").write_text("".join(f"onnx/net.onnx,vnnlib/{name}.vnnlib,{limit}\n" for name, limit in lines))
    (root / "expected.csv").write_text(
        "onnx,vnnlib,verdict,check\nonnx/net.onnx,vnnlib/sat.vnnlib,sat,\nonnx/net.onnx,./vnnlib/unsat.vnnlib.gz,unsat,\n"
    )
    return root


def row_of(word, expected, *, replayed=None, at=1.0, limit=10.0):
    instance = Instance(Path("."), "n.onnx", f"{word}-{expected}.vnnlib", limit, expected)
    point = (0.5,) if word == "sat" else ()
    messages = ((at, Answer(word, "", "bound", at / 2, -0.5, 3, point)),)
    return judge(instance, Ended("done", "", messages, at + 0.1, 10**9), replayed)


def broken_row(end, reason):
    return judge(Instance(Path("."), "n.onnx", "q.vnnlib", 10.0, "sat"), Ended(end, reason, (), 10.5, 2 * 10**9), None)


def test_a_folder_is_read_in_its_order(folder):
    instances = read_instances(folder)
    assert [Path(i.vnnlib).stem for i in instances] == ["sat", "unsat", "none", "hidden"]
    assert [i.expected for i in instances] == ["sat", "unsat", "", ""]
    assert {i.timeout_s for i in instances} == {60.0}
    assert instances[3].query_file.endswith("hidden.vnnlib.gz")
    assert [i.timeout_s for i in read_instances(folder, timeout_s=5, only="*unsat*")] == [5]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no instance"),
        ("a.onnx\n", "line 1: needs onnx,vnnlib,timeout"),
        ("onnx,vnnlib,timeout\na.onnx,b.vnnlib,soon\n", "line 2: the third field must be the seconds allowed"),
        ("a.onnx,b.vnnlib,-1\n", "the third field"),
        ("a.onnx,b.vnnlib\n", "the third field"),
    ],
)
def test_bad_instances_are_refused(tmp_path, content, message):
    (tmp_path / "instances.csv").write_text(content)
    with pytest.raises(BadQuery, match=re.escape(message)):
        read_instances(tmp_path)


def test_a_folder_without_instances_is_refused(tmp_path, capsys):
    assert main(["bench", str(tmp_path)]) == 2
    assert "instances.csv: cannot be read" in capsys.readouterr().err


def test_expected_answers_need_their_columns(folder):
    (folder / "expected.csv").write_text("network,query,verdict\n")
    with pytest.raises(BadQuery, match="must name the columns"):
        read_instances(folder)


@pytest.mark.parametrize(
    ("word", "expected", "violation", "agrees"),
    [
        ("sat", "sat", 0.0, "yes"),
        ("sat", "sat", 0.1, "yes"),
        ("unsat", "unsat", None, "yes"),
        ("unsat", "sat", None, "no"),
        ("sat", "unsat", 0.0, "replays"),
        ("sat", "unsat", TOLERANCE, "replays"),
        ("sat", "unsat", 2 * TOLERANCE, "no"),
        ("sat", "unsat", None, "no"),
        ("sat", "disputed", 0.0, ""),
        ("unsat", "", None, ""),
        ("unknown", "sat", None, ""),
        ("timed-out", "unsat", None, ""),
    ],
)
def test_an_answer_is_compared_with_the_expected_one(word, expected, violation, agrees):
    row = row_of(word, expected, replayed=Replay(violation))
    assert (row.verdict, row.agrees, row.wrong) == (word, agrees, agrees == "no")
    assert row.replayed == ("" if violation is None else "yes" if violation <= TOLERANCE else "no")


def test_a_late_answer_is_timed_out():
    row = row_of("unsat", "unsat", at=10.5)
    assert (row.verdict, row.agrees, row.solved) == ("timed-out", "", False)
    assert "0.50 s late" in row.reason


@pytest.mark.parametrize(
    ("end", "verdict"),
    [("timed-out", "timed-out"), ("memory", "unknown"), ("crashed", "error"), ("bug", "error"), ("refused", "error")],
)
def test_a_process_that_says_nothing_is_a_row(end, verdict):
    row = broken_row(end, "first\nlast words\n")
    assert row.verdict == verdict and "last words" in row.reason
    assert (row.solver_s, row.total_s, row.peak_gb) == (None, 10.5, 2.0)


def test_a_stopped_process_leaves_its_best_bound():
    messages = ((1.0, Reached("bound", -2.0, 0)), (2.0, Reached("split", -0.5, 40)))
    ended = Ended("timed-out", "killed at the time limit", messages, 10.5, 10**9)
    row = judge(Instance(Path("."), "n.onnx", "q.vnnlib", 10.0, "unsat"), ended, None)
    assert (row.verdict, row.bound, row.splits, row.engine, row.solver_s) == ("timed-out", -0.5, 40, "", None)


def test_the_figures():
    rows = [
        row_of("sat", "sat", at=1.0, replayed=Replay(0.0)),
        row_of("unsat", "unsat", at=2.0),
        row_of("unsat", "sat", at=3.0),
        row_of("sat", "", at=4.0, replayed=Replay(1.0)),
        row_of("unknown", "sat", at=5.0),
        broken_row("timed-out", "killed"),
        broken_row("crashed", "killed"),
    ]
    s = summarise(rows)
    assert (s.instances, s.solved, s.sat, s.unsat, s.unknown, s.timed_out, s.errors) == (7, 4, 2, 2, 1, 1, 1)
    assert (s.expected, s.agree, s.wrong, s.unreplayed) == (6, 2, 1, 1)
    assert (s.median_s, s.mean_s, s.max_s) == (1.25, 1.25, 2.0)
    assert s.par2_s == pytest.approx((1 + 2 + 20 + 4 + 20 + 20 + 20) / 7)
    assert "1 WRONG" in summary_text(s) and "4 of 7" in summary_text(s)
    assert s.unasked == 0 and "never run" not in summary_text(s)
    unasked = summarise([*rows, row_of("sat", "sat", at=0.5, replayed=Replay(None, "not replayed: no onnxruntime"))])
    assert unasked.unasked == 1 and "1 sat never run" in summary_text(unasked)


def test_figures_without_anything_solved():
    s = summarise([broken_row("memory", "no more")])
    assert (s.solved, s.median_s, s.par2_s) == (0, None, 20.0)
    assert "median -" in summary_text(s)


def test_rows_come_back_from_their_file(tmp_path):
    rows = [row_of("sat", "sat", replayed=Replay(1e-9)), broken_row("bug", 'a "quoted", and\nbroken reason')]
    file = RowFile(tmp_path / "rows.csv")
    for row in rows:
        file.add(row)
    file.close()
    assert read_rows(tmp_path / "rows.csv") == rows
    assert read_seconds(tmp_path / "rows.csv") == solved_seconds(rows) == [0.5]


def test_a_cut_off_row_is_run_again(tmp_path):
    path = tmp_path / "rows.csv"
    file = RowFile(path, [row_of("sat", "sat"), row_of("unsat", "unsat")])
    file.close()
    path.write_text(path.read_text()[:-30])
    assert [row.verdict for row in read_rows(path)] == ["sat"]


def test_a_foreign_file_is_no_rows(tmp_path):
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadQuery, match="not a file of this command"):
        read_rows(tmp_path / "other.csv")
    with pytest.raises(BadQuery, match="cannot be compared"):
        read_seconds(tmp_path / "other.csv")


def test_times_of_other_tools_are_read(tmp_path):
    (tmp_path / "tool.csv").write_text("instance,result,time\na,unsat,1.5\nb,timeout,116\nc,sat,0.25\n")
    assert read_seconds(tmp_path / "tool.csv") == [1.5, 0.25]


@pytest.mark.parametrize(
    ("point", "least", "hidden", "violation"),
    [
        ((0.0, 1.0), 0.5, 0.0, 0.0),
        ((0.0, 0.25), 0.5, 0.0, 0.25),  # y is too small
        ((1.0, 0.0), 0.5, 0.75, 0.25),  # h[0,0] is too large
        ((-0.125, 1.0), 0.5, 0.0, 0.125),  # outside the box
    ],
)
def test_a_replay_measures_by_how_much_a_query_is_missed(folder, point, least, hidden, violation):
    query = folder / "vnnlib/probe.vnnlib"
    query.write_text(query2(least, hidden))
    found = replay(ReplayRequest(str(folder / "onnx/net.onnx"), str(query), point))
    assert found.violation == violation


def test_a_replay_runs_in_the_types_of_the_file(folder):
    exact = float(np.float32(0.7)) + 2.0**-30  # no float32 number
    query = folder / "vnnlib/probe.vnnlib"
    query.write_text(query1(exact))
    found = replay(ReplayRequest(str(folder / "onnx/net.onnx"), str(query), (0.0, exact)))
    assert found.violation == 2.0**-30


def bench(*arguments):
    run = subprocess.run([sys.executable, "-m", "verifier", "bench", *map(str, arguments)], capture_output=True, text=True)
    return run.returncode, run.stdout, run.stderr


def test_a_run_of_a_folder(folder, tmp_path):
    rows, plot = tmp_path / "rows.csv", tmp_path / "cactus.svg"
    code, out, err = bench(folder, "--csv", rows, "--plot", plot, "--compare", rows, "--jobs", 2)
    assert (code, err) == (0, "")
    found = {Path(row.vnnlib).stem: row for row in read_rows(rows)}
    assert {name: row.verdict for name, row in found.items()} == {
        "sat": "sat", "unsat": "unsat", "none": "error", "hidden": "sat",
    }  # fmt: skip
    assert [found[name].agrees for name in ("sat", "unsat", "hidden")] == ["yes", "yes", ""]
    assert found["sat"].replayed == found["hidden"].replayed == "yes"
    assert "none.vnnlib: cannot be read" in found["none"].reason
    assert "solved    3 of 4: 2 sat, 1 unsat" in out and "2 of 2 known answers found, 0 WRONG" in out
    assert "<svg" in plot.read_text()


def test_a_rerun_skips_what_is_done(folder, tmp_path):
    rows = tmp_path / "rows.csv"
    done = [replace(row_of("unsat", "sat"), onnx="onnx/net.onnx", vnnlib=f"vnnlib/{name}.vnnlib") for name in ("sat", "unsat")]
    RowFile(rows, done).close()
    (folder / "instances.csv").write_text((folder / "instances.csv").read_text().replace("none", "sat"))
    code, out, _ = bench(folder, "--csv", rows, "--resume", "--json", "--only", "*sat*")
    document = json.loads(out)
    assert code == 1  # a row that was there is wrong
    assert [row["verdict"] for row in document["rows"]] == ["unsat", "unsat"] and document["summary"]["wrong"] == 2


def test_rows_of_another_run_stay_in_their_file_and_out_of_the_figures(folder, tmp_path):
    rows = tmp_path / "rows.csv"
    other = replace(row_of("unsat", "unsat"), onnx="onnx/other.onnx", vnnlib="vnnlib/other.vnnlib")
    RowFile(rows, [other]).close()
    code, out, err = bench(folder, "--csv", rows, "--resume", "--json", "--only", "*vnnlib/sat*")
    assert code == 0 and [row["verdict"] for row in json.loads(out)["rows"]] == ["sat"]
    assert [row.onnx for row in read_rows(rows)] == ["onnx/other.onnx", "onnx/net.onnx"]
    assert "1 rows are of instances that this run was not asked for" in err


def test_a_run_of_nothing_but_errors_fails(folder):
    (folder / "onnx" / "net.onnx").write_bytes(b"no model")
    code, out, err = bench(folder, "--json", "--only", "*vnnlib/sat*")
    assert (code, json.loads(out)["summary"]["errors"]) == (2, 1) and "every instance ended in an error" in err


def test_too_little_memory_and_time_are_rows(folder):
    code, out, _ = bench(folder, "--memory", 0.001, "--json", "--only", "*vnnlib/sat*")
    (row,) = json.loads(out)["rows"]
    assert (code, row["verdict"]) == (0, "unknown") and row["reason"].startswith("memory: ")
    code, out, _ = bench(folder, "--timeout", 0.001, "--json", "--only", "*vnnlib/sat*")
    (row,) = json.loads(out)["rows"]
    assert (code, row["verdict"]) == (0, "timed-out")


def test_an_interrupt_prints_what_is_known(folder):
    lines = [("sat", 60)] + [("hang", 60)] * 2
    (folder / "instances.csv").write_text("".join(f"onnx/net.onnx,vnnlib/{name}.vnnlib,{limit}\n" for name, limit in lines))
    code = (
        "import sys, time, verifier.bench.run as run\nfrom verifier.__main__ import main\n"
        "decide = run.decide\n"
        "def work(request, send):\n    time.sleep(60) if 'hang' in request.query else decide(request, send)\n"
        f"run.decide = work\nsys.exit(main(['bench', {str(folder)!r}]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline().startswith("sat")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert process.returncode == 130 and "solved    1 of 1" in out and "interrupted" in err
    assert "2 NOT RUN" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--resume"], "--resume needs --csv FILE"),
        (["--compare", "x.csv"], "--compare needs --plot FILE"),
        (["--jobs", "0"], "must be a whole number above 0"),
        (["--only", "*nothing*"], "no instance fits --only"),
        (["--csv", "/no/such/folder/rows.csv"], "cannot be written"),
    ],
)
def test_bad_usage_is_refused(folder, capsys, arguments, message):
    assert main(["bench", str(folder), *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--engine", "foo"], "invalid choice: 'foo' (choose from"),
        (["--device", "no such"], "BadQuery: cannot compute on device 'no such': "),
        (["--timeout", "abc"], "must be a number of seconds above 0, got abc"),
        (["--plot", "{tmp}/p.bmp"], "must end in .svg, .png or .pdf"),
        (["--plot", "{tmp}/none/p.svg"], "cannot be written; name a file in a folder that there is"),
        (["--plot", "{tmp}/p.svg", "--compare", "{tmp}/none.csv"], "none.csv: cannot be compared"),
        (["--csv", "{tmp}/rows.csv"], "rows.csv holds 2 rows; --resume to go on, or name another file"),
        (["--csv", "{tmp}/other.csv"], "other.csv: not a file of this command"),
    ],
)
def test_a_run_is_refused_before_its_first_instance(folder, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.setattr("verifier.bench.run_bench", None)  # calling it would be a bug, code 4
    RowFile(tmp_path / "rows.csv", [row_of("sat", "sat"), row_of("unsat", "unsat")]).close()
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    before = (tmp_path / "rows.csv").read_text()
    assert main(["bench", str(folder), *(text.format(tmp=tmp_path) for text in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err
    assert (tmp_path / "rows.csv").read_text() == before


def test_a_file_without_rows_may_be_overwritten(tmp_path):
    refuse_rows(tmp_path / "none.csv")
    (tmp_path / "empty.csv").touch()
    refuse_rows(tmp_path / "empty.csv")
    RowFile(tmp_path / "head.csv").close()
    refuse_rows(tmp_path / "head.csv")


def test_what_a_resumed_run_mixes_is_said():
    now = [Instance(Path("."), "n.onnx", f"{name}.vnnlib", 20.0) for name in "abcd"]
    row = row_of("unsat", "unsat", limit=10.0)
    late = row_of("timed-out", "unsat", limit=10.0)
    rows = [
        replace(row, vnnlib="a.vnnlib", asked="bound"),
        replace(late, vnnlib="b.vnnlib", asked="bound"),
        replace(late, vnnlib="c.vnnlib", asked="auto", timeout_s=20.0),
        replace(row, vnnlib="elsewhere.vnnlib", asked="auto"),
    ]
    resumed = resume(now, rows, engine="auto")
    assert [Path(r.vnnlib).stem for r in resumed.kept] == ["a", "c"]
    assert [Path(r.vnnlib).stem for r in resumed.others] == ["elsewhere"]
    assert [Path(i.vnnlib).stem for i in resumed.todo] == ["b", "d"]
    assert resumed.notes == (
        "1 timed-out rows are run again, for their limit is longer now",
        "1 rows are of instances that this run was not asked for; they stay in the file alone",
        "1 kept rows had a limit of 10 s, which is 20 s now",
        "1 kept rows are of --engine bound, which is auto now",
    )
    shorter = resume([replace(i, timeout_s=5.0) for i in now], rows, engine="bound")
    assert shorter.kept == tuple(rows[:3]) and [Path(i.vnnlib).stem for i in shorter.todo] == ["d"]
    same = resume(now, [replace(row, vnnlib="a.vnnlib", timeout_s=20.0)], engine="smt")
    assert same.notes == ()  # what an older file does not say is not guessed


def test_rows_of_before_the_engine_asked_for_was_kept_are_read(tmp_path):
    path = tmp_path / "rows.csv"
    RowFile(path, [row_of("sat", "sat")]).close()
    path.write_text("".join(f"{line.rpartition(',')[0]}\n" for line in path.read_text().splitlines()))
    assert read_rows(path) == [row_of("sat", "sat")]


def test_a_timed_out_row_is_run_again_under_a_longer_limit(folder, tmp_path):
    rows = tmp_path / "rows.csv"
    late = replace(row_of("timed-out", "sat", limit=10.0), onnx="onnx/net.onnx", vnnlib="vnnlib/sat.vnnlib", asked="bound")
    RowFile(rows, [late]).close()
    code, out, err = bench(folder, "--csv", rows, "--resume", "--only", "*vnnlib/sat*")
    assert (code, err) == (0, "--resume: 1 timed-out rows are run again, for their limit is longer now\n")
    (row,) = read_rows(rows)
    assert (row.verdict, row.asked, row.timeout_s) == ("sat", "auto", 60.0) and "solved    1 of 1" in out


def test_a_closed_pipe_ends_a_run_quietly(folder, tmp_path):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "verifier", "bench", str(folder), "--csv", str(tmp_path / "rows.csv")]
    run = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (run.returncode, run.stderr) == (141, "")
    assert len(read_rows(tmp_path / "rows.csv")) == 1


def test_columns_are_the_ones_promised(tmp_path):
    RowFile(tmp_path / "rows.csv").close()
    (head,) = csv.reader((tmp_path / "rows.csv").open())
    assert {"onnx", "vnnlib", "verdict", "solver_s", "total_s", "engine", "bound", "splits", "expected", "agrees"} <= set(head)
