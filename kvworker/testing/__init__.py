"""The conformance suite: what every adapter does alike, as tests for pytest.

An adapter's author runs it by a subclass with one fixture, ``make_adapter``. It gives a function that makes an
adapter over the same, at first empty store each time it is called in a test, from the configuration
keys ``namespace_quota_bytes``, ``global_quota_bytes`` and ``operation_retention_seconds``::

    class TestMyAdapter(AdapterConformance):
        @pytest.fixture
        def make_adapter(self, tmp_path):
            return lambda **config: MyAdapter({"directory": tmp_path, **config})
"""

from pkgutil import iter_modules

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in iter_modules(__path__)))

# Assertions are rewritten only in what is imported after that.
from kvworker.testing.suite import AdapterConformance  # noqa: E402
from kvworker.testing.support import AdapterFactory, eventually  # noqa: E402

__all__ = ["AdapterConformance", "AdapterFactory", "eventually"]
