"""mine: from a model and data to a Spec, in one call; the only place where all stages meet."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from specmine.config import Config, make_config
from specmine.errors import BadClause
from specmine.folder import existing, locked
from specmine.pipeline.inputs import Data, Inputs, Model, load_inputs
from specmine.pipeline.run import open_run, start_run
from specmine.pipeline.stages import finish_run, make_claims, present_run, verify_stage
from specmine.progress import SILENT, Progress
from specmine.rules.syntax import parse_clauses
from specmine.spec import Spec
from specmine.verification import Recheck, check_claims


def mine(
    model: Model | None,
    data: Data,
    *,
    config: Config | Path | str | None = None,
    out: Path | str | None = None,
    data_dir: Path | str | None = None,
    progress: Progress = SILENT,
    **overrides: Any,
) -> Spec:
    """Mines clauses from a model's behaviour on data, proves them, and returns them with evidence and verdicts.

    model: a path to an ONNX file, a torch.nn.Module, or None for the model kept with a known data set. data: the name of a
    known data set, a path to an npz file of x and y, or a pair of arrays. config: a Config or a TOML file; overrides: its
    keys. out: the run folder; a run that was stopped goes on from there. Without it, nothing is kept on disk and the
    claims name no certificate. Raises a SpecmineError or VerifierError for input that cannot be used.
    """
    settings = _settings(config, overrides)
    torch.set_num_threads(settings.jobs)
    inputs = load_inputs(model, data, config=settings, data_dir=data_dir)
    if out is not None:
        with locked(Path(out)):
            run = start_run(Path(out), inputs, settings, progress)
            finish_run(run)
            return present_run(run)
    with TemporaryDirectory() as folder:
        return _without_files(finish_run(start_run(Path(folder), inputs, settings, progress)))


def decide(
    model: Model | None,
    data: Data,
    clauses: str,
    *,
    regions: Sequence[str] = ("domain",),
    data_dir: Path | str | None = None,
    progress: Progress = SILENT,
    config: Config | Path | str | None = None,
    **overrides: Any,
) -> Spec:
    """Measures and decides a person's own clauses, given in the syntax that is printed.

    Raises BadClause with the place of a mistake and the nearest valid names.
    """
    settings = _settings(config, overrides | {"regions": tuple(regions)})
    torch.set_num_threads(settings.jobs)
    inputs = load_inputs(model, data, config=settings, data_dir=data_dir)
    return decide_on(inputs, clauses, settings, progress)


def decide_on(inputs: Inputs, clauses: str, config: Config, progress: Progress = SILENT) -> Spec:
    """`decide` on inputs that are loaded already."""
    with TemporaryDirectory() as folder:
        run = start_run(Path(folder), inputs, config, progress)
        parsed = parse_clauses(clauses, sites=run.sites)
        if not parsed:
            raise BadClause("no clause given; write one such as class(0) :- active(h1,0).")
        sites = {str(a) for c in parsed for p in (*c.body, *filter(None, [c.head])) for a in p.arguments if isinstance(a, str)}
        run = replace(run, config=config.model_copy(update={"sites": tuple(sorted(sites))}))
        run.write_claims(make_claims(run, parsed, config.regions, tried=len(parsed)))
        return _without_files(verify_stage(run))


def _settings(config: Config | Path | str | None, overrides: dict[str, Any]) -> Config:
    if isinstance(config, Config):
        return make_config(**(config.model_dump() | overrides))
    return make_config(config, **overrides)


def _without_files(spec: Spec) -> Spec:
    """The Spec without the names of files that are gone with the temporary folder."""
    claims = (replace(claim, outcome=replace(claim.outcome, certificate=None)) for claim in spec.claims)
    return replace(spec, claims=tuple(claims))


def go_on(folder: Path | str, *, progress: Progress = SILENT, **effort: Any) -> Spec:
    """Goes on with the run of a folder to its end; effort: settings of time and engine that replace those of its start."""
    with locked(existing(folder)):
        run = open_run(folder, progress=progress, **effort)
        torch.set_num_threads(run.config.jobs)
        finish_run(run)
        return present_run(run)


def decide_on_run(
    folder: Path | str, clauses: str, *, regions: Sequence[str] | None = None, progress: Progress = SILENT, **effort: Any
) -> Spec:
    """`decide` on the model and data of a run; nothing is written into its folder."""
    run = open_run(folder, progress=progress, **effort)
    config = make_config(**(run.config.model_dump() | {"regions": tuple(regions or ("domain",))}))
    torch.set_num_threads(config.jobs)
    return decide_on(run.inputs, clauses, config, progress)


def check_run(folder: Path | str, *, progress: Progress = SILENT) -> tuple[Spec, Recheck]:
    """The Spec of a run after every certificate it names was checked again, every rounding accounted for and without a solver;
    and what that came to.

    A proof whose certificate is refused, damaged or missing becomes unknown; a proof that came without one stays as it is.
    """
    run = open_run(folder, progress=progress)
    spec = run.spec
    checked = check_claims(spec.claims, run.sites, run.store, progress=progress)
    return replace(spec, claims=checked.claims), checked
