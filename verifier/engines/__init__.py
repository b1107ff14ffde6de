"""Ways to decide a query; `verifier.solve` spends one budget over them, in the order of its ENGINES."""
