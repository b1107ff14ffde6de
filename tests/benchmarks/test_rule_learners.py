"""Clause sets beside rule learners on the same bits of the last hidden layer: accuracy, rules, literals, seconds, proofs.

scikit-learn trees with pure leaves (as Prophecy reads them), RIPPER from `wittgenstein`, association rules by FP-growth from
`mlxtend`. Every way learns the network's class; every set decides alike: the most precise rule that fires, else the class
most frequent where none fires on the samples it was learned from. Accuracy is against the labels of the test samples. The
learners get the mining and the held-out samples; ours mines the former and chooses by both. The verifier is asked about each
of our clauses over the whole input domain. The clauses of the last row are boxes of the same layer, not of the same bits, and
only those that are proved: what rules say that hold everywhere. Breast cancer has 113 test samples, so several networks are
trained and their rows added. A learner that is stopped before its rules are complete has no row to compare with. Run by
`make bench`.
"""

import os
import signal
import time
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from specmine.data import HOLDOUT, MINE, TEST, load_dataset, model_path
from specmine.predicates.families import candidates
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, select, unpack
from specmine.rules.beam import best_bodies
from specmine.rules.clause import HornClause
from specmine.rules.decide import Rule, choose_rules, decided, measured
from specmine.rules.peel import peel, readout_of
from specmine.rules.smallest import smallest_body
from specmine.tracing import Sites, trace
from specmine.training import train
from specmine.verification import Store
from specmine.verification.oracle import VerifierOracle
from verifier.formats import read_network
from verifier.formats.torch_export import read_module

pd, patterns, wittgenstein = map(pytest.importorskip, ("pandas", "mlxtend.frequent_patterns", "wittgenstein"))
"""Installed by `pip install specmine[bench]`."""
ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
NETWORKS = {"breast_cancer": (20, 21, 22, 23), "digits": (0,), "mnist 256x2": (0,)}
"""The seeds of the networks trained for a data set; those of digits and MNIST are given."""
MNIST = {MINE: 3000, HOLDOUT: 1000, TEST: 2000}
"""How many images of each split are used: RIPPER takes hours on all of them."""
FREQUENT, WIDEST, STOP_S = 20, 3, 40
"""FP-growth sees so many bits a class, those that tell it best, and makes bodies of so many literals at most; no learner of
others gets more CPU seconds a network."""
FLOORS, PRECISIONS, GAIN, TIMEOUT_S = (0.999, 0.99, 0.98, 0.95, 0.9, 0.8, 0.6, 0.4), (1.0, 0.98), 2e-4, 0.5
BOXES = 4
"""Clauses a class of the last row, at most."""
BEAMS, BODIES, MAX_BODY, QUESTION_S = ((1, 8), (2, 8), (3, 4), (5, 4)), 4, 8, 2.0
"""Beams by their longest body and width, each with so many bodies, one after the other."""

pytestmark = pytest.mark.bench


class Setting:
    """Bits (samples, literals) of the last hidden layer, the network's class, the labels, and the split of each sample."""

    def __init__(self, name, seed):
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
            self.network = read_network(path) if path else read_module(train(dataset, hidden=(16, 16), seed=seed), example)
        self.domain, self.labels, self.split = dataset.domain, dataset.y[rows], dataset.split[rows]
        self.sites = Sites(self.network)
        there = trace(self.sites, np.asarray(dataset.x[rows], dtype=np.float64))
        self.there = there
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

    def oracle(self, folder):
        return VerifierOracle(self.sites, self.domain, Store(folder), starts=self.starts)


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
        learner = wittgenstein.RIPPER(random_state=0)
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
        sets = patterns.fpgrowth(frame, min_support=0.3 * float(own.mean()), use_colnames=True, max_len=WIDEST + 1)
        found = patterns.association_rules(sets, metric="confidence", min_threshold=0.9)
        found = found[found["consequents"] == frozenset({"class"})].sort_values(["confidence", "support"], ascending=False)
        left = own.copy()
        for places in found["antecedents"]:
            held = bits[:, sorted(places)].all(axis=1)
            if (held & left).sum() >= 2:
                rules.append(setting.rule(label, [(place, True) for place in sorted(places)]))
                left &= ~held
    return rules


def by_smallest_bodies(setting):
    """Our clauses: smallest bodies at several floors, and beams; of them those that the mining and held-out samples want."""
    mining = setting.split == MINE
    table, values = select(setting.table, mining), setting.values[mining]
    pool = {}
    for label in np.unique(values).tolist():
        own = values == label
        for floor, precision in product(FLOORS, PRECISIONS):
            found = smallest_body(table, own, ~own, recall=floor, precision=precision, timeout_s=TIMEOUT_S, max_body=MAX_BODY)
            if found.found:
                pool[label, found.body] = found.optimal or pool.get((label, found.body), False)
        for longest, width in BEAMS:
            for body in best_bodies(table, own, ~own, most=BODIES, max_body=longest, width=width):
                pool.setdefault((label, tuple(sorted(body.rows))), False)
    rules = [setting.rule(label, [(place, True) for place in body]) for label, body in pool]
    known = [measured(part_of(rule, setting.known), setting.values[setting.known]) for rule in rules]
    chosen = choose_rules(known, setting.values[setting.known], gain=GAIN)
    made = [(body, optimal) for (_, body), optimal in pool.items()]
    return [rules[place] for place in chosen], [made[place] for place in chosen]


def by_proved_boxes(setting, folder):
    """Clauses for the same classes on the same layer, not of the given bits, that the verifier proves over the domain."""
    readout, made = readout_of(setting.sites), []
    for label in np.unique(setting.values[setting.known]).tolist():
        made += peel(setting.there, readout, label=label, rows=setting.known & (setting.values == label), clauses=BOXES)
    answers = setting.oracle(folder).ask(made, timeout_s=QUESTION_S, likely=True)
    rules = []
    for clause, answer in zip(made, answers, strict=True):
        if answer.valid:
            held = unpack(build_table(clause.body, setting.there).bits, setting.there.samples).all(axis=0)
            rules.append(Rule(clause.head.arguments[0], held, len(clause.body)))
    return rules


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
    clauses = [
        HornClause(Predicate("class", (rule.label,)), tuple(setting.table.predicates[place] for place in body))
        for rule, (body, _) in zip(rules, bodies, strict=True)
    ]
    answers = [answer.valid for answer in setting.oracle(folder).ask(clauses, timeout_s=QUESTION_S)]
    return answers.count(True), answers.count(False)


PROVED = "all proved"


class Stopped(Exception):
    """A learner's CPU seconds are over."""


@contextmanager
def at_most(seconds):
    """Raises Stopped within it after so many CPU seconds."""

    def stop(number, frame):
        raise Stopped

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


@dataclass
class Row:
    """Sums over the networks; right: test samples."""

    right: int = 0
    rules: int = 0
    literals: int = 0
    seconds: float = 0.0
    stopped: bool = False
    smallest: int = 0
    proved: int = 0
    refuted: int = 0

    def add(self, setting, rules):
        self.right += round(accuracy(setting, rules) * int((~setting.known).sum()))
        self.rules += len(rules)
        self.literals += sum(rule.size for rule in rules)

    def line(self, title, samples):
        if self.stopped:
            return f"{title:10} stopped at {STOP_S} CPU s"
        return (
            f"{title:10} accuracy {self.right / samples:.4f} ({self.right} right), {self.rules:4} rules, "
            f"{self.literals:5} literals, {self.seconds:7.1f} CPU s"
        )


def fill(rows, setting, folder):
    """Adds one network's results to the rows."""
    for title, learn in (("tree", by_tree), ("RIPPER", by_ripper), ("FP-growth", by_fpgrowth)):
        begun = time.process_time()
        try:
            with at_most(STOP_S):
                rules = learn(setting)
        except Stopped:
            rows[title].stopped = True
        else:
            rows[title].add(setting, rules)
        rows[title].seconds += time.process_time() - begun
    begun = time.process_time()
    rules, bodies = by_smallest_bodies(setting)
    rows["ours"].seconds += time.process_time() - begun
    rows["ours"].add(setting, rules)
    rows["ours"].smallest += sum(optimal for _, optimal in bodies)
    valid, refuted = verdicts(setting, rules, bodies, folder)
    rows["ours"].proved += valid
    rows["ours"].refuted += refuted
    begun = time.process_time()
    rules = by_proved_boxes(setting, folder)
    rows[PROVED].seconds += time.process_time() - begun
    rows[PROVED].add(setting, rules)


@pytest.mark.parametrize("name", NETWORKS)
def test_clause_sets_beside_rule_learners(name, tmp_path):
    if name.startswith("mnist") and not BENCHMARKS.is_dir():
        pytest.skip(f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)")
    rows = {title: Row() for title in ("tree", "RIPPER", "FP-growth", "ours", PROVED)}
    samples = right = 0
    for seed in NETWORKS[name]:
        setting = Setting(name, seed)
        samples += int((~setting.known).sum())
        right += int((setting.values == setting.labels)[~setting.known].sum())
        fill(rows, setting, tmp_path / str(seed))
    print(
        f"\n{name}: {len(NETWORKS[name])} networks, {setting.bits.shape[1]} bits and {int(setting.known.sum())} samples in",
        end="",
    )
    print(f" the last; {samples} test samples, of which the networks have {right} right ({right / samples:.4f})")
    for title, row in rows.items():
        print(row.line(title, samples))
    ours = rows["ours"]
    left = ours.rules - ours.proved - ours.refuted
    print(
        f"of ours: {ours.smallest} bodies smallest; {ours.proved} proved over the domain, {ours.refuted} refuted, {left} open"
    )
    others = {title: row for title, row in rows.items() if title not in ("ours", PROVED) and not row.stopped}
    best = max(others.values(), key=lambda row: row.right)
    print("right beside ours: " + ", ".join(f"{title} {row.right - ours.right:+d}" for title, row in others.items()))
    assert ours.right >= best.right
    assert ours.literals < best.literals
