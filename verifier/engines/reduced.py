"""A network of Relus cut down to the neurons that are not off, for many passes over subproblems of the same trees.

What is linear between the neurons is multiplied out once: every watched value that is kept is one linear form of the input and
of the activations before it. Neurons that are on in every tree are passed through, or multiplied out as well, whichever
makes a pass cheaper. A pass is then one matrix product for each value, its gradient (the same walk forward at the minimising
input, by the envelope theorem) another one. Passes run in float32 and only steer the search: what they close is confirmed by a
pass over the network itself.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from verifier.domains.relaxations import Interval
from verifier.engines.linear_map import LinearMap
from verifier.engines.planes import Fan, FanBox, Taken, fan_box, plane_gradients, through_planes

LAST_RESORT = 1e-12
FEW = 0.25  # of the entries, up to which cuts are gathered


@dataclass(frozen=True, eq=False)
class Forms:
    """Linear forms over what is left: coefficients (..., width) of the activations carried, (..., inputs) of the inputs, None
    where these are all 0, and constants (...)."""

    carried: Tensor
    inputs: Tensor | None
    constant: Tensor

    def __getitem__(self, index: Any) -> "Forms":
        """Some of them."""
        return Forms(self.carried[index], None if self.inputs is None else self.inputs[index], self.constant[index])

    def whole(self, inputs: int) -> Tensor:
        """The coefficients of the inputs, then those of the activations carried."""
        empty = torch.zeros(*self.carried.shape[:-1], inputs)
        return torch.cat([empty if self.inputs is None else self.inputs, self.carried], -1)


@dataclass(frozen=True, eq=False)
class Block:
    """One watched value: its entries are linear forms of the input and of earlier activations; those kept first, then those
    passed on.

    watched: the places of those kept among all entries kept; active: the places of the activations that read them among all
    such; carried: the places of these and of those that read the entries passed on, on the axis of the forms; both None where
    nothing reads the value. of_inputs, of_carried: the coefficients, None where all are 0; columns: what the latter is over.
    value, entries: its name, and which of its entries are kept.
    """

    watched: slice
    active: slice | None
    carried: slice | None
    columns: slice
    of_inputs: LinearMap | None
    of_carried: LinearMap | None
    shift: Tensor
    value: str
    entries: Tensor

    @property
    def kept(self) -> int:
        """The number of entries kept."""
        return self.watched.stop - self.watched.start

    @property
    def work(self) -> int:
        """The multiplications of a pass."""
        return sum(form.work for form in (self.of_inputs, self.of_carried) if form is not None)

    def rows(self, places: Tensor, width: int) -> Forms:
        """Some of its entries as forms."""
        carried = torch.zeros(len(places), width)
        if self.of_carried is not None:
            carried[:, self.columns] = self.of_carried.rows(places)
        inputs = None if self.of_inputs is None else self.of_inputs.rows(places)
        return Forms(carried, inputs, self.shift[places])


@dataclass(frozen=True, eq=False)
class Reduced:
    """watched, sloped: which entries of the flat axes of watched values and of slopes are kept.

    goal: (trees,) forms; atoms: (trees, count) forms, None without relations; box: center and radius, (trees, inputs), or
    (1, inputs) where all trees have the same; inputs: their number; width: that of the activations carried; read: (sloped,),
    which of the watched entries kept each activation reads; fans: the planes that passes with shares take.
    """

    watched: Tensor
    sloped: Tensor
    blocks: tuple[Block, ...]
    goal: Forms
    atoms: Forms | None
    box: Interval
    inputs: int
    width: int
    shift: Tensor
    read: Tensor
    fans: tuple[Fan, ...] = ()

    def of_read(self, every: Tensor) -> Tensor:
        """Of numbers (count, watched) those of the entries that activations read, (count, sloped)."""
        return every if len(self.read) == len(self.watched) else every[:, self.read]


@dataclass(eq=False)
class Point:
    """Subproblems with the choices of a pass, on the entries kept.

    low, high: (count, watched); slopes: (count, sloped); multipliers > 0 on the lower bound, < 0 on the upper one: (count,
    cuts), of the entries at places (count, cuts), or (count, watched) where that is None; relations: (count, atoms). shares,
    weights: those of planes, on the axes of the fans, None without planes. Bounds may have one row for all.
    """

    tree: Tensor
    low: Tensor
    high: Tensor
    slopes: Tensor
    multipliers: Tensor
    relations: Tensor
    places: Tensor | None = None
    shares: Tensor | None = None
    weights: Tensor | None = None

    def at_cuts(self, every: Tensor) -> Tensor:
        """Of numbers (count or 1, watched) those where multipliers are."""
        if self.places is None:
            return every
        return every.expand(len(self.places), -1).gather(1, self.places)

    def every_multiplier(self) -> Tensor:
        """(count, watched)."""
        if self.places is None:
            return self.multipliers
        every = torch.zeros(len(self.places), self.low.shape[1])
        return every.scatter_add_(1, self.places, self.multipliers)


@dataclass(frozen=True, eq=False)
class Passed:
    """bounds (count,); what arrived at each activation (count, sloped) and at the input (count, inputs); above: the lines above
    the activations, and taken: the slopes of the lines that what arrived called for, (count, sloped); planes: those of each
    fan, none without shares."""

    bounds: Tensor
    arrived: Tensor
    at_input: Tensor
    above: "Above"
    taken: Tensor
    planes: tuple[Taken, ...]


@dataclass(frozen=True, eq=False)
class Above:
    """What stands above the activations: slope and shift of the chords (count, sloped), and what planes know of their boxes."""

    slope: Tensor
    shift: Tensor
    boxes: tuple[FanBox, ...]


def gathered(point: Point, cut: Tensor) -> Point:
    """The same point with its multipliers where a bound is cut alone; cut: (count, watched), or one row for all."""
    most = int(cut.sum(1).max()) if len(cut) else 0
    if most > FEW * cut.shape[1]:
        return point
    count = len(point.multipliers)
    places = cut.byte().topk(most, dim=1).indices.expand(count, -1)
    some = point.multipliers.gather(1, places) * cut.expand(count, -1).gather(1, places)
    return replace(point, multipliers=some, places=places)


def _of_one_tree(part: Tensor, tree: Tensor) -> Tensor | None:
    """What the one tree of a point has; None where there are several."""
    if len(part) == 1:
        return part[0]
    return part[int(tree[0])] if len(tree) and bool((tree == tree[0]).all()) else None


def _related(relations: Tensor, part: Tensor, tree: Tensor) -> Tensor:
    """Multipliers (count, atoms) times what the atoms of each tree have, (trees, atoms) or (trees, atoms, width)."""
    alone = _of_one_tree(part, tree)
    if alone is not None:
        return relations @ alone
    if part.dim() == 2:
        return (relations * part[tree]).sum(1)
    return torch.bmm(relations[:, None], part[tree])[:, 0]


def _started(reduced: Reduced, point: Point, start: Forms) -> Forms:
    """The forms with what relations contribute; the coefficients may be written to."""
    if reduced.atoms is None:
        return Forms(start.carried.clone(), start.inputs, start.constant)
    carried, constant = (
        _related(point.relations, part, point.tree) for part in (reduced.atoms.carried, reduced.atoms.constant)
    )
    inputs = start.inputs
    if reduced.atoms.inputs is not None:
        of_inputs = _related(point.relations, reduced.atoms.inputs, point.tree)
        inputs = of_inputs if inputs is None else of_inputs + inputs
    return Forms(carried.add_(start.carried), inputs, constant + start.constant)


def passed(reduced: Reduced, point: Point, start: Forms, above: Above | None = None) -> Passed:
    """One backward pass from forms (count,); above: what stands above the activations, where it is known."""
    begun = _started(reduced, point, start)
    form, at_input, total = begun.carried, begun.inputs, begun.constant
    multipliers, some = point.every_multiplier(), point.multipliers
    # sound: multipliers >= 0 on low - v <= 0 and v - high <= 0
    total = total + (some.clamp(min=0) * point.at_cuts(point.low) + some.clamp(max=0) * point.at_cuts(point.high)).sum(1)
    above = lines_above(reduced, point) if above is None else above
    slope, shift = above.slope, above.shift
    planes: dict[str, Taken] = {}
    fans = {fan.value: (fan, box) for fan, box in zip(reduced.fans, above.boxes, strict=False)}
    arrived, taken = torch.empty(2, len(form), len(reduced.sloped))
    for block in reversed(reduced.blocks):
        if block.active is None or block.carried is None:
            weight = -multipliers[:, block.watched]
            total = total + weight @ block.shift
        else:
            # the columns of activations become those of the values that they read; what is passed on stays as it is
            weight = form[:, block.carried]
            here, own, line = weight[:, : block.kept], arrived[:, block.active], taken[:, block.active]
            own.copy_(here)
            # sound: slope * z lies below a Relu for slopes in [0, 1], the chord above it
            line.copy_(torch.where(own >= 0, point.slopes[:, block.active], slope[:, block.active]))
            here.mul_(line).sub_(multipliers[:, block.watched])
            if block.value in fans:
                assert point.shares is not None and point.weights is not None, "planes have shares"
                fan, box = fans[block.value]
                moved, gain, planes[fan.value] = through_planes(
                    fan, box, fan.of(point.shares), point.weights[:, fan.weights], own
                )
                total = total + gain
                if fan.carried is None:
                    at_input = moved if at_input is None else at_input + moved
                else:
                    form[:, fan.carried] += moved
        if block.of_carried is not None:
            block.of_carried.add_transposed(weight, form[:, block.columns])
        if block.of_inputs is not None:
            reached = block.of_inputs.transposed(weight)
            at_input = reached if at_input is None else at_input + reached
    total = total + form @ reduced.shift + (arrived.clamp(max=0) * shift).sum(1)
    if at_input is None:
        at_input = torch.zeros(len(form), reduced.inputs)
    center, radius = _box(reduced, point.tree)
    if len(center) == 1:
        total = total + at_input @ center[0] - at_input.abs() @ radius[0]
    else:
        total = total + (at_input * center).sum(1) - (at_input.abs() * radius).sum(1)
    return Passed(total, arrived, at_input, above, taken, tuple(planes[fan.value] for fan in reduced.fans if planes))


def _box(reduced: Reduced, tree: Tensor) -> Interval:
    """Center and radius of the box of each subproblem; (1, inputs) where all trees have the same."""
    center, radius = reduced.box
    return (center, radius) if len(center) == 1 else (center[tree], radius[tree])


def lowest_inputs(reduced: Reduced, tree: Tensor, found: Passed) -> Tensor:
    """The inputs (count, inputs) at which the bounds of a pass are attained."""
    center, radius = _box(reduced, tree)
    return torch.addcmul(center, found.at_input.sign(), radius, value=-1)


def lines_above(reduced: Reduced, point: Point) -> Above:
    """What stands above the activations; planes where the point has shares of them."""
    low, high = reduced.of_read(point.low), reduced.of_read(point.high)
    open_ = (low < 0) & (high > 0)
    slope = torch.where(open_, high / (high - low).masked_fill(~open_, 1.0), (low >= 0).to(low.dtype))
    shift = torch.where(open_, -low * slope, 0.0)
    if point.shares is None:
        return Above(slope, shift, ())
    boxes = []
    for fan in reduced.fans:
        if fan.watched is None:
            center, radius = _box(reduced, point.tree)
            box = (center - radius, center + radius)
        else:
            box = (point.low[:, fan.watched].clamp(min=0), point.high[:, fan.watched].clamp(min=0))
        boxes.append(fan_box(fan, (slope[:, fan.active], shift[:, fan.active]), point.tree, box))
    return Above(slope, shift, tuple(boxes))


@dataclass(frozen=True, eq=False)
class Gradients:
    """Of bounds in the choices of a point: what the constraints say at the minimising input."""

    slopes: Tensor
    multipliers: Tensor
    relations: Tensor
    shares: Tensor | None
    weights: Tensor | None

    @property
    def parts(self) -> list[Tensor]:
        """In the order of the choices; without those of planes where there are none."""
        parts = (self.slopes, self.multipliers, self.relations, self.shares, self.weights)
        return [part for part in parts if part is not None]


def gradients(reduced: Reduced, point: Point, found: Passed) -> Gradients:
    """By the walk forward from the minimising input."""
    inputs = lowest_inputs(reduced, point.tree, found)
    carried = torch.empty(len(inputs), reduced.width)
    reached = torch.empty(len(inputs), len(reduced.watched))
    shift = found.above.shift * (found.arrived < 0)
    fans = {fan.value: k for k, fan in enumerate(reduced.fans)} if found.planes else {}
    of_shares = None if point.shares is None else torch.empty_like(point.shares)
    of_weights = None if point.weights is None else torch.empty_like(point.weights)
    for block in reduced.blocks:
        every = block.shift
        if block.of_inputs is not None:
            every = block.of_inputs.applied(inputs, every)
        if block.of_carried is not None:
            every = block.of_carried.applied(carried[:, block.columns], every)
        every = every.expand(len(inputs), -1)
        z = every[:, : block.kept]
        reached[:, block.watched] = z
        if block.active is not None and block.carried is not None:
            own = carried[:, block.carried]
            torch.addcmul(shift[:, block.active], found.taken[:, block.active], z, out=own[:, : block.kept])
            own[:, block.kept :] = every[:, block.kept :]
            if block.value in fans:
                assert point.weights is not None and of_shares is not None and of_weights is not None, "planes have shares"
                k = fans[block.value]
                fan, box, taken = reduced.fans[k], found.above.boxes[k], found.planes[k]
                values, weights = inputs if fan.carried is None else carried[:, fan.carried], point.weights[:, fan.weights]
                fan.of(of_shares)[:], of_weights[:, fan.weights], gap = plane_gradients(fan, box, taken, weights, values)
                own[:, : block.kept] += torch.where(taken.arrived < 0, weights * gap, 0.0)
    of_slopes = found.arrived.clamp(min=0).mul_(reduced.of_read(reached))
    m, reached = point.multipliers, point.at_cuts(reached)
    under, over = point.at_cuts(point.low) - reached, point.at_cuts(point.high) - reached
    of_multipliers = torch.where(m > 0, under, torch.where(m < 0, over, under.clamp(min=0) + over.clamp(max=0)))
    of_relations = _relations_at(reduced, point, inputs, carried)
    return Gradients(of_slopes, of_multipliers, of_relations, of_shares, of_weights)


def _relations_at(reduced: Reduced, point: Point, inputs: Tensor, carried: Tensor) -> Tensor:
    """The left sides of the relations (count, atoms) at the inputs and what the activations carry there."""
    if reduced.atoms is None:
        return torch.zeros_like(point.relations)
    total = reduced.atoms.constant[point.tree]
    for part, values in ((reduced.atoms.carried, carried), (reduced.atoms.inputs, inputs)):
        if part is not None:
            alone = _of_one_tree(part, point.tree)
            total = total + (torch.bmm(part[point.tree], values[..., None])[..., 0] if alone is None else values @ alone.T)
    return total


def limits(reduced: Reduced, low: Tensor, high: Tensor) -> Interval:
    """The least and the greatest slope, (count, sloped), under bounds (count, watched) of the entries kept."""
    low, high = reduced.of_read(low), reduced.of_read(high)
    return (low >= 0).to(low.dtype), 1.0 - ((high <= 0) & (low < 0)).to(low.dtype)


def loosened(reduced: Reduced, point: Point, found: Passed) -> Tensor:
    """How much each entry kept loosens the bound, (count, watched), as `split_scores` measures it."""
    low, high, slope = reduced.of_read(point.low), reduced.of_read(point.high), point.slopes
    below = found.arrived.clamp(min=0) * torch.maximum((1 - slope) * high, -slope * low)
    score = below - found.arrived.clamp(max=0) * found.above.shift
    scores = torch.zeros(len(score), len(reduced.watched))
    scores[:, reduced.read] = torch.where((low < 0) & (high > 0), score + LAST_RESORT * (high - low), 0.0)
    return scores
