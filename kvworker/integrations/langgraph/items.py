"""How LangGraph's items lie in the key-value store: namespaces by name, values with their times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeAlias, cast

from langgraph.store.base import InvalidNamespaceError, Item, PutOp, SearchItem

from kvworker.errors import InvalidKeyError, InvalidRequestError
from kvworker.model import MAX_NAMESPACE_BYTES, check_namespace

Namespace: TypeAlias = tuple[str, ...]

_AFTER_PREFIX = ":"
_BETWEEN_LABELS = "."


@dataclass(frozen=True, slots=True)
class Names:
    """The store's namespaces for LangGraph's: ``("users", "1")`` is ``langgraph:users.1``.

    No two LangGraph namespaces share a name, since labels hold no period, and no two prefixes either, since a
    prefix holds no colon.

    Raises:
        InvalidKeyError: the prefix is no usable name, or holds a colon.
    """

    prefix: str

    def __post_init__(self) -> None:
        if _AFTER_PREFIX in check_namespace(self.prefix):
            raise InvalidKeyError(f"the prefix of a LangGraph store must not hold {_AFTER_PREFIX!r}: {self.prefix!r}")

    def encode(self, namespace: Sequence[str]) -> str:
        """The name of a namespace.

        Raises:
            InvalidNamespaceError: the name would be longer than 255 bytes of UTF-8, or no UTF-8.
        """
        try:
            return check_namespace(self._root + _BETWEEN_LABELS.join(namespace))
        except InvalidKeyError as error:
            raise InvalidNamespaceError(
                f"{tuple(namespace)!r} makes no name in the store, with the prefix {self.prefix!r}: {error}"
            ) from None

    def fits(self, namespace: Sequence[str]) -> bool:
        """Whether a namespace has a name, so that it, or one below it, may hold something."""
        try:
            self.encode(namespace)
        except InvalidNamespaceError:
            return False
        return True

    def below(self, namespace: Sequence[str]) -> str | None:
        """What the names of all namespaces below one begin with; None if they would all be too long.

        Below the empty namespace it is found itself.
        """
        name = self.encode(namespace) + _BETWEEN_LABELS if namespace else self._root
        return name if len(name.encode()) <= MAX_NAMESPACE_BYTES else None

    def decode(self, name: str) -> Namespace:
        """The namespace of a name that this prefix made."""
        labels = name.removeprefix(self._root)
        return tuple(labels.split(_BETWEEN_LABELS)) if labels else ()

    @property
    def _root(self) -> str:
        return self.prefix + _AFTER_PREFIX


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it lies in the store; ``ttl_minutes`` is what it was put with, for reads that renew it."""

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl_minutes: float | None

    @classmethod
    def put(cls, op: PutOp, replaced: StoredItem | None) -> StoredItem:
        """The item that a put makes: it keeps the creation time of the one it replaces, and time never goes back."""
        now = datetime.now(UTC)
        created_at = replaced.created_at if replaced else now
        updated_at = max(now, replaced.updated_at) if replaced else now
        value = dict(cast(Mapping[str, Any], op.value))
        return cls(tuple(op.namespace), op.key, value, created_at, updated_at, op.ttl)

    @classmethod
    def from_json(cls, namespace: Namespace, key: str, stored: Any) -> StoredItem:
        """The item from what is stored.

        Raises:
            InvalidRequestError: something else than this store wrote it.
        """
        try:
            created_at, updated_at = (datetime.fromisoformat(stored[name]) for name in ("created_at", "updated_at"))
            return cls(namespace, key, dict(stored["value"]), created_at, updated_at, stored.get("ttl_minutes"))
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidRequestError(
                f"entry {key!r} of namespace {namespace!r} was not written by a LangGraph store:"
                " give the store a prefix that nothing else uses"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """What is stored."""
        times = {"created_at": self.created_at.isoformat(), "updated_at": self.updated_at.isoformat()}
        lasting = {} if self.ttl_minutes is None else {"ttl_minutes": self.ttl_minutes}
        return {"value": self.value, **times, **lasting}

    def to_item(self) -> Item:
        """What a get gives."""
        return Item(
            value=self.value,
            key=self.key,
            namespace=self.namespace,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )

    def to_search_item(self) -> SearchItem:
        """What a search gives; without vectors there is no score."""
        return SearchItem(self.namespace, self.key, self.value, self.created_at, self.updated_at)
