"""Decides who may call over HTTP: by tokens, of which a file holds the hashes.

The MCP server and the dashboard share it. ``TokenFile`` finds the grant of a token, and ``FailedAttempts`` slows down
clients whose tokens are refused. It imports neither of them, and no library of HTTP.
"""

from kvworker.access.address import Address
from kvworker.access.failures import FailedAttempts
from kvworker.access.grants import SEPARATOR, Grant, check_namespace_prefix
from kvworker.access.token_file import TokenFile
from kvworker.access.token_store import TokenStore

__all__ = ["SEPARATOR", "Address", "FailedAttempts", "Grant", "TokenFile", "TokenStore", "check_namespace_prefix"]
