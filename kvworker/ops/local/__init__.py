"""``kvworker up``: servers from pip packages, and the worker and beat as child processes.

May import what ``ops`` may.
"""
