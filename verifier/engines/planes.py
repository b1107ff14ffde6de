"""Planes above the activations of a reduced network: upper bounds of a Relu over the box of what its affine map reads.

The triangle knows of z = W v + b no more than its bounds. Over a box of v a Relu has better upper bounds, one slope for each
connection instead of one for the neuron (Anderson et al. 2020; Tjandraatmadja et al. 2020; De Palma et al. 2021). Any plane
s W v + q with shares s in [0, 1] will do, if q is the least that keeps it above 0 and above z: two maxima of linear forms over
a box. The bound is concave in the shares, so they climb together with slopes and multipliers.

Where v has neurons that are on in every tree their shares are the slope of the chord, so that only what is kept has columns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from verifier.certificate import Plane as ProofPlane
from verifier.device import array_of, tensor_of
from verifier.domains.choices import Plane
from verifier.domains.relaxations import Interval, chord, relaxed_nodes
from verifier.network import Network
from verifier.ops import Array, Linear, Relu, Reshape, Scale

MOST_SHARES = 32_000
"""Of all planes of a subproblem together."""
WHOLE = 255
"""The share 1 as it is stored."""
SOFT = 0.05
"""Of a chord's shift: how far the offsets that 0 and the map ask for may differ until one of them alone is climbed on."""
START = 0.5
"""The part of a coefficient that goes to its plane to begin with."""


@dataclass(frozen=True, eq=False)
class Fan:
    """The planes of one block: its k activations over the m columns kept of an earlier value, and those that are on.

    active: their places among all activations; shares, weights: on the axes of all shares (k * m) and of all weights (k);
    value, output, source: what the Relu reads, what it gives, what the affine map reads; entries: (k,); columns: of the source,
    the m kept, then those on, and order: what sorts them; map: all of W and b for these entries, in float64; weight, size:
    (k, m), those of the columns kept and their absolutes; carried: the place of these columns on the axis of forms, None for
    those of the input; watched: of the values that their activations read, among all entries kept; rest: (trees, k) lower and
    upper bounds of what the map adds to the columns kept.
    """

    active: slice
    shares: slice
    weights: slice
    value: str
    output: str
    source: str
    entries: Tensor
    columns: NDArray[np.int64]
    order: NDArray[np.int64]
    map: Interval
    weight: Tensor
    size: Tensor
    carried: slice | None
    watched: slice | None
    rest: Interval

    def of(self, shares: Tensor) -> Tensor:
        """This fan's part of shares (count, all) as (count, k, m)."""
        return shares[:, self.shares].unflatten(1, tuple(self.weight.shape))


@dataclass(frozen=True, eq=False)
class FanBox:
    """What the planes of a fan need to know of a subproblem: center and radius of the columns kept (count, m), slope and shift
    of the chord, and the offsets of planes without shares, for 0 and for the map (count, k)."""

    center: Tensor
    radius: Tensor
    slope: Tensor
    shift: Tensor
    of_zero: Tensor
    of_map: Tensor


@dataclass(frozen=True, eq=False)
class Taken:
    """The planes of a fan as a pass took them: their slopes (count, k, m), the coefficients that may go to planes (count, k),
    how far planes lie above chords at 0, and which of 0 and the map asks for that, from 1 for 0 to -1."""

    steep: Tensor
    arrived: Tensor
    above: Tensor
    side: Tensor


def fan_box(fan: Fan, lines: Interval, tree: Tensor, box: Interval) -> FanBox:
    """lines: slope and shift of the chords, (count, k); box: lower and upper bounds of the columns kept, (count or 1, m)."""
    (slope, shift), (low, high) = lines, box
    center, radius = 0.5 * (low + high), 0.5 * (high - low)
    least, most = (side[tree] if len(side) > 1 else side for side in fan.rest)
    of_zero = -slope * least
    of_map = (1 - slope) * most + (center @ fan.weight.T + radius @ fan.size.T)
    return FanBox(center, radius, slope, shift, of_zero, of_map)


def through_planes(fan: Fan, box: FanBox, shares: Tensor, weights: Tensor, arrived: Tensor) -> tuple[Tensor, Tensor, Taken]:
    """What planes change in a pass that has taken chords: coefficients (count, m) of the columns kept, and constants (count,).

    shares: (count, k, m), or (groups, k, m) where each so many subproblems on end have the same; weights: (count, k); arrived:
    (count, k) coefficients of the activations.
    """
    arrived = torch.where(box.shift > 0, arrived.clamp(max=0), 0.0)
    groups, count = len(shares), len(arrived)
    steep = shares * fan.weight
    at_center = _each(steep, box.center.expand(count, -1), groups)
    at_radius = _each(shares * fan.size, box.radius.expand(count, -1), groups)
    # sound: over the box of v the plane's linear part is within at_center -+ at_radius; see the heading
    of_zero, of_map = box.of_zero - at_center + at_radius, box.of_map - at_center - at_radius
    above = torch.maximum(of_zero, of_map) - box.shift
    part = arrived * weights
    moved = (part.view(groups, count // groups, -1) @ steep).view(count, -1) - (part * box.slope) @ fan.weight
    side = ((of_zero - of_map) / (SOFT * box.shift + 1e-9)).clamp(-1, 1)
    return moved, (part * above).sum(1), Taken(steep, arrived, above, side)


def _each(matrices: Tensor, vectors: Tensor, groups: int) -> Tensor:
    """Matrices (groups, k, m) times the vectors (count, m) of each group, (count, k)."""
    products = matrices @ vectors.reshape(groups, -1, vectors.shape[1]).transpose(1, 2)
    return products.transpose(1, 2).reshape(len(vectors), -1)


def plane_gradients(fan: Fan, box: FanBox, taken: Taken, weights: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of a bound in shares (count, k, m) and weights (count, k) at values (count, m) of the columns kept; and how far planes
    lie above chords there, (count, k)."""
    gap = (taken.steep @ values[:, :, None])[..., 0] - box.slope * (values @ fan.weight.T) + taken.above
    part = (taken.arrived * weights)[:, :, None]
    side = (part[..., 0] * taken.side)[:, :, None]
    of_shares = (fan.weight * (values - box.center)[:, None]).mul_(part)
    of_shares.addcmul_(fan.size * box.radius.expand_as(box.center)[:, None], side)
    return of_shares, taken.arrived * gap, gap


def shares_at(fans: Sequence[Fan], slope: Tensor) -> tuple[Tensor, Tensor]:
    """Shares (count, all) that make each plane the chord, stored, and weights to begin with; slope: (count, activations)."""
    count = len(slope)
    chords = [slope[:, fan.active, None].expand(-1, -1, fan.weight.shape[1]).flatten(1) for fan in fans]
    of_all = torch.cat([torch.zeros(count, 0), *chords], 1)
    return quantised(of_all), torch.full((count, sum(len(fan.entries) for fan in fans)), START)


def quantised(shares: Tensor) -> Tensor:
    """As they are stored, in 255ths."""
    return (shares * WHOLE).round_().clamp_(0, WHOLE).byte()


def planes_of(fans: Sequence[Fan], bounds: Mapping[str, Interval], shares: Tensor, weights: Tensor) -> dict[str, Plane]:
    """The planes (count, 1, ...) of subproblems for a pass over the network itself; bounds: (count, size), in float64."""
    planes = {}
    for fan in fans:
        places = fan.entries
        low, high = (side[:, places] for side in bounds[fan.value])
        slope = quantised(chord(Relu(), low, high)[0])[:, :, None]
        kept = fan.of(shares)
        every = torch.cat([kept, slope.expand(-1, -1, len(fan.columns) - kept.shape[2])], 2)[:, :, fan.order]
        is_open = (low < 0) & (high > 0)
        every, parts = every * is_open[:, :, None], weights[:, fan.weights] * is_open
        columns = tensor_of(fan.columns[fan.order])
        given = every.double()[:, None] / WHOLE, parts.half().double()[:, None]
        planes[fan.output] = Plane(fan.source, places, columns, *fan.map, *given)
    return planes


def proof_planes(fans: Sequence[Fan], planes: Mapping[str, Plane]) -> dict[str, list[ProofPlane]]:
    """The same as certificate data, for each subproblem."""
    proofs = {}
    for fan in fans:
        plane = planes[fan.output]
        entries, columns = array_of(plane.entries), array_of(plane.columns)
        parts = zip(array_of(quantised(plane.shares)), array_of(plane.weights.half()), strict=True)
        proofs[fan.output] = [ProofPlane(entries, columns, *own) for own in parts]
    return proofs


@dataclass(frozen=True, eq=False)
class Place:
    """Where a block's entries are: on the axes of watched entries, activations and forms."""

    watched: slice
    active: slice
    carried: slice
    entries: Tensor


def fans_of(network: Network, places: Mapping[str, Place], bounds: Mapping[str, Interval]) -> tuple[Fan, ...]:
    """The fans that are worth their shares, the small ones first; places: by the values that activations read."""
    maps = {v: affine_under(network, v) for v in places}
    readers = {node.output: node.inputs[0] for node in relaxed_nodes(network)}
    found = []
    for value, place in places.items():
        under = maps[value]
        if under is None or not (under[0] == network.input or readers.get(under[0]) in places):
            continue
        source = under[0]
        count = network.size(source) if source == network.input else len(places[readers[source]].entries)
        if len(place.entries) * count:
            found.append((len(place.entries) * count, value))
    fans: list[Fan] = []
    shares = weights = 0
    for size, value in sorted(found):
        under = maps[value]
        assert under is not None
        fan = _fan(network, value, places, under, bounds, readers, (shares, weights))
        if shares + size > MOST_SHARES or len(fan.columns) < 2:
            continue
        fans.append(fan)
        shares, weights = shares + size, weights + len(fan.entries)
    return tuple(fans)


def _fan(
    network: Network,
    value: str,
    places: Mapping[str, Place],
    under: tuple[str, Array, Array],
    bounds: Mapping[str, Interval],
    readers: Mapping[str, str],
    starts: tuple[int, int],
) -> Fan:
    (source, weight, bias), place = under, places[value]
    output = next(a for a, v in readers.items() if v == value)
    own, shift = torch.tensor(weight[array_of(place.entries)]), torch.tensor(bias[array_of(place.entries)])
    carried = watched = None
    kept, on = torch.arange(network.size(source)), torch.zeros(0, dtype=torch.long)
    if source != network.input:
        before = places[readers[source]]
        kept, low = before.entries, bounds[readers[source]][0]
        on = (low >= 0).all(0).index_fill(0, kept, False).nonzero()[:, 0]
        carried = slice(before.carried.start, before.carried.start + len(kept))
        watched = before.watched
    # sound: what is on lies within its bounds; what is neither kept nor on is 0
    low, high = (side[:, on] for side in bounds[source])
    center, radius = (0.5 * low + 0.5 * high) @ own[:, on].T + shift, (0.5 * high - 0.5 * low) @ own[:, on].abs().T
    some, size = own[:, kept].float(), len(place.entries) * len(kept)
    columns = array_of(torch.cat([kept, on]))
    return Fan(
        place.active,
        slice(starts[0], starts[0] + size),
        slice(starts[1], starts[1] + len(place.entries)),
        value,
        output,
        source,
        place.entries,
        columns,
        np.argsort(columns),
        (own, shift),
        some,
        some.abs(),
        carried,
        watched,
        ((center - radius).float(), (center + radius).float()),
    )


def affine_under(network: Network, value: str) -> tuple[str, Array, Array] | None:
    """The source of a value that is W v + b by one Linear node on a vector, W and b; None where it is not.

    Nodes that rename entries in order or add a bias where the Linear node has none may stand between, as `planes` in
    `verifier.certificate` asks.
    """
    bias: Array | None = None
    weight: Array | None = None
    sources = {network.input, *(node.output for node in relaxed_nodes(network) if isinstance(node.op, Relu))}
    while value not in sources or weight is None:
        node = network.producers.get(value)
        if node is None:
            return None
        op = node.op
        if isinstance(op, Linear) and weight is None and network.size(node.inputs[0]) == op.weight.shape[1]:
            if bias is not None and bool((op.bias != 0).any()):
                return None
            weight, bias = op.weight, op.bias if bias is None else bias
        elif isinstance(op, Scale) and weight is None and bias is None and bool((np.asarray(op.factor) == 1).all()):
            bias = np.broadcast_to(op.offset, network.shapes[value]).reshape(-1)
        elif not isinstance(op, Reshape):
            return None
        value = node.inputs[0]
    assert bias is not None
    return value, weight, np.ascontiguousarray(bias)
