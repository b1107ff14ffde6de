"""Torch modules as networks, by way of `torch.export`."""

import operator
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

from verifier.errors import BadNetwork, UnsupportedOp
from verifier.formats.build import NetworkBuilder
from verifier.formats.torch_call import Call
from verifier.formats.torch_facts import FACTS
from verifier.formats.torch_operators import CHECKS, FIRST_OF_SEVERAL, OPERATORS, PARTS
from verifier.network import Network


def read_module(module: nn.Module, example: Tensor) -> Network:
    """The network of a module in evaluation mode, for inputs of the example's shape (leading batch axis of length 1).

    Weights and buffers are taken exactly into float64; the reciprocal of a constant divisor and the factor and offset of a
    batch normalisation are rounded once. Values are named after the nodes of the exported graph (`x`, `convolution`,
    `relu`, `addmm_1`, ...), the same ones each time. The module's training flags are as before on return.

    Raises UnsupportedOp for an operator with no rule here, BadNetwork for a module that cannot be exported.
    """
    if not isinstance(example, Tensor) or not example.is_floating_point() or example.ndim < 2 or example.shape[0] != 1:
        given = f"{example.dtype} of shape {tuple(example.shape)}" if isinstance(example, Tensor) else type(example).__name__
        raise BadNetwork(f"the example must be one floating-point sample with a leading batch axis of length 1, got {given}")
    program = _export(module, example)
    _check_outputs(program)
    return _Reader(program).network()


def _export(module: nn.Module, example: Tensor) -> ExportedProgram:
    try:
        with _evaluation_mode(module), _plain_attention(), warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            return torch.export.export(module, (example,)).run_decompositions()
    except Exception as error:  # export runs the user's own code, which may raise anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadNetwork(
            f"{type(module).__name__} cannot be exported for an example of shape {tuple(example.shape)} "
            f"({type(error).__name__}: {lines[0]}); see torch.export's documentation for what a module may do"
        ) from error


@contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Without the fused operators that torch's transformer layers are run by at inference, which cannot be taken apart."""
    allowed = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(allowed)


def _check_outputs(program: ExportedProgram) -> None:
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    if kinds != [OutputKind.USER_OUTPUT]:
        named = ", ".join(kind.name.lower() for kind in kinds) or "nothing"
        raise BadNetwork(f"the module must return one tensor and change no buffer in evaluation mode, it has {named}")


class _Reader:
    """The walk over one exported graph: every node is folded, or appended to the network."""

    def __init__(self, program: ExportedProgram) -> None:
        self.program = program
        self.values: dict[fx.Node, str] = {}
        self.constants: dict[fx.Node, Tensor] = {}
        stored = self._stored_tensors()
        inputs = []
        for node in program.graph.find_nodes(op="placeholder"):
            if node.name in stored:
                self.constants[node] = stored[node.name]
            else:
                inputs.append(node)
        if len(inputs) != 1:
            raise BadNetwork(f"the module must have one input, the export has {len(inputs)}")
        self.values[inputs[0]] = inputs[0].name
        self.builder = NetworkBuilder(inputs[0].name, tuple(int(n) for n in inputs[0].meta["val"].shape))

    def _stored_tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers and constants by placeholder name."""
        tensors = {}
        for spec in self.program.graph_signature.input_specs:
            if spec.kind in (InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR):
                found = self.program.state_dict.get(spec.target, self.program.constants.get(spec.target))
                if not isinstance(found, Tensor):
                    raise BadNetwork(f"the module's tensor {spec.target!r} is missing from its export")
                # -inf may be a mask; where it is used as a number it is refused
                if found.is_floating_point() and not (torch.isfinite(found) | torch.isneginf(found)).all():
                    raise BadNetwork(f"tensor {spec.target!r} has NaN or infinite entries; every weight must be finite")
                tensors[spec.arg.name] = found.detach()
        return tensors

    def network(self) -> Network:
        for node in self.program.graph.nodes:
            if node.op == "call_function" and node.target not in CHECKS:
                self._read(node)
        (result,) = self.program.graph.output_node().args[0]
        if result not in self.values:
            raise BadNetwork(f"the module's result does not depend on its input {self.builder.input!r}")
        return self.builder.build(self.values[result])

    def _read(self, node: fx.Node) -> None:
        if not any(source in self.values for source in node.all_input_nodes):
            self.constants[node] = self._folded(node)
        elif node.target is operator.getitem:
            self._pick(node)
        elif node.target in FACTS:
            self.constants[node] = FACTS[node.target](Call(node, self.builder, self.values, self.constants))
        elif node.target in OPERATORS:
            OPERATORS[node.target](Call(node, self.builder, self.values, self.constants))
            self.values[node] = node.name
        else:
            known = ", ".join(sorted({str(target).removeprefix("aten.").split(".")[0] for target in OPERATORS}))
            raise UnsupportedOp(str(node.target), node.name, f"those that are: {known}; write the module without it")

    def _folded(self, node: fx.Node) -> Any:
        """A constant's value, in the module's own types."""
        missing = [source for source in node.all_input_nodes if source not in self.constants]
        if missing or not callable(node.target):
            raise UnsupportedOp(str(node.target), node.name, "applied to constants")
        if torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ()):
            raise UnsupportedOp(str(node.target), node.name, "random numbers, which differ from run to run; store them instead")
        args, kwargs = fx.map_arg((node.args, node.kwargs), lambda source: self.constants[source])
        with torch.no_grad():
            return node.target(*args, **kwargs)

    def _pick(self, node: fx.Node) -> None:
        source, position = node.args
        assert isinstance(source, fx.Node), "getitem picks from the result of another node"
        if source.target in PARTS:
            self.values[node] = f"{self.values[source]}/{position}"
            return
        if source.target not in FIRST_OF_SEVERAL or position != 0:
            raise UnsupportedOp(str(source.target), source.name, f"only its first result is, not number {position}")
        self.values[node] = self.values[source]
