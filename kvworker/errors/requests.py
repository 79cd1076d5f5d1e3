"""Errors in a call itself: wrong arguments, or a persona without the right. Nothing was done."""

from __future__ import annotations

from kvworker.errors.base import KVStoreError


class InvalidRequestError(KVStoreError, ValueError):
    """The arguments of a call are wrong; nothing was done."""


class InvalidKeyError(InvalidRequestError):
    """The namespace or the key is not a usable name."""


class InvalidTTLError(InvalidRequestError):
    """``ttl_seconds`` is not a finite number above 0."""


class ValueSerializationError(InvalidRequestError):
    """The value is not a JSON value."""


class UnsupportedMessageError(InvalidRequestError):
    """The message's version is newer than this worker understands."""


class PolicyDeniedError(KVStoreError):
    """The persona's policy does not allow the operation; nothing was done.

    ``persona`` is "" for a call without a persona. ``namespace`` is "" for an operation on the whole store.
    """

    def __init__(self, persona: str, tool: str, namespace: str, detail: str) -> None:
        super().__init__(persona, tool, namespace, detail)
        self.persona = persona
        self.tool = tool
        self.namespace = namespace
        self.detail = detail

    def __str__(self) -> str:
        caller = f"persona {self.persona!r}" if self.persona else "a call without a persona"
        where = f" in namespace {self.namespace!r}" if self.namespace else ""
        return f"{caller} may not use {self.tool}{where}: {self.detail}"
