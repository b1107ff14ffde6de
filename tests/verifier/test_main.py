"""The verifier's command line."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from laws.networks import random_network

from verifier import __version__
from verifier.__main__ import main
from verifier.certificate import Certificate
from verifier.check import write_certificate
from verifier.formats import read_network
from verifier.formats.archive import write_network
from verifier.formats.vnnlib import read_vnnlib
from verifier.formula import at_least
from verifier.query import Query
from verifier.region import Box
from verifier.solve import ENGINES, verify
from verifier.task import ENGINE_NAMES
from verifier.verdict import Proved

BOX_QUERY = "\n".join((
    *(f"(declare-const X_{k} Real)\n(assert (>= X_{k} 0))\n(assert (<= X_{k} 1))" for k in range(3)),
    *(f"(declare-const Y_{k} Real)" for k in range(2)),
    "(assert (>= Y_0 {least}))",
))  # fmt: skip


@pytest.fixture
def proof(tmp_path):
    """A network file, the file of a certificate about it, and the query it proves."""
    network = random_network("mlp", seed=0)
    query = Query(network, Box(np.zeros(3), np.ones(3)), at_least(network.output, 0, 1000))
    verdict = verify(query, timeout_s=10, engine="bound").verdict
    assert isinstance(verdict, Proved) and verdict.certificate is not None
    write_network(network, tmp_path / "net.network")
    write_certificate(query, verdict.certificate, tmp_path / "proof.npz")
    return tmp_path / "net.network", tmp_path / "proof.npz", query


def test_a_certificate_is_accepted(proof, capsys):
    network, certificate, query = proof
    assert main(["check", str(certificate), "--network", str(network)]) == 0
    out = capsys.readouterr().out
    assert out.endswith("accepted\n")
    assert "[0.0, 1.0]^3" in out and query.sha256 in out and query.network.sha256 in out


def test_a_certificate_that_proves_nothing_is_rejected(proof, capsys):
    network, certificate, query = proof
    write_certificate(query, Certificate(query.network.sha256, query.sha256, ()), certificate)
    assert main(["check", str(certificate), "--network", str(network)]) == 1
    assert "rejected: " in capsys.readouterr().out


def test_a_certificate_of_another_network_is_refused(proof, capsys, tmp_path):
    write_network(random_network("mlp", seed=1), tmp_path / "other.network")
    assert main(["check", str(proof[1]), "--network", str(tmp_path / "other.network")]) == 2
    assert capsys.readouterr().err.startswith("BadCertificate: ")


def test_a_damaged_file_is_refused(proof, capsys):
    network, certificate, _ = proof
    certificate.write_bytes(certificate.read_bytes()[:-40])
    assert main(["check", str(certificate), "--network", str(network)]) == 2
    assert capsys.readouterr().err.startswith("BadCertificate: ")


def test_several_certificates_are_checked(proof, capsys, tmp_path):
    network, certificate, query = proof
    write_certificate(query, Certificate(query.network.sha256, query.sha256, ()), tmp_path / "empty.npz")
    assert main(["check", str(certificate), str(tmp_path / "empty.npz"), "--network", str(network)]) == 1
    assert capsys.readouterr().out.endswith("1 of 2 accepted\n")


def test_a_damaged_certificate_does_not_keep_the_others_from_being_checked(proof, capsys, tmp_path):
    network, certificate, _ = proof
    (tmp_path / "damaged.npz").write_bytes(certificate.read_bytes()[:-40])
    assert main(["check", str(tmp_path / "damaged.npz"), str(certificate), "--network", str(network)]) == 2
    out, err = capsys.readouterr()
    assert out.endswith("1 of 2 accepted, 1 cannot be read\n") and err.startswith("BadCertificate: ")


def test_a_query_that_asks_about_no_input_is_called_vacuous(proof, capsys, tmp_path):
    network, certificate, _ = proof
    asked = tmp_path / "asked.vnnlib"
    asked.write_text(BOX_QUERY.format(least=-1000) + "(assert (<= X_1 -0.5))\n")
    given = ["verify", str(asked), "--network", str(network), "--certificate", str(certificate)]
    assert main(given) == 0
    out, err = capsys.readouterr()
    assert out == "unsat\n" and "vacuous: the bounds of input entry 1 contradict each other" in err
    assert main([*given, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["note"].startswith("vacuous: ")
    assert main(["check", str(certificate), "--network", str(network)]) == 0
    assert "vacuous   no input satisfies its bounds: those of input entry 1" in capsys.readouterr().out


def test_a_certificate_of_the_query_that_was_asked_is_accepted(proof, capsys, tmp_path):
    network, certificate, _ = proof
    asked = tmp_path / "asked.vnnlib"
    asked.write_text(BOX_QUERY.format(least=1000))
    query = read_vnnlib(asked, read_network(network))
    verdict = verify(query, timeout_s=10, engine="bound").verdict
    assert isinstance(verdict, Proved) and verdict.certificate is not None
    write_certificate(query, verdict.certificate, certificate)
    assert main(["check", str(certificate), "--network", str(network), "--query", str(asked)]) == 0
    out = capsys.readouterr().out
    assert f"query     {asked}, sha256 {query.sha256}" in out and out.endswith("accepted\n")


def test_a_certificate_of_another_query_is_rejected(proof, capsys, tmp_path):
    network, certificate, query = proof
    asked = tmp_path / "asked.vnnlib"
    asked.write_text(BOX_QUERY.format(least=999))
    assert main(["check", str(certificate), "--network", str(network), "--query", str(asked)]) == 1
    out = capsys.readouterr().out
    assert f"rejected: its query is another one, sha256 {query.sha256}" in out and "accepted" not in out


@pytest.mark.parametrize("arguments", [["supports"], ["--help"], ["check", "{proof}", "--network", "{network}"]])
def test_a_closed_pipe_ends_quietly(proof, arguments):
    given = [text.format(network=proof[0], proof=proof[1]) for text in arguments]
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run([sys.executable, "-m", "verifier", *given], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert run.stderr == ""
    assert run.returncode == 141 or (run.returncode == 0 and "--help" in given)  # argparse itself minds no closed pipe


def test_the_engines_are_those_of_the_solver(capsys):
    assert tuple(ENGINES) == ENGINE_NAMES
    for command in ("verify", "bench"):
        assert main([command, "--help"]) == 0
        words = capsys.readouterr().out.replace(",", " ").replace(":", " ").split()
        assert set(ENGINES) <= set(words)


def test_the_name_and_the_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"
    assert main(["--name"]) == 0
    assert capsys.readouterr().out == "specmine verifier\n"


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["supports", "--onnx-operators"], ["verify", "x", "--network", "y"]]
)
def test_what_needs_no_solver_loads_none(arguments):
    code = f"import sys; from verifier.__main__ import main; main({arguments!r}); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_help_names_the_exit_codes(capsys):
    for arguments in (["--help"], ["verify", "--help"], ["bench", "--help"], ["check", "--help"]):
        assert main(arguments) == 0
        assert "exit codes:" in capsys.readouterr().out


def test_no_command_is_bad_usage(capsys):
    assert main([]) == 2
    assert "COMMAND" in capsys.readouterr().err
