"""`verifier supports`: what the solver can do, in the words of VNN-LIB 2.0."""

import argparse
from collections.abc import Callable, Mapping

from verifier.cli.codes import DECIDED

COMMAND = "supports"
HELP = "say what queries and networks are supported"
DESCRIPTION = """Say what queries and networks are supported: one capability of VNN-LIB 2.0, or all without an option.

The element type is real: answers hold in exact arithmetic over the stored weights, not for the rounding of one machine.
"""


def _opsets() -> list[str]:
    import onnx

    from verifier.formats.onnx_model import OLDEST_OPSET

    return [str(OLDEST_OPSET), str(onnx.defs.onnx_opset_version())]


def _operators() -> list[str]:
    from verifier.formats.onnx_operators import OPERATORS

    return sorted({*OPERATORS, "Constant", "Shape"})


CAPABILITIES: Mapping[str, Callable[[], list[str]]] = {
    "onnx-opset-versions": _opsets,
    "onnx-element-types": lambda: ["real"],
    "onnx-operators": _operators,
    "vnnlib-versions": lambda: ["1.0", "2.0"],
    "hidden-node-theories": lambda: ["NH", "H"],
    "multiple-input-output-theories": lambda: ["SIO"],
    "multiple-network-theories": lambda: ["SNET"],
    "multiple-node-comparison-theories": lambda: ["SNC", "MNC"],
    "arithmetic-complexity-theories": lambda: ["BND", "OUTC", "LIN"],
    "optimised-disjunctive-reasoning": lambda: ["true"],  # the cases of a disjunction share one propagation of bounds
    "serialise-assignments": lambda: ["true"],
    "unsat-proofs": lambda: ["false"],  # certificates are in a format of our own
}


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_mutually_exclusive_group()
    for name in CAPABILITIES:
        group.add_argument(f"--{name}", dest="capability", action="store_const", const=name)


def run(options: argparse.Namespace) -> int:
    if options.capability is not None:
        print("\n".join(CAPABILITIES[options.capability]()))
    else:
        for name, report in CAPABILITIES.items():
            print(f"{name}: {' '.join(report())}")
    return DECIDED
