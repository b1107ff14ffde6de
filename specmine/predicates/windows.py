"""Windows of convolutional sites: the places of one channel that the next convolution or pool reads together.

Where no convolution or pool reads a site, the windows are tiles of the size of the kernel that made it.
"""

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np

from specmine.predicates.form import Bits, Rows
from specmine.tracing.sites import Sites
from verifier.network import Network, Node
from verifier.ops import ACTIVATION_OPS, CURVE_OPS, STEP_OPS, AveragePool, Conv, MaxPool, Scale, Shape

_POINTWISE = (*ACTIVATION_OPS, *CURVE_OPS, *STEP_OPS, Scale)


@dataclass(frozen=True)
class Windows:
    """The windows of a site of shape (channels, *space): a grid of `places` for each channel, all of one geometry.

    Along each axis window p holds start p * stride - begin + tap * dilation for each tap below the kernel's length, as far
    as that is a place of the site. name: the value of the convolution or pool. pool: the value that holds the maximum of
    each window, where the network has it.
    """

    name: str
    channels: int
    space: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    begin: tuple[int, ...]
    dilation: tuple[int, ...]
    places: tuple[int, ...]
    pool: str | None = None

    @property
    def count(self) -> int:
        """How many windows a channel has."""
        return math.prod(self.places)

    @property
    def size(self) -> str:
        """The kernel in words, such as 3x3."""
        return "x".join(map(str, self.kernel))

    @cached_property
    def members(self) -> Rows:
        """Places of one channel in C order that each window reads, (windows, taps), -1 for padding."""
        table = np.zeros((1, 1), dtype=np.int64)
        for axis, length in enumerate(self.space):
            reads = self.reads(axis)
            inside = (reads >= 0)[None, :, None, :] & (table >= 0)[:, None, :, None]
            merged = np.where(inside, table[:, None, :, None] * length + reads[None, :, None, :], -1)
            table = merged.reshape(len(table) * len(reads), -1)
        return table

    def reads(self, axis: int) -> Rows:
        """Coordinates that each window reads along one axis, (places, kernel), -1 for padding."""
        starts = np.arange(self.places[axis]) * self.stride[axis] - self.begin[axis]
        reads = starts[:, None] + np.arange(self.kernel[axis]) * self.dilation[axis]
        return np.where((reads >= 0) & (reads < self.space[axis]), reads, -1)

    def neurons(self, channel: int, place: int) -> Rows:
        """The neurons of the site in one window."""
        members = self.members[place]
        return members[members >= 0] + channel * math.prod(self.space)

    def first_together(self, axis: int, shift: int) -> Rows:
        """For each coordinate the first window with it and with the one `shift` further, -1 where there is none."""
        found = np.full(self.space[axis], -1, dtype=np.int64)
        reads = self.reads(axis)
        for place in reversed(range(len(reads))):
            inside = reads[place][reads[place] >= 0]
            found[inside[np.isin(inside + shift, inside)]] = place
        return found

    def together(self, shift: tuple[int, ...]) -> Bits:
        """Whether some window holds a place and the one `shift` further, (places of a channel,) in C order."""
        truth = np.ones(1, dtype=bool)
        for axis, step in enumerate(shift):
            truth = (truth[:, None] & (self.first_together(axis, step) >= 0)).reshape(-1)
        return truth


@lru_cache(maxsize=256)
def windows_of(sites: Sites, site: str) -> Windows | None:
    """The windows of a site, None where it has no channels and positions: no convolution or pool reads or makes it."""
    network, value = sites.network, sites.value(site)
    reader, maker = _reader(network, value), _maker(network, value)
    if reader is not None:
        node, direct = reader
        pool = node.output if direct and isinstance(node.op, MaxPool) else None
        return _read_by(node, network.shapes[node.inputs[0]], network.shapes[node.output], pool)
    if maker is not None and isinstance(maker.op, Conv):
        return _tiles(network, maker)
    return None


def window_members(node: Node, read: Shape, made: Shape) -> Rows:
    """Places of one channel that each place of a convolution's or pool's result reads, (places, taps), -1 for padding.

    read, made: the shapes of the value that the node reads and of its result.
    """
    return _read_by(node, read, made, None).members


def _read_by(node: Node, read: Shape, made: Shape, pool: str | None) -> Windows:
    op = node.op
    assert isinstance(op, Conv | AveragePool | MaxPool)
    _, channels, *space = read
    kernel = op.weight.shape[2:] if isinstance(op, Conv) else op.kernel
    dilation = (1,) * len(space) if isinstance(op, AveragePool) else op.dilation
    begin = tuple(side for side, _ in op.padding)
    return Windows(node.output, channels, tuple(space), kernel, op.stride, begin, dilation, made[2:], pool)


def _tiles(network: Network, node: Node) -> Windows:
    assert isinstance(node.op, Conv)
    _, channels, *space = network.shapes[node.output]
    kernel = tuple(min(k, n) for k, n in zip(node.op.weight.shape[2:], space, strict=True))
    none, one = (0,) * len(space), (1,) * len(space)
    places = tuple(-(-n // k) for n, k in zip(space, kernel, strict=True))
    return Windows(node.output, channels, tuple(space), kernel, kernel, none, one, places)


def _reader(network: Network, value: str) -> tuple[Node, bool] | None:
    """The first convolution or pool that reads a value, directly or through functions of one entry."""
    same = {value}
    for node in network.nodes:
        if node.inputs[0] in same:
            if isinstance(node.op, Conv | AveragePool | MaxPool):
                return node, node.inputs[0] == value
            if isinstance(node.op, _POINTWISE):
                same.add(node.output)
    return None


def _maker(network: Network, value: str) -> Node | None:
    """The node that makes a value, or what functions of one entry make it of."""
    node = network.producers.get(value)
    while node is not None and isinstance(node.op, _POINTWISE):
        node = network.producers.get(node.inputs[0])
    return node
