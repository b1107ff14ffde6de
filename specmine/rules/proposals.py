"""Shortest bodies for the constraints known so far, by one clingo solver that lives through all rounds."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

import clingo
import numpy as np
from numpy.typing import NDArray

_ENCODING = files("specmine.rules").joinpath("encodings", "smallest.lp")
_POLL_S = 0.05


@dataclass(frozen=True)
class Proposal:
    """body: ascending places, None where there is none; complete: the solver finished, so the body is a shortest one for the
    constraints, or none exists. lower_bound: none is shorter."""

    body: tuple[int, ...] | None
    complete: bool
    lower_bound: int


class Proposals:
    """The solver, and the constraints that it is given between its calls. Places are numbers of candidate literals."""

    def __init__(self, misses: NDArray[np.int64], budget: int, max_body: int | None, seed: int) -> None:
        # no messages: clingo remarks on every predicate that a small table leaves without an instance
        self._control = clingo.Control(["--configuration=handy", "--opt-strategy=usc", f"--seed={seed}"], message_limit=0)
        facts = [f"literal({place},{missed})." for place, missed in enumerate(misses.tolist())]
        facts += [f"budget({budget})."] + ([] if max_body is None else [f"longest({max_body})."])
        self._control.add("base", [], _ENCODING.read_text(encoding="utf-8"))
        self._control.add("base", [], " ".join(facts))
        self._control.ground([("base", [])])
        chosen = self._control.symbolic_atoms.by_signature("s", 1)
        self._atoms = {atom.symbol.arguments[0].number: atom.literal for atom in chosen}
        self._forbidden: list[frozenset[int | None]] = []
        self._lost: dict[int, int] = {}
        self._kept: dict[int, int] = {}

    def next(self, timeout_s: float, *, enough: int | None = None) -> Proposal:
        """A shortest body for the constraints so far, or the best one within the time.

        enough: the call ends once it is known that no body has fewer literals than this.
        """
        body: tuple[int, ...] | None = None
        lower_bound = 0

        def remember(model: clingo.Model) -> None:
            nonlocal body
            body = tuple(sorted(place for place, literal in self._atoms.items() if model.is_true(literal)))

        def raise_bound(bounds: Sequence[int]) -> None:
            nonlocal lower_bound
            lower_bound = max(lower_bound, *bounds)

        end = time.monotonic() + timeout_s
        with self._control.solve(on_model=remember, on_unsat=raise_bound, async_=True) as handle:
            while not handle.wait(max(0.0, min(_POLL_S, end - time.monotonic()))):
                if time.monotonic() >= end or (enough is not None and lower_bound >= enough):
                    handle.cancel()
                    break
            result = handle.get()
        complete = bool(result.exhausted)
        return Proposal(body, complete, len(body) if complete and body is not None else lower_bound)

    def cautious(self, on: bool) -> None:
        """Whether misses are added up as if no positive were missed twice."""
        self._control.assign_external(clingo.Function("cautious"), on)

    def at_most(self, size: int) -> None:
        """From now on bodies have at most this many literals."""
        self._control.ground([("shorter", [clingo.Number(size)])])

    def forbid(self, body: Sequence[int | None]) -> None:
        """No body contains all of these; None stands for a literal that is no candidate, so nothing does."""
        self._forbidden.append(frozenset(body))
        if any(place not in self._atoms for place in body):
            return
        with self._control.backend() as backend:
            backend.add_rule([], [self._atoms[place] for place in body if place is not None])

    def pass_over(self, body: Sequence[int]) -> None:
        """No body is exactly this one; those that contain it and more stay."""
        others = [-literal for place, literal in self._atoms.items() if place not in body]
        with self._control.backend() as backend:
            backend.add_rule([], [*(self._atoms[place] for place in body), *others])

    def forbidden(self, body: Sequence[int]) -> bool:
        return any(part <= set(body) for part in self._forbidden)

    def keep_enough(self, samples: Sequence[int], false_on: Sequence[Sequence[int]], most: int) -> None:
        """At most `most` of these positives are lost; false_on: the literals that lose each."""
        with self._control.backend() as backend:
            for sample, places in zip(samples, false_on, strict=True):
                if sample not in self._lost:
                    self._lost[sample] = backend.add_atom()
                    for place in places:
                        backend.add_rule([self._lost[sample]], [self._atoms[place]])
            backend.add_weight_rule([], most + 1, [(self._lost[sample], 1) for sample in samples])

    def drop_enough(
        self, samples: Sequence[int], false_on: Sequence[Sequence[int]], most: int, *, under: Sequence[int] = ()
    ) -> None:
        """At most `most` of these negatives satisfy a body, if it contains `under`; false_on: the literals false on each."""
        with self._control.backend() as backend:
            if most == 0 and not under:
                for places in false_on:
                    backend.add_rule([], [-self._atoms[place] for place in places])
                return
            for sample, places in zip(samples, false_on, strict=True):
                if sample not in self._kept:
                    self._kept[sample] = backend.add_atom()
                    backend.add_rule([self._kept[sample]], [-self._atoms[place] for place in places])
            many = backend.add_atom()
            backend.add_weight_rule([many], most + 1, [(self._kept[sample], 1) for sample in samples])
            backend.add_rule([], [many, *(self._atoms[place] for place in under)])
