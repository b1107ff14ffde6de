"""Dense and sparse maps agree with numpy on the same matrix."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from verifier.engines.linear_map import linear_map


@pytest.mark.parametrize(("density", "sparse"), [(1.0, False), (0.5, False), (0.02, True), (0.0, True)])
@pytest.mark.parametrize("strided", [False, True])
def test_products_agree_with_numpy(density: float, sparse: bool, strided: bool) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(150, 200)) * (rng.uniform(size=(150, 200)) < density)
    form = linear_map(csr_array(matrix))
    assert (form.matrix is None) == sparse
    pad = 3 if strided else 0
    vectors, weights = rng.normal(size=(9, 200 + pad)), rng.normal(size=(9, 150 + pad))
    x, w = (torch.from_numpy(part).float()[:, pad:] for part in (vectors, weights))
    to, shift = torch.ones(9, 200 + pad)[:, pad:], torch.arange(150.0)
    form.add_transposed(w, to)
    assert np.allclose(form.applied(x, shift).numpy(), vectors[:, pad:] @ matrix.T + np.arange(150.0), atol=1e-3)
    assert np.allclose(form.transposed(w).numpy(), weights[:, pad:] @ matrix, atol=1e-3)
    assert np.allclose(to.numpy(), 1 + weights[:, pad:] @ matrix, atol=1e-3)
    assert np.allclose(form.rows(torch.tensor([7, 0, 7])).numpy(), matrix[[7, 0, 7]], atol=1e-6)


def test_a_sparse_map_is_priced_below_the_dense_one() -> None:
    matrix = np.zeros((300, 300))
    matrix[np.arange(300), np.arange(300)] = 1.0
    assert linear_map(csr_array(matrix)).work < linear_map(csr_array(np.ones((300, 300)))).work
