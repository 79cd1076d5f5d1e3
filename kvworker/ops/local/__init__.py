"""Runs the whole store on one machine, for ``kvworker up``: servers from pip packages, a worker and a beat.

All of them are child processes of the caller. May import what ``ops`` may import.
"""
