"""The wire format, the Celery application, signatures, results, Redis connections and the clock of deadlines.

Clients and workers share this package. It neither sends operations nor runs them. It may import ``tools``,
``settings``, ``model``, ``errors``, ``fork_safety`` and ``retries``.
"""
