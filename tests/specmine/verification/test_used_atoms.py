"""Which atoms a certificate uses, wherever in it their multipliers stand."""

import numpy as np
import pytest

from specmine.verification.oracle import used_atoms
from verifier.certificate import NODE, Certificate, Close, Group, Lemmas, Prelude, ProofNode, Relaxation, Split, Step
from verifier.formula import And, atom
from verifier.network import Network, Node
from verifier.ops import Relu
from verifier.query import Query
from verifier.region import Box

NETWORK = Network("x", (1, 2), (Node("y", Relu(), ("x",)),), "y")
SUM, DIFFERENCE = atom({("y", 0): 1, ("y", 1): 1}, -1.0), atom({("y", 0): 1, ("y", 1): -1}, -1.0)
QUERY = Query(NETWORK, Box(np.zeros(2), np.ones(2)), And((SUM, DIFFERENCE)))
SECOND = Relaxation(atoms=np.array([[0.0, 1.0]]))
STEP = Step("y", np.array([0]), np.array([1]), SECOND)
LEAF = ProofNode(closed=(Close(NODE, SECOND),))


def lemma(tree: ProofNode) -> Lemmas:
    return Lemmas("y", np.array([0]), np.array([1]), np.array([0.5]), (tree,))


@pytest.mark.parametrize("prelude", [(STEP,), (lemma(LEAF),), (lemma(ProofNode(split=Split("y", 0, 0.5, ProofNode(), LEAF))),)])
def test_what_a_prelude_uses_is_used(prelude: Prelude) -> None:
    unused = Group((0,), ProofNode(closed=(Close(0, Relaxation()),)))
    assert used_atoms(QUERY, Certificate("", "", (unused,), prelude)) == {DIFFERENCE}
    assert used_atoms(QUERY, Certificate("", "", (unused,))) == set()
