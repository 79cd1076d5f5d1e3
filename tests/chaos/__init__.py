"""Faults under load: real processes and servers are killed, disconnected and confused while callers record each call.

``python -m tests.chaos`` (``make chaos``) runs every scenario. Callers send operations with unique ids and keep a
history of each call and its outcome, while a fault is injected again and again. In the end the verdict compares the
history with the database.
"""
