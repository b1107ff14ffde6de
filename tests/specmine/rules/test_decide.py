"""Rules as a classifier, by hand, and that what is chosen is worth its literals."""

import numpy as np
import pytest

from specmine.errors import BadData
from specmine.rules.decide import Rule, choose_rules, decided, default_of, measured

LABELS = np.array([0, 0, 0, 1, 1, 2])


def rule(label, *held, size=1, precision=0.0):
    return Rule(label, np.isin(np.arange(6), held), size, precision)


def test_the_most_precise_rule_decides_and_the_first_of_equal_ones():
    rules = [rule(0, 0, 1, precision=0.5), rule(1, 1, 2, precision=0.9), rule(2, 2, 3, precision=0.9)]
    assert decided(rules, samples=6, default=7).tolist() == [0, 1, 1, 2, 7, 7]


def test_the_default_is_what_is_left():
    assert default_of([], LABELS) == 0
    assert default_of([rule(0, 0, 1, 2)], LABELS) == 1
    assert default_of([rule(0, *range(6))], LABELS) == 0


def test_precision_of_few_samples_is_trusted_less():
    assert measured(rule(0, 0, 1, 2), LABELS).precision == pytest.approx(4 / 5)
    assert measured(rule(1, 3), LABELS).precision == pytest.approx(2 / 3)
    assert measured(rule(1), LABELS).precision == 1 / 2


def test_two_rules_and_a_default_say_everything():
    rules = [measured(r, LABELS) for r in (rule(0, 0, 1, 2), rule(1, 3, 4), rule(2, 5), rule(1, 3), rule(0, 0, size=5))]
    chosen = choose_rules(rules, LABELS, gain=0.01)
    some = [rules[place] for place in chosen]
    assert len(chosen) == 2 and (decided(some, samples=6, default=default_of(some, LABELS)) == LABELS).all()


def test_a_literal_must_add_its_gain():
    rules = [measured(rule(2, 5, size=2), LABELS)]
    assert choose_rules(rules, LABELS, gain=0.08) == [0], "one of six samples for two literals"
    assert choose_rules(rules, LABELS, gain=0.09) == []


def test_bad_input():
    with pytest.raises(BadData, match="the same 6 samples"):
        choose_rules([Rule(0, np.ones(4, dtype=bool), 1)], LABELS, gain=0.1)
