"""Rules as a classifier, and the choice of a few of them by held-out samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from specmine.errors import BadData


@dataclass(frozen=True, eq=False)
class Rule:
    """A class, where the rule's body holds on given samples (samples,), and how many literals it has.

    precision: how far it is trusted where several rules hold.
    """

    label: int
    held: NDArray[np.bool_]
    size: int
    precision: float = 0.0


def measured(rule: Rule, labels: NDArray[np.int64]) -> Rule:
    """The rule with its precision on samples with these labels, drawn to one half where few satisfy it (Laplace)."""
    hits, support = int((rule.held & (labels == rule.label)).sum()), int(rule.held.sum())
    return Rule(rule.label, rule.held, rule.size, (hits + 1) / (support + 2))


def decided(rules: Sequence[Rule], *, samples: int, default: int) -> NDArray[np.int64]:
    """The class of each sample: that of the most precise rule that holds there, the first of equal ones, else the default.

    >>> some = np.array([True, True, False])
    >>> decided([Rule(1, some, 2, 0.8), Rule(2, ~some | [True, False, False], 1, 0.9)], samples=3, default=0).tolist()
    [2, 1, 2]
    """
    out = np.full(samples, default, dtype=np.int64)
    for rule in reversed(sorted(rules, key=lambda rule: -rule.precision)):
        out[rule.held] = rule.label
    return out


def default_of(rules: Sequence[Rule], labels: NDArray[np.int64]) -> int:
    """The most frequent class where no rule holds; of all samples, where some rule holds on each."""
    rest = ~np.any([rule.held for rule in rules], axis=0) if rules else np.ones(len(labels), dtype=bool)
    return int(np.argmax(np.bincount(labels[rest] if rest.any() else labels)))


def choose_rules(rules: Sequence[Rule], labels: NDArray[np.int64], *, gain: float) -> list[int]:
    """Places of the rules worth having, in the order chosen: each time the one that adds most accuracy for its literals.

    labels: (samples,) the class of each sample the rules were measured on. gain: the accuracy that a literal must add. Then
    rules without which no accuracy is lost are dropped. Raises BadData where a rule is not about these samples.
    """
    if any(rule.held.shape != labels.shape for rule in rules):
        raise BadData(f"every rule must be measured on the same {len(labels)} samples as the labels")

    def accuracy(places: Sequence[int]) -> float:
        some = [rules[place] for place in places]
        return float((decided(some, samples=len(labels), default=default_of(some, labels)) == labels).mean())

    chosen, best = list[int](), accuracy([])
    while len(chosen) < len(rules):
        reached = {place: accuracy([*chosen, place]) for place in range(len(rules)) if place not in chosen}
        place = max(reached, key=lambda place: (reached[place] - best) / max(rules[place].size, 1))
        if reached[place] - best < gain * max(rules[place].size, 1):
            break
        chosen.append(place)
        best = reached[place]
    for place in sorted(chosen, key=lambda place: -rules[place].size):
        without = [other for other in chosen if other != place]
        if accuracy(without) >= best:
            chosen, best = without, accuracy(without)
    return chosen
