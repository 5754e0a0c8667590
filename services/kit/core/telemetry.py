"""OpenTelemetry, set up once for each service: its spans, its metrics and its logs, and what the kit itself measures.

`OTEL_EXPORTER_OTLP_ENDPOINT` sends all three to a collector, `..._TRACES_ENDPOINT`, `..._METRICS_ENDPOINT` and
`..._LOGS_ENDPOINT` each alone; `OTEL_METRICS_EXPORTER=none` and the like leave one out. Spans are kept in the data
folder as well, one JSON object a line, so that `millrace trace ID` can draw them without a collector.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from services.contracts.errors import MillraceError
from services.kit.core import log, metrics
from services.kit.core.metrics import Counter, Gauge, Histogram, UpDownCounter, sends_otlp

EXPORT_DELAY_MS: Final = 500
MAX_TRACE_FILE_BYTES: Final = 32 * 1024 * 1024
VERSION: Final = "0.1.0"

BUILD_INFO: Final = Gauge("millrace.build.info", "1; the version of this service is its label.", ["service", "version"])
OUTBOX_DEPTH: Final = Gauge(
    "millrace.outbox.depth", "Events that are committed and not yet sent; above 0 for long: stuck.", unit="{event}"
)
OUTBOX_OLDEST: Final = Gauge("millrace.outbox.oldest", "Age of the oldest event that is not yet sent.", unit="s")
CONSUMER_LAG: Final = Gauge(
    "millrace.consumer.lag", "Records of the partition not yet handled.", ["topic", "partition"], unit="{record}"
)
DEAD_LETTERS: Final = Counter(
    "millrace.dead_letters",
    "Events given up, by topic and reason; without a tenant where the message named none.",
    ["tenant", "topic", "code"],
    unit="{event}",
)
EVENTS_HANDLED: Final = Counter(
    "millrace.events.handled", "Events handled, duplicates included.", ["tenant", "topic"], unit="{event}"
)
EVENT_SECONDS: Final = Histogram(
    "millrace.event.handling", "From receiving an event to its commit.", ["tenant", "topic"], unit="s"
)
JOBS_RUNNING: Final = UpDownCounter(
    "millrace.jobs.running", "Jobs this service holds a lease on.", ["tenant", "kind"], unit="{job}"
)
TIMER_DELAY: Final = Histogram("millrace.timer.delay", "How late a durable timer was handled.", ["tenant"], unit="s")

tracer = trace.get_tracer("millrace")


class LocalSpans(SpanExporter):
    """Appends finished spans to `<service>.jsonl`; at its limit the file becomes `.1` and a new one begins."""

    def __init__(self, folder: Path, service: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{service}.jsonl"

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            if self._path.exists() and self._path.stat().st_size > MAX_TRACE_FILE_BYTES:
                self._path.replace(self._path.with_suffix(".jsonl.1"))
            with self._path.open("ab") as file:
                file.write(b"".join(orjson.dumps(_as_json(span)) + b"\n" for span in spans))
        except OSError:
            return SpanExportResult.FAILURE  # a full disk must not stop the service
        return SpanExportResult.SUCCESS


def _as_json(span: ReadableSpan) -> dict[str, Any]:
    context = span.get_span_context()
    return {
        "trace_id": f"{context.trace_id:032x}" if context else "",
        "span_id": f"{context.span_id:016x}" if context else "",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "kind": span.kind.name.lower(),
        "service": span.resource.attributes.get("service.name", ""),
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "status": span.status.status_code.name.lower(),
        "attributes": dict(span.attributes or {}),
    }


@dataclass(frozen=True)
class Telemetry:
    """What a service sends; `shutdown` sends the rest of it."""

    shutdowns: tuple[Callable[[], object], ...]

    def shutdown(self) -> None:
        """Side by side: a collector that hangs costs the patience of one exporter, not of each."""
        with ThreadPoolExecutor(len(self.shutdowns)) as pool:
            list(pool.map(lambda shutdown: shutdown(), self.shutdowns))


def start(service: str, traces_folder: Path) -> Telemetry:
    """Spans, metrics and logs of this process from now on; call it once."""
    resource = resource_of(service)
    spans = start_tracing(service, traces_folder)
    measures = metrics.start(resource)
    records = log.send_otlp(resource) if sends_otlp("LOGS") else None
    BUILD_INFO.set(1, service=service, version=VERSION)
    shutdowns = (spans.shutdown, measures.shutdown)
    return Telemetry(shutdowns if records is None else (*shutdowns, records.shutdown))


def start_tracing(service: str, traces_folder: Path) -> TracerProvider:
    """Spans alone, for a process that is no service. Shut the provider down at the end to flush it."""
    provider = TracerProvider(resource=resource_of(service))
    exporters: list[SpanExporter] = [LocalSpans(traces_folder, f"millrace-{service}")]
    if sends_otlp("TRACES"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporters.append(OTLPSpanExporter())
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_DELAY_MS))
    trace.set_tracer_provider(provider)
    return provider


def resource_of(service: str) -> Resource:
    """Whose telemetry it is."""
    return Resource.create({"service.name": f"millrace-{service}", "service.version": VERSION})


def current_carrier() -> dict[str, str]:
    """The present trace context as W3C headers; empty outside a trace."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


def current_traceparent() -> str:
    """The present trace context as W3C has it, sampled or not; nothing outside a trace. Fast: one a request."""
    span_context = current_span_context()
    if not span_context.is_valid:
        return ""
    return f"00-{span_context.trace_id:032x}-{span_context.span_id:016x}-{int(span_context.trace_flags):02x}"


def current_trace_id() -> str:
    """32 hex digits, or nothing outside a trace."""
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""


def current_span_context() -> SpanContext:
    """The context of the span under way, to link another span to; not valid where there is none."""
    return trace.get_current_span().get_span_context()


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = SpanKind.INTERNAL,
    parent: Mapping[str, str] | None = None,
    attributes: Mapping[str, str | int | float | bool] | None = None,
) -> Iterator[Span]:
    """A span under `parent` (a carrier), or under the present one. A refusal marks it with its code."""
    around = propagate.extract(parent) if parent is not None else context.get_current()
    with tracer.start_as_current_span(
        name, context=around, kind=kind, attributes=dict(attributes or {}), record_exception=False
    ) as opened:
        try:
            yield opened
        except MillraceError as error:
            opened.set_attribute("error.type", error.code)
            opened.set_status(Status(StatusCode.ERROR, str(error)))
            raise
        except Exception as error:
            opened.set_attribute("error.type", type(error).__name__)
            raise


@contextmanager
def following(traceparent: str) -> Iterator[None]:
    """Runs the block inside the trace that a checked `traceparent` names, without a span of its own. Fast, as above."""
    if not traceparent:
        yield
        return
    _, trace_id, span_id, flags = traceparent.split("-")
    parent = SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
    token = context.attach(trace.set_span_in_context(NonRecordingSpan(parent)))
    try:
        yield
    finally:
        context.detach(token)


@contextmanager
def attached(carrier: Mapping[str, str]) -> Iterator[None]:
    """Runs the block inside the trace that the carrier names, without a span of its own."""
    token = context.attach(propagate.extract(carrier))
    try:
        yield
    finally:
        context.detach(token)
