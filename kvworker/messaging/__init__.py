"""What client and worker share: payloads, the Celery application, signatures, results, Redis connections, the clock.

Nothing here sends an operation or runs one. May import ``tools``, ``settings``, ``model`` and ``errors``.
"""
