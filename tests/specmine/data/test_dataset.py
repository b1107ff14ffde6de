"""Data sets made of arrays: what is kept, and what is refused with which words."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specmine.data import HOLDOUT, MINE, TEST, check_against_model, from_arrays
from specmine.data.split import stratified_split
from specmine.errors import BadData
from verifier.errors import BadRegion

X = np.array([[0.0, 1.0], [2.0, 3.0], [4.0, -1.0], [1.0, 1.0]])
Y = np.array([0, 1, 0, 1])


def test_defaults_by_hand():
    data = from_arrays(X, Y)
    assert data.classes == ("0", "1")
    assert data.domain.lower.tolist() == [0.0, -1.0] and data.domain.upper.tolist() == [4.0, 3.0]
    assert data.domain_source == "range of the data"
    assert data.x.dtype == np.float64 and data.y.dtype == np.int64 and data.split.dtype == np.int8
    assert data.image_shape is None


def test_arrays_are_read_only_copies():
    x = X.copy()
    data = from_arrays(x, Y)
    x[0, 0] = 9.0
    assert data.x[0, 0] == 0.0
    for array in (data.x, data.y, data.split):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_images_keep_their_shape_and_have_a_flat_domain():
    data = from_arrays(np.zeros((4, 2, 3)), Y, lower=0, upper=1)
    assert data.image_shape == (2, 3) and data.domain.size == 6 and data.domain_source == "given"


def test_digest_depends_on_x_y_and_split():
    base = from_arrays(X, Y, split=[0, 1, 2, 0]).sha256
    assert base == from_arrays(X.astype(np.float32), Y.astype(float), split=[0, 1, 2, 0]).sha256
    others = [
        from_arrays(X + 1, Y, split=[0, 1, 2, 0]),
        from_arrays(X, 1 - Y, split=[0, 1, 2, 0]),
        from_arrays(X, Y, split=[0] * 4),
    ]
    assert len({base, *(data.sha256 for data in others)}) == 4


def test_parts():
    data = from_arrays(X, Y, split=[0, 1, 2, 0])
    assert data.mine[0].tolist() == X[[0, 3]].tolist() and data.test[1].tolist() == [0]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=200), st.integers(0, 5))
def test_split_is_60_20_20_in_every_class_and_repeats(labels, seed):
    labels = np.array(labels)
    split = stratified_split(labels, seed=seed)
    assert (split == stratified_split(labels, seed=seed)).all() and (split == MINE).any()
    for label in np.unique(labels):
        part = split[labels == label]
        if len(part) > 2:
            for which, share in ((MINE, 0.6), (HOLDOUT, 0.2), (TEST, 0.2)):
                assert abs((part == which).sum() - share * len(part)) <= 1


def test_split_by_hand_does_not_change_between_releases():
    assert stratified_split(np.zeros(10, dtype=np.int64), seed=0).tolist() == SPLIT_OF_TEN


SPLIT_OF_TEN = [0, 0, 2, 0, 0, 0, 0, 2, 1, 1]

BAD = [
    ({"x": X[:0], "y": Y[:0]}, "at least one sample, got (0, 2)"),
    ({"x": [1.0, 2.0], "y": [0, 0]}, "must have shape (samples, ...)"),
    ({"x": [[1.0, 2.0], [1.0]], "y": [0, 0]}, "not an array of numbers"),
    ({"x": [["a"]], "y": [0]}, "must hold real numbers"),
    ({"x": np.where(X == 3.0, np.nan, X)}, "must be finite, got nan at (1, 1)"),
    ({"x": np.where(X == 3.0, np.inf, X)}, "must be finite, got inf at (1, 1)"),
    ({"y": Y[:3]}, "must have shape (4,), one label for each sample of x, got (3,)"),
    ({"y": [0, 0.5, 1, 1]}, "must be integers from 0, got 0.5"),
    ({"y": [0, -1, 1, 1]}, "must be integers from 0, got -1"),
    ({"y": [0, np.nan, 1, 1]}, "must be integers from 0, got nan"),
    ({"y": [0, 1e300, 1, 1]}, "must be integers from 0, got 1e+300"),
    ({"y": [0, 10**9, 1, 1]}, "has a label 1000000000 but only 4 samples"),
    ({"y": [0, 2, 2, 0]}, "class 1 (1) of data 'data' has no samples"),
    ({"classes": ["a", "b", "c"]}, "class 2 (c) of data 'data' has no samples"),
    ({"classes": ["a"]}, "labels must be 0 to 0"),
    ({"split": [0, 1, 2]}, "each 0 (mine), 1 (hold-out) or 2 (test)"),
    ({"split": [0, 1, 2, 3]}, "each 0 (mine), 1 (hold-out) or 2 (test)"),
    ({"split": [1, 1, 2, 2]}, "no sample to mine from"),
    ({"lower": 0.0}, "only one of lower and upper"),
    ({"lower": 0.0, "upper": 4.0}, "sample 2 of data 'data' has -1.0 at input 1, outside [0.0, 4.0]; widen"),
    ({"lower": [0.0, 1.0, 2.0], "upper": 4.0}, "must be one number or 2"),
    ({"lower": -np.inf, "upper": 4.0}, "must be finite"),
]


@pytest.mark.parametrize(("changed", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_input_says_what_is_wrong(changed, message):
    with pytest.raises(BadData, match=re.escape(message)):
        from_arrays(**({"x": X, "y": Y} | changed))


def test_an_inverted_domain_is_a_bad_region():
    with pytest.raises(BadRegion, match="box is empty"):
        from_arrays(X, Y, lower=5.0, upper=-5.0)


def test_check_against_model():
    data = from_arrays(X, Y)
    check_against_model(data, 2, 2)
    check_against_model(data, 2, 5)
    with pytest.raises(BadData, match=r"samples of shape \(2,\), 2 numbers each, but the model takes 3"):
        check_against_model(data, 3, 2)
    with pytest.raises(BadData, match="has 2 classes but the model has 1 outputs; labels must be 0 to 0"):
        check_against_model(data, 2, 1)
