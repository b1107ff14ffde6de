"""Counterexamples by mixed integer programs: Relu networks with few undecided neurons, by HiGHS.

Each undecided Relu takes a binary and the big-M constraints that its bounds under the premise give (Tjeng et al. 2019). A
solution of the program is a point to try. That there is none is the word of a floating-point solver: it is reported as a
reason, and never as a proof.
"""

import time
from dataclasses import replace

import numpy as np
import torch
from scipy.optimize import Bounds, LinearConstraint, milp
from torch import Tensor

from verifier.engines.bound import start_batch, tighten
from verifier.engines.points import point_test
from verifier.engines.problem import Batch, apart, groups
from verifier.engines.reduced import Reduced
from verifier.engines.subproblems import Roots, roots_of
from verifier.ops import Array
from verifier.query import Query
from verifier.verdict import Decision, Refuted, Unknown

INFEASIBLE = 2  # the status that scipy gives


def decide_milp(query: Query, *, timeout_s: float) -> Decision:
    """A counterexample of the query, replayed, or Unknown("uncertified", bound).

    The bound is what HiGHS says of the weakest goal, unproven: None where it did not get through every disjunct, or where the
    network has nonlinear nodes other than Relu. A positive one means that it found no counterexample to exist.
    """
    began = time.monotonic()

    def left() -> float:
        return timeout_s - (time.monotonic() - began)

    batch = tighten(start_batch(groups(query)), out_of_time=lambda: left() <= 0)
    jobs = [(g, d) for g, group in enumerate(batch.groups) if not bool(batch.empty[g]) for d in group.disjuncts]
    test = point_test(query)
    bounds = []
    for number, job in enumerate(jobs):
        if left() <= 0 or not batch.groups[job[0]].goals:
            break
        one = apart(batch, [job])
        first = tuple(replace(group, goals=group.goals[:1]) for group in one.groups)
        bound, point = _minimum(replace(one, groups=first), timeout_s=left() / (len(jobs) - number))
        bounds += [] if bound is None else [bound]
        hit = None if point is None else test(point[None])
        if hit is not None:
            return Decision(Refuted(hit), "milp", time.monotonic() - began)
    weakest = min(bounds, default=None) if len(bounds) == len(jobs) else None
    return Decision(Unknown("uncertified", "milp: no counterexample found", weakest), "milp", time.monotonic() - began)


def _minimum(batch: Batch, *, timeout_s: float) -> tuple[float | None, Tensor | None]:
    """What HiGHS says of the one goal of a batch: a lower bound (inf where nothing satisfies the premise), and a good input."""
    roots = roots_of(batch, merged=True)
    if roots.reduced is None:
        return None, None
    reduced = roots.reduced
    matrix, most = _constraints(reduced, *_bounds(batch, roots))
    count, width = reduced.sloped.numel(), reduced.inputs + reduced.width
    low, high = (side[0].numpy() for side in batch.bounds[batch.network.input])
    goal = np.concatenate([reduced.goal.whole(reduced.inputs)[0].double().numpy(), np.zeros(count)])
    solved = milp(
        goal,
        constraints=LinearConstraint(matrix, -np.inf, most),
        bounds=Bounds(
            np.concatenate([low, np.zeros(2 * count)]), np.concatenate([high, np.full(count, np.inf), np.ones(count)])
        ),
        integrality=np.concatenate([np.zeros(width), np.ones(count)]),
        options={"time_limit": max(0.01, timeout_s)},
    )
    if solved.status == INFEASIBLE:
        return float("inf"), None
    point = None if solved.x is None else torch.from_numpy(np.clip(solved.x[: reduced.inputs], low, high))
    bound = getattr(solved, "mip_dual_bound", None)
    return (None if bound is None else float(bound) + float(reduced.goal.constant[0])), point


def _bounds(batch: Batch, roots: Roots) -> tuple[Array, Array]:
    """Of the watched entries."""
    low, high = (torch.cat([batch.bounds[v][side][0] for v in roots.watched.names]).numpy() for side in (0, 1))
    return low, high


def _constraints(reduced: Reduced, lower: Array, upper: Array) -> tuple[Array, Array]:
    """matrix @ (input, activations, binaries) <= limits."""
    count, width = reduced.sloped.numel(), reduced.inputs + reduced.width
    low, high = lower[reduced.watched.numpy()], upper[reduced.watched.numpy()]
    rows, limits = [], []
    for block in reduced.blocks:
        size = block.watched.stop - block.watched.start
        form = np.zeros((size, width + count))
        form[:, :width] = block.rows(torch.arange(size), reduced.width).whole(reduced.inputs).double().numpy()
        shift, under, over = block.shift.double().numpy(), low[block.watched], high[block.watched]
        rows += [form, -form]
        limits += [over - shift, shift - under]
        if block.active is not None:
            active, binary = (_unit(block.active, size, width + count, first) for first in (reduced.inputs, width))
            on, off = np.maximum(over, 0.0)[:, None], np.minimum(under, 0.0)[:, None]
            # z <= a <= z - low (1 - b) and a <= high b
            rows += [form - active, active - form - off * binary, active - on * binary]
            limits += [-shift, shift - off[:, 0], np.zeros(size)]
    if reduced.atoms is not None:
        forms = reduced.atoms.whole(reduced.inputs)[0].double().numpy()
        rows.append(np.hstack([forms, np.zeros((len(forms), count))]))
        limits.append(-reduced.atoms.constant[0].double().numpy())
    return np.vstack([np.zeros((0, width + count)), *rows]), np.concatenate([np.zeros(0), *limits])


def _unit(places: slice, size: int, width: int, first: int) -> Array:
    """Rows of the identity that pick some places after `first`."""
    rows = np.zeros((size, width))
    rows[np.arange(size), first + np.arange(places.start, places.stop)] = 1.0
    return rows
