"""The ONNX operators that may read a network value, each with the function that appends its nodes to the network.

A function sees at least one input that is a network value; nodes on constants alone are folded before.
"""

from collections.abc import Callable, Mapping

from verifier.formats.onnx_call import Call
from verifier.formats.onnx_elementwise import ELEMENTWISE
from verifier.formats.onnx_layers import LAYERS
from verifier.formats.onnx_shapes import REARRANGEMENTS

OPERATORS: Mapping[str, Callable[[Call], None]] = {**ELEMENTWISE, **LAYERS, **REARRANGEMENTS}
"""On constants alone any operator is folded that `onnx_constants` allows."""
