"""The spans that a test's code makes, kept in memory."""

from dataclasses import dataclass

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.kit.core import telemetry


@dataclass(frozen=True)
class Spans:
    exporter: InMemorySpanExporter

    def named(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        (span,) = self.named(name)
        return span

    @staticmethod
    def current_trace() -> str:
        return telemetry.current_trace_id()


def trace_of(span: ReadableSpan) -> str:
    response = span.get_span_context()
    return f"{response.trace_id:032x}" if response else ""


def span_of(span: ReadableSpan) -> str:
    response = span.get_span_context()
    return f"{response.span_id:016x}" if response else ""
