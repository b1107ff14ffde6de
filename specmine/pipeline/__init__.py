"""From a model and data to a Spec, stage by stage in a run folder, resumable at any point."""

from specmine.pipeline.entry import check_run, decide, decide_on_run, go_on, mine
from specmine.pipeline.inputs import load_inputs, load_model
from specmine.pipeline.run import Run, open_run
from specmine.pipeline.stages import export_run, finish_run, present_run, write_report

__all__ = [
    "Run",
    "check_run",
    "decide",
    "decide_on_run",
    "export_run",
    "finish_run",
    "go_on",
    "load_inputs",
    "load_model",
    "mine",
    "open_run",
    "present_run",
    "write_report",
]
