"""The walk over the graph that every forward domain shares."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from verifier.errors import UnsupportedOp
from verifier.network import Network

State = TypeVar("State")


def walk(
    network: Network,
    rules: Mapping[type, Callable[[Any, list[State]], State]],
    start: State,
    *,
    visit: Callable[[str, State], State],
) -> None:
    """Apply the rule of each node's operator, in order; each state is dropped after its last use.

    visit: called with each value's name and state, the input's first; what it returns is what later nodes read.
    Raises UnsupportedOp where `rules` has no entry for an operator.
    """
    last_use = {name: position for position, node in enumerate(network.nodes) for name in node.inputs}
    states = {network.input: visit(network.input, start)}
    for position, node in enumerate(network.nodes):
        rule = rules.get(type(node.op))
        if rule is None:
            raise UnsupportedOp(type(node.op).__name__, node.output)
        states[node.output] = visit(node.output, rule(node.op, [states[name] for name in node.inputs]))
        for name in set(node.inputs):
            if last_use[name] == position:
                del states[name]
