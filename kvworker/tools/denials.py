"""Denials: every ``PolicyDeniedError`` is logged where it is made, for an operator to see."""

from __future__ import annotations

import logging

from kvworker.errors import PolicyDeniedError
from kvworker.model import MAX_NAMESPACE_BYTES

# Operators filter by this name, whether a policy or a missing signature is the reason.
_logger = logging.getLogger("kvworker.tools.policy")


def log_denial(persona: object, tool: str, namespace: object, detail: str) -> PolicyDeniedError:
    """Log a denied call and return its error, for the caller to raise.

    Args:
        persona: The persona of the call. An unauthentic message may hold anything here: only text is used, cut to
            255 characters.
        tool: The tool's name.
        namespace: The namespace of the call, treated like ``persona``.
        detail: The reason.
    """
    error = PolicyDeniedError(_bounded(persona), tool, _bounded(namespace), detail)
    _logger.warning("denied: persona %r, tool %s, namespace %r: %s", error.persona, tool, error.namespace, detail)
    return error


def _bounded(name: object) -> str:
    return name[:MAX_NAMESPACE_BYTES] if isinstance(name, str) else ""
