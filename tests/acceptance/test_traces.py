"""One trace from the caller through the queue and the worker to SQL, over real worker processes and a real exporter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.instrumentation.celery import CeleryInstrumentor
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, Tracer
from redis import Redis

from kvworker import AsyncKeyValueStore, InvalidValueTypeError, KeyValueStore, Settings
from tests.acceptance.conftest import POOLS
from tests.support.processes import ValkeyNode, WorkerNode, running, wait_until
from tests.support.spans import Traced, traced

_VALUE = "a private value"


class Collector:
    """Takes spans over HTTP, as OpenTelemetry's collector does."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        collector = self

        class _Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces"
                collector.bodies.append(body)
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Collector:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Any]:
        return [
            span
            for body in self.bodies
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture
def calls() -> Iterator[Traced]:
    """The spans of this process, the caller."""
    with traced() as spans:
        yield spans


@pytest.fixture
def traced_environ(kv_environ: Mapping[str, str], collector: Collector) -> dict[str, str]:
    return {**kv_environ, "KVWORKER_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}


def attributes(span: Any) -> dict[str, Any]:
    """The attributes of an exported span."""
    return {item.key: item.value.string_value or item.value.int_value for item in span.attributes}


def span_id(span: ReadableSpan) -> bytes:
    assert span.context is not None
    return bytes(span.context.span_id.to_bytes(8))


def trace_id(span: ReadableSpan) -> bytes:
    assert span.context is not None
    return bytes(span.context.trace_id.to_bytes(16))


@pytest.mark.parametrize("arguments", POOLS, ids=["prefork", "threads"])
def test_one_trace_from_the_caller_to_the_database(
    arguments: list[str],
    store: KeyValueStore,
    settings: Settings,
    tmp_path: Path,
    traced_environ: Mapping[str, str],
    collector: Collector,
    calls: Traced,
) -> None:
    with running(WorkerNode(tmp_path, traced_environ, arguments)) as worker:
        store.set("n", "key", _VALUE)
        with pytest.raises(InvalidValueTypeError):
            store.increment("n", "key")
        store.submit("kv_get", {"namespace": "n", "key": "key"}).result()
        asyncio.run(get_async(settings))
        # The last spans leave each process of the worker when it ends.
        assert worker.stop() == 0
    made, exported = calls.finished(), collector.spans()
    assert [span.name for span in made] == ["kv_set", "kv_increment", "kv_get", "kv_get"]
    assert {span.kind for span in made} == {SpanKind.PRODUCER}
    counted = 0
    for call in made:
        (process,) = (span for span in exported if span.parent_span_id == span_id(call))
        queries = [span for span in exported if span.parent_span_id == process.span_id]
        assert {span.trace_id for span in (process, *queries)} == {trace_id(call)}
        assert process.kind == process.SPAN_KIND_CONSUMER
        assert {span.kind for span in queries} == {process.SPAN_KIND_CLIENT}
        assert {attributes(span)["db.system.name"] for span in queries} == {"postgresql"}
        assert f"{call.name.removeprefix('kv_')} postgresql" in {span.name for span in queries}
        counted += 1 + len(queries)
        assert call.attributes is not None
        sent, received = dict(call.attributes), attributes(process)
        assert sent.pop("messaging.operation.type") == "send"
        assert received.pop("messaging.operation.type") == "process"
        for name in ("system", "destination.name", "operation.name", "message.id"):
            assert sent[f"messaging.{name}"] == received[f"messaging.{name}"]
        assert received["kvworker.namespace"] == "n"
        assert received["kvworker.outcome"] == sent["kvworker.outcome"]
    # None is for the worker's checks of itself.
    assert len(exported) == counted
    refused = next(span for span in exported if attributes(span).get("kvworker.tool") == "kv_increment")
    assert attributes(refused)["error.type"] == "InvalidValueTypeError"
    assert made[1].attributes is not None
    assert made[1].attributes["error.type"] == "InvalidValueTypeError"
    shown = "".join(span.to_json() for span in made).encode() + b"".join(collector.bodies)
    assert _VALUE.encode() not in shown


async def get_async(settings: Settings) -> None:
    async with AsyncKeyValueStore(settings) as store:
        await store.get("n", "key")


def test_a_coalesced_message_is_linked_to_its_calls(
    store: KeyValueStore,
    tmp_path: Path,
    traced_environ: Mapping[str, str],
    collector: Collector,
    calls: Traced,
) -> None:
    with running(WorkerNode(tmp_path, traced_environ, POOLS[1])) as worker, ThreadPoolExecutor(12) as threads:
        list(threads.map(lambda number: store.increment("n", str(number % 12), timeout=60), range(240)))
        assert worker.stop() == 0
    made = {(trace_id(span), span_id(span)) for span in calls.finished()}
    assert len(made) == 240
    processes = [span for span in collector.spans() if span.kind == span.SPAN_KIND_CONSUMER]
    coalesced = [span for span in processes if attributes(span)["messaging.operation.name"] == "apply_many"]
    linked = [(link.trace_id, link.span_id) for span in coalesced for link in span.links]
    alone = [(span.trace_id, span.parent_span_id) for span in processes if span not in coalesced]
    assert linked
    assert all(len(span.links) == attributes(span)["messaging.batch.message_count"] > 1 for span in coalesced)
    # A call that a coalesced message left out was sent again individually.
    assert set(linked) | set(alone) == made
    assert len(set(linked)) == len(linked)


@pytest.fixture
def host(calls: Traced) -> Iterator[Tracer]:
    """A host program that traces what it sends with Celery."""
    instrumentor = CeleryInstrumentor()  # type: ignore[no-untyped-call]
    instrumentor.instrument(tracer_provider=calls.provider)
    yield calls.provider.get_tracer("host")
    instrumentor.uninstrument()


def test_celerys_own_instrumentation_fits(
    store: KeyValueStore,
    settings: Settings,
    tmp_path: Path,
    traced_environ: Mapping[str, str],
    collector: Collector,
    calls: Traced,
    host: Tracer,
) -> None:
    """It traces signatures, and its spans of our own messages are in the trace of the call, whatever thread sends."""
    with running(WorkerNode(tmp_path, traced_environ, POOLS[1])) as worker:
        with host.start_as_current_span("host"):
            store.signature("kv_set", {"namespace": "n", "key": "key", "value": 1}).apply_async().get(timeout=60)
            store.get("n", "key", timeout=60)
            asyncio.run(get_async(settings))
        assert worker.stop() == 0
    made, exported = calls.finished(), collector.spans()
    assert len({trace_id(span) for span in made}) == 1
    names = [span.name for span in made]
    assert names.count("kv_get") == 2
    assert names.count("apply_async/kvworker.kv_get") == 2
    assert names.count("apply_async/kvworker.kv_set") == 1
    assert {span.trace_id for span in exported} == {trace_id(made[0])}
    sent = {span_id(span) for span in made if span.name.startswith("apply_async/")}
    assert {span.parent_span_id for span in exported if span.kind == span.SPAN_KIND_CONSUMER} == sent


def test_a_collector_that_is_away_holds_no_worker(
    store: KeyValueStore, tmp_path: Path, kv_environ: Mapping[str, str]
) -> None:
    environ = {**kv_environ, "KVWORKER_TRACES": "1", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with running(WorkerNode(tmp_path, environ, POOLS[0])) as worker:
        assert store.increment("n", "counter", timeout=60).value == 1
        assert worker.stop(timeout_seconds=60) == 0


def test_hostile_trace_headers_change_nothing(
    store: KeyValueStore,
    tmp_path: Path,
    traced_environ: Mapping[str, str],
    collector: Collector,
    valkey_node: ValkeyNode,
) -> None:
    hostile: list[dict[str, Any]] = [
        {"traceparent": 1, "tracestate": {}},
        {"traceparent": "x" * 1000, "tracestate": "\n"},
        {"kvworker_traceparents": ["00-zz", 5, None] * 1000},
        {"kvworker_traceparents": "00"},
    ]
    with running(WorkerNode(tmp_path, traced_environ, POOLS[1])):
        arguments = {"namespace": "n", "key": "counter"}
        results = [store.signature("kv_increment", arguments).apply_async(headers=headers) for headers in hostile]
        assert sorted(result.get(timeout=60)["value"] for result in results) == [1, 2, 3, 4]
        wait_until(lambda: len(collector.spans()) >= 8, timeout_seconds=60, what="the spans")
    assert not any(span.links for span in collector.spans())


def test_without_traces_a_message_has_no_trace_header(store: KeyValueStore, valkey_node: ValkeyNode) -> None:
    store.submit("kv_get", {"namespace": "n", "key": "key"})
    with Redis.from_url(valkey_node.url) as client:
        wait_until(lambda: client.llen("kv") == 1, timeout_seconds=60)
        assert b"traceparent" not in client.lrange("kv", 0, -1)[0]
