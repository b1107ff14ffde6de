"""Clauses for the advisories of ACAS Xu 1_1, beside neural activation patterns on the same samples, and where they are proved.

The advisory is the output with the lowest score. 2,048 uniform samples of the input domain are mined and 512 held out, as in
the published demonstration of such patterns (literals at a rate of 0.95). Our bodies are found and chosen with further inputs
at which the network was asked for its advisory, as a falsifier would: for each advisory those that have it and those that come
nearest to it, for the rare ones are some in a hundred. A set of them is chosen by its precision on inputs that none was made
with, of which the lower end of the 95 % interval counts. What is held out is used for nothing else.
The clause of each advisory that says most is then proved on parts of the domain; 'of covered' is the share of the fresh inputs
under its body that lie in such parts, where more is proved than that the body cannot hold.
SPECMINE_BENCH_SEED draws other samples, SPECMINE_BENCH_SECONDS sets the time for the proofs of one clause. Run by `make bench`.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from specmine.pipeline.volume import proved_volume, share_of
from specmine.predicates.families import candidates
from specmine.predicates.form import Grid
from specmine.predicates.predicate import Predicate
from specmine.predicates.table import build_table, unpack
from specmine.rules.carving import carved_bodies
from specmine.rules.clause import HornClause
from specmine.rules.threshold import compose
from specmine.stats.counts import wilson
from specmine.tracing import Sites, trace
from specmine.tracing.trace import select_samples
from verifier.formats import read_network
from verifier.network import Network, Node
from verifier.ops import Linear, frozen_array
from verifier.region import Box

ROOT = Path(__file__).parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
MODEL = BENCHMARKS / "acasxu/onnx/ACASXU_run2a_1_1_batch_2000.onnx"
SECONDS = float(os.environ.get("SPECMINE_BENCH_SECONDS", "60"))
SEED = int(os.environ.get("SPECMINE_BENCH_SEED", "0"))
DOMAIN = Box(np.array([-0.303531156, -0.5, -0.5, -0.5, -0.5]), np.array([0.679857769, 0.5, 0.5, 0.5, 0.5]))
ADVISORIES = ("clear of conflict", "weak left", "weak right", "strong left", "strong right")
MINED, HELD_OUT, ASKED, JUDGED, FRESH = 2048, 512, 300_000, 200_000, 50_000
NEAR, PLAIN, POSITIVES = 12_000, 5_000, 10_000
"""Of the inputs asked, how many without the advisory come nearest to it, how many are taken as they come, and how many that
have it are looked at, at most."""
DELTA, MAX_BODY, BODIES, PRECISION = 0.05, 12, 24, 0.97
pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)"),
]


def advisory_network():
    """The network with its scores negated, so that the class with the largest output is the advisory with the lowest score."""
    network = read_network(MODEL)
    negated = Linear(frozen_array(-np.eye(5)), frozen_array(np.zeros(5)))
    return Network(network.input, network.input_shape, (*network.nodes, Node("advice", negated, (network.output,))), "advice")


class Samples:
    def __init__(self):
        self.sites = Sites(advisory_network())
        inputs = np.random.default_rng(SEED).uniform(DOMAIN.lower, DOMAIN.upper, (MINED + HELD_OUT + ASKED + JUDGED + FRESH, 5))
        ends = np.cumsum([MINED, HELD_OUT, ASKED, JUDGED])
        self.inputs = np.split(inputs, ends)
        self.mined, self.held_out, self.fresh = (trace(self.sites, self.inputs[part]) for part in (0, 1, 4))
        last = (self.sites.hidden[-1], "y")
        self.asked, self.judged = (trace(self.sites, self.inputs[part], keep=last) for part in (2, 3))


def holds(bodies, there):
    """Where one of the bodies holds."""
    return np.any([unpack(build_table(body, there).bits, there.samples).all(axis=0) for body in bodies], axis=0)


def score(bodies, there, label):
    """Precision and recall of bodies for a label; precision 1 where none holds."""
    under, wanted = holds(bodies, there), there.predictions == label
    hits = (under & wanted).sum()
    return hits / max(1, under.sum()) if under.any() else 1.0, hits / wanted.sum()


def pattern(samples, label):
    """The neural activation pattern: phases that hold on a share of at least 1 - DELTA of the label's samples."""
    phases = [
        p for p in candidates(["unary"], samples.mined, grid=Grid(samples.sites.hidden)) if p.form in ("active", "inactive")
    ]
    positives = samples.mined.predictions == label
    return list(compose(build_table(phases, samples.mined), positives, head=Predicate("class", (label,)), delta=DELTA).body)


def clauses(samples):
    """Our bodies by label, over the last hidden layer."""
    site = samples.sites.hidden[-1]
    for label in range(5):
        near = nearest(samples.asked, label)
        made = carved_bodies(near.values[site], near.values["y"], label, most=BODIES, max_body=MAX_BODY)
        yield chosen([body.literals(site) for body in made], samples.judged, label)


def nearest(there, label):
    """Samples with the label, those that come nearest to it, and some as they come."""
    scores = there.values["y"]
    gap = scores.max(axis=1) - scores[:, label]
    gap[there.predictions == label] = np.inf
    rows = [np.flatnonzero(there.predictions == label)[:POSITIVES], np.argsort(gap, kind="stable")[:NEAR], np.arange(PLAIN)]
    return select_samples(there, np.unique(np.concatenate(rows)))


def chosen(bodies, judged, label):
    """Bodies that add most recall on inputs that none was made with, as long as together they stay precise."""
    held, wanted = [holds([body], judged) for body in bodies], judged.predictions == label
    under, made = np.zeros(len(wanted), dtype=bool), []

    def gained(place):
        both = under | held[place]
        hits = int((both & wanted).sum())
        return hits - int((under & wanted).sum()) if wilson(hits, int(both.sum()))[0] >= PRECISION else 0

    while gained(place := max(range(len(bodies)), key=gained)) > 0:
        made.append(bodies[place])
        under |= held[place]
    return made or [max(bodies, key=lambda body: score([body], judged, label)[0])]


def test_clauses_beside_patterns_and_where_they_are_proved():
    samples = Samples()
    print(f"\n{'advisory':18}{'':9}{'literals':>22}{'precision':>11}{'recall':>8}{'of fresh':>10}{'':>8}")
    made, missed = list(clauses(samples)), []
    for label, bodies in enumerate(made):
        base = [pattern(samples, label)]
        (p0, r0), (p1, r1) = score(base, samples.held_out, label), score(bodies, samples.held_out, label)
        (fp0, fr0), (fp1, fr1) = score(base, samples.fresh, label), score(bodies, samples.fresh, label)
        print(f"{ADVISORIES[label]:18}{'pattern':9}{len(base[0]):22}{p0:11.3f}{r0:8.3f}{fp0:10.3f}{fr0:8.3f}")
        print(f"{'':18}{'clauses':9}{', '.join(str(len(b)) for b in bodies):>22}{p1:11.3f}{r1:8.3f}{fp1:10.3f}{fr1:8.3f}")
        assert all(len(body) <= MAX_BODY for body in bodies)
        if p1 < 0.9 or r1 < r0:
            missed.append(f"{ADVISORIES[label]} on the samples held out")
        if fp1 < 0.9 or fr1 < fr0:
            missed.append(f"{ADVISORIES[label]} on fresh samples, many times as many")
    titles = "".join(f"{title:>9}" for title in ("literals", "proved", "refuted", "open", "largest"))
    print(f"{'advisory':18}{titles}{'boxes':>7}{'asked':>7}{'of covered':>12}")
    for label, bodies in enumerate(made):
        clause = HornClause(Predicate("class", (label,)), tuple(bodies[0]))
        found = proved_volume(clause, DOMAIN, samples.sites, timeout_s=SECONDS, question_s=0.3, engine="boxes")
        proved, refuted, left = map(share_of, (found.proved, found.refuted, found.open))
        largest = found.proved[0].share if found.proved else 0.0
        inside = found.covers(samples.inputs[4])
        under = holds([clause.body], samples.fresh)
        print(
            f"{ADVISORIES[label]:18}{len(clause.body):9}{proved:9.3f}{refuted:9.3f}{left:9.3f}{largest:9.4f}"
            f"{len(found.proved):7}{found.asked:7}{(under & inside).sum() / max(1, under.sum()):12.3f}"
        )
        assert proved + refuted + left == pytest.approx(1)
        wrong = under & inside & (samples.fresh.predictions != label)
        assert not wrong.any(), "a proved part holds an input where the clause fails"
        assert proved > 0
    assert not missed, "precision below 0.9 or recall below that of the pattern: " + "; ".join(missed)
