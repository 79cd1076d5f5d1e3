from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode

from kvworker import InlineKeyValueStore, InvalidValueTypeError, tracing
from kvworker.client.transport.message import Message
from kvworker.errors import ConfigurationError
from kvworker.tracing import LINKS, MessageTrace, combined_trace
from tests.support.spans import Traced, traced

_PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> Iterator[Traced]:
    with traced() as spans:
        yield spans


@pytest.fixture
def store(tmp_path: Path) -> Iterator[InlineKeyValueStore]:
    block = {"url": f"sqlite:///{tmp_path}/kv.sqlite", "migrate_on_start": True}
    tools = {"kv_store": {"default_adapter": "sqlite", "adapters": {"sqlite": block}}}
    with InlineKeyValueStore({"tools": tools}) as store:
        yield store


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent else 0


def test_a_store_without_a_queue_makes_spans_of_calls_and_of_sql(store: InlineKeyValueStore, spans: Traced) -> None:
    store.set("n", "key", "text")
    with spans.provider.get_tracer("host").start_as_current_span("host") as host, pytest.raises(InvalidValueTypeError):
        store.increment("n", "key")
    made = {span.name: span for span in spans.finished()}
    assert made["kv_set"].parent is None
    assert parent_of(made["kv_increment"]) == host.get_span_context().span_id
    assert made["kv_set"].kind == SpanKind.INTERNAL
    assert made["set sqlite"].kind == SpanKind.CLIENT
    assert parent_of(made["increment sqlite"]) == made["kv_increment"].context.span_id
    assert made["kv_increment"].status.status_code == StatusCode.ERROR
    assert made["kv_increment"].attributes == {
        "kvworker.tool": "kv_increment",
        "kvworker.outcome": "refused",
        "kvworker.reason": "value_type",
        "error.type": "InvalidValueTypeError",
    }
    # An exception's text may quote a row, and a span with an event would hold it.
    assert not any(span.events for span in spans.finished())


def test_what_is_no_part_of_a_trace_makes_no_spans_of_sql(store: InlineKeyValueStore, spans: Traced) -> None:
    store.adapter.check_usable()
    assert spans.finished() == ()


def request(**headers: object) -> SimpleNamespace:
    return SimpleNamespace(id="id", task="kvworker.kv_get", delivery_info={"routing_key": "kv"}, **headers)


@pytest.mark.parametrize("header", [_PARENT, None, 5, "", "00-nonsense"])
def test_a_message_continues_the_trace_of_its_header(spans: Traced, header: object) -> None:
    assert tracing.active is not None
    running = tracing.active.begin_process("redis", request(traceparent=header))
    running.leave()
    running.end()
    (span,) = spans.finished()
    assert (span.name, span.kind) == ("process kv", SpanKind.CONSUMER)
    assert f"{parent_of(span):016x}" == ("b7ad6b7169203331" if header == _PARENT else "0" * 16)


def test_a_span_of_celerys_instrumentation_is_continued(spans: Traced) -> None:
    assert tracing.active is not None
    with spans.provider.get_tracer("celery").start_as_current_span("run/kvworker.kv_get") as outer:
        running = tracing.active.begin_process("redis", request(traceparent=_PARENT))
        running.leave()
        running.end()
    assert parent_of(spans.finished()[0]) == outer.get_span_context().span_id


def test_links_are_bounded(spans: Traced) -> None:
    assert tracing.active is not None
    running = tracing.active.begin_process(
        "redis", request(**{LINKS: [_PARENT, 5, "", None, "00-x"] + [_PARENT] * 500})
    )
    running.leave()
    running.end()
    (span,) = spans.finished()
    assert 1 < len(span.links) <= 128


def test_a_coalesced_message_has_the_contexts_of_its_calls() -> None:
    assert combined_trace([None, None]) is None
    trace = combined_trace([MessageTrace({"traceparent": _PARENT}), None, MessageTrace({})])
    assert trace is not None
    assert trace.headers == {LINKS: [_PARENT]}


def test_a_message_is_not_traced_while_traces_are_off() -> None:
    assert tracing.active is None
    assert Message("task", "id", {}, "", 0.0).trace is None


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "kvworker.tracing.spans", raising=False)
    with pytest.raises(ConfigurationError, match="needs the extra `otel`"):
        tracing.enable()
    assert tracing.active is None


def test_nothing_makes_spans_while_traces_are_off() -> None:
    """The Redis client imports OpenTelemetry wherever that is installed."""
    program = (
        "import sys, kvworker.inline, kvworker.client.aio, kvworker.client.sync, tasks.application\n"
        "import kvworker.adapters.postgres, kvworker.adapters.sqlite, kvworker.worker.celery_worker\n"
        "sys.exit('kvworker.tracing.spans' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
