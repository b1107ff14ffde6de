import shutil
import subprocess

import cvc5
import pytest
import toy
import z3

from specmine.errors import BadConfig
from specmine.export import EXPORTERS
from specmine.pipeline.stages import export_run, verify_stage
from specmine.queries import claim_query, starting_later
from verifier.evaluate import evaluate

ANSWERS = {"proved": "unsat", "vacuous": "unsat", "refuted": "sat"}


def by_z3(path):
    solver = z3.Solver()
    solver.from_file(str(path))
    return str(solver.check())


def by_cvc5(path):
    solver = cvc5.Solver()
    parser = cvc5.InputParser(solver)
    parser.setFileInput(cvc5.InputLanguage.SMT_LIB_2_6, str(path))
    answer = ""
    while not (command := parser.nextCommand()).isNull():
        answer += command.invoke(solver, parser.getSymbolManager())
    return answer.strip()


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    run = toy.run(tmp_path_factory.mktemp("run"), regions=("domain", "ball:0.05"))
    verify_stage(run)
    return run, EXPORTERS["smtlib"](run.exhibit, run.folder / "smt")


def test_two_solvers_agree_with_every_verdict(exported):
    run, paths = exported
    assert len(paths) == len(run.spec.claims) > 4
    for claim, path in zip(run.spec.claims, paths, strict=True):
        answer = by_z3(path)
        assert answer == by_cvc5(path) == ANSWERS.get(claim.outcome.verdict, answer), claim.title


def test_the_file_states_its_status_and_evidence(exported):
    _, paths = exported
    text = paths[0].read_text()
    assert "(set-info :status unsat)" in text and text.count("(check-sat)") == 1
    for words in ("model sha256", "region: domain", "evidence on holdout: ", "proof status: proved"):
        assert f"; {words}" in text
    assert any("ball of radius 0.05 around row" in path.read_text() for path in paths)


@pytest.mark.skipif(shutil.which("z3") is None, reason="the z3 command is not on the path")
def test_the_z3_command_reads_it(exported):
    result = subprocess.run(["z3", str(exported[1][0])], capture_output=True, text=True)
    assert result.stdout.strip() == "unsat"


def test_an_unknown_exporter(exported):
    with pytest.raises(BadConfig, match="no exporter 'pdf'; known are smtlib, prolog, json"):
        export_run(exported[0], "pdf")


def test_a_proved_claim_is_asked_without_the_layers_its_proof_does_not_need(tmp_path):
    """With both neurons named, the last layer is enough; with one, its link to the other through the input is needed."""
    run = toy.run(tmp_path, "class(0) :- above(h1,0,0.5), below(h1,1,0.25).\nclass(0) :- above(h1,0,0.5).")
    verify_stage(run)
    both, one = (path.read_text() for path in EXPORTERS["smtlib"](run.exhibit, tmp_path / "smt"))
    assert "question: the network from value 'post' on" in both and "|input[0]|" not in both
    assert "question: the whole network" in one and "|input[0]|" in one


def test_later_starts_hold_every_sample(exported):
    run, _ = exported
    for later in starting_later(claim_query(run.spec.claims[0], run.sites)):
        values = evaluate(run.inputs.network, run.dataset.x)[later.network.input].flatten(1).numpy()
        assert (later.region.lower <= values).all() and (values <= later.region.upper).all()
