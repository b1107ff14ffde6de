"""A clause over a region as a question to the verifier."""

from collections.abc import Iterator

import numpy as np

from specmine.predicates.families import denote
from specmine.rules.clause import HornClause
from specmine.spec import Claim
from specmine.tracing import Sites
from verifier.check.masks import beaten_mask
from verifier.domains import Bounds, region_bounds
from verifier.formula import And, Formula, atoms_of, conjoin, negate
from verifier.network import Network
from verifier.query import Query
from verifier.region import Box, Region


def clause_query(clause: HornClause, region: Region, sites: Sites) -> Query:
    """Asks for an input of the region where the body holds and the head does not; unsat means the clause is valid there.

    Strictness is exact: the negation of a strict atom is not strict and the other way round. A head of None is never
    satisfied, so the query is the body alone.
    """
    body = body_formula(clause, sites)
    if clause.head is None:
        return Query(sites.network, region, body)
    return Query(sites.network, region, conjoin(body, negate(denote(clause.head, sites))))


def body_query(clause: HornClause, region: Region, sites: Sites) -> Query:
    """Asks for an input of the region where the body holds; unsat means the clause says nothing there."""
    return Query(sites.network, region, body_formula(clause, sites))


def local_query(clause: HornClause, region: Region, sites: Sites, *, bounds: Bounds | None = None) -> Query:
    """The question of `clause_query` about the layers between body and head alone: unsat means that the clause is valid over
    the whole region, sat says nothing where the body is of a hidden layer.

    bounds: what the network's values can be over the region, where that is known already.
    """
    # sound: the values of the first layer that is kept lie in its bounds, and what comes after the head decides nothing
    whole = clause_query(clause, region, sites)
    return _ending_early(next(starting_later(whole, bounds=bounds), whole))


def _ending_early(query: Query) -> Query:
    """The same query without the layers after the last value that the assertion names."""
    network = query.network
    named = {term.value for atom in atoms_of(query.assertion) for term in atom.terms}
    last = max((place for place, node in enumerate(network.nodes) if node.output in named), default=len(network.nodes) - 1)
    nodes = network.nodes[: last + 1]
    return Query(Network(network.input, network.input_shape, nodes, nodes[-1].output), query.region, query.assertion)


def starting_later(query: Query, *, bounds: Bounds | None = None) -> Iterator[Query]:
    """Queries that say less and whose unsatisfiability implies this one's, from the last value of the network backwards.

    Each forgets how one hidden value comes from the input: it starts from a box that holds all that this value can be over
    the region (interval arithmetic, rounded outward) and keeps the assertion. Only values that all that follows passes
    through, and from which every value of the assertion can be computed, are starting points, and among them those whose bounds
    are finite; none where values may be as large as a mask of the network, which the later part would not show. bounds: where
    known already.
    """
    network = query.network
    named = {term.value for atom in atoms_of(query.assertion) for term in atom.terms}
    bounds = region_bounds(network, query.region) if bounds is None else bounds
    sides = {name: (bounds.lower[name].numpy(), bounds.upper[name].numpy()) for name in network.shapes}
    if beaten_mask(network, sides) is not None:
        return
    for place in reversed(range(len(network.nodes))):
        start, after = network.nodes[place].output, network.nodes[place + 1 :]
        kept = {start, *(node.output for node in after)}
        low, high = (side.flatten() for side in sides[start])
        is_finite = bool(np.isfinite(low).all() and np.isfinite(high).all())
        if after and is_finite and named <= kept and all(set(node.inputs) <= kept for node in after):
            box = Box(low, high)
            yield Query(Network(start, network.shapes[start], after, network.output), box, query.assertion)


def body_formula(clause: HornClause, sites: Sites) -> Formula:
    return conjoin(And(()), *(denote(predicate, sites) for predicate in clause.body))


def body_parts(clause: HornClause, sites: Sites) -> tuple[Formula, ...]:
    """The formulas that the body denotes, in the body's order, all of which must hold: atoms, and disjunctions of such."""
    whole = body_formula(clause, sites)
    return whole.parts if isinstance(whole, And) else (whole,)


def claim_query(claim: Claim, sites: Sites) -> Query:
    """The clause query of a claim over its region."""
    return clause_query(claim.clause, claim.region.region, sites)


def claim_body_query(claim: Claim, sites: Sites) -> Query:
    """The body query of a claim over its region."""
    return body_query(claim.clause, claim.region.region, sites)
