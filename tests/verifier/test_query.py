"""Queries that are refused as they are made."""

from fractions import Fraction

import pytest

from verifier.errors import BadQuery
from verifier.formula import Atom, Term
from verifier.network import Network, Node
from verifier.ops import Relu
from verifier.query import Query
from verifier.region import Box

NETWORK = Network("x", (1, 2), (Node("y", Relu(), ("x",)),), "y")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ((Term("y", 0, Fraction(-1)), Term("y", 0, Fraction(-1))), "two terms for one entry"),
        ((Term("z", 0, Fraction(1)),), "no value 'z' in the network; it has x, y"),
        ((Term("y", 2, Fraction(1)),), "index 2 is out of range"),
        ((Term("y", -1, Fraction(1)),), "index -1 is out of range"),
    ],
)
def test_atoms_that_mean_nothing_here_are_refused(terms: tuple[Term, ...], message: str) -> None:
    with pytest.raises(BadQuery, match=message):
        Query(NETWORK, Box([0.0, 0.0], [1.0, 1.0]), Atom(terms, Fraction(3, 2)))
