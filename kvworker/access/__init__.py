"""Checks the tokens of HTTP callers against a file of hashes.

The MCP server and the dashboard share it. ``TokenFile`` finds the grant of a token, and ``FailedAttempts`` slows down
clients whose tokens are refused. This package imports neither server. Only its module ``http_server``, which runs both,
imports an HTTP library.
"""

from kvworker.access.address import Address
from kvworker.access.failures import FailedAttempts
from kvworker.access.grants import SEPARATOR, Grant, check_namespace_prefix
from kvworker.access.token_file import TokenFile
from kvworker.access.token_store import TokenStore

__all__ = ["SEPARATOR", "Address", "FailedAttempts", "Grant", "TokenFile", "TokenStore", "check_namespace_prefix"]
