"""Spans by OpenTelemetry's conventions for messaging and databases. None holds a value, or the text of an error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Token
from functools import partial
from typing import Any, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode, Tracer, TracerProvider
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from kvworker.__version__ import __version__
from kvworker.errors import KVStoreError
from kvworker.fork_safety import ProcessLocal
from kvworker.tracing import LINKS, TRACEPARENT, MessageTrace

_TRACESTATE: Final = "tracestate"
#: More than a coalesced message has calls.
_MAX_LINKS: Final = 128

_W3C: Final = TraceContextTextMapPropagator()
_CALL: Final = context.create_key("kvworker-call")


class RunningSpan:
    """A span that is current until ``leave``, and ends with ``end``: perhaps later, and in another thread."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span, parent: Context | None = None) -> None:
        self._span = span
        self._token: Token[Context] | None = context.attach(
            context.set_value(_CALL, span, trace.set_span_in_context(span, parent))
        )

    def leave(self) -> None:
        """Let the span that was current before be current again."""
        if self._token is not None:
            context.detach(self._token)
            self._token = None

    def end(self, error: BaseException | None = None, **attributes: str | int) -> None:
        """End the span, with attributes of kvworker's own where they have a value, and with the class of an error."""
        for name, value in attributes.items():
            if value != "":
                self._span.set_attribute(f"kvworker.{name}", value)
        if error is not None:
            _record_error(self._span, error)
        self._span.end()


class Spans:
    """Makes the spans of a process.

    Args:
        make_provider: Makes the provider of each process; by default the global one.
    """

    def __init__(self, make_provider: Callable[[], TracerProvider] | None = None) -> None:
        make = make_provider or trace.get_tracer_provider
        self._tracer: ProcessLocal[Tracer] = ProcessLocal(lambda: make().get_tracer("kvworker", __version__))

    def begin_call(self, tool: str, *, queued: bool) -> RunningSpan:
        """Begin the span of a caller's call.

        Args:
            tool: The tool that is called.
            queued: True if a worker runs it, so that the message carries the span's context.
        """
        kind = SpanKind.PRODUCER if queued else SpanKind.INTERNAL
        return RunningSpan(self._tracer.get().start_span(tool, kind=kind, attributes={"kvworker.tool": tool}))

    def of_message(self, system: str, queue: str, task_id: str, tool: str) -> MessageTrace:
        """Return a message's place in the current trace, and describe the message in the span of its call."""
        current = context.get_current()
        call = context.get_value(_CALL, current)
        if isinstance(call, Span):
            call.set_attributes(_message_attributes(system, queue, task_id, tool, "send"))
        headers: dict[str, str] = {}
        _W3C.inject(headers, current)

        def attach() -> Callable[[], None]:
            """Make the context current in this thread, and return what makes the one before current again."""
            return partial(context.detach, context.attach(current))

        return MessageTrace(headers, attach)

    def begin_process(self, system: str, task_request: Any) -> RunningSpan:
        """Begin the span in which a worker processes a message.

        It continues the trace of the message. If an instrumentation of Celery has done so already, it continues that
        one's span. The span of a coalesced message is linked to those of its calls.

        Args:
            system: The broker's name by OpenTelemetry's conventions.
            task_request: Celery's request of the task, whose attributes are the message's headers.
        """
        queue = str((task_request.delivery_info or {}).get("routing_key") or "")
        tool = str(task_request.task).removeprefix("kvworker.")
        links = [Link(each) for each in _contexts(getattr(task_request, LINKS, None))]
        attributes: dict[str, Any] = _message_attributes(system, queue, task_request.id, tool, "process")
        if links:
            attributes["messaging.batch.message_count"] = len(links)
        current = trace.get_current_span().get_span_context()
        parent = context.get_current() if current.is_valid else _extracted(task_request)
        span = self._tracer.get().start_span(
            f"process {queue}", parent, kind=SpanKind.CONSUMER, attributes=attributes, links=links
        )
        return RunningSpan(span, parent)

    @contextmanager
    def query(self, system: str, operation: str) -> Iterator[None]:
        """Make a span of a trip to the database, if it is part of a span that is recorded.

        Without one, it is a worker's own check.

        Args:
            system: The database's name by OpenTelemetry's conventions.
            operation: The action there, such as ``set``.
        """
        if not trace.get_current_span().is_recording():
            yield
            return
        attributes = {"db.system.name": system, "db.operation.name": operation}
        with self._tracer.get().start_as_current_span(
            f"{operation} {system}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            # An error's text may quote a row.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield
            except KVStoreError as error:
                _record_error(span, error)
                raise
            except Exception as signal:
                # It is handled: a namespace that must be founded, a quota for which something is purged.
                span.set_attribute("error.type", type(signal).__name__)
                raise


def _message_attributes(system: str, queue: str, task_id: str, tool: str, kind: str) -> dict[str, Any]:
    return {
        "messaging.system": system,
        "messaging.destination.name": queue,
        "messaging.operation.name": tool,
        "messaging.operation.type": kind,
        "messaging.message.id": task_id,
    }


def _extracted(task_request: Any) -> Context:
    """Return the context of a message's headers. Any sender can have written them."""
    carrier = {
        name: value
        for name in (TRACEPARENT, _TRACESTATE)
        if isinstance(value := getattr(task_request, name, None), str)
    }
    return _W3C.extract(carrier, Context())


def _contexts(parents: object) -> Iterator[trace.SpanContext]:
    if not isinstance(parents, list):
        return
    for parent in parents[:_MAX_LINKS]:
        if isinstance(parent, str):
            found = trace.get_current_span(_W3C.extract({TRACEPARENT: parent}, Context())).get_span_context()
            if found.is_valid:
                yield found


def _record_error(span: Span, error: BaseException) -> None:
    span.set_attribute("error.type", type(error).__name__)
    span.set_status(Status(StatusCode.ERROR))
