"""Counterexamples as text, in the words of the solvers that answer VNN-LIB queries."""

from collections.abc import Mapping

import numpy as np

from verifier.evaluate import evaluate
from verifier.formats.vnnlib2 import value_of
from verifier.formats.vnnlib_declarations import Declaration
from verifier.ops import Array
from verifier.query import Query


def format_counterexample(query: Query, x: Array, *, declaration: Declaration | None = None) -> str:
    """A counterexample as text: every input and output with its value, the shortest decimal that reads back as its float64.

    x: the input, any shape with its number of entries; the other values are evaluated from it in float64. Without a
    declaration the text is that of VNN-COMP, `((X_0 0.5)` to `(Y_0 -1.0))`, one entry a line; with the declaration of a
    VNN-LIB 2.0 text it lists the tensors declared there: name, type and shape on a line, then one entry a line.
    """
    network = query.network
    point = np.asarray(x, dtype=np.float64).reshape(1, *network.input_shape)
    names = [value_of(t, network) for t in declaration.tensors] if declaration else [network.input, network.output]
    values = evaluate(network, point, keep=set(names))
    entries: Mapping[str, list[float]] = {name: tensor.reshape(-1).tolist() for name, tensor in values.items()}
    if declaration is None:
        lines = [f"({letter}_{i} {v!r})" for letter, name in zip("XY", names, strict=True) for i, v in enumerate(entries[name])]
        return "(" + "\n".join(lines) + ")"
    lines = []
    for tensor, name in zip(declaration.tensors, names, strict=True):
        lines.append(f"{tensor.name} {tensor.element_type} [{','.join(map(str, tensor.shape))}]")
        lines += map(repr, entries[name])
    return "\n".join(lines)
