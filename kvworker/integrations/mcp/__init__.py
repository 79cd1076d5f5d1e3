"""Serves kvworker's tools to any MCP client, over stdio or streamable HTTP: ``kvworker mcp``.

Needs the extra ``mcp``. ``serving`` runs the server on its transports, ``server`` handles its requests, ``scope``
limits a session to its own namespaces, and ``address`` says where the server listens. This package may import what
``kvworker.integrations`` may.
"""
