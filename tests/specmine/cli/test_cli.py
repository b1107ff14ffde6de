import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from specmine.cli import main
from specmine.data import card_names, model_path
from specmine.pipeline import open_run
from specmine.pipeline.inputs import Inputs
from specmine.pipeline.run import start_run
from specmine.pipeline.stages import verify_stage
from specmine.training import write_onnx

README = Path(__file__).resolve().parents[3] / "README.md"
FAST = ["--timeout", "5", "--jobs", "1", "--quiet"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """net.onnx, data.npz and a finished run of both."""
    folder = tmp_path_factory.mktemp("cli")
    x, y = toy.arrays()
    np.savez(folder / "data.npz", x=x, y=y, lower=np.zeros(2), upper=np.ones(2))
    write_onnx(toy_module(), torch.zeros(1, 2), folder / "net.onnx")
    assert main(["mine", *given(folder), "--out", str(folder / "run"), "--max-clauses", "1", *FAST]) == 0
    return folder


def toy_module():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
        module[2].weight.copy_(torch.eye(2))
        module[0].bias.zero_()
        module[2].bias.zero_()
    return module


def given(folder):
    return ["--model", str(folder / "net.onnx"), "--data", str(folder / "data.npz")]


def test_show_prints_clauses_and_one_document(files, capsys):
    assert main(["show", str(files / "run")]) == 0
    out = capsys.readouterr()
    assert "class(0) :- " in out.out and "verdict   proved over domain" in out.out and out.err == ""
    assert main(["show", str(files / "run"), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["claims"] and document["summary"]["verified_recall"] > 0


def test_export_and_report_print_their_paths(files, capsys):
    assert main(["export", str(files / "run"), "--to", "prolog", "--to", "json", "--quiet"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["clauses.pl", "spec.json"]
    assert main(["report", str(files / "run"), "--quiet"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_text().startswith("<!DOCTYPE html>")


def test_several_exports_are_named_at_once_and_none_is_written_where_one_is_wrong(files, capsys, tmp_path):
    run = shutil.copytree(files / "run", tmp_path / "run", ignore=shutil.ignore_patterns("exports"))
    assert main(["export", str(run), "--to", "json, pdf", "--quiet"]) == 2
    assert "no exporter 'pdf'" in capsys.readouterr().err and not (run / "exports").exists()
    assert main(["export", str(run), "--to", "prolog,json", "--to", "json", "--quiet"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == ["clauses.pl", "spec.json"]


def test_attention_without_heads_is_warned_of(files, tmp_path, capsys):
    arguments = ["mine", *given(files), "--out", str(tmp_path / "run"), "--synthesis", "peel", "--no-refine", "--jobs", "1"]
    assert main([*arguments, "--families", "unary,attention"]) == 0
    assert "warning: attention adds nothing: this network has no attention heads\n" in capsys.readouterr().err


def test_verify_goes_on_and_checks_again(files, capsys):
    code = main(["verify", str(files / "run"), *FAST])
    assert code in (0, 1, 3)
    assert "proved" in capsys.readouterr().out
    assert main(["verify", str(files / "run"), "--check", "--quiet"]) == 0
    assert re.match(r"certificates accepted: [1-9]\d*; claims that lost their proof: 0\b", capsys.readouterr().out)


def test_a_check_of_a_run_without_claims_says_so(tmp_path, capsys):
    start_run(tmp_path, Inputs(toy.network(), toy.dataset(), None), toy.config())
    assert main(["verify", str(tmp_path), "--check", "--quiet"]) == 0
    out = capsys.readouterr()
    assert out.out.startswith("certificates accepted: 0;") and "no claims yet" in out.err


def test_a_check_names_every_claim_without_a_good_certificate_and_ends_with_1(tmp_path, capsys):
    verify_stage(toy.run(tmp_path))
    assert main(["verify", str(tmp_path), "--check", "--quiet"]) == 0, "one claim is refuted, and every certificate is good"
    capsys.readouterr()
    first, second, *_ = open_run(tmp_path).spec.claims
    (tmp_path / first.outcome.certificate).unlink()
    (tmp_path / second.outcome.certificate).write_bytes(b"PK")
    assert main(["verify", str(tmp_path), "--check", "--quiet"]) == 1
    *lost, summary = capsys.readouterr().out.rstrip().splitlines()
    assert [line for line in lost if line.startswith("class")] == [str(first.clause), str(second.clause)]
    assert any("No such file" in line for line in lost) and any("is damaged" in line for line in lost)
    assert summary == "certificates accepted: 1; claims that lost their proof: 2"
    assert main(["verify", str(tmp_path), "--check", "--json", "--quiet"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [lost["id"] for lost in document["check"]["lost"]] == [first.id, second.id] and document["check"]["accepted"] == 1


@pytest.mark.parametrize(
    ("clause", "region", "code"),
    [
        ("class(0) :- above(h1,0,0.5).", "domain", 0),
        ("class(0) :- inactive(h1,1).", "domain", 1),
        ("class(1) :- above(h1,1,0.5).", "ball:0.05", 0),
        ("class(1) :- above(h1,1,7).", "domain", 0),
    ],
)
def test_exit_codes_of_a_clause_of_ones_own(files, capsys, clause, region, code):
    assert main(["verify", *given(files), "--clause", clause, "--region", region, "--json", *FAST]) == code
    verdicts = {claim["verdict"] for claim in json.loads(capsys.readouterr().out)["claims"]}
    assert verdicts <= {"refuted"} if code else verdicts <= {"proved", "vacuous"}


def test_exit_code_of_an_undecided_clause(files, capsys):
    arguments = ["verify", *given(files), "--clause", "class(0) :- above(h1,0,0.5).", "--budget", "1e-9", *FAST]
    assert main(arguments) == 3
    assert "unchecked" in capsys.readouterr().out


def bad_onnx(folder):
    (folder / "bad.onnx").write_bytes((folder / "net.onnx").read_bytes()[:60])
    return ["mine", "--model", str(folder / "bad.onnx"), "--data", str(folder / "data.npz")]


def nan_data(folder):
    x, y = toy.arrays()
    x[3, 1] = np.nan
    np.savez(folder / "nan.npz", x=x, y=y)
    return ["mine", "--model", str(folder / "net.onnx"), "--data", str(folder / "nan.npz")]


def bad_config(folder):
    (folder / "c.toml").write_text("max_clause = 2")
    return ["mine", *given(folder), "--config", str(folder / "c.toml")]


def crossed_domain(folder):
    x, y = toy.arrays()
    np.savez(folder / "crossed.npz", x=x, y=y, lower=x.max(0), upper=x.min(0))
    return ["mine", "--model", str(folder / "net.onnx"), "--data", str(folder / "crossed.npz")]


def named_in_config(key, name):
    def arguments(folder):
        (folder / "named.toml").write_text(f'{key} = ["{name}"]')
        return ["mine", *given(folder), "--config", str(folder / "named.toml")]

    return arguments


BAD = {
    "a truncated model": (bad_onnx, "bad.onnx"),
    "NaN in the data": (nan_data, "must be finite"),
    "an unknown key": (bad_config, "nearest are max_clauses"),
    "an unknown option": (lambda f: ["mine", "--modle", "x"], "No such option"),
    "an unknown verb": (lambda f: ["dig"], "No such command"),
    "an unknown data set": (lambda f: ["mine", "digit"], "digits"),
    "no data": (lambda f: ["mine"], "give the data once"),
    "a bad region": (lambda f: ["mine", *given(f), "--region", "cube"], "'regions': 'cube' is not a region; write domain"),
    "a bad engine": (
        lambda f: ["verify", *given(f), "--clause", "class(0) :- true.", "--engine", "magic"],
        "no engine 'magic'",
    ),
    "a bad engine for a run": (lambda f: ["mine", *given(f), "--engine", "magic"], "no engine 'magic'; known are auto"),
    "a site that is none": (lambda f: ["mine", *given(f), "--site", "h7"], "no site 'h7'"),
    "a family that is none": (
        named_in_config("families", "unari"),
        "no predicate family 'unari'; nearest is unary; known are unary",
    ),
    "attention alone without heads": (lambda f: ["mine", *given(f), "--families", "attention"], "no attention heads"),
    "an exporter that is none": (named_in_config("exports", "pdf"), "no exporter 'pdf'; known are smtlib"),
    "an inverted domain": (crossed_domain, "box is empty: lower 0.997 > upper 0.015 at input 0"),
    "an option without use": (lambda f: ["verify", str(f / "run"), "--region", "domain"], "--region would change nothing"),
    "a file that cannot be": (lambda f: ["train", str(f / "data.npz"), "--out", "/proc/specmine/t.onnx"], "cannot write"),
    "no run": (lambda f: ["show", str(f / "none")], "no run folder"),
    "no exporter": (lambda f: ["export", str(f / "run"), "--to", "pdf"], "no exporter 'pdf'"),
    "no export named": (lambda f: ["export", str(f / "run"), "--to", ","], "no exporter named; give some of smtlib"),
    "a bad clause": (lambda f: ["verify", str(f / "run"), "--clause", "class(0) :- aktive(h1,0)."], "nearest: active"),
    "a missing site": (lambda f: ["verify", str(f / "run"), "--clause", "class(0) :- active(h3,0)."], "nearest are"),
    "no clause": (lambda f: ["verify", *given(f)], "give what to decide"),
    "a read-only folder": (lambda f: ["mine", *given(f), "--out", "/proc/specmine"], "cannot write"),
    "widths": (lambda f: ["train", str(f / "data.npz"), "--out", str(f / "t.onnx"), "--hidden", "a"], "--hidden takes numbers"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_ends_with_one_message_and_code_2(files, capsys, monkeypatch, case, tmp_path):
    monkeypatch.chdir(tmp_path)
    arguments, words = BAD[case]
    assert main(arguments(files)) == 2
    out = capsys.readouterr()
    assert out.out == "" and words in out.err and "Traceback" not in out.err
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


EARLY = [
    ["show", "nofolder"],
    ["report", "nofolder"],
    ["verify", "nofolder", "--check"],
    ["verify", "run", "--engine", "magic"],
    ["verify", "run", "--clause", "class(0) :- true.", "--region", "ball:x"],
    ["verify", "--data", "nosuchdata", "--clause", "class(0) :- true."],
    ["export", "run", "--to", "nonsense"],
    ["mine", "digits", "--families", "nonsense"],
    ["mine", "digits", "--engine", "magic"],
    ["mine", "digits", "--recall", "2"],
    ["mine", "digits", "--model", "nofile.onnx"],
    ["mine", "nosuchdata"],
    ["trace", "nosuchdata"],
    ["train", "nosuchdata", "--out", "t.onnx"],
    ["train", "iris", "--out", "t.onnx", "--hidden", "a"],
]


def test_what_is_wrong_at_sight_is_refused_before_torch_is_loaded(files):
    code = f"import sys; from specmine.cli import main; print([main(a) for a in {EARLY!r}], 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=files, capture_output=True, text=True)
    assert result.stdout == f"{[2] * len(EARLY)} False\n", result.stderr


def test_a_bug_says_so(files, capsys, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("boom")

    monkeypatch.setattr("specmine.pipeline.open_run", broken)
    assert main(["show", str(files / "run")]) == 4
    err = capsys.readouterr().err
    assert "boom" in err and "--verbose" in err and "Traceback" not in err


def test_an_interrupt_is_130(files, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("specmine.pipeline.open_run", interrupted)
    assert main(["show", str(files / "run")]) == 130


def test_train_then_trace(files, tmp_path, capsys):
    model, traced = tmp_path / "t.onnx", tmp_path / "trace.npz"
    assert main(["train", str(files / "data.npz"), "--out", str(model), "--hidden", "4", "--epochs", "5", "--quiet"]) == 0
    arguments = ["trace", "--model", str(model), "--data", str(files / "data.npz"), "--out", str(traced), "--quiet"]
    assert main(arguments) == 0
    with np.load(traced) as arrays:
        assert arrays["h1"].shape == (60, 4) and set(arrays) == {"h1", "y", "predictions", "labels", "split"}
    assert capsys.readouterr().out.split() == [str(model), str(traced)]


def test_the_readme_says_which_data_sets_come_with_a_network(capsys):
    assert [name for name in card_names() if model_path(name)] == ["digits"]
    assert set(card_names()) == {"digits", "iris", "wine", "breast_cancer", "mnist"}
    assert "only digits comes with a network; for iris, wine, breast_cancer and mnist" in README.read_text()
    assert main(["data", "list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines if "with a network" in line] == ["digits"]
    assert sum("needs --model" in line for line in lines) == 4


def test_the_readme_trains_a_network_worth_mining(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^specmine ((?:train|mine) iris .*?) *#", README.read_text(), flags=re.MULTILINE)
    assert [line.split()[0] for line in lines] == ["train", "mine"]
    assert main(shlex.split(lines[0])) == 0
    assert float(re.search(r"accuracy on the test split: (\S+)", capsys.readouterr().err)[1]) > 0.9
    assert main([*shlex.split(lines[1]), "--synthesis", "peel", "--no-refine", *FAST]) == 0
    assert open_run("runs/iris").spec.verified_recall > 0.5


def test_data_list_and_describe(capsys):
    assert main(["data", "list"]) == 0
    assert "digits" in capsys.readouterr().out
    assert main(["data", "describe", "iris", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["name"] == "iris"


def test_version(capsys):
    assert main(["--version"]) == 0
    assert re.fullmatch(r"specmine \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("verb", ["", "mine", "verify"])
def test_the_readme_shows_the_help_as_it_is(capsys, verb):
    assert main([*verb.split(), "--help"]) == 0
    shown = capsys.readouterr().out.strip()
    assert shown in README.read_text(), f"README.md must hold the output of: specmine {verb} --help"
