"""`verifier verify`: what is printed, where, and with which exit code."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import onnx
import pytest
from model_files import query1, query2, write_distance
from onnx import numpy_helper

import verifier.cli.verify as command
from verifier import __version__
from verifier.__main__ import main
from verifier.task import Answer, Loaded, Reached, Written


@pytest.fixture
def model(tmp_path):
    return write_distance(tmp_path / "net.onnx")


def write(path, text):
    path.write_text(text)
    return str(path)


def real_run(*arguments):
    """The command in a process of its own, as a user starts it."""
    run = subprocess.run([sys.executable, "-m", "verifier", *map(str, arguments)], capture_output=True, text=True)
    return run.returncode, run.stdout, run.stderr


def test_a_query_with_a_hidden_value_is_satisfied(tmp_path, model):
    query = write(tmp_path / "q.vnnlib", query2(0.5, 0.0))
    code, out, err = real_run("verify", query, "--network", f"f={model}", "--timeout", 100)
    lines = out.splitlines()
    assert (code, err) == (0, "")
    assert lines[0] == "sat"
    assert [lines[1], lines[4], lines[7]] == ["X real [1,2]", "H real [1,2]", "Y real [1,1]"]
    x0, x1, h0, h1, y = (float(lines[k]) for k in (2, 3, 5, 6, 8))
    assert 0 <= x0 <= 1 and 0 <= x1 <= 1
    assert (h0, h1, y) == (max(x0 - x1, 0), max(x1 - x0, 0), abs(x0 - x1))
    assert y >= 0.5 and h0 <= 0


def test_a_proof_leaves_a_certificate_that_checks(tmp_path, model):
    query = tmp_path / "q.vnnlib.gz"
    query.write_bytes(gzip.compress(query1(1.5).encode()))
    proof = tmp_path / "proof.npz"
    given = ("verify", query, "--network", model, "--timeout", 100, "--certificate", proof, "--json", "--engine", "bound")
    code, out, err = real_run(*given)
    document = json.loads(out)
    assert (code, err) == (0, "")
    assert (document["answer"], document["engine"], document["counterexample"]) == ("unsat", "bound", None)
    assert document["certificate"] == str(proof) and document["version"] == __version__
    assert main(["check", str(proof), str(proof), "--network", str(model)]) == 0


def test_what_an_engine_cannot_decide_is_unknown(tmp_path, model):
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    code, out, err = real_run("verify", query, "--network", model, "--engine", "bound", "--timeout", 100)
    assert (code, out) == (3, "unknown\n") and "incomplete" in err


def test_assignments_as_tensors(tmp_path, model):
    query = write(tmp_path / "q.vnnlib", query2(0.5, 0.0, "float32"))
    folder = tmp_path / "out"
    code, out, err = real_run("verify", query, "--network", f"f={model}", "--serialise-assignments", folder)
    assert (code, out) == (0, "sat\n") and "real arithmetic" in err
    found = {path.stem: numpy_helper.to_array(onnx.load_tensor(path)) for path in folder.iterdir()}
    assert {name: array.shape for name, array in found.items()} == {"X": (1, 2), "H": (1, 2), "Y": (1, 1)}
    assert all(array.dtype == np.float32 for array in found.values())
    assert found["Y"][0, 0] == abs(found["X"][0, 0] - found["X"][0, 1]) >= 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{query}", "--network", "{folder}/none.onnx"], "BadNetwork: {folder}/none.onnx: no such file"),
        (["{folder}/none.vnnlib", "--network", "{model}"], "BadQuery: {folder}/none.vnnlib: no such file"),
        (["{query}", "--network", "f={model}", "--network", "g={model}"], "BadQuery: got 2 networks"),
        (["{query}", "--network", "={model}"], "BadQuery: --network '={model}' must be NAME=FILE"),
        (["{query}", "--network", "{model}", "--certificate", "{folder}/no/such"], "BadQuery: --certificate"),
        (["{query}", "--network", "{model}", "--certificate", "{query}"], "'{query}': is there already, and no certificate"),
        (["{query}", "--network", "f={model}", "--certificate", "{model}"], "'{model}': is there already, and no certificate"),
        (["{query}", "--network", "{model}", "--timeout", "0"], "must be a number of seconds above 0, got 0"),
        (["{query}", "--network", "{model}", "--memory", "nan"], "must be a number of gigabytes above 0, got nan"),
        (["{query}", "--network", "{model}", "--timeout", "abc"], "must be a number of seconds above 0, got abc"),
        (["{query}", "--network", "{model}", "--threads", "two"], "must be a whole number above 0, got two"),
        (["{folder}", "--network", "{model}"], "BadQuery: {folder}: is a folder; give the path of a VNN-LIB file"),
        (["{query}", "--network", "{folder}"], "BadNetwork: {folder}: is a folder; give the path of a network file"),
        (["{query}", "--network", "{model}", "--certificate", "{folder}"], "--certificate '{folder}': is a folder"),
        (["{query}", "--network", "{model}", "--certificate", "{folder}/new/"], "--certificate '{folder}/new/': is a folder"),
        (["{query}", "--network", "{model}", "--serialise-assignments", "{query}"], "'{query}' is no folder; give a folder"),
        (["{query}", "--network", "{model}", "--serialise-assignments", "{query}/x"], "'{query}' is no folder; give a folder"),
        (["{query}", "--network", "{model}", "--engine", "foo"], "invalid choice: 'foo' (choose from"),
        (["{query}"], "the following arguments are required: --network"),
        (["{query}", "--network", "{model}", "--time", "5"], "unrecognized arguments: --time 5"),
    ],
)
def test_bad_usage_is_refused_at_once(tmp_path, model, capsys, arguments, message):
    names = {"query": write(tmp_path / "q.vnnlib", query1(0.5)), "model": model, "folder": tmp_path}
    assert main(["verify", *(text.format(**names) for text in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message.format(**names) in err


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("f", "(vnnlib-version <2.0>", "BadQuery: "),
        ("f", " \n", "q.vnnlib: the file is empty"),
        ("g", query2(0.5, 0.0), "declares network f, got --network g"),
    ],
)
def test_a_bad_query_is_refused(tmp_path, model, name, content, message):
    query = write(tmp_path / "q.vnnlib", content)
    code, out, err = real_run("verify", query, "--network", f"{name}={model}")
    assert (code, out) == (2, "") and message in err


def test_a_device_that_is_not_there_is_refused(tmp_path, model):
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    code, out, err = real_run("verify", query, "--network", model, "--device", "cuda:99")
    assert (code, out) == (2, "") and "BadQuery: cannot compute on device 'cuda:99': " in err


def hangs(request, send):
    re.match(r"(a+)+$", "a" * 60 + "b")  # one C call that never lets another thread run


def answers_and_hangs(request, send):
    send(Loaded("n", "q", 0.1))
    send(Answer("unsat", "", "bound", 0.1, 0.5, 3))
    time.sleep(60)


def proves(request, send):
    send(Loaded("n", "5ha", 0.1))
    send(Answer("unsat", "", "bound", 0.1, 0.5, 3))
    send(Written(10))


def finds(request, send):
    send(Loaded("n", "5ha", 0.1))
    send(Answer("sat", "", "falsify", 0.1, None, 0, (0.0,), "((X_0 0.0)\n(Y_0 1.0))"))
    send(Written(0, "there is none, for nothing was proved"))


def gives_up(request, send):
    send(Loaded("n", "5ha", 0.1))
    send(Answer("unknown", "incomplete", "bound", 0.1, 0.5, 3))


@pytest.mark.parametrize(
    ("work", "options", "err"),
    [
        (proves, [], "certificate of query sha256 5ha\n"),
        (proves, ["--quiet"], ""),
        (proves, ["--json"], ""),
        (finds, [], "no certificate: the answer is sat, whose evidence is the assignment\n"),
        (finds, ["--quiet"], ""),
        (gives_up, [], "incomplete\nno certificate: nothing was proved\n"),
        (answers_and_hangs, [], "no certificate: the time limit came first\n"),
    ],
)
def test_what_became_of_the_certificate_is_said(tmp_path, model, capsys, monkeypatch, work, options, err):
    monkeypatch.setattr(command, "decide", work)
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    main(["verify", query, "--network", str(model), "--timeout", "1", "--certificate", str(tmp_path / "p.npz"), *options])
    assert capsys.readouterr().err == err


def test_an_older_certificate_is_called_so(tmp_path, model, capsys, monkeypatch):
    monkeypatch.setattr(command, "decide", finds)
    older = tmp_path / "p.npz"
    with zipfile.ZipFile(older, "w") as archive:
        archive.writestr("certificate.json", "{}")
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    main(["verify", query, "--network", str(model), "--timeout", "1", "--certificate", str(older)])
    said = "no certificate: the answer is sat, whose evidence is the assignment"
    assert capsys.readouterr().err == f"{said}; {older} is an older one\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_is_no_bug(tmp_path, model):
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "verifier", "verify", query, "--network", str(model)]
        run = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert run.returncode == 2 and run.stderr == "the output cannot be written: No space left on device\n"


def is_stopped(request, send):
    send(Loaded("n", "5ha", 0.1))
    send(Reached("climb", None, 0))
    send(Reached("boxes", -0.25, 7))
    hangs(request, send)


def test_the_best_bound_of_a_stopped_process_is_told(tmp_path, model, capsys, monkeypatch):
    monkeypatch.setattr(command, "decide", is_stopped)
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    assert main(["verify", query, "--network", str(model), "--timeout", "1", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["answer"], document["bound"], document["splits"]) == ("timed-out", -0.25, 7)
    assert document["seconds"]["solver"] is None
    main(["verify", query, "--network", str(model), "--timeout", "1", "--verbose"])
    err = capsys.readouterr().err
    assert "stopped at the limit, engine boxes, best bound -0.25, 7 splits" in err
    assert re.search(r"^ *0\.\d s       engine boxes, best bound -0\.25, 7 splits$", err, re.MULTILINE), "told while it worked"


def breaks(request, send):
    raise ZeroDivisionError("by zero")


def runs_out(request, send):
    raise MemoryError


def segfaults(request, send):
    os.kill(os.getpid(), signal.SIGSEGV)


@pytest.mark.parametrize(
    ("work", "code", "out", "words"),
    [
        (hangs, 3, "timed-out\n", "killed at the time limit"),
        (answers_and_hangs, 0, "unsat\n", ""),
        (breaks, 4, "unknown\n", "ZeroDivisionError: by zero"),
        (runs_out, 3, "unknown\n", "no more memory"),
        (segfaults, 4, "unknown\n", "SIGSEGV"),
    ],
)
def test_whatever_the_solver_does_there_is_an_answer(tmp_path, model, capsys, monkeypatch, work, code, out, words):
    monkeypatch.setattr(command, "decide", work)
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    assert main(["verify", query, "--network", str(model), "--timeout", "1"]) == code
    printed = capsys.readouterr()
    assert printed.out == out and words in printed.err
    assert ("bug of the verifier" in printed.err) == (code == 4)
    assert "Traceback" not in printed.err


def test_an_interrupt_is_code_130(tmp_path, model):
    query = write(tmp_path / "q.vnnlib", query1(0.5))
    code = (
        "import sys, time, verifier.cli.verify as command\nfrom verifier.__main__ import main\n"
        "def work(request, send):\n    print('running', flush=True)\n    time.sleep(60)\n"
        f"command.decide = work\nsys.exit(main(['verify', {query!r}, '--network', {str(model)!r}]))\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        assert run.stderr is not None and run.stderr.readline() == "running\n"
        run.send_signal(signal.SIGINT)
        out, err = run.communicate()
    assert (run.returncode, out, err) == (130, "", "interrupted\n")
