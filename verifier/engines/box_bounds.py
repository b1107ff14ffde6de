"""Bounds for many input boxes at once: piecewise linear networks as blocks of one affine map and one activation each.

The maps between activations are multiplied out once, so that a pass over many boxes is a few matrix products a block. The
passes are those that a proof node with `rebound` replays: intervals forward, and for each entry whose activation they leave
undecided one backward pass for each side, with the default slopes. Plain floats: what is found, `verifier.check` proves.

Axes of coefficients are (rows, boxes, size): what differs between boxes is then contiguous, and shared by all rows.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from verifier.domains.relaxations import slope_floor
from verifier.evaluate import FORWARD
from verifier.formula import Atom
from verifier.network import Network, Node
from verifier.ops import LINEAR_OPS, LeakyRelu, Relu

Interval = tuple[Tensor, Tensor]

INPUT = -1


@dataclass(frozen=True, eq=False)
class Form:
    """An affine form of the sources: weights[source] (rows, size of source), bias (rows,); source INPUT or a block's number."""

    weights: Mapping[int, Tensor]
    bias: Tensor

    def to(self, dtype: torch.dtype) -> "Form":
        return Form({source: matrix.to(dtype) for source, matrix in self.weights.items()}, self.bias.to(dtype))


@dataclass(frozen=True, eq=False)
class Block:
    """after = activation(before), before = form of the input and of earlier blocks; magnitudes: absolute weights."""

    before: str
    after: str
    floor: float
    form: Form
    magnitudes: Mapping[int, Tensor]


@dataclass(frozen=True, eq=False)
class Layers:
    """A network of affine maps and activations; forms: the values that rows may speak of."""

    blocks: tuple[Block, ...]
    forms: Mapping[str, Form]

    def rows(self, atoms: Sequence[Atom]) -> Form:
        """The left sides of atoms over the values in `forms`, float64."""
        weights: dict[int, Tensor] = {}
        bias = torch.tensor([float(a.bias) for a in atoms], dtype=torch.float64)
        for row, atom in enumerate(atoms):
            for term in atom.terms:
                form, factor = self.forms[term.value], float(term.coefficient)
                bias[row] += factor * form.bias[term.index]
                for source, matrix in form.weights.items():
                    if source not in weights:
                        weights[source] = torch.zeros(len(atoms), matrix.shape[1], dtype=torch.float64)
                    weights[source][row] += factor * matrix[term.index]
        return Form(weights, bias)

    def to(self, dtype: torch.dtype) -> "Layers":
        """The blocks in another precision; forms stay."""
        blocks = (
            Block(b.before, b.after, b.floor, b.form.to(dtype), {s: m.to(dtype) for s, m in b.magnitudes.items()})
            for b in self.blocks
        )
        return Layers(tuple(blocks), self.forms)


def has_layers(network: Network) -> bool:
    """Whether the network has no other operators than affine ones, Relu and LeakyRelu."""
    return all(isinstance(node.op, (Relu, LeakyRelu, *LINEAR_OPS)) for node in network.nodes)


def layers_of(network: Network, named: Collection[str]) -> Layers:
    """The network as blocks, with forms of the named values."""
    assert has_layers(network), "only affine operators and ReLUs make layers"
    size = network.size(network.input)
    forms = {network.input: Form({INPUT: torch.eye(size, dtype=torch.float64)}, torch.zeros(size, dtype=torch.float64))}
    blocks: list[Block] = []
    for node in network.nodes:
        if isinstance(node.op, (Relu, LeakyRelu)):
            form = forms[node.inputs[0]]
            magnitudes = {source: matrix.abs() for source, matrix in form.weights.items()}
            blocks.append(Block(node.inputs[0], node.output, slope_floor(node.op), form, magnitudes))
            size = network.size(node.output)
            unit = torch.eye(size, dtype=torch.float64)
            forms[node.output] = Form({len(blocks) - 1: unit}, torch.zeros(size, dtype=torch.float64))
        else:
            forms[node.output] = _composed(network, node, [forms[name] for name in node.inputs])
    return Layers(tuple(blocks), {name: forms[name] for name in named})


def _composed(network: Network, node: Node, inputs: Sequence[Form]) -> Form:
    """The form of an affine node's value, by applying it to the columns of its inputs' matrices."""
    shapes = [network.shapes[name] for name in node.inputs]

    def applied(columns: Sequence[Tensor]) -> Tensor:
        values = [x.reshape(len(x), *shape) for x, shape in zip(columns, shapes, strict=True)]
        return FORWARD[type(node.op)](node.op, values).flatten(1)

    zeros = [torch.zeros(1, network.size(name), dtype=torch.float64) for name in node.inputs]
    at_zero = applied(zeros)
    weights = {}
    for source in {s for form in inputs for s in form.weights}:
        count = next(form.weights[source].shape[1] for form in inputs if source in form.weights)
        columns = [
            form.weights[source].T if source in form.weights else zero.expand(count, -1)
            for form, zero in zip(inputs, zeros, strict=True)
        ]
        weights[source] = (applied(columns) - at_zero).T.contiguous()
    return Form(weights, applied([form.bias[None] for form in inputs])[0])


@dataclass(frozen=True, eq=False)
class Lines:
    """Of one block, (boxes, size) each: bounds of the value before it, a line below the activation and one above it.

    The lines have slopes `below` and `above` and meet at (at, value). offset: the affine map at the earlier blocks' `value`
    and the box's center, less `at`.
    """

    low: Tensor
    high: Tensor
    below: Tensor
    above: Tensor
    at: Tensor
    value: Tensor
    offset: Tensor

    def select(self, boxes: Tensor) -> "Lines":
        """The lines of some boxes."""
        return Lines(*(getattr(self, field.name)[boxes] for field in fields(self)))


@dataclass(frozen=True, eq=False)
class Affine:
    """Lower bounds of rows as affine functions of the input's distance from the box's center.

    slopes: (rows, boxes, inputs), constant: (rows, boxes); seen[block]: the coefficients that arrived there, where asked for.
    """

    slopes: Tensor
    constant: Tensor
    seen: Mapping[int, Tensor]

    def least(self, radius: Tensor) -> Tensor:
        """The minimum over boxes of radius (boxes, inputs): (rows, boxes)."""
        # sound: a linear form over a box is smallest at the corner that its signs choose
        return self.constant - (self.slopes.abs() * radius).sum(-1)


class Boxes:
    """Bounds over boxes around a center, (boxes, inputs), of a radius, proved again block by block.

    known: bounds (1 or boxes, size) of the value before each block that hold besides. crossed: (boxes,) where bounds
    contradict each other by more than rounding, so that no input is left.
    """

    def __init__(self, layers: Layers, center: Tensor, radius: Tensor, known: Sequence[Interval]) -> None:
        self.layers, self.center, self.radius = layers, center, radius
        self.lines: list[Lines] = []
        self.crossed = torch.zeros(len(center), dtype=torch.bool)
        for block, cut in zip(layers.blocks, known, strict=True):
            self.lines.append(self._bounded(block, cut))

    def _bounded(self, block: Block, cut: Interval) -> Lines:
        middle, spread = block.form.bias, torch.zeros((), dtype=self.center.dtype)
        reference = block.form.bias
        for source, matrix in block.form.weights.items():
            at, center, radius = self._source(source)
            middle = middle + center @ matrix.T
            spread = spread + radius @ block.magnitudes[source].T
            reference = reference + at @ matrix.T
        low, high = torch.maximum(middle - spread, cut[0]), torch.minimum(middle + spread, cut[1])
        if set(block.form.weights) != {INPUT}:
            low, high = self._rebound(block, low, high, reference)
        self.crossed |= (low - high > 1e-5 * (low.abs() + high.abs() + 1e-3)).any(1)
        return _lines(low, torch.maximum(low, high), block.floor, reference)

    def _source(self, source: int) -> tuple[Tensor, Tensor, Tensor]:
        """Reference point, center and radius of a source, (boxes, size) each."""
        if source == INPUT:
            return self.center, self.center, self.radius
        line, floor = self.lines[source], self.layers.blocks[source].floor
        # sound: the activation is monotone
        low, high = torch.maximum(line.low, floor * line.low), torch.maximum(line.high, floor * line.high)
        return line.value, (high + low) / 2, (high - low) / 2

    def _rebound(self, block: Block, low: Tensor, high: Tensor, reference: Tensor) -> Interval:
        undecided = (low < 0) & (high > 0)
        count = int(undecided.sum(1).max())
        if not count:
            return low, high
        chosen = undecided.to(torch.int8).topk(count, 1).indices
        rows = chosen.T
        weights = {s: torch.cat([picked := matrix[rows], -picked]) for s, matrix in block.form.weights.items()}
        start = reference.gather(1, chosen).T
        least = self.backward(weights, torch.cat([start, -start])).least(self.radius)
        counted = undecided.gather(1, chosen)
        lower = torch.where(counted, least[:count].T, -torch.inf)
        upper = torch.where(counted, -least[count:].T, torch.inf)
        return low.scatter_reduce(1, chosen, lower, "amax"), high.scatter_reduce(1, chosen, upper, "amin")

    def goal_bounds(self, rows: Form, *, keep: bool = False) -> Affine:
        """Lower bounds of rows, the same for every box."""
        boxes = len(self.center)
        constant = rows.bias[:, None].expand(-1, boxes)
        for source, matrix in rows.weights.items():
            at, _, _ = self._source(source)
            constant = constant + matrix @ at.T
        weights = {source: matrix[:, None].expand(-1, boxes, -1) for source, matrix in rows.weights.items()}
        return self.backward(weights, constant, keep=keep)

    def backward(self, weights: Mapping[int, Tensor], constant: Tensor, *, keep: bool = False) -> Affine:
        """Carry rows back to the input. weights[source]: (rows, boxes, size); constant: (rows, boxes), at the reference."""
        pending = dict(weights)
        seen: dict[int, Tensor] = {}
        for k in range(len(self.lines) - 1, -1, -1):
            a = pending.pop(k, None)
            if a is None:
                continue
            if keep:
                seen[k] = a
            line = self.lines[k]
            # sound: both lines pass through (at, value); below it where the coefficient is positive, above it where negative
            a = (a * line.below).addcmul_(a.clamp(max=0), line.above - line.below)
            constant = constant + torch.bmm(a.transpose(0, 1), line.offset[:, :, None])[..., 0].T
            for source, matrix in self.layers.blocks[k].form.weights.items():
                part = a @ matrix
                pending[source] = pending[source].add(part) if source in pending else part
        shape = (*constant.shape, self.center.shape[1])
        return Affine(pending.get(INPUT, torch.zeros(shape, dtype=constant.dtype)), constant, seen)


def _lines(low: Tensor, high: Tensor, floor: float, reference: Tensor) -> Lines:
    on, off = low >= 0, high <= 0
    steep = high > -low
    below = torch.full_like(low, floor).masked_fill_(steep, 1.0)
    chord = (high - floor * low) / (high - low).clamp(min=1e-30)
    above = chord.masked_fill_(on, 1.0).masked_fill_(off, floor)
    # sound: the chord passes through both ends, the line of slope 1 through the upper end, that of slope `floor` the lower
    at = torch.where(steep, high, low).masked_fill_(on | off, 0.0)
    value = torch.maximum(at, floor * at)
    return Lines(low, high, below, above, at, value, reference - at)


def slack_by_input(layers: Layers, lines: Sequence[Lines], radius: Tensor, seen: Mapping[int, Tensor]) -> Tensor:
    """How much of what one row a box loses to relaxation stems from each input, (boxes, inputs).

    seen: the coefficients of that row, (boxes, size) for each block. An undecided activation loses its coefficient times the
    largest distance to its line, and this is shared among the inputs by how far each moves the value before it, where every
    activation is taken for its chord.
    """
    total = torch.zeros_like(radius)
    moves = {INPUT: torch.eye(radius.shape[1], dtype=radius.dtype)[:, None] * radius}
    for k, (block, line) in enumerate(zip(layers.blocks, lines, strict=True)):
        parts = [moves[source] @ matrix.T for source, matrix in block.form.weights.items()]
        moved = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        moves[k] = moved * line.above
        if k in seen:
            lost = seen[k].clamp(min=0) * _distance(line) - seen[k].clamp(max=0) * _height(line)
            share = moved.abs_()
            lost = lost / share.sum(0).clamp(min=1e-30)
            total += (share * lost).sum(-1).T
    return total


def _distance(line: Lines) -> Tensor:
    """Largest distance of the activation from its line below."""
    return torch.maximum((line.above - line.below) * (line.low - line.at), (line.above - line.below) * (line.high - line.at))


def _height(line: Lines) -> Tensor:
    """Largest distance of the activation from its line above: at 0."""
    return line.value - line.above * line.at
