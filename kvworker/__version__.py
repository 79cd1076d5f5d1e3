"""The version of this package; the distribution takes its own from here."""

__version__ = "0.2.0.dev0"
