"""Runs tests on the oldest versions that ``pyproject.toml`` allows."""
