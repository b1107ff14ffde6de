"""Sites and traces: the named values of the network on the samples."""

from specmine.tracing.attention import AttentionLayer, find_attention
from specmine.tracing.original import compare_with_original
from specmine.tracing.sites import Sites
from specmine.tracing.stream import MEMORY_MB, Source, Stream, classes_of, part_of, traced
from specmine.tracing.trace import NO_CLASS, Trace, column, predict, select_samples, trace

__all__ = [
    "MEMORY_MB",
    "NO_CLASS",
    "AttentionLayer",
    "Sites",
    "Source",
    "Stream",
    "Trace",
    "classes_of",
    "column",
    "compare_with_original",
    "find_attention",
    "part_of",
    "predict",
    "select_samples",
    "trace",
    "traced",
]
