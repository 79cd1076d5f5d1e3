"""The whole suite in one class."""

from kvworker.testing.idempotency import IdempotencyCases
from kvworker.testing.increments import IncrementCases
from kvworker.testing.names import NameCases
from kvworker.testing.quotas import QuotaCases
from kvworker.testing.ttl import TTLCases
from kvworker.testing.upkeep import UpkeepCases
from kvworker.testing.values import ValueCases


class AdapterConformance(NameCases, ValueCases, TTLCases, IncrementCases, QuotaCases, IdempotencyCases, UpkeepCases):
    """Every case. Subclass it with a ``make_adapter`` fixture."""
