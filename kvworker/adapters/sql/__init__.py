"""The adapter over a SQL database, whichever it is: what the dialects in ``postgres`` and ``sqlite`` share.

May import ``adapters.contract``, ``settings``, ``model`` and ``errors``; never a dialect.
"""
