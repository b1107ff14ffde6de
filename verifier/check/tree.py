"""One proof tree replayed in float64, many nodes at a time; what that leaves undecided is left to `verifier.check.exact_node`.

Nodes wait on a stack and are taken from its top, so that a tree is walked nearly depth first and memory grows with its depth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import NODE, Close, Group, Lemmas, Prelude, ProofNode, Split, Step
from verifier.check.boxes import Boxes, first_boxes, joined, met, push
from verifier.check.choices import (
    Rejected,
    index,
    is_finite_number,
    lemma_rows,
    require,
    row_batches,
    some_rows,
    step_rows,
    validated,
)
from verifier.check.closes import choices_of, confirm
from verifier.check.exact_node import ExactTree
from verifier.check.float_backward import AtomForms, Seen, atom_forms, lower_bounds
from verifier.check.float_model import FloatModel, prepare_floats
from verifier.check.place import Place, Progress
from verifier.check.rebound import rebounded
from verifier.formula import And, Atom
from verifier.ops import Array
from verifier.query import Query
from verifier.region import outer_bounds

MOST_NODES, FEWEST_NODES = 512, 16
ENTRIES = 2**19

Indices: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class _Waiting:
    """Nodes still to replay: node places[k] follows from the bounds parents[origins[k]]."""

    places: list[Place]
    parents: Boxes
    origins: list[int]


@dataclass(frozen=True, eq=False)
class _Tree:
    """A group's proof under way. members: its disjuncts, or NODE alone for lemmas; forms: the atoms of those met so far."""

    query: Query
    model: FloatModel
    members: frozenset[int]
    shared: tuple[Atom, ...]
    common: AtomForms
    exact: ExactTree
    progress: Progress
    forms: dict[int, AtomForms] = field(default_factory=dict)

    def atoms(self, disjunct: int) -> tuple[tuple[Atom, ...], AtomForms]:
        if disjunct == NODE:
            return self.shared, self.common
        atoms = self.query.disjuncts[disjunct]
        if disjunct not in self.forms:
            self.forms[disjunct] = atom_forms(self.query.network, atoms)
        return atoms, self.forms[disjunct]


def replay_prelude(query: Query, prelude: Prelude, progress: Progress) -> Boxes | None:
    """The bounds that a prelude proves of inputs that satisfy some disjunct; None where there is none. Raises Rejected."""
    if not prelude or not query.disjuncts:
        return None
    tree, boxes = _begun(query, tuple(range(len(query.disjuncts))), frozenset({NODE}), progress)
    for number, part in enumerate(prelude):
        progress.part, progress.at = number, None
        if not boxes.alive[0]:
            break
        require(isinstance(part, Step | Lemmas), f"a step or lemmas were expected, got {type(part).__name__}")
        if isinstance(part, Step):
            boxes = _after_step(tree, part, boxes)
            tree.progress.steps += 1
        else:
            boxes = _after_lemmas(tree, part, boxes)
    return boxes


def replay_group(query: Query, group: Group, progress: Progress, known: Boxes | None = None) -> None:
    """Returns where the group's tree refutes its disjuncts; raises Rejected or OutOfRange, with progress.at the place.

    known: bounds that hold wherever some disjunct of the query does.
    """
    members = frozenset(group.disjuncts)
    tree, boxes = _begun(query, group.disjuncts, members, progress)
    if known is not None:
        boxes = push(tree.model, met(boxes, known), None)
    _replay(tree, [Place(group.root, members, None, "")], boxes, [0])


def _begun(query: Query, disjuncts: Sequence[int], members: frozenset[int], progress: Progress) -> tuple[_Tree, Boxes]:
    """A tree over the atoms that some disjuncts share, and its first bounds."""
    model = prepare_floats(query.network)
    first, *rest = (query.disjuncts[d] for d in disjuncts)
    shared = set(first).intersection(*rest)
    common = tuple(atom for atom in first if atom in shared)
    exact = ExactTree(query, model, common, progress)
    tree = _Tree(query, model, members, common, atom_forms(query.network, common), exact, progress)
    return tree, first_boxes(model, *outer_bounds(query.region), common)


def _replay(tree: _Tree, roots: list[Place], boxes: Boxes, origins: list[int]) -> None:
    """Returns where the trees under some roots are refuted, root k from boxes origins[k]."""
    query, model = tree.query, tree.model
    waiting = [_Waiting(roots, boxes, origins)]
    at_once = max(FEWEST_NODES, min(MOST_NODES, ENTRIES // sum(map(query.network.size, query.network.shapes))))
    while waiting:
        places, boxes = _next(model, waiting, at_once)
        children = _replayed(tree, places, boxes)
        if children is not None:
            waiting.append(children)


def _up_to(tree: _Tree, value: str) -> _Tree:
    """The tree over the part of the network that a value depends on, where the premise speaks of nothing else."""
    part = tree.query.network.up_to(value)
    if any(term.value not in part.shapes for atom in tree.shared for term in atom.terms):
        return tree
    # sound: these values are the same functions of the input there, and the premise is the same
    query = Query(part, tree.query.region, And(tree.shared))
    return _begun(query, (0,), tree.members, tree.progress)[0]


def _after_lemmas(tree: _Tree, given: Lemmas, boxes: Boxes) -> Boxes:
    """The bounds of one node after lemmas whose trees are refuted."""
    indices, signs, ats = lemma_rows(tree.model, given)
    part = _up_to(tree, given.value)
    known = boxes.among(part.query.network.shapes)
    for batch in row_batches(tree.model, len(indices)):
        denied = _denied(part, given.value, known, (indices[batch], signs[batch], ats[batch]))
        numbers = range(len(indices))[batch]
        roots = [Place(given.trees[k], tree.members, None, f"lemma {k}") for k in numbers]
        _replay(part, roots, denied, list(range(len(roots))))
    # sound: a lemma holds wherever its denial is refuted; both hold at the number itself.
    low, high = (side.copy() for side in boxes.sides[given.value])
    below = signs > 0
    np.maximum.at(low[0], indices[below], ats[below])
    np.minimum.at(high[0], indices[~below], ats[~below])
    return push(tree.model, boxes.replaced(given.value, (low, high)), [given.value])


def _denied(tree: _Tree, value: str, known: Boxes, lemmas: tuple[Indices, Indices, Array]) -> Boxes:
    """The bounds that the tree of each lemma (indices, signs, numbers) starts from: those known, cut to the other side."""
    indices, signs, ats = lemmas
    rows, below = np.arange(len(indices)), signs > 0
    boxes = known.take(np.zeros(len(indices), dtype=np.int64))
    low, high = (side.copy() for side in boxes.sides[value])
    high[rows[below], indices[below]] = np.minimum(high[rows[below], indices[below]], ats[below])
    low[rows[~below], indices[~below]] = np.maximum(low[rows[~below], indices[~below]], ats[~below])
    return push(tree.model, boxes.replaced(value, (low, high)), [value])


def _next(model: FloatModel, waiting: list[_Waiting], at_once: int) -> tuple[list[Place], Boxes]:
    """The next nodes, those from the top of the stack, with their bounds."""
    places: list[Place] = []
    parts: list[Boxes] = []
    while waiting and len(places) < at_once:
        top = waiting.pop()
        left = at_once - len(places)
        if len(top.places) > left:
            waiting.append(_Waiting(top.places[:-left], top.parents, top.origins[:-left]))
        places += top.places[-left:]
        parts.append(top.parents.take(np.array(top.origins[-left:], dtype=np.int64)))
    return places, _cut_by_splits(model, places, parts[0] if len(parts) == 1 else joined(parts))


def _cut_by_splits(model: FloatModel, places: Sequence[Place], boxes: Boxes) -> Boxes:
    """The boxes of children from those of their parents."""
    changed: dict[str, tuple[Array, Array]] = {}
    for k, place in enumerate(places):
        if place.parent is None:
            continue
        split = place.parent.node.split
        assert split is not None
        if split.value not in changed:
            low, high = boxes.sides[split.value]
            changed[split.value] = low.copy(), high.copy()
        # sound: one of v <= at and v >= at holds at every point, whatever float64 the number is rounded to.
        low, high = changed[split.value]
        if place.is_low:
            high[k, split.index] = min(high[k, split.index], float(split.at))
        else:
            low[k, split.index] = max(low[k, split.index], float(split.at))
    for name, pair in changed.items():
        boxes = boxes.replaced(name, pair)
    return push(model, boxes, changed) if changed else boxes


def _replayed(tree: _Tree, places: list[Place], boxes: Boxes) -> _Waiting | None:
    """Replay some nodes; what waits below them."""
    for place in places:
        tree.progress.at = place
        require(isinstance(place.node, ProofNode), f"a proof node was expected, got {type(place.node).__name__}")
    # sound: no point is left where bounds have crossed, so whatever is open is closed there.
    places, boxes = _living(places, boxes)
    again = np.array([place.node.rebound is True for place in places], dtype=bool)
    if again.any():
        places, boxes = _living(places, rebounded(tree.model, boxes, again))
    if any(place.node.steps for place in places):
        stepped = [_after_steps(tree, place, boxes.take(np.array([k]))) for k, place in enumerate(places)]
        places, boxes = _living(places, joined(stepped))
    if not places:
        return None
    confirmed = confirm(tree.model, boxes, [place.node.closed for place in places], tree.members, tree.atoms)
    children: list[Place] = []
    origins: list[int] = []
    for k, place in enumerate(places):
        tree.progress.at = place
        left = _left_open(tree, place, boxes, k, confirmed[k])
        if left:
            split = _checked_split(tree, place, left)
            if split is not None:
                tree.progress.splits += 1
                children += [Place(split.high, left, place, "high"), Place(split.low, left, place, "low")]
                origins += [k, k]
    return _Waiting(children, boxes, origins) if children else None


def _living(places: list[Place], boxes: Boxes) -> tuple[list[Place], Boxes]:
    if boxes.alive.all():
        return places, boxes
    kept = np.flatnonzero(boxes.alive)
    return [places[k] for k in kept], boxes.take(kept)


def _after_steps(tree: _Tree, place: Place, boxes: Boxes) -> Boxes:
    """One node's bounds after its steps."""
    tree.progress.at = place
    for step in place.node.steps:
        if not boxes.alive[0]:
            break
        boxes = _after_step(tree, step, boxes)
        tree.progress.steps += 1
    return boxes


def _after_step(tree: _Tree, step: Step, boxes: Boxes) -> Boxes:
    indices, signs = step_rows(tree.model, step)
    rows, size = len(indices), tree.model.network.size(step.value)
    relaxation = validated(tree.model, step.relaxation, rows, len(tree.common.bias))
    low, high = (side.copy() for side in boxes.sides[step.value])
    seen = Seen(boxes, None)
    for batch in row_batches(tree.model, rows):
        chosen = indices[batch]
        form = np.zeros((1, len(chosen), size))
        form[0, np.arange(len(chosen)), chosen] = signs[batch]
        choices = choices_of([some_rows(relaxation, batch, rows)])
        (proven,) = lower_bounds(tree.model, seen, {step.value: form}, (1, len(chosen)), choices, tree.common)
        below = signs[batch] > 0
        np.maximum.at(low[0], chosen[below], proven[below])
        np.minimum.at(high[0], chosen[~below], -proven[~below])
    return push(tree.model, boxes.replaced(step.value, (low, high)), [step.value])


def _left_open(tree: _Tree, place: Place, boxes: Boxes, k: int, confirmed: Sequence[bool]) -> frozenset[int]:
    """The disjuncts that a node's closes leave open; those that floats did not confirm are decided exactly."""
    closed = set()
    for close, is_confirmed in zip(place.node.closed, confirmed, strict=True):
        if not is_confirmed:
            _confirm_alone(tree, place, close, boxes.take(np.array([k])))
        closed.add(int(close.disjunct))
        tree.progress.closes += 1
    return place.left - closed


def _confirm_alone(tree: _Tree, place: Place, close: Close, boxes: Boxes) -> None:
    require(isinstance(close, Close), f"a close was expected, got {type(close).__name__}")
    require(NODE not in tree.members, "a close in the tree of a lemma is ill-formed or refutes nothing in floats")
    disjunct = index(close.disjunct, len(tree.query.disjuncts), "disjunct")
    require(disjunct in tree.members, f"disjunct {disjunct} is closed but is not of this group")
    atoms, forms = tree.atoms(disjunct)
    relaxation = validated(tree.model, close.relaxation, 1, len(atoms))
    if tree.model.exact:
        tree.exact.confirm(place, disjunct, relaxation, boxes)
        return
    ((bound,),) = lower_bounds(tree.model, Seen(boxes, None), {}, (1, 1), choices_of([relaxation]), forms)
    # sound: where all atoms hold their weighted sum is <= 0, but it is >= bound.
    require(bound > 0, f"the bound on disjunct {disjunct} is {bound:.6g}, which refutes nothing")


def _checked_split(tree: _Tree, place: Place, left: frozenset[int]) -> Split | None:
    """The node's split; None where exact arithmetic shows that nothing is left to split."""
    split = place.node.split
    if not isinstance(split, Split):
        if tree.model.exact and tree.exact.is_empty(place):
            return None
        what = "a lemma" if left == {NODE} else f"disjunct {min(left)}"
        raise Rejected(f"{what} is left open where bounds are not empty and nothing is split")
    shapes = tree.model.network.shapes
    require(split.value in shapes, f"a split names {split.value!r}, which the network lacks")
    index(split.index, tree.model.network.size(split.value), "split index")
    require(is_finite_number(split.at), f"a split is at {split.at!r}")
    return split
