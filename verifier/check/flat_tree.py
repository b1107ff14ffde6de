"""Proof trees as flat arrays, so that a tree of a hundred thousand nodes is a few arrays and not as many documents.

Nodes stand in the order of a walk by levels, the root first; the k-th node that splits, from 0, has the nodes 2k + 1 and 2k + 2
for its low and its high child. Relaxations stand in the order of the nodes; those of one kind, that is with arrays of the same
names, shapes and types, are kept together, each array that several share once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from verifier.certificate import NODE, Close, Group, Lemmas, Plane, Prelude, ProofNode, Relaxation, Split, Step

ROLES = ("slopes", "upper_slopes", "lower", "upper")
OF_PLANES = tuple(field.name for field in fields(Plane))
Store = Callable[[NDArray], str]
Load = Callable[[str], NDArray]
Kind = tuple[tuple[str, str, tuple[int, ...], str], ...]


def flatten(group: Group, store: Store) -> dict[str, Any]:
    """A group as a document that names its arrays; `store` keeps an array and gives its name."""
    nodes = [group.root]
    for node in nodes:
        if node.split is not None:
            nodes += [node.split.low, node.split.high]
    steps = [step for node in nodes for step in node.steps]
    closes = [close for node in nodes for close in node.closed]
    values = sorted({node.split.value for node in nodes if node.split is not None})
    place = {value: k for k, value in enumerate(values)}
    splits = [node.split for node in nodes if node.split is not None]
    return {
        "disjuncts": [int(d) for d in group.disjuncts],
        "split_values": values,
        "is_split": store(np.array([node.split is not None for node in nodes], dtype=bool)),
        "rebound": store(np.array([node.rebound for node in nodes], dtype=bool)),
        "step_counts": store(np.array([len(node.steps) for node in nodes], dtype=np.int32)),
        "close_counts": store(np.array([len(node.closed) for node in nodes], dtype=np.int32)),
        "split_value": store(np.array([place[split.value] for split in splits], dtype=np.int32)),
        "split_index": store(np.array([split.index for split in splits], dtype=np.int64)),
        "split_at": store(np.array([float(split.at) for split in splits], dtype=np.float64)),
        "close_disjunct": store(np.array([close.disjunct for close in closes], dtype=np.int64)),
        "steps": [{"value": s.value, "indices": store(s.indices), "signs": store(s.signs)} for s in steps],
        "step_relaxations": _relaxations_out([step.relaxation for step in steps], store),
        "close_relaxations": _relaxations_out([close.relaxation for close in closes], store),
    }


def unflatten(data: Mapping[str, Any], load: Load) -> Group:
    """The group of a document. Raises ValueError, KeyError, IndexError or TypeError where it is damaged."""
    is_split, rebound, step_counts, close_counts = (
        _listed(load(data[name])) for name in ("is_split", "rebound", "step_counts", "close_counts")
    )
    splits = list(zip(*(_listed(load(data[name])) for name in ("split_value", "split_index", "split_at")), strict=True))
    steps = [
        Step(str(entry["value"]), load(entry["indices"]), load(entry["signs"]), relaxation)
        for entry, relaxation in zip(data["steps"], _relaxations_in(data["step_relaxations"], load), strict=True)
    ]
    disjuncts = _listed(load(data["close_disjunct"]))
    closes = [
        Close(int(disjunct), relaxation)
        for disjunct, relaxation in zip(disjuncts, _relaxations_in(data["close_relaxations"], load), strict=True)
    ]
    if (sum(is_split), sum(step_counts), sum(close_counts)) != (len(splits), len(steps), len(closes)):
        raise ValueError("the counts of a tree do not fit")
    values = [str(value) for value in data["split_values"]]
    nodes: dict[int, ProofNode] = {}
    for position in reversed(range(len(is_split))):
        split = None
        if is_split[position]:
            value, index, at = splits.pop()
            low = 2 * len(splits) + 1
            if low <= position:
                raise ValueError("a node stands before its parent")
            split = Split(values[value], index, at, nodes[low], nodes[low + 1])
        own_steps, own_closes = (
            _taken(items, counts[position]) for items, counts in ((steps, step_counts), (closes, close_counts))
        )
        nodes[position] = ProofNode(own_steps, own_closes, split, rebound[position])
    return Group(tuple(int(d) for d in data["disjuncts"]), nodes[0])


def flatten_prelude(prelude: Prelude, store: Store) -> list[dict[str, Any]]:
    """The parts as documents: steps in a row as those of a node, lemmas as a chain of splits at their numbers.

    Of each split the side that the lemma denies has its tree, and the other the next split.
    """
    parts: list[dict[str, Any]] = []
    for is_step, run in groupby(prelude, lambda part: isinstance(part, Step)):
        if is_step:
            steps = ProofNode(tuple(part for part in run if isinstance(part, Step)))
            parts.append({"steps": flatten(Group((NODE,), steps), store)})
            continue
        for given in run:
            assert isinstance(given, Lemmas)
            parts.append({"signs": store(given.signs), "lemmas": flatten(Group((NODE,), _chain(given)), store)})
    return parts


def unflatten_prelude(parts: Sequence[Mapping[str, Any]], load: Load) -> Prelude:
    """The prelude of such documents. Raises ValueError, KeyError, IndexError or TypeError where one is damaged."""
    prelude: list[Step | Lemmas] = []
    for part in parts:
        if "steps" in part:
            prelude += unflatten(part["steps"], load).root.steps
        else:
            prelude.append(_unchained(unflatten(part["lemmas"], load).root, load(part["signs"])))
    return tuple(prelude)


def _chain(given: Lemmas) -> ProofNode:
    chain = ProofNode()
    rows = zip(given.indices.tolist(), given.signs.tolist(), given.ats.tolist(), given.trees, strict=True)
    for index, sign, at, tree in reversed(list(rows)):
        low, high = (tree, chain) if sign > 0 else (chain, tree)
        chain = ProofNode(split=Split(given.value, index, at, low, high))
    return chain


def _unchained(chain: ProofNode, signs: NDArray) -> Lemmas:
    splits: list[Split] = []
    trees: list[ProofNode] = []
    for sign in _listed(signs):
        if chain.split is None:
            raise ValueError("lemmas and their signs do not fit")
        splits.append(chain.split)
        tree, chain = (chain.split.low, chain.split.high) if sign > 0 else (chain.split.high, chain.split.low)
        trees.append(tree)
    if not splits or len({split.value for split in splits}) > 1:
        raise ValueError("lemmas speak of one value")
    indices, ats = np.array([split.index for split in splits], dtype=np.int64), np.array([split.at for split in splits])
    return Lemmas(splits[0].value, indices, signs, ats, tuple(trees))


def _listed(array: NDArray) -> list[Any]:
    if array.ndim != 1:
        raise ValueError("a list is stored as an array of another shape")
    return array.tolist()


def _taken(items: list[Any], count: int) -> tuple[Any, ...]:
    """The last `count` items, which leave the list."""
    if not 0 <= count <= len(items):
        raise ValueError("the counts of a tree do not fit")
    taken = tuple(items[len(items) - count :])
    del items[len(items) - count :]
    return taken


def _arrays_of(relaxation: Relaxation) -> dict[tuple[str, str], NDArray]:
    found = {(role, name): array for role in ROLES for name, array in getattr(relaxation, role).items()}
    of_planes = {
        (f"plane {part}", name): getattr(plane, part) for name, plane in relaxation.planes.items() for part in OF_PLANES
    }
    return {**found, **of_planes, ("atoms", ""): relaxation.atoms}


def _relaxations_out(relaxations: Sequence[Relaxation], store: Store) -> dict[str, Any]:
    kinds: dict[Kind, list[dict[tuple[str, str], NDArray]]] = {}
    positions: dict[Kind, int] = {}
    order: list[int] = []
    for relaxation in relaxations:
        arrays = dict(sorted(_arrays_of(relaxation).items(), key=lambda item: item[0]))
        kind = tuple((*place, array.shape, array.dtype.str) for place, array in arrays.items())
        kinds.setdefault(kind, []).append(arrays)
        order.append(positions.setdefault(kind, len(positions)))
    written = [[_column_out(place, [arrays[place] for arrays in own], store) for place in own[0]] for own in kinds.values()]
    return {"order": store(np.array(order, dtype=np.int32)), "kinds": written}


def _column_out(place: tuple[str, str], arrays: Sequence[NDArray], store: Store) -> list[str]:
    """Role, name, the different arrays stacked, and which of them each relaxation of the kind has."""
    positions: dict[int, int] = {}
    different: list[NDArray] = []
    for array in arrays:
        if id(array) not in positions:
            positions[id(array)] = len(different)
            different.append(array)
    which = np.array([positions[id(array)] for array in arrays], dtype=np.int32)
    return [*place, store(np.stack(different)), store(which)]


def _relaxations_in(data: Mapping[str, Any], load: Load) -> list[Relaxation]:
    kinds = []
    for columns in data["kinds"]:
        loaded = [(str(role), str(name), list(load(stack)), _listed(load(which))) for role, name, stack, which in columns]
        kinds.append([_relaxation(loaded, row) for row in reversed(range(len(loaded[0][3])))])
    order = _listed(load(data["order"]))
    if sum(len(kind) for kind in kinds) != len(order):
        raise ValueError("the counts of relaxations do not fit")
    return [kinds[kind].pop() for kind in order]


def _relaxation(columns: Sequence[tuple[str, str, list[NDArray], list[int]]], row: int) -> Relaxation:
    of_planes = [f"plane {part}" for part in OF_PLANES]
    sides: dict[str, dict[str, NDArray]] = {role: {} for role in (*ROLES, "atoms", *of_planes)}
    for role, name, arrays, which in columns:
        sides[role][name] = arrays[which[row]]
    planes = {name: Plane(*(sides[part][name] for part in of_planes)) for name in sides[of_planes[0]]}
    plain = sides["slopes"], sides["lower"], sides["upper"], sides["atoms"][""], sides["upper_slopes"]
    return Relaxation(*plain, planes)
