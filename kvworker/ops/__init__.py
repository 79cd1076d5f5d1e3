"""The operator's functions, callable without click: checks, database maintenance, import and export, Celery processes.

May import ``inline``, ``client``, ``worker`` and the packages below them. The commands in ``cli`` delegate to it.
"""
