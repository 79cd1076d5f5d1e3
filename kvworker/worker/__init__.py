"""What runs a message: the runtime, the execution of an operation, and the worker's Celery classes.

May import ``messaging``, ``adapters`` and everything below them, never ``client``. The application and its task
bodies are in ``tasks``.
"""
