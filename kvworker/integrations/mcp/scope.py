"""Limits a session to the namespaces under a prefix, and hides the prefix from it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self, TypeVar, cast

from kvworker.access import SEPARATOR, check_namespace_prefix
from kvworker.errors import BatchRefusedError, InvalidRequestError, KVStoreError
from kvworker.model import (
    MAX_NAMESPACE_BYTES,
    BatchResult,
    NamespaceList,
    OperationResult,
    StepResult,
    check_cursor,
    check_namespace,
    check_prefix,
)
from kvworker.tools import Tool

#: The beginning of the prefixes of all sessions.
SESSION_PREFIX: Final = "mcp-session-"

_Error = TypeVar("_Error", bound=KVStoreError)


class Scope:
    """The namespaces under ``prefix``, which clients name without it. An empty prefix means the whole store."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._max_namespace_bytes = MAX_NAMESPACE_BYTES - len(prefix.encode())

    @classmethod
    def named(cls, name: str) -> Self:
        """Return the scope of a name that an operator chose.

        Raises:
            ConfigurationError: The name is blank, too long, or holds the separator.
        """
        return cls(check_namespace_prefix(name) + SEPARATOR)

    @classmethod
    def of_session(cls, session_id: str) -> Self:
        """Return the scope of a session. The prefix does not reveal the session's id, which is a credential."""
        return cls(SESSION_PREFIX + hashlib.sha256(session_id.encode()).hexdigest()[:32] + SEPARATOR)

    @classmethod
    def of_process(cls) -> Self:
        """Return a new scope that was never used before."""
        return cls.of_session(secrets.token_hex(16))

    def tool(self, tool: Tool) -> Tool:
        """Return the tool for use within the scope: ``kv_usage`` then needs a namespace."""
        if not self.prefix or tool.name != "kv_usage":
            return tool
        parameters = tuple(replace(parameter, required=True) for parameter in tool.parameters)
        return replace(tool, parameters=parameters, summary="Show how many bytes of its quota a namespace uses.")

    def inward(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Add the prefix to the arguments. The tool checks all arguments other than namespaces itself.

        Raises:
            InvalidRequestError: A namespace is missing, invalid, or too long together with the prefix.
        """
        if not self.prefix:
            return dict(arguments)
        if tool.name == "kv_list_namespaces":
            return {**arguments, **self._listing_arguments(arguments)}
        if "namespace" not in arguments:
            raise InvalidRequestError(f"{tool.name} needs the argument 'namespace'")
        namespace = check_prefix("namespace", arguments["namespace"], self._max_namespace_bytes)
        return {**arguments, "namespace": self.prefix + check_namespace(namespace)}

    def outward(self, result: OperationResult) -> OperationResult:
        """Remove the prefix from a result, and everything outside the scope from a listing."""
        if not self.prefix:
            return result
        if isinstance(result, NamespaceList):
            return self._listed_within(result)
        if isinstance(result, BatchResult):
            steps = (
                self.error(step) if isinstance(step, KVStoreError) else self.outward(step) for step in result.results
            )
            results = cast(tuple[StepResult | KVStoreError, ...], tuple(steps))
            return replace(result, namespace=self._without_prefix(result.namespace), results=results)
        if result.namespace is None:
            return result
        return replace(result, namespace=self._without_prefix(result.namespace))

    def error(self, error: _Error) -> _Error:
        """Remove the prefix from an error's arguments and its text."""
        if not self.prefix:
            return error
        if isinstance(error, BatchRefusedError):
            return type(error)(error.index, type(error.error).__name__, self.error(error.error).args)
        namespace = getattr(error, "namespace", None)
        return type(error)(*(self._argument_without_prefix(argument, namespace) for argument in error.args))

    def _listed_within(self, page: NamespaceList) -> NamespaceList:
        # The adapter filters by prefix, too. The separation of sessions must not depend on that.
        usages = tuple(
            replace(usage, namespace=self._without_prefix(usage.namespace))
            for usage in page.namespaces
            if usage.namespace is not None and usage.namespace.startswith(self.prefix)
        )
        return NamespaceList(usages, None if page.next_cursor is None else self._without_prefix(page.next_cursor))

    def _listing_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # Both begin with a namespace's name, as the client knows it.
        given = {
            name: check_prefix(name, arguments[name], self._max_namespace_bytes)
            for name in ("prefix", "cursor")
            if arguments.get(name) is not None
        }
        check_cursor(given.get("cursor"))
        return {"prefix": self.prefix, **{name: self.prefix + text for name, text in given.items()}}

    def _without_prefix(self, namespace: str) -> str:
        return namespace.removeprefix(self.prefix)

    def _argument_without_prefix(self, argument: object, namespace: str | None) -> object:
        if not isinstance(argument, str):
            return argument
        if argument == namespace:
            return self._without_prefix(argument)
        # Messages quote names in the way of repr.
        return argument.replace(f"'{self.prefix}", "'").replace(f'"{self.prefix}', '"')
