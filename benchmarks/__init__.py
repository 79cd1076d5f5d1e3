"""Measures kvworker against floors of the same run: ``python -m benchmarks``."""
