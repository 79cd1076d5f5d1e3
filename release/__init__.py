"""Builds a release."""
