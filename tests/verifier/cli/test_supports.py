"""`verifier supports`, in the words of VNN-LIB 2.0."""

import pytest

from verifier.__main__ import main

ANSWERS = {
    "onnx-element-types": ["real"],
    "vnnlib-versions": ["1.0", "2.0"],
    "hidden-node-theories": ["NH", "H"],
    "multiple-input-output-theories": ["SIO"],
    "multiple-network-theories": ["SNET"],
    "multiple-node-comparison-theories": ["SNC", "MNC"],
    "arithmetic-complexity-theories": ["BND", "OUTC", "LIN"],
    "optimised-disjunctive-reasoning": ["true"],
    "serialise-assignments": ["true"],
    "unsat-proofs": ["false"],
}


@pytest.mark.parametrize("capability", ANSWERS)
def test_a_capability_is_a_list_of_lines(capability, capsys):
    assert main(["supports", f"--{capability}"]) == 0
    assert capsys.readouterr().out.splitlines() == ANSWERS[capability]


def test_opsets_are_a_range(capsys):
    assert main(["supports", "--onnx-opset-versions"]) == 0
    oldest, newest = map(int, capsys.readouterr().out.split())
    assert 1 <= oldest < newest


def test_operators_are_one_a_line(capsys):
    assert main(["supports", "--onnx-operators"]) == 0
    names = capsys.readouterr().out.splitlines()
    assert {"Conv", "Relu", "MatMul", "Gemm", "Add", "Constant"} <= set(names)
    assert names == sorted(set(names)) and all(name.isalnum() for name in names)


def test_without_an_option_all_are_named(capsys):
    assert main(["supports"]) == 0
    assert {line.partition(":")[0] for line in capsys.readouterr().out.splitlines()} >= set(ANSWERS)


def test_an_unknown_capability_is_bad_usage(capsys):
    assert main(["supports", "--telepathy"]) == 2
    assert "unrecognized arguments: --telepathy" in capsys.readouterr().err
