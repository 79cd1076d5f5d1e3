"""LangGraph's published store tests, run against kvworker's store: ``make upstream``.

Its wheels carry no tests, its source distributions do: they are downloaded, run and thrown away. Those of
py-key-value-aio carry none; ``tests/ecosystem/test_key_value_reference.py`` compares with its own store instead.
"""
