"""The few literals of a body that its head needs over a smaller region, where the region itself holds most neurons down."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import csr_array, hstack, identity

from specmine.errors import BadData
from specmine.predicates.families import denote
from specmine.queries import clause_query
from specmine.rules.clause import HornClause
from specmine.rules.peel import Readout
from specmine.tracing import Sites
from verifier.engines.bound import start_batch, tighten
from verifier.engines.problem import groups
from verifier.formula import Atom, atoms_of
from verifier.ops import Array
from verifier.region import Region

_ROUNDS = 3
_SPARE = 1e-3
_FREE = 1e-6
_USED = 1e-9


def short_clause(clause: HornClause, region: Region, sites: Sites, readout: Readout) -> HornClause | None:
    """The clause with few of its literals, likely to be valid over the region; None where all of them are not enough.

    Every literal must be about the read-out's site alone. What the region says of each neuron of that site, by bounds that are
    propagated backwards, costs nothing; then each rival's margin is proved with multipliers on as few literals as reweighted
    linear programs find, those of earlier rivals first. The verifier has the last word. Raises BadData for a literal of another
    site or a head that is no class.
    """
    if clause.head is None or clause.head.form != "class":
        raise BadData(f"only clauses for a class are shortened, got the head {clause.head}")
    atoms = [tuple(atoms_of(denote(literal, sites))) for literal in clause.body]
    owner = np.repeat(np.arange(len(atoms)), [len(own) for own in atoms])
    low, high = layer_bounds(clause, region, sites, readout.site)
    forms, thresholds = _forms([a for own in atoms for a in own], sites, readout.site)
    unit = identity(len(low), format="csr")
    columns = csr_array(hstack([forms.T, unit, -unit]))
    reached = np.concatenate([thresholds, low, -high])
    label = int(clause.head.arguments[0])
    rivals = [rival for rival in range(len(readout.bias)) if rival != label]
    cost = np.ones(len(atoms))
    for _ in range(_ROUNDS):
        carried = np.zeros(len(atoms))
        for rival in rivals:
            goal, offset = readout.weight[label] - readout.weight[rival], readout.bias[label] - readout.bias[rival]
            found = _few(columns, reached, goal, float(offset), np.where(carried > _USED, _FREE, cost)[owner])
            if found is None:
                return None
            carried = np.maximum(carried, np.bincount(owner, weights=found, minlength=len(atoms)))
        cost = 1 / (carried / max(float(carried.max(initial=0)), 1e-300) + 1e-2)
    return HornClause(clause.head, tuple(clause.body[place] for place in np.flatnonzero(carried > _USED)))


def layer_bounds(clause: HornClause, region: Region, sites: Sites, site: str) -> tuple[Array, Array]:
    """Bounds (neurons,) of a site over a region, without any body, by intervals and by backward passes."""
    query = clause_query(HornClause(clause.head, ()), region, sites)
    bounds = tighten(start_batch(groups(query)[:1])).bounds[sites.value(site)]
    return bounds[0][0].double().numpy(), bounds[1][0].double().numpy()


def _forms(atoms: Sequence[Atom], sites: Sites, site: str) -> tuple[csr_array, Array]:
    """Each atom c v + b <= 0 as a form -c, one row each, and its threshold b: the form is at least the threshold."""
    rows = np.zeros((len(atoms), sites.size(site)))
    for row, a in zip(rows, atoms, strict=True):
        for term in a.terms:
            if term.value != sites.value(site):
                raise BadData(f"only literals about {site!r} are weighed, got one about {term.value!r}")
            row[term.index] = -float(term.coefficient)
    return csr_array(rows), np.array([float(a.bias) for a in atoms])


def _few(columns: csr_array, thresholds: Array, goal: Array, offset: float, cost: Array) -> Array | None:
    """Multipliers (literals' forms,) at least cost that prove a margin: columns @ all multipliers = goal, their thresholds add
    up to more than -offset; None where there are none."""
    known = np.isfinite(thresholds)
    spare = _SPARE * (abs(offset) + 1e-3 * float(np.abs(goal).sum()))
    count = len(cost)
    objective = np.concatenate([cost, np.zeros(len(thresholds) - count)])
    upper = np.where(known, np.inf, 0)
    solved = linprog(
        objective,
        A_ub=csr_array(-np.where(known, thresholds, 0)[None]),
        b_ub=[offset - spare],
        A_eq=columns,
        b_eq=goal,
        bounds=np.column_stack([np.zeros(len(upper)), upper]),
        method="highs",
    )
    return None if solved.x is None else np.asarray(solved.x[:count])
