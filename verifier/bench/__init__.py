"""Run a folder of benchmark instances, one process each, and say what was solved, how fast, and whether it was right."""

from verifier.bench.instances import Instance, read_instances
from verifier.bench.rows import Row
from verifier.bench.run import Settings, run_bench
from verifier.bench.summary import Summary, summarise

__all__ = ["Instance", "Row", "Settings", "Summary", "read_instances", "run_bench", "summarise"]
