"""What the README shows: the Python session, the query with a hidden value, the verifier's commands."""

import doctest
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import toy
from model_files import write_distance

from specmine.pipeline.stages import verify_stage
from verifier.__main__ import main
from verifier.check import confirms
from verifier.formats import read_network
from verifier.formats.torch_export import read_module
from verifier.formats.vnnlib import parse_vnnlib
from verifier.verdict import Unknown

README = Path(__file__).resolve().parents[2] / "README.md"


BLOCKS = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
SESSIONS = [block for block in BLOCKS if block.startswith(">>>")]


def script_with(word):
    """The one script of the README that holds a word."""
    (script,) = [block for block in BLOCKS if block not in SESSIONS and word in block]
    return script


@pytest.mark.slow
@pytest.mark.parametrize("session", SESSIONS, ids=["mine", "locality"])
def test_the_python_sessions_are_real(session, monkeypatch):
    monkeypatch.chdir(README.parent)
    examples = doctest.DocTestParser().get_doctest(session, {}, "README", str(README), 0)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL)
    runner.run(examples)
    assert runner.summarize(verbose=False).failed == 0


def test_the_verifier_in_python_is_real(tmp_path, monkeypatch):
    script = script_with("verifier.verify")
    write_distance(tmp_path / "model.onnx")
    (query,) = re.findall(r"```text\n(\(vnnlib-version.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "query.vnnlib").write_text(query)
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    exec(script, known)
    assert not isinstance(known["decision"].verdict, Unknown)


def test_what_is_done_with_a_run_is_real(tmp_path, monkeypatch, capsys):
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    run = toy.run(tmp_path / "runs" / "digits")
    verify_stage(run)
    monkeypatch.chdir(tmp_path)
    known: dict = {}
    exec(script_with("largest_radius"), known)
    exec(script_with("choose_rules"), known)
    radius, bare, share, accuracy = capsys.readouterr().out.splitlines()
    assert radius.startswith("Radius(proved=") and bare.startswith("Radius(proved=") and share == "1.0"
    y, split = run.dataset.y, run.dataset.split
    assert float(accuracy) >= max(np.bincount(y[split == 2])) / (split == 2).sum(), "no worse than the larger class"


class Backwards(torch.nn.Module):
    """Attention of one head to the previous token."""

    def __init__(self):
        super().__init__()
        self.register_buffer("bias", 9.0 * torch.eye(5).roll(-1, 1) - 1e3 * torch.ones(5, 5).triu(1))

    def forward(self, x):
        return (x @ x.transpose(-1, -2) + self.bias).softmax(-1) @ x


def test_the_roles_of_heads_are_named(capsys):
    x, tokens = np.random.default_rng(0).normal(size=(50, 5, 3)), np.zeros((50, 5), dtype=int)
    network = read_module(Backwards(), torch.zeros(1, 5, 3))
    exec(script_with("head_roles"), {"network": network, "x": x, "tokens": tokens})
    first = capsys.readouterr().out.splitlines()[0].split()
    assert first[:3] in (["a1", "0", "previous_token"], ["a1", "0", "duplicate_token"])


def test_the_query_with_a_hidden_value_is_read(tmp_path):
    (query,) = re.findall(r"```text\n(\(vnnlib-version.*?)```", README.read_text(), flags=re.DOTALL)
    asked = parse_vnnlib(query, read_network(write_distance(tmp_path / "net.onnx")))
    hit = np.array([0.0, 0.75])
    assert confirms(asked, hit) and not confirms(asked, hit[::-1])


def test_the_commands_of_the_verifier_are_known(capsys):
    lines = [line.split("#")[0] for line in README.read_text().splitlines() if re.match(r"verifier \w+ ", line)]
    named = {command for line in lines for command in re.findall(r"^verifier (\w+)", line)}
    assert named == {"verify", "check", "supports", "bench"}
    for command in named:
        assert main([command, "--help"]) == 0
        known = capsys.readouterr().out
        given = {word for line in lines if line.startswith(f"verifier {command} ") for word in re.findall(r"--[a-z-]+", line)}
        assert all(option in known for option in given), given
