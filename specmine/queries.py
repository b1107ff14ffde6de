"""A clause over a region as a question to the verifier."""

from specmine.predicates.families import denote
from specmine.rules.clause import HornClause
from specmine.spec import Claim
from specmine.tracing import Sites
from verifier.formula import And, Atom, Formula, atoms_of, conjoin, negate
from verifier.query import Query
from verifier.region import Region


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


def body_formula(clause: HornClause, sites: Sites) -> Formula:
    return conjoin(And(()), *(denote(predicate, sites) for predicate in clause.body))


def body_atoms(clause: HornClause, sites: Sites) -> tuple[Atom, ...]:
    """The atoms the body denotes, in the body's order."""
    return tuple(atoms_of(body_formula(clause, sites)))


def claim_query(claim: Claim, sites: Sites) -> Query:
    """The clause query of a claim over its region."""
    return clause_query(claim.clause, claim.region.region, sites)


def claim_body_query(claim: Claim, sites: Sites) -> Query:
    """The body query of a claim over its region."""
    return body_query(claim.clause, claim.region.region, sites)
