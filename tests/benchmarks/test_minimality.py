"""How short bodies are: proved smallest, beside greedy dropping, paths of a decision tree and the threshold composition.

Networks of a few dozen neurons; every way gets the same literals, has to keep the same share of a class and may cover no
sample of another. Where a smallest body is short enough, every shorter one is tried. Run by `make bench`.
"""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from specmine.data import MINE, load_dataset
from specmine.predicates.families import candidates
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, conjunction, unpack
from specmine.rules.smallest import smallest_body
from specmine.rules.threshold import compose
from specmine.tracing import Sites, trace
from specmine.training import train
from verifier.formats.torch_export import read_module

pytestmark = pytest.mark.bench

NETWORKS = (("iris", (16, 16)), ("wine", (16, 16)), ("breast_cancer", (16, 16)), ("digits", (32, 16)), ("digits", (24, 24)))
RECALL = 0.95
TIMEOUT_S = 30.0
DELTAS = np.linspace(0, 0.05, 26)


class Setting:
    """Literals of a small network's hidden layers on the mining samples, and the network's class of each."""

    def __init__(self, name, hidden, seed=0):
        dataset = load_dataset(name)
        torch_model = train(dataset, hidden=hidden, seed=seed, epochs=60)
        samples = np.asarray(dataset.x[dataset.split == MINE], dtype=np.float64)
        self.sites = Sites(read_module(torch_model, torch.from_numpy(samples[:1]).float()))
        there = trace(self.sites, samples)
        self.classes, self.labels = dataset.classes, there.predictions
        grid = Grid(self.sites.hidden, thresholds=4)
        self.table = build_table(candidates(["unary"], there, grid=grid, heads=self.labels), there)
        self.bits = unpack(self.table.bits, self.table.samples)


def kept_and_wrong(bits, rows, positives):
    held = bits[list(rows)].all(axis=0)
    return (held & positives).sum() / positives.sum(), int((held & ~positives).sum())


def composed(setting, positives, label):
    """Rows of the largest pattern of frequent literals that keeps the recall, and how many wrong samples it covers."""
    row = {predicate: place for place, predicate in enumerate(setting.table.predicates)}
    best = None
    for delta in DELTAS:
        clause = compose(setting.table, positives, head=Predicate("class", (label,)), delta=float(delta))
        rows = [] if clause is None else [row[literal] for literal in clause.body]
        kept, wrong = kept_and_wrong(setting.bits, rows, positives)
        if kept >= RECALL:
            best = rows, wrong
    return best


def dropped(setting, positives, rows):
    """Rows of the same pattern after dropping, one by one, whatever no wrong sample needs."""
    allowed = kept_and_wrong(setting.bits, rows, positives)[1]
    left = list(rows)
    for row in rows:
        without = [other for other in left if other != row]
        if kept_and_wrong(setting.bits, without, positives)[1] <= allowed:
            left = without
    return left


def paths(setting, positives):
    """Literals of the fewest pure leaves of a decision tree that together keep the recall."""
    tree = DecisionTreeClassifier(random_state=0).fit(setting.bits.T, positives)
    leaves, where = tree.apply(setting.bits.T), tree.decision_path(setting.bits.T)
    sizes = {leaf: where[np.flatnonzero(leaves == leaf)[0]].nnz - 1 for leaf in set(leaves.tolist())}
    covered = {leaf: int((positives & (leaves == leaf)).sum()) for leaf in sizes}
    total, used = 0, []
    for leaf in sorted(covered, key=lambda leaf: -covered[leaf]):
        if total >= RECALL * positives.sum():
            break
        used.append(sizes[leaf])
        total += covered[leaf]
    return used


def no_body_of(size, bits, positives):
    """Whether no body of so many literals, at most three, keeps the recall and covers no wrong sample: all are tried."""
    needed = RECALL * positives.sum() - 1e-9
    keep, wrong = bits[:, positives].astype(np.float32), bits[:, ~positives].astype(np.float32)
    if size == 0:
        return wrong.shape[1] > 0
    if size == 1:
        return not ((keep.sum(axis=1) >= needed) & (wrong.sum(axis=1) == 0)).any()
    firsts = [None] if size == 2 else np.flatnonzero(keep.sum(axis=1) >= needed)
    for first in firsts:
        k, w = (keep, wrong) if first is None else (keep * keep[first], wrong * wrong[first])
        if ((k @ k.T >= needed) & (w @ w.T == 0)).any():
            return False
    return True


def test_bodies_are_smallest_and_shorter_than_what_others_find():
    print(
        f"\n{'network':24}{'class':14}{'literals':>9}{'smallest':>9}{'bound':>6}{'dropping':>9}{'tree':>12}{'threshold':>16}{'s':>7}"
    )
    proved, shorter = 0, []
    for name, hidden in NETWORKS:
        setting = Setting(name, hidden)
        for label, title in enumerate(setting.classes):
            positives = setting.labels == label
            if not positives.any():
                continue
            ours = smallest_body(setting.table, positives, ~positives, recall=RECALL, timeout_s=TIMEOUT_S)
            pattern, tree = composed(setting, positives, label), paths(setting, positives)
            start = None if pattern is None else pattern[0]
            short = None if start is None else dropped(setting, positives, start)
            words = [f"{name} {'-'.join(map(str, hidden))}", title, len(setting.bits), ours.size if ours.found else "none"]
            said = "none" if pattern is None else f"{len(pattern[0])} ({pattern[1]} wrong)"
            print(
                f"{words[0]:24}{words[1][:13]:14}{words[2]:9}{words[3]:>9}{ours.lower_bound:6}"
                f"{'none' if short is None else len(short):>9}{f'{sum(tree)} in {len(tree)}':>12}{said:>16}{ours.seconds:7.2f}"
            )
            if not ours.found:
                assert pattern is None or pattern[1] > 0, "greedy finds what is said not to be there"
                continue
            held = conjunction(setting.table, list(ours.body))
            kept, wrong = kept_and_wrong(setting.bits, ours.body, positives)
            assert (
                kept >= RECALL and wrong == 0 and unpack(held[None], setting.table.samples)[0].sum() >= RECALL * positives.sum()
            )
            if ours.optimal:
                proved += 1
                if 1 <= ours.size <= 3 or (ours.size == 4 and len(setting.bits) < 500):
                    assert no_body_of(ours.size - 1, setting.bits, positives), (name, title, ours)
                if short is not None and pattern[1] == 0:
                    assert ours.size <= len(short) <= len(pattern[0])
                assert ours.size <= sum(tree)
            shorter.append((ours.size, None if short is None or pattern[1] else len(short), sum(tree)))
    greedy = [(a, b) for a, b, _ in shorter if b is not None]
    print(
        f"{proved} bodies of {len(shorter)} proved smallest; literals {sum(a for a, _, _ in shorter)}, paths of trees "
        f"{sum(c for _, _, c in shorter)}; where greedy dropping ends without wrong samples, {sum(a for a, _ in greedy)} "
        f"against its {sum(b for _, b in greedy)}"
    )
    assert proved >= 20
