"""Each line of an error names the path, the value and the fix."""

from __future__ import annotations

from typing import Any

import pytest

from kvworker.errors import ConfigurationError
from kvworker.settings import Settings
from tests.support.refusals import refusal


def postgres(**block: object) -> dict[str, Any]:
    return {"tools": {"kv_store": {"adapters": {"postgres": block}}}}


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"que": {}}, "que: unknown key; did you mean queue?"),
        ({"quue": {}}, "quue: unknown key; did you mean queue?"),
        ({"Queue": {}}, "Queue: unknown key; did you mean queue?"),
        ({"tool": {}}, "tool: unknown key; did you mean tools?"),
        ({"policy": {}}, "policy: unknown key; did you mean policies?"),
        ({"conversation-store": {}}, "conversation-store: unknown key; did you mean conversation_store?"),
        ({"tools": {"kv_stor": {}}}, "tools.kv_stor: unknown key; did you mean tools.kv_store?"),
        ({"tools": {"kv-store": {}}}, "tools.kv-store: unknown key; did you mean tools.kv_store?"),
        (
            {"tools": {"kv_store": {"adapters": {"postgress": {}}}}},
            "tools.kv_store.adapters.postgress: unknown key; did you mean tools.kv_store.adapters.postgres?",
        ),
        ({"tools": []}, "tools: it should be a mapping (key: value), not a list"),
        ({"tools": {"kv_store": "x"}}, "tools.kv_store: it should be a mapping (key: value), not a str"),
        ({"queue": [1]}, "queue: it should be a mapping (key: value), not a list"),
        (
            {"tools": {"kv_store": {"adapters": {"sqlite": 3}}}},
            "tools.kv_store.adapters.sqlite: it should be a mapping (key: value), not 3",
        ),
        (
            postgres(operation_retention_seconds=5),
            "tools.kv_store.adapters.postgres.operation_retention_seconds:"
            " set maintenance.operation_retention_seconds instead",
        ),
        (
            {"facade": {"timeout_seconds": "15"}},
            "facade.timeout_seconds: it should be a number, not '15', which is text; write 15 without quotes",
        ),
        (
            {"facade": {"timeout_seconds": "1e3"}},
            "facade.timeout_seconds: it should be a number, not '1e3', which is text; write 1000 without quotes",
        ),
        (
            {"facade": {"sender_threads": "2"}},
            "facade.sender_threads: it should be an integer, not '2', which is text; write 2 without quotes",
        ),
        (
            {"facade": {"coalesce_calls": "no"}},
            "facade.coalesce_calls: it should be true or false, not 'no', which is text; write false without quotes",
        ),
        ({"facade": {"timeout_seconds": "5s"}}, "facade.timeout_seconds: it should be a number, not '5s'"),
        ({"facade": {"timeout_seconds": "inf"}}, "facade.timeout_seconds: it should be a number, not 'inf'"),
        ({"queue": {"queue_name": 7}}, "queue.queue_name: it should be text, not 7; write '7' with quotes"),
        ({"queue": {"queue_name": True}}, "queue.queue_name: it should be text, not True; write it with quotes"),
    ],
)
def test_one_problem_is_one_exact_line(data: dict[str, Any], line: str) -> None:
    assert refusal(data) == line


@pytest.mark.parametrize(
    ("data", "start", "part"),
    [
        ({"queue": {"brokr_url": "x"}}, "queue.brokr_url: unknown key", "did you mean broker_url?"),
        ({"queue": {1: "x"}}, "queue.1: unknown key", "known here: broker_url"),
        ({"tools": {"kv_store": {"defualt_adapter": 1}}}, "tools.kv_store.defualt_adapter: ", "default_adapter?"),
        ({"tools": {"kv_store": {"default_adapter": 3}}}, "tools.kv_store.default_adapter: ", "not 3"),
        (postgres(pool={"sise": 1}), "tools.kv_store.adapters.postgres.pool.sise: ", "did you mean size?"),
        (postgres(pool={"size": 0}), "tools.kv_store.adapters.postgres.pool.size: ", "not 0"),
        (postgres(pool={"size": True}), "tools.kv_store.adapters.postgres.pool.size: ", "not True"),
        (postgres(pool={"size": "10"}), "tools.kv_store.adapters.postgres.pool.size: ", "not '10'"),
        (postgres(pool={"timeout": 1e10}), "tools.kv_store.adapters.postgres.pool.timeout: ", "not 10000000000.0"),
        (
            postgres(statement_timeout_seconds=2147484),
            "tools.kv_store.adapters.postgres.statement_timeout_seconds: ",
            "less than or equal to 2000000",
        ),
        (
            {"tools": {"kv_store": {"adapters": {"sqlite": {"busy_timeout_seconds": 1e300}}}}},
            "tools.kv_store.adapters.sqlite.busy_timeout_seconds: ",
            "less than or equal to 2000000",
        ),
        (postgres(pool=5), "tools.kv_store.adapters.postgres.pool: ", "not 5"),
        (postgres(url="sqlite:///x"), "tools.kv_store.adapters.postgres.url: ", "postgresql+psycopg://"),
        (
            postgres(url="postgresql://h/d", reuse_conversation_store=True),
            "tools.kv_store.adapters.postgres.reuse_conversation_store: true contradicts",
            "remove the url",
        ),
        ({"queue": {"queue_name": "a,b"}}, "queue.queue_name: ", "not 'a,b'"),
        ({"queue": {"arguments": {"x-queue-type": "quorum"}}}, "queue.arguments: only RabbitMQ", "amqp://"),
        ({"queue": {"arguments": {"durable": True}}}, "queue.arguments.durable", "x-"),
        ({"queue": {"maintenance_queue_name": "kv"}}, "queue.maintenance_queue_name: it should differ", "'kv'"),
        ({"queue": {"visibility_timeout_seconds": 4}}, "queue.visibility_timeout_seconds: ", "not 4"),
        ({"queue": {"visibility_timeout_seconds": 60.5}}, "queue.visibility_timeout_seconds: ", "not 60.5"),
        ({"queue": {"max_redeliveries": 0}}, "queue.max_redeliveries: ", "not 0"),
        ({"queue": {"retry_seconds": 60}}, "queue.retry_seconds: it should be below", "not 60"),
        ({"facade": {"timeout_seconds": 0}}, "facade.timeout_seconds: ", "greater than 0, not 0"),
        ({"facade": {"timeout_seconds": float("inf")}}, "facade.timeout_seconds: ", "not inf"),
        ({"facade": {"timeout_seconds": float("nan")}}, "facade.timeout_seconds: ", "not nan"),
        ({"facade": {"timeout_seconds": "5s"}}, "facade.timeout_seconds: ", "not '5s'"),
        ({"facade": {"timeout_seconds": 3601}}, "queue.result_expires_seconds: it should be at least", "3601"),
        ({"facade": {"sender_threads": 0}}, "facade.sender_threads: ", "not 0"),
        ({"maintenance": {"sweep_batch_rows": 1.5}}, "maintenance.sweep_batch_rows: ", "not 1.5"),
        (
            {"maintenance": {"sweep_interval_seconds": 10}},
            "maintenance.sweep_budget_seconds: it should be at most",
            "20",
        ),
        (
            {"maintenance": {"recompute_budget_seconds": 60}},
            "maintenance.recompute_budget_seconds: it should be below queue.visibility_timeout_seconds (60)",
            "not 60",
        ),
        (
            {"maintenance": {"operation_retention_seconds": 719}},
            "maintenance.operation_retention_seconds: it should be at least 720, not 719",
            "record of its write",
        ),
        (
            {"maintenance": {"generated_id_retention_seconds": 719}, "queue": {"result_expires_seconds": 60}},
            "maintenance.generated_id_retention_seconds: it should be at least 720, not 719",
            "record of its write",
        ),
        (
            {"maintenance": {"generated_id_retention_seconds": 3599}},
            "maintenance.generated_id_retention_seconds: it should be at least queue.result_expires_seconds (3600)",
            "not 3599",
        ),
        (
            {"maintenance": {"generated_id_retention_seconds": 90_000}},
            "maintenance.generated_id_retention_seconds: it should be at most maintenance.operation_retention_seconds",
            "(86400), not 90000",
        ),
        (
            {"maintenance": {"generated_id_retention_seconds": 3600}, "facade": {"timeout_seconds": 1801}},
            "facade.timeout_seconds: it should be at most half of maintenance.generated_id_retention_seconds (3600)",
            "not 1801",
        ),
    ],
)
def test_one_problem_names_path_value_and_fix(data: dict[str, Any], start: str, part: str) -> None:
    message = refusal(data)
    assert message.startswith(start)
    assert part in message
    assert "\n" not in message


def test_long_facade_timeouts_need_long_retention() -> None:
    data = {"facade": {"timeout_seconds": 500.0}, "maintenance": {"operation_retention_seconds": 900}}
    assert refusal(data).startswith("facade.timeout_seconds: it should be at most half of")


def test_retention_of_exactly_twice_a_messages_lifetime_is_enough() -> None:
    data = {"maintenance": {"operation_retention_seconds": 720}, "queue": {"result_expires_seconds": 60}}
    assert Settings.from_mapping(data).maintenance.operation_retention_seconds == 720


@pytest.mark.parametrize(
    ("data", "paths"),
    [
        (
            {"queue": {"visibility_timeout_seconds": 5}},
            [
                "queue.retry_seconds",
                *(f"maintenance.{task}_budget_seconds" for task in ("sweep", "recompute", "prune")),
            ],
        ),
        (
            {"queue": {"visibility_timeout_seconds": 5}, "maintenance": {"sweep_budget_seconds": "x"}},
            ["maintenance.sweep_budget_seconds", "queue.retry_seconds"],
        ),
        (
            {"facade": {"timeout_seconds": "a"}, "queue": {"queue_name": "q", "maintenance_queue_name": "q"}},
            ["facade.timeout_seconds", "queue.maintenance_queue_name"],
        ),
    ],
)
def test_rules_between_blocks_are_checked_beside_other_problems(data: dict[str, Any], paths: list[str]) -> None:
    assert [line.partition(":")[0] for line in refusal(data).splitlines()] == paths


def test_every_problem_is_listed_at_once() -> None:
    data = {
        "quue": {},
        "policies": {"x": 1},
        "tools": {"kv_store": {"adapters": {"postgres": {"pool": {"size": 0, "timeout": -1}}, "sqlite": {"x": 1}}}},
        "queue": {"max_redeliveries": 0},
        "facade": {"nope": 1},
        "maintenance": {"sweep_interval_seconds": 1},
        "conversation_store": {"dsn": "x"},
    }
    with pytest.raises(ConfigurationError) as caught:
        Settings.from_mapping(data, environ={"ATLAS_KV_MAX_OVERFLOW": "x"})
    paths = [line.partition(": ")[0] for line in str(caught.value).splitlines()]
    assert sorted(paths) == sorted(
        [
            "quue",
            "policies.x",
            "ATLAS_KV_MAX_OVERFLOW",
            "tools.kv_store.adapters.postgres.pool.size",
            "tools.kv_store.adapters.postgres.pool.timeout",
            "tools.kv_store.adapters.sqlite.x",
            "conversation_store.dsn",
            "queue.max_redeliveries",
            "facade.nope",
            "maintenance.sweep_budget_seconds",
        ]
    )
