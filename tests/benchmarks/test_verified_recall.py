"""Verified recall on MNIST for the mnist_fc networks, and its frontier: body length, region, radius. Run by `make bench`.

Clauses are mined on training images and reported once on the 10,000 test images. SPECMINE_RUNS names a folder in which runs are
kept, so that a second start goes on from there, SPECMINE_FRONTIER how many test images balls are drawn around.
"""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy.sparse import csr_array

from specmine.data import TEST
from specmine.pipeline import mine, open_run
from specmine.pipeline.run import Run
from specmine.pipeline.stages import class_of
from specmine.predicates.families import denote
from specmine.queries import clause_query
from specmine.regions import ball_around, box_of
from specmine.rules.clause import HornClause
from specmine.rules.peel import Readout, readout_of
from specmine.stats import body_bits
from specmine.verification.radius import bisect
from specmine.verification.shortening import short_clause
from verifier.formula import atoms_of
from verifier.ops import Array
from verifier.region import Region
from verifier.solve import verify
from verifier.verdict import Proved

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = Path(os.environ.get("SPECMINE_BENCHMARKS", ROOT.parent / "shared" / "benchmarks"))
CENTERS = int(os.environ.get("SPECMINE_FRONTIER", "50"))
NETWORKS = {"256x2": ("h2", 0.75), "256x4": ("h4", 0.95), "256x6": ("h6", 0.95)}
LENGTHS = (12, 40, 100, None)
RADII = (0.02, 0.05, 0.1)
FARTHEST = 0.5
NOISY = int(os.environ.get("SPECMINE_NOISY", "1000000"))

pytestmark = [
    pytest.mark.bench,
    pytest.mark.skipif(not BENCHMARKS.is_dir(), reason=f"no benchmark folder at {BENCHMARKS} (SPECMINE_BENCHMARKS names it)"),
]


def model_of(name: str) -> Path:
    (path,) = (BENCHMARKS / "mnist_fc" / "onnx").glob(f"mnist-net_{name}.onnx")
    return path


def mined(name: str, folder: Path) -> Run:
    site, _ = NETWORKS[name]
    mine(
        model_of(name),
        "mnist",
        data_dir=BENCHMARKS / "mnist",
        out=folder / name,
        synthesis=("polytope",),
        sites=(site,),
        thresholds=1,
        refine=False,
        max_clauses=6,
        timeout_s=30,
        budget_s=600,
        exports=("json",),
    )
    return open_run(folder / name)


@pytest.fixture(scope="module", params=NETWORKS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    kept = os.environ.get("SPECMINE_RUNS")
    return mined(request.param, Path(kept) if kept else tmp_path_factory.mktemp("runs"))


def name_of(run: Run) -> str:
    return run.folder.name


def test_verified_recall(run: Run) -> None:
    spec = run.spec
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
    bodies = [linear(clause, run) for clause in run.spec.verified]
    heads = [class_of(clause) for clause in run.spec.verified]
    under = wrong = 0
    for first in range(0, len(images) + NOISY, 10_000):
        x = images[first : first + 10_000] if first < len(images) else noisy(images, draw)
        *_, layer, outputs = forward(model, x)
        for (forms, thresholds), head in zip(bodies, heads, strict=True):
            rows = (thresholds + 1e-9 <= (forms @ layer.T).T).all(axis=1)
            others = np.delete(outputs[rows], head, axis=1).max(axis=1, initial=-np.inf)
            under, wrong = under + int(rows.sum()), wrong + int((outputs[rows, head] <= others).sum())
    print(f"\n{name_of(run)}: {len(images)} images and {NOISY} noisy inputs, {under} under proofs, {wrong} of another class")
    assert under > len(images) / 2 and not wrong


def noisy(images: Array, draw: np.random.Generator) -> Array:
    """Images with noise of every strength, mixtures of two, and uniform noise, clipped to the domain."""
    x = images[draw.integers(0, len(images), 10_000)]
    strength = draw.choice([0.0, 0.05, 0.2, 0.5, 1.0], (len(x), 1))
    mixed = draw.random((len(x), 1)) * draw.integers(0, 2, (len(x), 1))
    x = (1 - mixed) * x + mixed * images[draw.integers(0, len(images), len(x))]
    return np.clip(x + strength * draw.uniform(-1, 1, x.shape), 0, 1)


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
    return isinstance(verify(clause_query(clause, region, run.sites), timeout_s=20, engine="bound").verdict, Proved)


def shortest(clause: HornClause, region: Region, run: Run, readout: Readout) -> HornClause | None:
    """The clause with few literals, proved over the region; None where neither a short nor the whole body is."""
    short = short_clause(clause, region, run.sites, readout)
    return next((c for c in (short, clause) if c is not None and proved(c, region, run)), None)


def within(clause: HornClause | None, length: int | None) -> bool:
    return clause is not None and (length is None or len(clause.body) <= length)


def test_body_length_against_region(run: Run) -> None:
    """Boxes: the share of all test images under a clause so short that is proved there. Balls: of the test images drawn, the
    share around which some clause so short for the image's class is proved and fires at the image."""
    readout, spec = readout_of(run.sites), run.spec
    test = np.flatnonzero(run.dataset.split == TEST)
    print(f"\n{name_of(run)}: verified recall by region and largest body: " + ", ".join(str(n or "any") for n in LENGTHS))
    for name in ("domain", "data"):
        region = box_of(run.dataset, name).region
        found = [(clause, shortest(clause, region, run, readout)) for clause in spec.verified]
        fires = body_bits([short for _, short in found if short is not None], run.source)
        shares = []
        for length in LENGTHS:
            covered = np.zeros(len(run.dataset.y), dtype=bool)
            for (clause, short), bits in zip([pair for pair in found if pair[1] is not None], fires, strict=True):
                right = (run.predictions == run.dataset.y) & (run.dataset.y == class_of(clause))
                covered |= bits & right if within(short, length) else False
            shares.append(f"{covered[test].mean():.3f}")
        lengths = [len(short.body) for _, short in found if short is not None]
        print(f"  {name:10}", *shares, f" literals median {np.median(lengths):.0f} min {min(lengths)}")
    drawn = centers(run, CENTERS)
    for radius in RADII:
        bodies = [shortest_at(run, row, radius, readout) for row in drawn]
        shares = [f"{np.mean([within(body, length) for body in bodies]):.3f}" for length in LENGTHS]
        print(f"  ball:{radius:<5}", *shares, f" of {len(drawn)} images")


def centers(run: Run, count: int) -> NDArray[np.int64]:
    test = np.flatnonzero(run.dataset.split == TEST)
    return np.sort(np.random.default_rng(0).permutation(test)[:count])


def ball(run: Run, row: int, radius: float) -> Region:
    return ball_around(run.dataset, int(row), radius).region


def firing(run: Run, row: int) -> list[HornClause]:
    """The verified clauses for the image's class that fire at it, where it is classified correctly."""
    place = int(row - np.flatnonzero(run.dataset.split == TEST)[0])
    return [clause for clause in run.spec.verified if place in run.spec.coverage.covered[clause.id]]


def shortest_at(run: Run, row: int, radius: float, readout: Readout) -> HornClause | None:
    region = ball(run, row, radius)
    found = [shortest(clause, region, run, readout) for clause in firing(run, row)[:2]]
    return min((body for body in found if body is not None), key=lambda clause: len(clause.body), default=None)


def test_radius_with_and_without_a_body(run: Run) -> None:
    """How many times larger the ball is over which the class is proved when a body of so many literals is a premise."""
    readout = readout_of(run.sites)
    ratios: dict[int | None, list[float]] = {length: [] for length in LENGTHS}
    for row in [row for row in centers(run, CENTERS) if firing(run, row)][: max(1, CENTERS // 4)]:
        clause = firing(run, row)[0]
        bare = bisect(lambda r, row=row, c=clause: bare_proved(c, row, r, run), most=FARTHEST, precision=0.05)
        for length in LENGTHS:
            with_body = bisect(
                lambda r, row=row, c=clause, most=length: short_proved(c, row, r, run, readout, most),
                most=FARTHEST,
                precision=0.05,
            )
            ratios[length].append(with_body.proved / max(bare.proved, 1e-9))
    print(f"\n{name_of(run)}: radius with a body / without, by largest body ({FARTHEST} is as far as asked):")
    for length, found in ratios.items():
        low, high = np.quantile(found, [0.25, 0.75])
        print(f"  {length or 'any'!s:4} median {np.median(found):.2f}, quartiles {low:.2f} {high:.2f}, {len(found)} images")
    assert all(found for found in ratios.values())


def bare_proved(clause: HornClause, row: int, radius: float, run: Run) -> bool | None:
    return proved(HornClause(clause.head, ()), ball(run, row, radius), run) or None


def short_proved(clause: HornClause, row: int, radius: float, run: Run, readout: Readout, most: int | None) -> bool | None:
    region = ball(run, row, radius)
    short = clause if most is None else short_clause(clause, region, run.sites, readout)
    return (short is not None and within(short, most) and proved(short, region, run)) or None
