"""From a model and data to a Spec, stage by stage in a run folder, resumable at any point."""

from specmine.pipeline.inputs import load_inputs, load_model
from specmine.pipeline.mine import decide, decide_on, mine
from specmine.pipeline.run import Run, open_run
from specmine.pipeline.stages import export_run, finish_run, write_report

__all__ = [
    "Run", "decide", "decide_on", "export_run", "finish_run", "load_inputs", "load_model", "mine", "open_run", "write_report"
]
