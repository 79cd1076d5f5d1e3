"""The conformance suite in one class."""

from kvworker.testing.appends import AppendCases
from kvworker.testing.apply_many import ApplyManyCases
from kvworker.testing.batch_limits import BatchLimitCases
from kvworker.testing.batches import BatchCases
from kvworker.testing.durable_steps import DurableStepCases
from kvworker.testing.expiry import ExpiryCases
from kvworker.testing.idempotency import IdempotencyCases
from kvworker.testing.increments import IncrementCases
from kvworker.testing.inspection import InspectionCases
from kvworker.testing.listings import ClearCases, ListingCases
from kvworker.testing.maintenance import MaintenanceCases
from kvworker.testing.merges import MergeCases
from kvworker.testing.names import NameCases
from kvworker.testing.own_quotas import OwnQuotaCases
from kvworker.testing.permits import PermitCases
from kvworker.testing.quotas import QuotaCases
from kvworker.testing.rate_limits import RateLimitCases
from kvworker.testing.removals import RemovalCases
from kvworker.testing.ttl import TTLCases
from kvworker.testing.values import ValueCases
from kvworker.testing.versions import VersionCases


class AdapterConformance(
    NameCases,
    ValueCases,
    TTLCases,
    ExpiryCases,
    IncrementCases,
    AppendCases,
    MergeCases,
    RemovalCases,
    VersionCases,
    QuotaCases,
    OwnQuotaCases,
    IdempotencyCases,
    BatchCases,
    BatchLimitCases,
    DurableStepCases,
    ApplyManyCases,
    PermitCases,
    RateLimitCases,
    ListingCases,
    ClearCases,
    MaintenanceCases,
    InspectionCases,
):
    """All cases. Subclass it and give it a ``make_adapter`` fixture."""
