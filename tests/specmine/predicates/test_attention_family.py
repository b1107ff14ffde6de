"""Predicates of attention heads: formulas and truth by hand on a model of torch, refusals, and what is proposed."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from specmine.errors import BadClause
from specmine.predicates.families import bits, candidates, denote, validate
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.tracing import Sites, trace
from specmine.tracing.stream import Stream
from verifier.formats.torch_export import read_module
from verifier.formula import And, at_least, atom, holds

TOKENS, WIDTH, HEADS, CLASSES = 4, 4, 2, 3


class Heads(nn.Module):
    """Causal heads over tokens, added to them; a linear output, through a ReLU where `bent`."""

    def __init__(self, tokens: int = TOKENS, bent: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.bent = tokens, bent
        self.read, self.write = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.out = nn.Linear(WIDTH * tokens, CLASSES)
        self.mask = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (p.view(1, self.tokens, HEADS, -1).transpose(1, 2) for p in self.read(x).chunk(3, -1))
        shares = (query @ key.transpose(-1, -2)).masked_fill(self.mask, float("-inf")).softmax(-1)
        mixed = self.write((shares @ value).transpose(1, 2).reshape(1, self.tokens, WIDTH))
        return self.out((x + (mixed.relu() if self.bent else mixed)).reshape(1, -1))


def sites_of(module: Heads) -> Sites:
    return Sites(read_module(module.double(), torch.zeros(1, module.tokens, WIDTH, dtype=torch.double)))


MODULE = Heads()
SITES = sites_of(MODULE)
(LAYER,) = SITES.attention
X = np.random.default_rng(0).normal(size=(60, TOKENS * WIDTH))
MADE = trace(SITES, X, keep=("x", "s1", "a1", "o1", "y"))
SHARES = MADE.values["a1"][:, np.maximum(LAYER.probability_index, 0)] * (LAYER.probability_index >= 0)


def truth(form, *arguments):
    return bits(validate(Predicate(form, arguments), SITES), MADE)


def test_truth_by_hand():
    """Against the shares (samples, heads, queries, keys) themselves."""
    scores = np.where(LAYER.score_index >= 0, MADE.values["s1"][:, np.maximum(LAYER.score_index, 0)], -np.inf)
    assert (truth("attends", "s1", 1, 3, 2) == (scores[:, 1, 3].argmax(axis=1) == 2)).all()
    assert (truth("prefers", "s1", 0, 2, 0, 1) == (scores[:, 0, 2, 0] > scores[:, 0, 2, 1])).all()
    assert (truth("attends", "s1", 1, 3, 2) == (SHARES[:, 1, 3].argmax(axis=1) == 2)).all()
    assert (truth("focus", "a1", 0, 3, 1, 0.25) == (SHARES[:, 0, 3, 1] >= 0.25)).all()
    q = np.arange(TOKENS)
    masses = {
        ("previous_token", "a1", 1): SHARES[:, 1, q[1:], q[:-1]],
        ("self_token", "a1", 1): SHARES[:, 1, q, q],
        ("first_token", "a1", 0): SHARES[:, 0, 1:, 0],
        ("duplicate_token", "a1", 0, 2): SHARES[:, 0, q[2:], q[2:] - 2],
        ("induction", "a1", 1, 3): SHARES[:, 1, q[3:], q[3:] - 2],
        ("induction", "a1", 1, 2): SHARES[:, 1, q[2:], q[2:] - 1],
    }
    for pattern, mass in masses.items():
        found = truth(*pattern, float(np.median(mass.mean(axis=1))))
        assert (found == (mass.mean(axis=1) >= np.median(mass.mean(axis=1)))).mean() > 0.98 and 20 < found.sum() < 40


def test_writing_is_what_the_head_alone_adds_to_the_logits():
    """The second head's outputs, alone, through the projection and the output layer, less the mean of the logits."""
    outputs = MADE.values["o1"][:, LAYER.output_index[1]]
    with torch.no_grad():
        alone = torch.zeros(len(X), TOKENS, WIDTH, dtype=torch.double)
        alone[..., WIDTH // HEADS :] = torch.from_numpy(outputs)
        written = (alone @ MODULE.write.weight.T).reshape(len(X), -1) @ MODULE.out.weight.T
    centered = (written - written.mean(dim=1, keepdim=True)).numpy()
    for label in range(CLASSES):
        for threshold in (float(np.median(centered[:, label])) + 1e-6, 0.0, 0.02):
            assert (truth("writes", "o1", 1, label, threshold) == (centered[:, label] >= threshold)).all()
        assert truth("writes", "o1", 1, label, float(np.median(centered[:, label])) + 1e-6).sum() == len(X) // 2


def test_formulas_by_hand():
    seen = LAYER.score_index[1, 2]
    assert denote(Predicate("attends", ("s1", 1, 2, 1)), SITES) == And(
        tuple(atom({(LAYER.scores, int(k)): 1, (LAYER.scores, int(seen[1])): -1}, 0) for k in (seen[0], seen[2]))
    )
    entry = int(LAYER.probability_index[0, 3, 1])
    assert denote(Predicate("focus", ("a1", 0, 3, 1, 0.5)), SITES) == at_least(LAYER.probabilities, entry, 0.5)
    entries = [int(LAYER.probability_index[0, q, q - 1]) for q in (1, 2, 3)]
    assert denote(Predicate("previous_token", ("a1", 0, 0.5)), SITES) == atom(
        {(LAYER.probabilities, k): -1 for k in entries}, 1.5
    )


@pytest.mark.parametrize(
    ("form", "arguments", "message"),
    [
        ("attends", ("a1", 0, 1, 0), "site 'a1' holds no attention scores; name s1"),
        ("focus", ("s1", 0, 1, 0, 0.5), "site 's1' holds no attention probabilities; name a1"),
        ("writes", ("y", 0, 1, 0.5), "site 'y' holds no attention outputs; name o1"),
        ("attends", ("s1", 2, 1, 0), "s1 has heads 0 to 1, got 2"),
        ("attends", ("s1", 0, 4, 0), "s1 has queries 0 to 3, got 4"),
        ("prefers", ("s1", 0, 3, 0, 4), "s1 has keys 0 to 3, got 4"),
        ("attends", ("s1", 0, 1, 2), "a mask hides key 2 from query 1 of head 0; name one that it sees"),
        ("induction", ("a1", 0, 1, 0.5), "a period is at least 2 here, got 1"),
        ("duplicate_token", ("a1", 0, 0, 0.5), "a period is at least 1 here, got 0"),
        ("duplicate_token", ("a1", 0, 4, 0.5), "no query of head 0 of a1 sees such a key"),
        ("self_token", ("a1", 2, 0.5), "a1 has heads 0 to 1, got 2"),
        ("writes", ("o1", 0, 3, 0.5), "the network has classes 0 to 2, got 3"),
    ],
)
def test_refused(form, arguments, message):
    with pytest.raises(BadClause, match=re.escape(message)):
        validate(Predicate(form, arguments), SITES)


def test_what_passes_a_relu_is_not_written_linearly():
    sites = sites_of(Heads(bent=True))
    with pytest.raises(BadClause, match="no affine path leads from o1 to the output"):
        validate(Predicate("writes", ("o1", 0, 0, 0.5)), sites)
    assert "writes" not in {p.form for p in candidates("attention", Stream(sites, X))}


def test_candidates_are_counted_and_mean_what_they_say():
    heads = np.arange(300) % 2
    x = np.random.default_rng(0).normal(size=(300, TOKENS * WIDTH))
    listed = candidates("attention", Stream(SITES, x), heads=heads)
    counted = {form: sum(p.form == form for p in listed) for form in ("attends", "prefers")}
    assert counted == {"attends": 2 * 9, "prefers": 2 * 2 * (1 + 3 + 5)}
    assert {p.form for p in listed} >= {"focus", "previous_token", "first_token", "duplicate_token", "induction", "writes"}
    made = trace(SITES, x[:5], keep=("s1", "a1", "o1"))
    for predicate in listed[:: max(1, len(listed) // 60)]:
        values = {SITES.value(site): array for site, array in made.values.items()}
        exact = [holds(denote(predicate, SITES), {name: array[k].tolist() for name, array in values.items()}) for k in range(5)]
        assert bits(predicate, made).tolist() == exact


def test_candidates_grow_linearly_with_the_entries_of_the_rows():
    counted = []
    for tokens in (4, 16):
        sites = sites_of(Heads(tokens))
        entries = int((sites.attention[0].probability_index >= 0).sum())
        x = np.random.default_rng(0).normal(size=(64, tokens * WIDTH))
        counted.append((entries, len(candidates("attention", Stream(sites, x), grid=Grid(("x",))))))
    (few, some), (many, more) = counted
    assert np.log(more / some) / np.log(many / few) <= 1.05
