"""The transformer that learns induction: its data by hand, its training, its import."""

import math

import numpy as np
import pytest
import torch

from specmine.errors import BadConfig
from specmine.tracing import Sites, compare_with_original, trace
from specmine.training.induction import Repeated, induction_losses, one_hot, repeated_tokens, train_induction
from verifier.formats.torch_export import read_module


def test_blocks_are_repeated_and_distinct():
    made = repeated_tokens(200, length=12, vocabulary=15, seed=3)
    assert made.tokens.shape == (200, 12) and made.tokens.min() >= 0 and made.tokens.max() < 15
    for tokens, start, period in zip(made.tokens.tolist(), made.start, made.period, strict=True):
        assert period >= 2 and start + 2 * period <= 12
        assert len(set(tokens[: start + period])) == start + period
        assert all(tokens[k] == tokens[k - period] for k in range(start + period, 12))
    assert len(set(made.period.tolist())) == 5 and (made.start > 0).any()


def test_what_the_repetition_tells_by_hand():
    made = Repeated(np.array([[7, 1, 2, 1, 2, 1]]), np.array([1]), np.array([2]))
    assert made.known.tolist() == [[False, False, False, False, True, True]]


def test_one_hot_rows():
    assert one_hot(np.array([[1, 0]]), 3).tolist() == [[[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]]


def test_settings_that_do_not_fit_are_refused():
    with pytest.raises(BadConfig, match="a width that heads divide, got length 24, vocabulary 24, width 10, heads 4"):
        train_induction(width=10)


def test_training_is_repeatable_and_leaves_the_random_numbers_alone():
    state = torch.random.get_rng_state()
    first, second = (train_induction(length=8, vocabulary=8, width=8, heads=2, steps=3, batch=4) for _ in range(2))
    assert (torch.random.get_rng_state() == state).all()
    assert first.repeated_loss == second.repeated_loss
    pairs = zip(first.module.parameters(), second.module.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.slow
def test_it_learns_induction():
    """What repeats is predicted, what does not is guessed; the imported network agrees, and a head looks where it should."""
    run = train_induction()
    assert run.repeated_loss < 0.1 and run.first_loss > 0.8 * math.log(run.vocabulary / 2)
    made = repeated_tokens(64, length=run.length, vocabulary=run.vocabulary, seed=10**6)
    first, repeated = induction_losses(run.module, made)
    assert repeated < 0.1 < 1.5 < first
    x = one_hot(made.tokens, run.vocabulary)
    network = read_module(run.module, torch.tensor(x[:1], dtype=torch.float32))
    assert compare_with_original(network, run.module, x) < 1e-3
    sites = Sites(network)
    kept = trace(sites, x, keep=("a1", "a2")).values
    assert max(mass_on(sites, kept, 0, np.ones(len(x), dtype=np.int64))) > 0.4, "a head looks at the token before"
    assert max(mass_on(sites, kept, 1, made.period - 1, made)) > 0.4, "a head looks behind the same token in the block before"


def mass_on(
    sites: Sites, kept: dict[str, np.ndarray], place: int, back: np.ndarray, made: Repeated | None = None
) -> list[float]:
    """The mean probability that each head gives to the key so many places back, where that is defined (and known)."""
    layer = sites.attention[place]
    index = layer.probability_index
    shares = np.where(index >= 0, kept[layer.name][:, index.clip(0)], 0.0)
    masses = [
        shares[sample, :, query, query - back[sample]]
        for sample in range(len(shares))
        for query in range(int(back[sample]) + 1, shares.shape[2])
        if made is None or query >= made.start[sample] + made.period[sample]
    ]
    return np.mean(masses, axis=0).tolist()
