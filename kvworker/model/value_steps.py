"""Steps that change a part of a value, so that callers who change it at the same time lose nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from kvworker.errors import InvalidRequestError, InvalidValueTypeError, RecordTooLargeError
from kvworker.model.computed_steps import Change, ComputedStep, StepMoment, StoredEntry
from kvworker.model.steps import Step
from kvworker.model.validation import MAX_KEPT_BYTES, check_max_items
from kvworker.model.value_results import AppendResult, GetAndDeleteResult, MergeResult
from kvworker.model.values import DecodedValue, EncodedValue, JSONArray, JSONValue, decode_value, encode_value


@dataclass(frozen=True, slots=True)
class AppendStep(ComputedStep):
    """Appends items to a list; a missing entry is an empty one. Beyond ``max_items`` the first items are dropped.

    ``items`` may be given as an ``EncodedValue``. The attribute is always the plain list, and ``text`` its text.
    """

    inherited_options: ClassVar[tuple[str, ...]] = ("ttl_seconds",)

    items: JSONArray[JSONValue] = field(default_factory=list)
    max_items: int | None = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        encoded = check_items(self.items)
        object.__setattr__(self, "items", encoded.value)
        object.__setattr__(self, "text", encoded.text)
        check_max_items(self.max_items)

    @property
    def request(self) -> list[JSONValue]:
        """The items and their bound."""
        return [self.text, self.max_items]

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Append the items.

        Raises:
            InvalidValueTypeError: The value is not a list.
        """
        stored = decode_value(entry.text) if entry else []
        if not isinstance(stored, list):
            raise InvalidValueTypeError(moment.namespace, self.key, "a list")
        length = len(stored) + len(self.items)
        dropped = 0 if self.max_items is None else max(0, length - self.max_items)
        if entry and stored and not dropped and entry.text.endswith("]"):
            # Joined as text, so that a long list is not encoded again.
            text = f"{entry.text[:-1]},{self.text[1:]}"
        else:
            text = encode_value([*stored, *self.items][dropped:])
        expires_at = self.expiry(entry, moment)
        return Change([length - dropped, dropped, expires_at, moment.version], text, expires_at)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> AppendResult:
        """Make the result."""
        length, dropped, expires_at, version = answer
        ttl_seconds = self.remaining_seconds(expires_at, moment, replayed=replayed)
        return AppendResult(moment.namespace, self.key, length, dropped, ttl_seconds, replayed, version)


@dataclass(frozen=True, slots=True)
class MergeStep(ComputedStep):
    """Applies a JSON merge patch (RFC 7396) to the value; a missing entry is an empty object.

    ``patch`` may be given as an ``EncodedValue``. The attribute is always the plain value, and ``text`` its text.
    """

    inherited_options: ClassVar[tuple[str, ...]] = ("ttl_seconds", "expected_version")

    patch: JSONValue = None

    def __post_init__(self) -> None:
        Step.__post_init__(self)
        encoded = EncodedValue.of(self.patch)
        object.__setattr__(self, "patch", encoded.value)
        object.__setattr__(self, "text", encoded.text)

    @property
    def request(self) -> list[JSONValue]:
        """The patch."""
        return [self.text]

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Merge the patch into the value."""
        text = encode_value(merged(decode_value(entry.text) if entry else {}, decode_value(self.text)))
        expires_at = self.expiry(entry, moment)
        return Change([expires_at, moment.version], text, expires_at)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> MergeResult:
        """Make the result."""
        expires_at, version = answer
        ttl_seconds = self.remaining_seconds(expires_at, moment, replayed=replayed)
        return MergeResult(moment.namespace, self.key, ttl_seconds, replayed, version)


@dataclass(frozen=True, slots=True)
class GetAndDeleteStep(ComputedStep):
    """Removes an entry and returns its value, which the operation's record keeps for a replay."""

    @property
    def request(self) -> list[JSONValue]:
        """Nothing but the key."""
        return []

    @property
    def makes_version(self) -> bool:
        """False: it never writes the entry."""
        return False

    def change(self, entry: StoredEntry | None, moment: StepMoment) -> Change:
        """Remove the entry.

        Raises:
            RecordTooLargeError: The value is larger than a record may keep.
        """
        if entry is None:
            # "false" is the record of every operation that found nothing.
            return Change(answer=False, removes=True)
        size_bytes = len(entry.text.encode())
        if size_bytes > MAX_KEPT_BYTES:
            raise RecordTooLargeError(moment.namespace, self.key, MAX_KEPT_BYTES, size_bytes)
        # An object, which no record of a batch is.
        return Change({"value": decode_value(entry.text)}, removes=True)

    def result(self, moment: StepMoment, answer: Any, *, replayed: bool) -> GetAndDeleteResult:
        """Make the result."""
        if answer is False:
            return GetAndDeleteResult(moment.namespace, self.key, found=False, replayed=replayed)
        return GetAndDeleteResult(moment.namespace, self.key, found=True, value=answer["value"], replayed=replayed)


def merged(value: DecodedValue, patch: DecodedValue) -> DecodedValue:
    """Return the value after a JSON merge patch, as RFC 7396 defines it: null removes a member."""
    if not isinstance(patch, dict):
        return patch
    target = dict(value) if isinstance(value, dict) else {}
    for name, change in patch.items():
        if change is None:
            target.pop(name, None)
        else:
            target[name] = merged(target.get(name), change)
    return target


def check_items(items: object) -> EncodedValue:
    """Return the items to append, encoded.

    Raises:
        InvalidRequestError: They are not a list of at least one item.
        ValueSerializationError: An item is not a JSON value.
    """
    value = items.value if isinstance(items, EncodedValue) else items
    if not isinstance(value, list) or not value:
        raise InvalidRequestError("items must be a list of at least one JSON value")
    return EncodedValue.of(items)
