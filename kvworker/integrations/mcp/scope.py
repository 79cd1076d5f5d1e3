"""What a session sees of the store: all of it, or only the namespaces under a prefix, which it never sees."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self, TypeVar, cast

from kvworker.errors import BatchRefusedError, ConfigurationError, InvalidKeyError, InvalidRequestError, KVStoreError
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

# Ends every prefix and is part of no name, so that no session's prefix is the beginning of another's:
# "a/" and "ab/" have no namespace in common, and there is no "a/b/".
_SEPARATOR: Final = "/"
#: What the prefixes of all sessions begin with.
SESSION_PREFIX: Final = "mcp-session-"
_MAX_NAME_BYTES: Final = 100

_Error = TypeVar("_Error", bound=KVStoreError)


class Scope:
    """The namespaces under ``prefix``, without it. An empty prefix is the whole store."""

    def __init__(self, prefix: str = "") -> None:
        self.prefix = prefix
        self._max_namespace_bytes = MAX_NAMESPACE_BYTES - len(prefix.encode())

    @classmethod
    def named(cls, name: str) -> Self:
        """The scope of a name that an operator gave.

        Raises:
            ConfigurationError: the name is blank, too long, or holds the separator.
        """
        try:
            check_prefix("the namespace prefix", check_namespace(name), _MAX_NAME_BYTES)
        except InvalidKeyError as error:
            raise ConfigurationError(f"a namespace prefix must be a namespace's name as well: {error}") from None
        if _SEPARATOR in name:
            raise ConfigurationError(
                f"a namespace prefix must not hold {_SEPARATOR!r}, which is added to its end; one prefix could"
                f" otherwise be the beginning of another: {name!r}"
            )
        return cls(name + _SEPARATOR)

    @classmethod
    def of_session(cls, session_id: str) -> Self:
        """The scope of a session. Its id, which is a credential, cannot be read from it."""
        return cls(SESSION_PREFIX + hashlib.sha256(session_id.encode()).hexdigest()[:32] + _SEPARATOR)

    @classmethod
    def of_process(cls) -> Self:
        """A scope that nobody has had before."""
        return cls.of_session(secrets.token_hex(16))

    def tool(self, tool: Tool) -> Tool:
        """The tool as it is within the scope: without the whole store's usage."""
        if not self.prefix or tool.method != "usage":
            return tool
        parameters = tuple(replace(parameter, required=True) for parameter in tool.parameters)
        return replace(tool, parameters=parameters, summary="Tell how many bytes a namespace uses of its quota.")

    def inward(self, tool: Tool, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments with the prefix added; what is not about namespaces is left to the tool's check.

        Raises:
            InvalidRequestError: a namespace is missing, not usable, or too long together with the prefix.
        """
        if not self.prefix:
            return dict(arguments)
        if tool.method == "list_namespaces":
            return {**arguments, **self._listing(arguments)}
        if "namespace" not in arguments:
            raise InvalidRequestError(f"{tool.name} needs the argument 'namespace'")
        namespace = check_prefix("namespace", arguments["namespace"], self._max_namespace_bytes)
        return {**arguments, "namespace": self.prefix + check_namespace(namespace)}

    def outward(self, result: OperationResult) -> OperationResult:
        """The result with the prefix taken away, and of a listing only what is within the scope."""
        if not self.prefix:
            return result
        if isinstance(result, NamespaceList):
            return self._listed(result)
        if isinstance(result, BatchResult):
            steps = (
                self.error(step) if isinstance(step, KVStoreError) else self.outward(step) for step in result.results
            )
            results = cast(tuple[StepResult | KVStoreError, ...], tuple(steps))
            return replace(result, namespace=self._short(result.namespace), results=results)
        if result.namespace is None:
            return result
        return replace(result, namespace=self._short(result.namespace))

    def error(self, error: _Error) -> _Error:
        """The error with the prefix taken away, from what it carries and from its text."""
        if not self.prefix:
            return error
        if isinstance(error, BatchRefusedError):
            return type(error)(error.index, type(error.error).__name__, self.error(error.error).args)
        namespace = getattr(error, "namespace", None)
        return type(error)(*(self._short_argument(argument, namespace) for argument in error.args))

    def _listed(self, page: NamespaceList) -> NamespaceList:
        # An adapter gives only what begins with the prefix; that no session sees another's must not hang on it.
        usages = tuple(
            replace(usage, namespace=self._short(usage.namespace))
            for usage in page.namespaces
            if usage.namespace is not None and usage.namespace.startswith(self.prefix)
        )
        return NamespaceList(usages, None if page.next_cursor is None else self._short(page.next_cursor))

    def _listing(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        # Both are the beginning or the whole of a namespace's name.
        given = {
            name: check_prefix(name, arguments[name], self._max_namespace_bytes)
            for name in ("prefix", "cursor")
            if arguments.get(name) is not None
        }
        check_cursor(given.get("cursor"))
        return {"prefix": self.prefix, **{name: self.prefix + text for name, text in given.items()}}

    def _short(self, namespace: str) -> str:
        return namespace.removeprefix(self.prefix)

    def _short_argument(self, argument: object, namespace: str | None) -> object:
        if not isinstance(argument, str):
            return argument
        if argument == namespace:
            return self._short(argument)
        # Texts quote names as repr does.
        return argument.replace(f"'{self.prefix}", "'").replace(f'"{self.prefix}', '"')
