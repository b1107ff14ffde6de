"""Verified recall on MNIST for the mnist_fc networks, and its frontier: body length, region, radius. Run by `make bench`.

Clauses are mined on training images and reported once on the 10,000 test images. SPECMINE_RUNS names a folder in which runs are
kept, so that a second start goes on from there, SPECMINE_NETWORKS the networks (256x2,256x4,256x6), SPECMINE_FRONTIER how many
test images balls are drawn around, SPECMINE_NOISY how many noisy inputs the judge draws.
"""

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.sparse import csr_array

from specmine.config import make_config
from specmine.data import MINE, TEST
from specmine.folder import locked
from specmine.pipeline import open_run
from specmine.pipeline.inputs import load_inputs
from specmine.pipeline.run import Run, start_run
from specmine.pipeline.stages import class_of, finish_run
from specmine.predicates.families import denote
from specmine.predicates.predicate import Predicate
from specmine.queries import clause_query
from specmine.regions import ball_around, box_of
from specmine.rules.clause import HornClause
from specmine.rules.peel import Readout, readout_of
from specmine.spec import Spec
from specmine.stats import body_bits
from specmine.tracing import Stream, column, traced
from specmine.verification.radius import bisect
from specmine.verification.shortening import short_clause
from verifier.formula import atoms_of
from verifier.ops import Array
from verifier.region import Region
from verifier.solve import verify, verify_many
from verifier.verdict import Proved

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
CENTERS = int(os.environ.get("SPECMINE_FRONTIER", "50"))
# site, floor, ways of synthesis: boxes are the cheapest; where the last layer separates classes less, polytopes are needed, too
NETWORKS = {
    "256x2": ("h2", 0.75, ("polytope", "peel")),
    "256x4": ("h4", 0.95, ("peel",)),
    "256x6": ("h6", 0.95, ("peel",)),
}
WANTED = os.environ.get("SPECMINE_NETWORKS", ",".join(NETWORKS)).split(",")
LENGTHS = (12, 40, 100, None)
RADII = (0.02, 0.05, 0.1)
FARTHEST = 0.5
TIMEOUT_S = 5
BOX_SIZES, BOX_S = (4, 64, 1024), 2.0
NOISY = int(os.environ.get("SPECMINE_NOISY", "1000000"))

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)"),
]


def model_of(name: str) -> Path:
    (path,) = (BENCHMARKS / "mnist_fc" / "onnx").glob(f"mnist-net_{name}.onnx")
    return path


def mined(name: str, folder: Path) -> Run:
    """The run of a network up to its verdicts, without the report."""
    site, _, synthesis = NETWORKS[name]
    config = make_config(
        synthesis=synthesis,
        sites=(site,),
        thresholds=1,
        refine=False,
        max_clauses=5,
        timeout_s=10,
        budget_s=600,
    )
    inputs = load_inputs(model_of(name), "mnist", config=config, data_dir=BENCHMARKS / "mnist")
    with locked(folder / name):
        finish_run(start_run(folder / name, inputs, config))
    return open_run(folder / name)


@pytest.fixture(scope="module", params=WANTED)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    kept = os.environ.get("SPECMINE_RUNS")
    return mined(request.param, Path(kept) if kept else tmp_path_factory.mktemp("runs"))


@cache
def spec_of(run: Run) -> Spec:
    """What the run gives, read once."""
    return run.spec


def name_of(run: Run) -> str:
    return run.folder.name


def test_verified_recall(run: Run) -> None:
    spec = spec_of(run)
    lengths = [len(clause.body) for clause in spec.verified]
    seconds = [claim.outcome.seconds for claim in spec.claims]
    print(
        f"\n{name_of(run)}: verified recall {spec.verified_recall:.4f} of {spec.coverage.test_inputs} test images (network "
        f"right on {spec.coverage.correct}), {len(lengths)} of {len(spec.clauses)} clauses proved over the domain, literals "
        f"median {np.median(lengths):.0f} max {max(lengths)}, seconds: synthesis {spec.seconds['synthesis']:.0f}, proofs "
        f"{spec.seconds['verify']:.0f} (a clause: median {np.median(seconds):.2f}, max {max(seconds):.2f}), "
        f"all {sum(spec.seconds.values()):.0f}"
    )
    assert spec.verified_recall >= NETWORKS[name_of(run)][1]


def forward(model: Path, x: Array) -> list[Array]:
    """Every value of a network of Gemm and Relu in float64, from the file alone: the judge shares no code with the package."""
    graph = onnx.load(model).graph
    constants = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in graph.initializer}
    values = [x]
    for node in graph.node:
        match node.op_type:
            case "Gemm":
                flags = {a.name: a.i for a in node.attribute}
                weight, bias = (constants[name] for name in node.input[1:])
                values.append(values[-1] @ (weight.T if flags.get("transB") else weight) + bias)
            case "MatMul":
                values.append(values[-1] @ constants[node.input[1]])
            case "Add":
                values.append(values[-1] + next(constants[name] for name in node.input if name in constants))
            case "Relu":
                values.append(np.maximum(values[-1], 0))
            case "Flatten" | "Reshape" | "Constant":
                pass
            case other:
                raise AssertionError(f"no judge for {other}")
    return values


def test_no_input_under_a_proved_body_has_another_class(run: Run) -> None:
    model, draw = model_of(name_of(run)), np.random.default_rng(1)
    images = np.asarray(run.dataset.x, dtype=np.float64).reshape(len(run.dataset.x), -1)
    bodies = [linear(clause, run) for clause in spec_of(run).verified]
    heads = [class_of(clause) for clause in spec_of(run).verified]
    under = wrong = 0
    for first in range(0, len(images) + NOISY, 10_000):
        x = images[first : first + 10_000] if first < len(images) else noisy(images, draw)
        *_, layer, outputs = forward(model, x)
        columns = np.ascontiguousarray(layer.T)
        for (forms, thresholds), head in zip(bodies, heads, strict=True):
            rows = holding(forms, thresholds, columns)
            others = np.delete(outputs[rows], head, axis=1).max(axis=1, initial=-np.inf)
            under, wrong = under + len(rows), wrong + int((outputs[rows, head] <= others).sum())
    print(f"\n{name_of(run)}: {len(images)} images and {NOISY} noisy inputs, {under} under proofs, {wrong} of another class")
    assert under > len(images) / 2 and not wrong


def noisy(images: Array, draw: np.random.Generator) -> Array:
    """Images with noise of every strength, mixtures of two, and uniform noise, clipped to the domain."""
    x = images[draw.integers(0, len(images), 10_000)]
    strength = draw.choice([0.0, 0.05, 0.2, 0.5, 1.0], (len(x), 1))
    mixed = draw.random((len(x), 1)) * draw.integers(0, 2, (len(x), 1))
    x = (1 - mixed) * x + mixed * images[draw.integers(0, len(images), len(x))]
    return np.clip(x + strength * draw.uniform(-1, 1, x.shape), 0, 1)


def holding(forms: csr_array, thresholds: Array, columns: Array) -> NDArray[np.int64]:
    """The inputs where every form of columns (neurons, inputs) is at least its threshold, few forms at a time."""
    rows = np.arange(columns.shape[1])
    for first in range(0, len(thresholds), 16):
        some = slice(first, first + 16)
        keep = (forms[some] @ columns >= thresholds[some, None]).all(axis=0)
        rows, columns = rows[keep], columns[:, keep]
    return rows


def linear(clause: HornClause, run: Run) -> tuple[csr_array, Array]:
    """The body as forms @ values of the last hidden layer >= thresholds."""
    atoms = [a for literal in clause.body for a in atoms_of(denote(literal, run.sites))]
    forms = np.zeros((len(atoms), run.sites.size(run.sites.hidden[-1])))
    for row, a in zip(forms, atoms, strict=True):
        for term in a.terms:
            assert term.value == run.sites.value(run.sites.hidden[-1])
            row[term.index] = -float(term.coefficient)
    return csr_array(forms), np.array([float(a.bias) for a in atoms])


def proved(clause: HornClause, region: Region, run: Run) -> bool:
    return isinstance(verify(clause_query(clause, region, run.sites), timeout_s=TIMEOUT_S, engine="bound").verdict, Proved)


def shortest(clause: HornClause, region: Region, run: Run, readout: Readout) -> HornClause:
    """The clause with few literals, proved over the region; itself, which is proved over the domain, where none is."""
    short = short_clause(clause, region, run.sites, readout)
    return short if short is not None and proved(short, region, run) else clause


def within(clause: HornClause | None, length: int | None) -> bool:
    return clause is not None and (length is None or len(clause.body) <= length)


def leading(run: Run, least: int = 50) -> list[HornClause]:
    """The verified clauses that each cover so many test images that the ones before do not, best first."""
    left = {clause: set(spec_of(run).coverage.covered[clause.id]) for clause in spec_of(run).verified}
    found: list[HornClause] = []
    while left:
        best = max(left, key=lambda clause: len(left[clause]))
        new = left.pop(best)
        if len(new) < least:
            break
        found.append(best)
        left = {clause: images - new for clause, images in left.items()}
    return found


def test_body_length_over_boxes(run: Run) -> None:
    """The share of all test images under a clause so short that is proved over the domain, or over the box of the data."""
    readout = readout_of(run.sites)
    print(f"\n{name_of(run)}: verified recall by region and largest body: " + ", ".join(str(n or "any") for n in LENGTHS))
    shares = []
    for name in ("domain", "data"):
        bodies = [shortest(clause, box_of(run.dataset, name).region, run, readout) for clause in leading(run)]
        shares.append(recalls(bodies, run))
        lengths = [len(body.body) for body in bodies]
        print(f"  {name:10}", *texts(shares[-1]), f" {len(bodies)} clauses, literals {spread(lengths)}", flush=True)
    assert 0.9 * spec_of(run).verified_recall <= shares[0][-1] <= spec_of(run).verified_recall


def test_body_length_around_images(run: Run) -> None:
    """Of the test images drawn, the share around which some clause so short for the image's class is proved and fires."""
    readout, drawn = readout_of(run.sites), centers(run, CENTERS)
    print(f"\n{name_of(run)}: images by radius of the ball and largest body: " + ", ".join(str(n or "any") for n in LENGTHS))
    shares = []
    for radius in RADII:
        around = [shortest_at(run, row, radius, readout) for row in drawn]
        shares.append([float(np.mean([within(body, length) for body in around])) for length in LENGTHS])
        lengths = [len(body.body) for body in around if body is not None]
        print(f"  ball:{radius:<5}", *texts(shares[-1]), f" of {len(drawn)} images, literals {spread(lengths)}", flush=True)
    assert shares[0][-1] > 0


def recalls(bodies: list[HornClause], run: Run) -> list[float]:
    """For each largest length the share of all test images of a body's class under such a body."""
    test = run.dataset.split == TEST
    right = (run.predictions == run.dataset.y) & test
    fires = [
        bits & right & (run.dataset.y == class_of(body))
        for body, bits in zip(bodies, body_bits(bodies, run.source), strict=True)
    ]
    of_length = [[bits for body, bits in zip(bodies, fires, strict=True) if within(body, length)] for length in LENGTHS]
    return [float(np.any(rows, axis=0).sum() / test.sum()) if rows else 0.0 for rows in of_length]


def texts(shares: list[float]) -> list[str]:
    return [f"{share:.3f}" for share in shares]


def spread(lengths: list[int]) -> str:
    return f"min {min(lengths)} median {np.median(lengths):.0f} max {max(lengths)}" if lengths else "none"


def centers(run: Run, count: int) -> NDArray[np.int64]:
    test = np.flatnonzero(run.dataset.split == TEST)
    return np.sort(np.random.default_rng(0).permutation(test)[:count])


def ball(run: Run, row: int, radius: float) -> Region:
    return ball_around(run.dataset, int(row), radius).region


def firing(run: Run, row: int) -> list[HornClause]:
    """The verified clauses for the image's class that fire at it, where it is classified correctly."""
    place = int(row - np.flatnonzero(run.dataset.split == TEST)[0])
    return [clause for clause in spec_of(run).verified if place in spec_of(run).coverage.covered[clause.id]]


def shortest_at(run: Run, row: int, radius: float, readout: Readout) -> HornClause | None:
    """The shortest body of the first two clauses that fire at an image, proved over the ball around it."""
    found = [shortest(clause, ball(run, row, radius), run, readout) for clause in firing(run, row)[:2]]
    return min(found, key=lambda clause: len(clause.body), default=None)


def test_radius_with_and_without_a_body(run: Run) -> None:
    """How many times larger the ball is over which the class is proved when a body of so many literals is a premise.

    A clause that is proved over the domain is proved over every ball, so of bodies of any length only short ones are asked.
    """
    readout = readout_of(run.sites)
    ratios: dict[int | None, list[float]] = {length: [] for length in LENGTHS}
    bare: list[float] = []
    for row in [row for row in centers(run, 2 * CENTERS) if firing(run, row)][: max(1, CENTERS // 4)]:
        found = radii(run, int(row), readout)
        bare.append(found[0])
        for length in LENGTHS:
            ratios[length].append(found.get(length, FARTHEST) / max(found[0], 1e-9))
    print(f"\n{name_of(run)}: radius with a body / without, by largest body ({FARTHEST} is as far as asked), without: ")
    print(f"  0    median radius {np.median(bare):.4f}, {len(bare)} images")
    for length, found in ratios.items():
        low, high = np.quantile(found, [0.25, 0.75])
        print(f"  {length or 'any'!s:4} median {np.median(found):.2f} times, quartiles {low:.2f} {high:.2f}")
    assert min(bare) > 0


def radii(run: Run, row: int, readout: Readout) -> dict[int, float]:
    """The largest radius by largest body; the key 0 is no body."""
    clause, lengths = firing(run, row)[0], [length for length in LENGTHS if length is not None]
    known: dict[float, HornClause | None] = {}

    def body(radius: float) -> HornClause | None:
        if radius not in known:
            short = short_clause(clause, ball(run, row, radius), run.sites, readout)
            wanted = short is not None and within(short, max(lengths)) and proved(short, ball(run, row, radius), run)
            known[radius] = short if wanted else None
        return known[radius]

    bare = HornClause(clause.head, ())
    found = {0: bisect(lambda r: proved(bare, ball(run, row, r), run) or None, most=FARTHEST, precision=0.1).proved}
    for length in lengths:
        found[length] = bisect(lambda r, most=length: within(body(r), most) or None, most=FARTHEST, precision=0.1).proved
        found[length] = max(found[length], found[0])  # a body takes nothing away
    return found


def test_layer_frontier(run: Run) -> None:
    """Verified recall where bodies may only use layers up to each one: boxes around the samples nearest to a class's middle.

    Each class gets the largest of a few nested boxes that is proved over the whole domain; what is proved of a layer may be
    used with those after it, too, so shares only grow. The last line is the run itself.
    """
    test = run.dataset.split == TEST
    covered = np.zeros(len(run.dataset.y), dtype=bool)
    domain = box_of(run.dataset, "domain").region
    print(f"\n{name_of(run)}: verified recall over the domain when bodies may use layers up to each:")
    for site in run.sites.hidden:
        values = column(traced(Stream(run.sites, run.dataset.x), [site]), site)
        boxes = nested(values, run)
        queries = [clause_query(box_clause(site, box), domain, run.sites) for box in boxes]
        decisions = verify_many(queries, timeout_s=BOX_S, engine="bound")
        held = [box for box, decision in zip(boxes, decisions, strict=True) if isinstance(decision.verdict, Proved)]
        for box in held:
            inside = ((box.low <= values) & (values <= box.high)).all(axis=1)
            assert (run.predictions[inside] == box.label).all(), (site, box.label)
            covered |= inside & (run.predictions == run.dataset.y) & (run.dataset.y == box.label)
        most = max((box.samples for box in held), default=0)
        print(
            f"  {site} {covered[test].mean():.4f} ({len(held)} of {len(boxes)} boxes proved, around at most {most} images)",
            flush=True,
        )
    print(f"  {run.sites.hidden[-1]} {spec_of(run).verified_recall:.4f} (the run's own clauses)")


@dataclass(frozen=True, eq=False)
class ClassBox:
    """low, high: (neurons,) of the values of so many mining samples of a class."""

    label: int
    samples: int
    low: Array
    high: Array


def nested(values: Array, run: Run) -> list[ClassBox]:
    """For each class boxes of ever more mining samples, nearest first to its middle in units of each neuron's deviation."""
    boxes = []
    for label in range(len(run.dataset.classes)):
        rows = (run.dataset.split == MINE) & (run.dataset.y == label) & (run.predictions == label)
        own = values[rows]
        distance = (np.abs(own - np.median(own, axis=0)) / (own.std(axis=0) + own.std())).max(axis=1)
        own = own[np.argsort(distance, kind="stable")]
        sizes = [size for size in BOX_SIZES if size < len(own)] + [len(own)]
        boxes += [ClassBox(label, size, own[:size].min(axis=0), own[:size].max(axis=0)) for size in sizes]
    return boxes


def box_clause(site: str, box: ClassBox) -> HornClause:
    """The box as literals of the neurons of a ReLU."""
    body = []
    for neuron, (low, high) in enumerate(zip(box.low.tolist(), box.high.tolist(), strict=True)):
        if high == 0:
            body.append(Predicate("inactive", (site, neuron)))
        else:
            body.append(Predicate("within", (site, neuron, low, high)) if low > 0 else Predicate("below", (site, neuron, high)))
    return HornClause(Predicate("class", (box.label,)), tuple(body))
