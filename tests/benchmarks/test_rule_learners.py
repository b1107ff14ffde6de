"""Clause sets beside rule learners on the same bits of the last hidden layer: accuracy, rules, literals, seconds.

scikit-learn trees with pure leaves (as Prophecy reads them), RIPPER from `wittgenstein`, association rules by FP-growth from
`mlxtend`. Every way learns the network's class; every set decides alike: the most precise rule that fires, else the class
most frequent where none fires on the samples it was learned from. Accuracy is against the labels of the test samples. The
learners get the mining and the held-out samples; ours mines the former and chooses by the latter. The verifier is asked
about each of our clauses over the whole input domain. Run by `make bench`.
"""

import os
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from mlxtend.frequent_patterns import association_rules, fpgrowth
from sklearn.tree import DecisionTreeClassifier
from wittgenstein import RIPPER

from specmine.data import HOLDOUT, MINE, TEST, load_dataset, model_path
from specmine.predicates.families import candidates
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, select, unpack
from specmine.rules.clause import HornClause
from specmine.rules.decide import Rule, choose_rules, decided, measured
from specmine.rules.smallest import smallest_body
from specmine.tracing import Sites, trace
from specmine.training import train
from specmine.verification import Store
from specmine.verification.oracle import VerifierOracle
from verifier.formats import read_network
from verifier.formats.torch_export import read_module

ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
NAMES = ("breast_cancer", "digits", "mnist 256x2")
MNIST = {MINE: 3000, HOLDOUT: 1000, TEST: 2000}
"""How many images of each split are used: RIPPER takes hours on all of them."""
FREQUENT, WIDEST = 40, 3
"""FP-growth sees so many bits a class, those that tell it best, and makes bodies of so many literals at most."""
FLOORS, PRECISIONS, GAIN, TIMEOUT_S = (0.98, 0.95, 0.9, 0.8, 0.6, 0.4), (1.0, 0.98), 2e-4, 3.0

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(
        any(find_spec(name) is None for name in ("wittgenstein", "mlxtend")), reason="pip install specmine[bench]"
    ),
]


class Setting:
    """Bits (samples, literals) of the last hidden layer, the network's class, the labels, and the split of each sample."""

    def __init__(self, name):
        if name.startswith("mnist"):
            dataset, self.network = (
                load_dataset("mnist", data_dir=BENCHMARKS / "mnist"),
                read_network(BENCHMARKS / "mnist_fc/onnx/mnist-net_256x2.onnx"),
            )
            rows = np.concatenate([np.flatnonzero(dataset.split == part)[:most] for part, most in MNIST.items()])
        else:
            dataset, path = load_dataset(name), model_path(name)
            rows = np.arange(len(dataset.x))
            example = torch.zeros(1, dataset.x.shape[1])
            self.network = read_network(path) if path else read_module(train(dataset, hidden=(16, 16)), example)
        self.domain, self.labels, self.split = dataset.domain, dataset.y[rows], dataset.split[rows]
        self.sites = Sites(self.network)
        there = trace(self.sites, np.asarray(dataset.x[rows], dtype=np.float64))
        self.values, self.starts = there.predictions, np.asarray(dataset.x[rows][:256], dtype=np.float64).reshape(256, -1)
        mining = trace(self.sites, np.asarray(dataset.x[rows[self.split == MINE]], dtype=np.float64))
        grid = Grid(self.sites.hidden[-1:], thresholds=5, head_levels=())
        found = candidates(["unary"], mining, grid=grid, heads=mining.predictions)
        self.table = build_table(found, there)
        self.bits = unpack(self.table.bits, self.table.samples).T
        self.known = self.split != TEST

    def rule(self, label, body):
        """body: pairs of a literal's place and its truth."""
        held = (
            np.all([self.bits[:, place] == truth for place, truth in body], axis=0) if body else np.ones(len(self.bits), bool)
        )
        return Rule(label, held, len(body))


def part_of(rule, samples):
    return Rule(rule.label, rule.held[samples], rule.size, rule.precision)


def by_tree(setting):
    tree = DecisionTreeClassifier(random_state=0).fit(setting.bits[setting.known], setting.values[setting.known]).tree_
    waiting, rules = [(0, {})], []
    while waiting:
        node, path = waiting.pop()
        if tree.children_left[node] < 0:
            label = int(np.unique(setting.values[setting.known])[tree.value[node][0].argmax()])
            rules.append(setting.rule(label, sorted(path.items())))
            continue
        waiting.append((tree.children_left[node], path | {int(tree.feature[node]): False}))
        waiting.append((tree.children_right[node], path | {int(tree.feature[node]): True}))
    return rules


def by_ripper(setting):
    frame = pd.DataFrame(
        setting.bits[setting.known].astype(int), columns=[f"b{place}" for place in range(setting.bits.shape[1])]
    )
    rules = []
    for label in np.unique(setting.values[setting.known]).tolist():
        learner = RIPPER(random_state=0)
        learner.fit(frame, (setting.values[setting.known] == label).tolist(), pos_class=True)
        for rule in learner.ruleset_.rules:
            body = {int(str(cond.feature)[1:]): bool(int(cond.val)) for cond in rule.conds}
            rules.append(setting.rule(label, sorted(body.items())))
    return rules


def by_fpgrowth(setting):
    """Rules of every class by confidence, then support, as long as they cover a new sample (Liu et al., CBA, 1998)."""
    bits, values = setting.bits[setting.known], setting.values[setting.known]
    rules = []
    for label in np.unique(values).tolist():
        own = values == label
        best = np.argsort(-np.abs(bits[own].mean(axis=0) - bits[~own].mean(axis=0)), kind="stable")[:FREQUENT]
        frame = pd.DataFrame(np.column_stack([bits[:, best], own]), columns=[*map(int, best), "class"])
        sets = fpgrowth(frame, min_support=0.3 * float(own.mean()), use_colnames=True, max_len=WIDEST + 1)
        found = association_rules(sets, metric="confidence", min_threshold=0.9)
        found = found[found["consequents"] == frozenset({"class"})].sort_values(["confidence", "support"], ascending=False)
        left = own.copy()
        for places in found["antecedents"]:
            held = bits[:, sorted(places)].all(axis=1)
            if (held & left).sum() >= 2:
                rules.append(setting.rule(label, [(place, True) for place in sorted(places)]))
                left &= ~held
    return rules


def by_smallest_bodies(setting):
    """Our clauses: smallest bodies at several floors, and those of them that the mining and held-out samples want."""
    mining = setting.split == MINE
    table, values = select(setting.table, mining), setting.values[mining]
    rules, proved = [], []
    for label in np.unique(values).tolist():
        seen = set()
        for floor in FLOORS:
            for precision in PRECISIONS:
                positives = values == label
                found = smallest_body(
                    table, positives, ~positives, recall=floor, precision=precision, timeout_s=TIMEOUT_S, max_body=8
                )
                if found.found and found.body not in seen:
                    seen.add(found.body)
                    rules.append(setting.rule(label, [(place, True) for place in found.body]))
                    proved.append((found.body, found.optimal))
    known = [measured(part_of(rule, setting.known), setting.values[setting.known]) for rule in rules]
    chosen = choose_rules(known, setting.values[setting.known], gain=GAIN)
    return [rules[place] for place in chosen], [proved[place] for place in chosen]


def accuracy(setting, rules):
    """Share of the test samples whose label is what the rules decide."""
    known, test = setting.known, ~setting.known
    trusted = [measured(part_of(rule, known), setting.values[known]) for rule in rules]
    some = [Rule(r.label, rule.held[test], r.size, r.precision) for r, rule in zip(trusted, rules, strict=True)]
    held = np.any([rule.held for rule in trusted], axis=0)
    rest = setting.values[known][~held] if not held.all() else setting.values[known]
    said = decided(some, samples=int(test.sum()), default=int(np.argmax(np.bincount(rest))))
    return float((said == setting.labels[test]).mean())


def verdicts(setting, rules, bodies, folder):
    """How many of our clauses the verifier proves over the whole domain, and how many it refutes."""
    oracle = VerifierOracle(setting.sites, setting.domain, Store(folder), starts=setting.starts)
    clauses = [
        HornClause(Predicate("class", (rule.label,)), tuple(setting.table.predicates[place] for place in body))
        for rule, (body, _) in zip(rules, bodies, strict=True)
    ]
    answers = [answer.valid for answer in oracle.ask(clauses, timeout_s=5.0)]
    return answers.count(True), answers.count(False)


@pytest.mark.parametrize("name", NAMES)
def test_clause_sets_beside_rule_learners(name, tmp_path):
    if name.startswith("mnist") and not BENCHMARKS.is_dir():
        pytest.skip(f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)")
    setting = Setting(name)
    network = float((setting.values == setting.labels)[~setting.known].mean())
    print(f"\n{name}: {setting.bits.shape[1]} bits, {int(setting.known.sum())} samples; the network's accuracy {network:.4f}")
    rows = {}
    for title, learn in (("tree", by_tree), ("RIPPER", by_ripper), ("FP-growth", by_fpgrowth), ("ours", by_smallest_bodies)):
        begun = time.process_time()
        made = learn(setting)
        seconds = time.process_time() - begun
        rules, bodies = made if title == "ours" else (made, [])
        rows[title] = accuracy(setting, rules), sum(rule.size for rule in rules)
        said = (
            f"{title:10} accuracy {rows[title][0]:.4f}, {len(rules):4} rules, {rows[title][1]:5} literals, {seconds:7.1f} CPU s"
        )
        if bodies:
            valid, refuted = verdicts(setting, rules, bodies, tmp_path)
            optimal = sum(proved for _, proved in bodies)
            said += f"; {optimal} bodies proved smallest, {valid} clauses proved over the domain, {refuted} refuted"
        print(said, flush=True)
    for title, (rate, literals) in rows.items():
        assert title == "ours" or (rows["ours"][0] >= rate and rows["ours"][1] < literals), f"{title} does as well: {rows}"
