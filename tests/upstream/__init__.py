"""LangGraph's published store tests, run against kvworker's store: ``make upstream``.

LangGraph's source distributions contain its tests, its wheels do not. The run downloads them and deletes them
afterwards. py-key-value-aio distributes no tests, so ``tests/ecosystem/test_key_value_reference.py`` compares with that
library's own store instead.
"""
