"""The demo: what `specmine mine digits` must show on its own model."""

import json
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import cvc5
import numpy as np
import pytest
import torch
import z3
from scipy.optimize import linprog

from specmine.cli import main
from specmine.pipeline import open_run
from specmine.pipeline.entry import check_run
from specmine.queries import claim_body_query, claim_query
from verifier.check import confirms
from verifier.evaluate import forward
from verifier.ops import Linear, Relu, Scale

pytestmark = pytest.mark.slow
RANDOM, ATTACKED, BATCH = 1_000_000, 100_000, 50_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "run"
    assert main(["mine", "digits", "--out", str(path), "--quiet"]) == 0
    return path


@pytest.fixture(scope="module")
def run(folder):
    return open_run(folder)


@pytest.fixture(scope="module")
def proved(run):
    return [c for c in run.spec.claims if c.outcome.verdict == "proved" and c.region.name == "domain"]


def test_every_class_has_a_proved_clause_with_a_witness_among_the_samples(run, proved):
    witnessed = [claim for claim in proved if claim.outcome.witness is not None and claim.outcome.witness.sample is not None]
    assert {claim.clause.head.arguments[0] for claim in witnessed} == set(range(10))
    for claim in witnessed[:10]:
        assert confirms(claim_body_query(claim, run.sites), run.dataset.x[claim.outcome.witness.sample])


def test_verified_recall(run):
    assert run.spec.verified_recall >= 0.6


def test_the_verified_recall_is_what_a_recount_gives(run, proved):
    """Counted sample by sample from the traced values and the atoms of each body."""
    rows, trace = run.exhibit.test_rows, run.source
    site = run.exhibit.site_of
    covered = 0
    for row in rows:
        label = int(run.dataset.y[row])
        if int(np.argmax(trace.values["y"][row])) != label:
            continue
        covered += any(
            all(
                sum(float(t.coefficient) * trace.values[site(t.value)][row, t.index] for t in a.terms) + float(a.bias) <= 0
                for a in claim.body_parts
            )
            for claim in proved
            if claim.clause.head.arguments[0] == label
        )
    assert run.spec.verified_recall == pytest.approx(covered / len(rows))


def test_every_certificate_is_accepted(folder, run):
    assert check_run(folder)[0].verdicts == run.spec.verdicts


def left_sides(atoms, run, columns):
    """The left side (batch, atoms) of each atom, as one matrix product over the hidden values side by side."""
    places = {run.sites.value(site): offset for site, offset in zip(run.sites.hidden, offsets(run), strict=True)}
    weight = torch.zeros(columns.shape[1], len(atoms), dtype=torch.float64)
    for place, atom in enumerate(atoms):
        for term in atom.terms:
            weight[places[term.value] + term.index, place] = float(term.coefficient)
    return columns @ weight + torch.tensor([float(atom.bias) for atom in atoms], dtype=torch.float64)


def offsets(run):
    return np.cumsum([0, *(run.sites.size(site) for site in run.sites.hidden)])[:-1].tolist()


def hidden_and_outputs(run, x):
    values = forward(run.inputs.network, x)
    columns = torch.cat([values[run.sites.value(site)].flatten(1) for site in run.sites.hidden], dim=1)
    return columns, values[run.inputs.network.output].flatten(1)


def violations(claims, run, x):
    """The inputs (rows of x) at which some claim fails in float64, give or take rounding, with the claim."""
    with torch.no_grad():
        columns, outputs = hidden_and_outputs(run, x)
    best = outputs.topk(2, dim=1)
    for claim in claims:
        label = claim.clause.head.arguments[0]
        rows = torch.nonzero((best.indices[:, 0] != label) | (best.values[:, 0] == best.values[:, 1]))[:, 0]
        for first in range(0, len(claim.body_parts), 6):
            rows = rows[(left_sides(claim.body_parts[first : first + 6], run, columns[rows]) <= 1e-9).all(1)]
            if not len(rows):
                break
        yield from ((claim, x[row].numpy()) for row in rows.tolist())


def confirmed(claims, run, x):
    return [claim.title for claim, point in violations(claims, run, x) if confirms(claim_query(claim, run.sites), point)]


def test_no_random_input_contradicts_a_proved_clause(run, proved):
    generator = torch.Generator().manual_seed(0)
    for part in range(RANDOM // BATCH):
        x = 16 * torch.rand((BATCH, 64), generator=generator, dtype=torch.float64)
        if part % 2:
            x = torch.where(torch.rand(x.shape, generator=generator) < 0.5, x.round(), torch.zeros_like(x))
        assert confirmed(proved, run, x) == []


def test_no_attacked_input_contradicts_a_proved_clause(run, proved):
    """Projected gradient descent on the margin plus the violations of the body, from samples and from random inputs."""
    generator = torch.Generator().manual_seed(1)
    data = torch.from_numpy(np.array(run.dataset.x)).reshape(len(run.dataset.x), -1)
    starts = max(1, ATTACKED // len(proved))
    for claim in proved:
        picks = data[torch.randint(len(data), (starts,), generator=generator)]
        x = (picks + 2 * torch.randn(picks.shape, generator=generator, dtype=torch.float64)).clamp(0, 16)
        for _ in range(12):
            x = x.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(attack_loss(claim, run, x).sum(), x)
            x = (x - 0.5 * gradient.sign()).clamp(0, 16)
        assert confirmed([claim], run, x.detach()) == []


def attack_loss(claim, run, x):
    columns, outputs = hidden_and_outputs(run, x)
    label = claim.clause.head.arguments[0]
    rivals = outputs.clone()
    rivals[:, label] = -torch.inf
    margin = outputs[:, label] - rivals.amax(1)
    return margin + 3 * left_sides(claim.body_parts, run, columns).clamp(min=0).sum(1)


def test_two_solvers_confirm_the_proved_clauses(folder, proved):
    """Both say unsat to every file that asks from a later value on; the few boxes that ask the whole network may take too long.
    Polytopes, whose sums of neurons take them many times as long, have a judge of their own below."""
    whole, boxes = 0, [claim for claim in proved if all(len(a.terms) == 1 for a in claim.body_parts)]
    assert len(boxes) >= 10
    for claim in boxes:
        path = folder / "exports" / "smtlib" / f"{claim.id}.smt2"
        if "; question: the network from value" in path.read_text():
            assert ask_z3(path) == ask_cvc5(path) == "unsat", claim.title
        else:
            whole += 1
            assert ask_z3(path, timeout_s=10) in ("unsat", "unknown"), claim.title
    assert whole <= len(boxes) / 10


def test_exact_duals_confirm_the_proved_polytopes(run, proved):
    """A judge that shares no code: scipy proposes multipliers, and rational arithmetic over the box of the last hidden layer
    shows that the body and the box leave every rival's margin positive."""
    layer = run.sites.value(run.sites.hidden[-1])
    weight, bias, upper = last_layer(run)
    sums = [claim for claim in proved if any(len(a.terms) > 1 for a in claim.body_parts)]
    # refinement may mix in a literal of an earlier layer
    polytopes = [claim for claim in sums if all(term.value == layer for a in claim.body_parts for term in a.terms)]
    assert len(polytopes) >= max(10, 0.5 * len(sums))
    for claim in polytopes:
        forms = np.zeros((len(claim.body_parts), len(upper)))
        for row, a in zip(forms, claim.body_parts, strict=True):
            for term in a.terms:
                row[term.index] = float(term.coefficient)
        limits = [-a.bias for a in claim.body_parts]
        label = int(claim.clause.head.arguments[0])
        for rival in set(range(len(bias))) - {label}:
            goal = [w - v for w, v in zip(weight[label], weight[rival], strict=True)]
            least = exact_least(goal, forms, limits, upper)
            assert least + bias[label] - bias[rival] > 0, (claim.title, rival)


def last_layer(run):
    """Weights and biases of the output, and upper bounds of the layer before it, all as exact fractions."""
    node = run.sites.network.producers[run.sites.network.output]
    domain = run.dataset.domain
    low, high = ([Fraction(float(v)) for v in side] for side in (domain.lower, domain.upper))
    for inner in run.sites.network.nodes[:-1]:
        if isinstance(inner.op, Linear):
            weights = [[Fraction(float(w)) for w in row] for row in inner.op.weight]
            shifts = [Fraction(float(b)) for b in inner.op.bias]
            ends = [
                [
                    sum(w * (h if (w > 0) == up else lo) for w, lo, h in zip(row, low, high, strict=True)) + b
                    for row, b in zip(weights, shifts, strict=True)
                ]
                for up in (False, True)
            ]
            low, high = ends
        elif isinstance(inner.op, Relu):
            low, high = [max(v, Fraction(0)) for v in low], [max(v, Fraction(0)) for v in high]
        else:
            assert isinstance(inner.op, Scale)
            factor, shift = (np.broadcast_to(side.reshape(-1), len(low)) for side in (inner.op.factor, inner.op.offset))
            assert (factor >= 0).all()
            low, high = (
                [v * Fraction(float(f)) + Fraction(float(b)) for v, f, b in zip(ends, factor, shift, strict=True)]
                for ends in (low, high)
            )
    weight = [[Fraction(float(w)) for w in row] for row in node.op.weight]
    return weight, [Fraction(float(b)) for b in node.op.bias], high


def exact_least(goal, forms, limits, upper):
    """A true lower bound of goal . v over 0 <= v <= upper and forms v <= limits, from multipliers made rational."""
    bounds = [(0, float(u)) for u in upper]
    found = linprog([float(g) for g in goal], A_ub=forms, b_ub=[float(x) for x in limits], bounds=bounds, method="highs")
    multipliers = [Fraction(round(max(0.0, -float(m)) * 2**40), 2**40) for m in found.ineqlin.marginals]
    used = [k for k, m in enumerate(multipliers) if m]
    left = [g + sum(multipliers[k] * Fraction(float(forms[k, j])) for k in used) for j, g in enumerate(goal)]
    return sum(min(Fraction(0), c * u) for c, u in zip(left, upper, strict=True)) - sum(
        multipliers[k] * limits[k] for k in used
    )


def ask_z3(path, timeout_s=60):
    solver = z3.Solver()
    solver.set("timeout", 1000 * timeout_s)
    solver.from_file(str(path))
    return str(solver.check())


def ask_cvc5(path):
    solver = cvc5.Solver()
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, str(path))
    answers = []
    while not (command := parser.nextCommand()).isNull():
        answers.append(command.invoke(solver, parser.getSymbolManager()))
    return "".join(answers).strip()


@pytest.mark.swipl
@pytest.mark.skipif(shutil.which("swipl") is None, reason="SWI-Prolog (swipl) is not installed")
def test_prolog_answers_as_python_does(folder, run):
    path = folder / "exports" / "prolog" / "clauses.pl"
    goal = "forall(fired(S,I,C), (write(S), write(' '), write(I), write(' '), write(C), nl))"
    result = subprocess.run(["swipl", "-q", "-g", goal, "-t", "halt", str(path)], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0 and result.stderr == ""
    exhibit = run.exhibit
    expected = {
        (row, clause.id, clause.head.arguments[0])
        for clause, holds in exhibit.fires.items()
        for row in exhibit.test_rows
        if holds[row]
    }
    assert {(int(s), i, int(c)) for s, i, c in map(str.split, result.stdout.splitlines())} == expected
    assert expected


def test_the_document_and_the_report(folder, capsys):
    assert main(["show", str(folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"schema", "provenance", "summary", "claims"} <= document.keys()
    report = Path(folder / "report.html").read_text()
    assert "verified recall" in report and report.count("data:image/png;base64") > 20
