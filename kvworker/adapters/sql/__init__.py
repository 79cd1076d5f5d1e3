"""The adapter over a SQL database: everything that the dialects in ``postgres`` and ``sqlite`` share.

May import ``adapters.contract``, ``adapters.conversation``, ``settings``, ``model``, ``errors``, ``fork_safety`` and
``retries``, besides SQLAlchemy, Alembic and tenacity. It never imports a dialect or a driver.
"""
