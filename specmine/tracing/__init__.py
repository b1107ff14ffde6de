"""Sites and traces: the named values of the network on the samples."""

from specmine.tracing.attention import AttentionLayer, find_attention
from specmine.tracing.original import compare_with_original
from specmine.tracing.sites import Sites
from specmine.tracing.trace import NO_CLASS, Trace, column, predict, select_samples, trace

__all__ = [
    "NO_CLASS",
    "AttentionLayer",
    "Sites",
    "Trace",
    "column",
    "compare_with_original",
    "find_attention",
    "predict",
    "select_samples",
    "trace",
]
