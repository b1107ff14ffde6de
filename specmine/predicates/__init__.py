"""Predicates over network values: their forms, their meaning, and tables of their truth on samples."""
