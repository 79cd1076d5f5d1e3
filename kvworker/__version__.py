"""The version of this package; the distribution takes its own from here."""

__version__ = "0.1.0"
