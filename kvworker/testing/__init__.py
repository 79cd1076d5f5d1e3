"""The conformance suite: the behavior that all adapters share, as tests for pytest.

May import ``adapters.contract``, ``model``, ``errors`` and pytest. To run the suite against your adapter, subclass
``AdapterConformance`` and give it one fixture, ``make_adapter``. The fixture returns a function that makes an adapter
from the configuration keys ``namespace_quota_bytes``, ``global_quota_bytes`` and ``operation_retention_seconds``. All
adapters that it makes within a test use the same store, which is empty when the test begins::

    class TestMyAdapter(AdapterConformance):
        @pytest.fixture
        def make_adapter(self, tmp_path):
            return lambda **config: MyAdapter({"directory": tmp_path, **config})

An adapter need not limit the numbers of entries, operation records and namespaces. One that does passes
``LimitConformance`` too.
"""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

# Assertions are rewritten only in modules that are imported after that.
from kvworker.testing.limits import LimitConformance  # noqa: E402
from kvworker.testing.suite import AdapterConformance  # noqa: E402
from kvworker.testing.support import AdapterFactory, eventually  # noqa: E402

__all__ = ["AdapterConformance", "AdapterFactory", "LimitConformance", "eventually"]
