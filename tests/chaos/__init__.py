"""Faults under load: real processes and servers are killed, cut and confused while callers write down what they see.

``python -m tests.chaos`` (``make chaos``) runs every scenario. Callers make operations with unique ids and keep a
history of each call and its outcome; a fault is injected again and again; then the history is held against the
database.
"""
