"""The verifier's command line."""

import subprocess
import sys

import numpy as np
import pytest
from laws.networks import random_network

from verifier import __version__
from verifier.__main__ import main
from verifier.certificate import Certificate
from verifier.check import write_certificate
from verifier.formats.archive import write_network
from verifier.formula import at_least
from verifier.query import Query
from verifier.region import Box
from verifier.solve import verify
from verifier.verdict import Proved


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
