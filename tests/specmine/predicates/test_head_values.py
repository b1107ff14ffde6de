"""Head values by hand, and what is refused."""

import re

import numpy as np
import pytest

from specmine.errors import BadClause, BadData
from specmine.predicates.head_values import heads_of
from specmine.predicates.predicate import Predicate
from specmine.predicates.words import unpack
from specmine.tracing import Sites, trace
from specmine.tracing.stream import Stream
from verifier.network import Network, Node
from verifier.ops import Linear, Relu

LAYER = Linear(np.eye(2), np.zeros(2))
NETWORK = Network("in", (1, 2), (Node("a", LAYER, ("in",)), Node("b", Relu(), ("a",)), Node("c", LAYER, ("b",))), "c")
X = np.array([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0], [0.0, 1.0]])
SOURCE = Stream(Sites(NETWORK), X)
LABELS = np.array([0, 0, 1, 1])
COLUMNS = {"digit": np.array([2, 0, -1, 2]), "loop": np.array([True, False, True, True])}


@pytest.mark.parametrize(
    ("wanted", "values", "names"),
    [
        ("class", [0, 1, -1, 1], ("cat", "dog")),
        ("label", [0, 0, 1, 1], ("cat", "dog")),
        ("right", [0, 1, 1, 0], ("right", "wrong")),
        ("digit", [2, 0, -1, 2], ("0", "1", "2")),
        ("loop", [1, 0, 1, 1], ("0", "1")),
        (np.array([1.0, 0.0, -1.0, 0.0]), [1, 0, -1, 0], ("0", "1")),
        (Predicate("above", ("h1", 0, 2.0)), [0, -1, 0, -1], ("above(h1,0,2.0)",)),
    ],
)
def test_by_hand(wanted, values, names):
    for source in (SOURCE, trace(SOURCE.sites, X)):
        heads = heads_of(wanted, source, labels=LABELS, classes=("cat", "dog"), columns=COLUMNS)
        assert heads.values.tolist() == values and heads.names == names
        for value, row in enumerate(unpack(heads.words, 4)):
            assert row.tolist() == [v == value for v in values]


def test_a_column_of_a_file(tmp_path):
    np.savez(tmp_path / "mine.npz", colour=np.array([0, 1, 1, 0]))
    assert heads_of(f"{tmp_path}/mine.npz:colour", SOURCE).values.tolist() == [0, 1, 1, 0]
    with pytest.raises(BadData, match="has no column 'color'; nearest are colour"):
        heads_of(f"{tmp_path}/mine.npz:color", SOURCE)
    with pytest.raises(BadData, match="cannot read head column"):
        heads_of(f"{tmp_path}/none.npz:colour", SOURCE)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("clas", "no head 'clas'; nearest are class"),
        ("digits", "no head 'digits'; nearest are digit"),
        ("label", "head 'label' needs the labels of the data, and there are none"),
        (np.zeros(3), "the head column must have one number for each of 4 samples, got shape (3,)"),
        (np.array([0.5, 0, 0, 0]), "must hold whole numbers, got float64"),
        (np.array([np.nan, 0, 0, 0]), "must hold whole numbers"),
        (np.array(["a", "b", "c", "d"]), "must hold whole numbers"),
        (np.array([-2, 0, 0, 0]), "-1 for none or values from 0 up to the number of samples, got -2 to 0"),
        (np.array([10**9, 0, 0, 0]), "got 0 to 1000000000"),
    ],
)
def test_refused(wanted, message):
    with pytest.raises(BadData, match=re.escape(message)):
        heads_of(wanted, SOURCE, columns=COLUMNS)


def test_a_predicate_of_a_site_that_does_not_exist():
    with pytest.raises(BadClause, match="no site 'h3' in this network; nearest are"):
        heads_of(Predicate("active", ("h3", 0)), SOURCE)
