"""A transformer trained to go on with repeated tokens: its heads are named, with certainty, by what they look at alone."""

import numpy as np
import pytest
import torch

from specmine.predicates.families import candidates
from specmine.predicates.form import Grid
from specmine.predicates.head_values import heads_of
from specmine.predicates.table import build_table
from specmine.stats.ranking import evidence_at, rank
from specmine.stats.roles import head_roles
from specmine.tracing import Sites, Stream
from specmine.training.induction import one_hot, repeated_tokens, train_induction
from verifier.formats.torch_export import read_module

pytestmark = pytest.mark.slow
CERTAIN = 1e-3


@pytest.fixture(scope="module")
def trained():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield train_induction()
    torch.set_num_threads(threads)


def sites_of(trained):
    return Sites(read_module(trained.module, torch.zeros(1, trained.length, trained.vocabulary)))


def test_the_loss_shows_induction(trained):
    assert trained.repeated_loss < 0.1 < 2.0 < trained.first_loss


def test_the_heads_are_named(trained):
    made = repeated_tokens(256, length=trained.length, vocabulary=trained.vocabulary, seed=99)
    source = Stream(sites_of(trained), one_hot(made.tokens, trained.vocabulary))
    roles = [role for role in head_roles(source, tokens=made.tokens) if role.q < CERTAIN and role.mass > 0.5]
    previous = [role for role in roles if role.pattern == "previous_token"]
    induction = [role for role in roles if role.pattern == "induction"]
    assert [role.site for role in previous] == ["a1"], "one head of the first layer looks at the previous token"
    assert induction and {role.site for role in induction} == {"a2"}, "induction needs the layer before it"


def about_induction(predicate, period):
    """Whether a predicate speaks of second-layer attention to the token after the last occurrence of the query's own."""
    site, _, *rest = predicate.arguments
    if predicate.form in ("induction", "duplicate_token"):  # four tokens back stands what came after the token five back
        return site == "a2" and rest[0] == period - (predicate.form == "duplicate_token")
    named = {"focus": "a2", "attends": "s2", "prefers": "s2"}
    return named.get(predicate.form) == site and rest[0] - rest[1] == period - 1


def test_mined_predicates_tell_the_period_by_the_induction_heads(trained):
    """Which of two periods a sequence has is a user's column; the predicates that say it best are about induction."""
    made = repeated_tokens(6000, length=trained.length, vocabulary=trained.vocabulary, seed=7)
    chosen = np.flatnonzero(np.isin(made.period, (5, 8)))[:600]
    period = (made.period[chosen] == 8).astype(np.int64)
    source = Stream(sites_of(trained), one_hot(made.tokens[chosen], trained.vocabulary))
    heads = heads_of(period, source)
    listed = candidates("attention", source, grid=Grid(()), heads=heads.values)
    table = build_table(listed, source)
    split = np.arange(len(chosen)) % 3
    ranking = rank(table, heads.words, split, k=5)
    for head, length in enumerate((5, 8)):
        rows = ranking.strongest[head]
        best = [listed[row] for row in rows if row >= 0]
        assert best and all(about_induction(p, length) for p in best), f"for period {length}: {list(map(str, best))}"
        evidence = evidence_at(ranking, head, int(rows[0]))
        assert evidence.mine.q is not None and evidence.mine.q < CERTAIN
        assert evidence.holdout.precision is not None and evidence.holdout.precision > 0.9
