"""OpenTelemetry, set up once, and Prometheus metrics; the same for every service.

`OTEL_EXPORTER_OTLP_ENDPOINT` (or `..._TRACES_ENDPOINT`) sends the spans to a collector. They are kept in the
data folder as well, one JSON object a line, so that `millrace trace ID` can draw them without one.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import orjson
from opentelemetry import context, propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from prometheus_client import Counter, Gauge, Histogram, Info

from services.contracts.errors import Refusal

EXPORT_DELAY_MS: Final = 500
MAX_TRACE_FILE_BYTES: Final = 32 * 1024 * 1024
VERSION: Final = "0.1.0"

BUILD_INFO = Info("millrace_build", "The version of this service.")
OUTBOX_DEPTH = Gauge("millrace_outbox_depth", "Events that are committed and not yet sent; above 0 for long: stuck.")
OUTBOX_OLDEST = Gauge("millrace_outbox_oldest_seconds", "Age of the oldest event that is not yet sent.")
CONSUMER_LAG = Gauge("millrace_consumer_lag", "Records of the partition not yet handled.", ["topic", "partition"])
DEAD_LETTERS = Counter("millrace_dead_letters", "Events given up, by topic and reason.", ["topic", "code"])
EVENTS_HANDLED = Counter("millrace_events_handled", "Events handled, duplicates included.", ["topic"])
EVENT_SECONDS = Histogram("millrace_event_handling_seconds", "From receiving an event to its commit.", ["topic"])
JOBS_RUNNING = Gauge("millrace_jobs_running", "Jobs this service holds a lease on.", ["kind"])
TIMER_DELAY = Histogram("millrace_timer_delay_seconds", "How late a durable timer was handled.")

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
    told = span.get_span_context()
    return {
        "trace_id": f"{told.trace_id:032x}" if told else "",
        "span_id": f"{told.span_id:016x}" if told else "",
        "parent_id": f"{span.parent.span_id:016x}" if span.parent else None,
        "name": span.name,
        "kind": span.kind.name.lower(),
        "service": span.resource.attributes.get("service.name", ""),
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "status": span.status.status_code.name.lower(),
        "attributes": dict(span.attributes or {}),
    }


def start(service: str, traces_folder: Path) -> TracerProvider:
    """Sets tracing up for this process; call it once. Shut the provider down at the end to flush it."""
    resource = Resource.create({"service.name": f"millrace-{service}", "service.version": VERSION})
    provider = TracerProvider(resource=resource)
    exporters: list[SpanExporter] = [LocalSpans(traces_folder, f"millrace-{service}")]
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT") or os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        exporters.append(OTLPSpanExporter())
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=EXPORT_DELAY_MS))
    trace.set_tracer_provider(provider)
    BUILD_INFO.info({"service": service, "version": VERSION})
    return provider


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
    told = trace.get_current_span().get_span_context()
    return f"{told.trace_id:032x}" if told.is_valid else ""


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
        except Refusal as refusal:
            opened.set_attribute("error.type", refusal.code)
            opened.set_status(Status(StatusCode.ERROR, str(refusal)))
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
