"""kvworker inside other frameworks: LangGraph, LangChain, py-key-value (FastMCP) and MCP.

Each module or package needs the extra of its name, such as ``langgraph``. This package may import the
client, ``kvworker.tools`` and what lies below them, but no worker and no adapter.
"""
