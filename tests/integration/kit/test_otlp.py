"""Spans, metrics and logs that leave a process by OTLP, as a collector receives them."""

import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

LIMIT_SECONDS: Final = 60.0
MESSAGES: Final[dict[str, Any]] = {
    "/v1/traces": ExportTraceServiceRequest,
    "/v1/metrics": ExportMetricsServiceRequest,
    "/v1/logs": ExportLogsServiceRequest,
}
SERVICE: Final = """
import sys
import time
from pathlib import Path
from services.kit.core import log, telemetry
from services.kit.core.log import logger

log.start("probe")
sending = telemetry.start("probe", Path(sys.argv[1]))
with telemetry.span("work"):
    logger.info("%s events wait", 3)
telemetry.EVENT_SECONDS.record(0.2, tenant="acme", topic="t")
try:
    raise RuntimeError("it broke")
except RuntimeError:
    logger.exception("a part failed")
time.sleep(float(sys.argv[2]))
sending.shutdown()
"""


class Collector:
    """Keeps what is sent to it, by path."""

    def __init__(self) -> None:
        self.received = defaultdict[str, list[Any]](list)
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                message = MESSAGES[self.path]()
                # Compressed bodies are not asked for, so none come.
                message.ParseFromString(self.rfile.read(int(self.headers["content-length"])))
                collector.received[self.path].append(message)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Says nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def spans(self) -> list[Any]:
        return [
            span
            for message in self.received["/v1/traces"]
            for resource in message.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def metrics(self) -> dict[str, Any]:
        return {
            metric.name: metric
            for message in self.received["/v1/metrics"]
            for resource in message.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def logs(self) -> list[Any]:
        return [
            record
            for message in self.received["/v1/logs"]
            for resource in message.resource_logs
            for scope in resource.scope_logs
            for record in scope.log_records
        ]


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.close()


def run(folder: Path, *, seconds: float = 0, **variables: str) -> str:
    """What the probe wrote to standard error."""
    stored = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    command = [sys.executable, "-c", SERVICE, str(folder), str(seconds)]
    done = subprocess.run(
        command, env=stored | variables, check=True, capture_output=True, text=True, timeout=LIMIT_SECONDS
    )
    return done.stderr


def attributes(part: Any) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in part.attributes}


def test_one_endpoint_takes_spans_metrics_and_logs_that_belong_together(tmp_path: Path, collector: Collector) -> None:
    written = run(tmp_path, OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    (span,) = collector.spans()
    measured = collector.metrics()["millrace.event.handling"]
    (point,) = measured.histogram.data_points
    assert (measured.unit, attributes(point)) == ("s", {"tenant": "acme", "topic": "t"})
    waits, failed = collector.logs()
    assert (waits.body.string_value, waits.severity_text, waits.trace_id) == ("3 events wait", "INFO", span.trace_id)
    assert attributes(waits) == {}
    assert attributes(failed)["exception.message"] == "it broke"
    for sent in (
        collector.received["/v1/traces"][0].resource_spans,
        collector.received["/v1/metrics"][0].resource_metrics,
        collector.received["/v1/logs"][0].resource_logs,
    ):
        assert attributes(sent[0].resource)["service.name"] == "millrace-probe"
    assert f" INFO probe trace={span.trace_id.hex()} 3 events wait\n" in written
    assert "RuntimeError: it broke" in written


def test_each_signal_can_be_left_out_or_sent_alone(tmp_path: Path, collector: Collector) -> None:
    run(
        tmp_path,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
    )
    assert set(collector.received) == {"/v1/traces"}
    collector.received.clear()
    run(tmp_path, OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{collector.endpoint}/v1/metrics")
    assert set(collector.received) == {"/v1/metrics"}
    collector.received.clear()
    run(tmp_path)
    assert not collector.received


def test_a_store_that_is_away_delays_the_end_by_seconds_and_fills_no_other(
    tmp_path: Path, collector: Collector
) -> None:
    away = Collector()
    away.close()
    began = time.monotonic()
    written = run(
        tmp_path,
        seconds=2,
        OTEL_METRIC_EXPORT_INTERVAL="100",
        OTEL_BLRP_SCHEDULE_DELAY="100",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint,
        OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{away.endpoint}/v1/metrics",
    )
    assert time.monotonic() - began < LIMIT_SECONDS / 2
    assert "encountered while exporting metrics" in written
    assert [record.severity_text for record in collector.logs()] == ["INFO", "ERROR"]
