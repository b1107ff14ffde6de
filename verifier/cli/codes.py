"""Exit codes."""

DECIDED, REFUTED, BAD_INPUT, UNDECIDED, BUG, INTERRUPTED, UNHEARD, TERMINATED = 0, 1, 2, 3, 4, 130, 141, 143

EXIT_CODES = """exit codes:
  0    verify: sat or unsat; check: every certificate proves its query; bench, supports: done
  1    check: a certificate does not prove its query; bench: an answer contradicts the expected one
  2    bad usage, or a file that cannot be read
  3    verify: unknown or timed-out
  4    a bug of ours
  130  interrupted
  141  whoever read the output, such as `head`, closed it
"""
