"""Running messages: the runtime, the execution of an operation, and the Celery classes of our workers.

The application and its task bodies are in ``tasks``. This package may import ``messaging``, ``adapters`` and
everything below them, but never ``client``.
"""
