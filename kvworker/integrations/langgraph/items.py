"""Maps LangGraph's namespaces and items to the store's namespaces and values, and back."""

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
    """Maps LangGraph's namespaces to the store's: ``("users", "1")`` becomes ``langgraph:users.1``.

    The mapping is unambiguous: LangGraph's labels hold no period, and a prefix holds no colon.

    Raises:
        InvalidKeyError: The prefix is not a valid namespace, or holds a colon.
    """

    prefix: str

    def __post_init__(self) -> None:
        if _AFTER_PREFIX in check_namespace(self.prefix):
            raise InvalidKeyError(f"the prefix of a LangGraph store must not hold {_AFTER_PREFIX!r}: {self.prefix!r}")

    def encode(self, namespace: Sequence[str]) -> str:
        """Return the store's name of a namespace.

        Raises:
            InvalidNamespaceError: The name would be longer than 255 bytes of UTF-8, or is not UTF-8.
        """
        try:
            return check_namespace(self._root + _BETWEEN_LABELS.join(namespace))
        except InvalidKeyError as error:
            raise InvalidNamespaceError(
                f"{tuple(namespace)!r} is not a valid namespace with the prefix {self.prefix!r}: {error}"
            ) from None

    def fits(self, namespace: Sequence[str]) -> bool:
        """True if the namespace has a valid name. If not, neither it nor a namespace below it can hold items."""
        try:
            self.encode(namespace)
        except InvalidNamespaceError:
            return False
        return True

    def below(self, namespace: Sequence[str]) -> str | None:
        """Return the prefix of all names below a namespace, or None if they would all be too long.

        For the empty namespace, the prefix also covers the namespace itself.
        """
        name = self.encode(namespace) + _BETWEEN_LABELS if namespace else self._root
        return name if len(name.encode()) <= MAX_NAMESPACE_BYTES else None

    def decode(self, name: str) -> Namespace:
        """Return the namespace that ``encode`` gave this name."""
        labels = name.removeprefix(self._root)
        return tuple(labels.split(_BETWEEN_LABELS)) if labels else ()

    @property
    def _root(self) -> str:
        return self.prefix + _AFTER_PREFIX


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as the store holds it. ``ttl_minutes`` is the TTL of its put, with which reads renew it.

    ``vectors`` are in their stored form. Only a search by meaning gives a ``score``.
    """

    namespace: Namespace
    key: str
    value: dict[str, Any]
    created_at: datetime
    updated_at: datetime
    ttl_minutes: float | None
    vectors: Sequence[str] = ()
    score: float | None = None

    @classmethod
    def put(cls, op: PutOp, replaced: StoredItem | None, vectors: Sequence[str] = ()) -> StoredItem:
        """Make the item of a put.

        It keeps the creation time of the item that it replaces, and its update time is never earlier than that item's.
        """
        now = datetime.now(UTC)
        created_at = replaced.created_at if replaced else now
        updated_at = max(now, replaced.updated_at) if replaced else now
        value = dict(cast(Mapping[str, Any], op.value))
        return cls(tuple(op.namespace), op.key, value, created_at, updated_at, op.ttl, vectors)

    @classmethod
    def from_json(cls, namespace: Namespace, key: str, stored: Any) -> StoredItem:
        """Rebuild the item from its stored value.

        Raises:
            InvalidRequestError: Another program wrote the value.
        """
        try:
            created_at, updated_at = (datetime.fromisoformat(stored[name]) for name in ("created_at", "updated_at"))
            vectors = tuple(stored.get("vectors", ()))
            return cls(
                namespace, key, dict(stored["value"]), created_at, updated_at, stored.get("ttl_minutes"), vectors
            )
        except (AttributeError, KeyError, TypeError, ValueError):
            raise InvalidRequestError(
                f"entry {key!r} of namespace {namespace!r} was not written by a LangGraph store:"
                " use a prefix that no other program uses"
            ) from None

    def to_json(self) -> dict[str, Any]:
        """Return the value to store."""
        times = {"created_at": self.created_at.isoformat(), "updated_at": self.updated_at.isoformat()}
        ttl = {} if self.ttl_minutes is None else {"ttl_minutes": self.ttl_minutes}
        vectors = {"vectors": list(self.vectors)} if self.vectors else {}
        return {"value": self.value, **times, **ttl, **vectors}

    def to_item(self) -> Item:
        """Return the result of a get."""
        return Item(
            value=self.value,
            key=self.key,
            namespace=self.namespace,
            created_at=self.created_at,
            updated_at=self.updated_at,
        )

    def to_search_item(self) -> SearchItem:
        """Return the result of a search."""
        return SearchItem(self.namespace, self.key, self.value, self.created_at, self.updated_at, self.score)
