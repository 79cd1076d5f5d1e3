"""What operators run, as functions: checks, database maintenance, export and import, Celery's processes.

May import ``inline``, ``client``, ``worker`` and everything below them. The commands in ``cli`` delegate to it.
"""
