"""Roles of attention heads: on heads made to follow one pattern, on heads that follow none, and against a slow definition."""

import numpy as np
import pytest
import torch
from torch import nn

from specmine.errors import BadData
from specmine.stats.roles import head_roles, last_occurrence
from specmine.tracing import Sites, Stream, traced
from specmine.tracing.trace import make_trace
from verifier.formats.torch_export import read_module

POSITIONS, WIDTH = 6, 6


class Fixed(nn.Module):
    """One head for each bias (positions, positions) of scores; values are the tokens themselves."""

    def __init__(self, *biases):
        super().__init__()
        self.register_buffer("bias", torch.stack([torch.as_tensor(b, dtype=torch.float32) for b in biases]))
        self.query = nn.Linear(WIDTH, WIDTH, bias=False)

    def forward(self, x):
        scores = 0.3 * (self.query(x) @ x.transpose(-1, -2))[:, None] + self.bias
        hidden = torch.ones(POSITIONS, POSITIONS, dtype=torch.bool).triu(1)
        shares = scores.masked_fill(hidden, -torch.inf).softmax(-1)
        return (shares @ x[:, None]).sum(dim=1).flatten(1)


def source_of(module, samples=40):
    network = read_module(module.eval(), torch.zeros(1, POSITIONS, WIDTH))
    x = np.random.default_rng(0).normal(size=(samples, POSITIONS, WIDTH))
    return Stream(Sites(network), x)


def back(distance):
    return 6.0 * np.eye(POSITIONS, k=-distance)


def test_heads_are_named_by_the_pattern_they_follow():
    torch.manual_seed(0)
    first = 6.0 * (np.arange(POSITIONS) == 0) * np.ones((POSITIONS, 1))
    roles = head_roles(source_of(Fixed(back(1), back(0), first, back(3))))
    named = {role.head: role.pattern for role in roles if role.q < 1e-3}
    assert named == {0: "previous_token", 1: "self_token", 2: "first_token", 3: "3_back"}
    assert all(role.mass > 0.5 for role in roles[:4]) and len(roles) == 4 * (POSITIONS + 1)
    assert [role.p for role in roles] == sorted(role.p for role in roles)


def test_a_head_of_no_pattern_has_no_role():
    torch.manual_seed(1)
    module = Fixed(np.zeros((POSITIONS, POSITIONS)))
    nn.init.zeros_(module.query.weight)
    assert all(role.q == 1.0 and role.wins == 0 for role in head_roles(source_of(module)))


def test_masses_of_token_patterns_by_the_slow_definition():
    torch.manual_seed(2)
    source = source_of(Fixed(back(1), np.zeros((POSITIONS, POSITIONS))), samples=9)
    tokens = np.random.default_rng(1).integers(0, 3, size=(9, POSITIONS))
    shares = shares_of(source)
    for role in head_roles(source, tokens=tokens):
        if role.pattern not in ("duplicate_token", "induction"):
            continue
        masses = []
        for sample in range(9):
            keys = {
                q: max((p for p in range(q) if tokens[sample, p] == tokens[sample, q]), default=None) for q in range(POSITIONS)
            }
            shift = 1 if role.pattern == "induction" else 0
            picked = [shares[sample, role.head, q, k + shift] for q, k in keys.items() if k is not None]
            masses += [np.mean(picked)] if picked else []
        assert role.samples == len(masses) and role.mass == pytest.approx(np.mean(masses), abs=1e-9)


def test_random_attention_has_no_role_though_far_keys_are_rare():
    torch.manual_seed(4)
    module = Fixed(*(np.zeros((POSITIONS, POSITIONS)) for _ in range(3)))
    with torch.no_grad():
        module.query.weight.normal_(std=3.0)
    assert all(role.q > 1e-3 for role in head_roles(source_of(module, 60)))


def shares_of(source):
    (layer,) = source.sites.attention
    values = traced(source, ["a1"]).values["a1"]
    return np.where(layer.probability_index >= 0, values[:, layer.probability_index], 0.0)


def test_last_occurrence_by_hand():
    assert last_occurrence(np.array([[1, 2, 1, 1, 2], [0, 1, 2, 3, 4]])).tolist() == [[-1, -1, 0, 2, 1], [-1] * 5]


def test_bad_input():
    module = nn.Linear(WIDTH, 2)
    network = read_module(module, torch.zeros(1, WIDTH))
    with pytest.raises(BadData, match="this network has none"):
        head_roles(Stream(Sites(network), np.zeros((3, WIDTH))))
    with pytest.raises(BadData, match=r"tokens must have shape \(40, 6\) for a1, got \(40, 5\)"):
        head_roles(source_of(Fixed(back(1))), tokens=np.zeros((40, 5), dtype=int))


@pytest.mark.parametrize("sharpness", [0.5, 30.0])
@pytest.mark.parametrize("words", [None, 4, 1000])
def test_random_attention_has_no_role_however_many_samples(sharpness, words):
    """Shares drawn without regard to keys, softly or all on one, with tokens that repeat often, rarely, or are not known."""
    source, samples = source_of(Fixed(*(np.zeros((POSITIONS, POSITIONS)) for _ in range(3)))), 8000
    index = source.sites.attention[0].probability_index
    rng = np.random.default_rng(5)
    powers = np.where(index >= 0, np.exp(np.clip(sharpness * rng.normal(size=(samples, *index.shape)), -300, 300)), 0.0)
    values = np.zeros((samples, source.sites.size("a1")))
    values[:, index[index >= 0]] = (powers / powers.sum(axis=3, keepdims=True))[:, index >= 0]
    tokens = None if words is None else rng.integers(0, words, size=(samples, POSITIONS))
    roles = head_roles(make_trace(source.sites, {"a1": values}, np.zeros(samples, dtype=np.int64)), tokens=tokens)
    assert min(role.q for role in roles) > 1e-3
