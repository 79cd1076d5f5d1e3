"""The switch of traces. Code that calls, sends, runs or queries asks ``active`` for spans, which is None while off.

Only ``enable`` imports OpenTelemetry, so that a process without traces pays a look at one name for each step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from kvworker.errors import ConfigurationError, extra_needed

if TYPE_CHECKING:
    from opentelemetry.trace import TracerProvider

    from kvworker.tracing.spans import Spans

#: W3C's header of the context.
TRACEPARENT: Final = "traceparent"
#: The header that holds the contexts of a coalesced message's calls. W3C's headers hold the context of any other one.
LINKS: Final = "kvworker_traceparents"
#: Makes this process's spans; None while traces are off.
active: Spans | None = None


class MessageTrace:
    """A message's place in a trace, and, as a context manager, the context in which it is published.

    Another thread than the caller's may publish it, and an instrumentation of Celery in the host program then makes a
    span of that.

    Attributes:
        headers: Continue the trace in the worker.
    """

    def __init__(self, headers: Mapping[str, Any], attach: Callable[[], Callable[[], object]] = lambda: int) -> None:
        self.headers = headers
        self._attach = attach
        self._detach: Callable[[], object] = int

    def __enter__(self) -> None:
        self._detach = self._attach()

    def __exit__(self, *exc_info: object) -> None:
        self._detach()


def enable(make_provider: Callable[[], TracerProvider] | None = None) -> None:
    """Let this process and its forked children make spans from now on.

    Args:
        make_provider: Makes the provider of each process, on first use in it. By default it is OpenTelemetry's global
            one, which your program sets.

    Raises:
        ConfigurationError: The extra ``otel`` is missing.
    """
    global active  # noqa: PLW0603 - traces are a state of the process
    try:
        from kvworker.tracing.spans import Spans  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(extra_needed("tracing", "otel")) from error
    active = Spans(make_provider)


def combined_trace(traces: Sequence[MessageTrace | None]) -> MessageTrace | None:
    """Return the trace of a coalesced message, which is linked to those of its calls; None if these have none."""
    parents = [trace.headers[TRACEPARENT] for trace in traces if trace is not None and TRACEPARENT in trace.headers]
    return MessageTrace({LINKS: parents}) if parents else None


def disable() -> None:
    """Make no further spans."""
    global active  # noqa: PLW0603
    active = None
