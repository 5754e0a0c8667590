"""One logger, one line a record, with the trace id so that a log line leads to its trace.

The same records go out by OTLP where telemetry asks for it. OpenTelemetry keeps its logs in modules with an underscore
until that part of its API is stable; these are its documented names, and this is the one module that knows them.
"""

import copy
import logging
import sys
from typing import TYPE_CHECKING, Final

from opentelemetry import trace

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk.resources import Resource

logger: Final = logging.getLogger("millrace")


class _WithTrace(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        context = trace.get_current_span().get_span_context()
        shown = copy.copy(record)  # other handlers get the record as it was logged
        shown.trace = f" trace={context.trace_id:032x}" if context.is_valid else ""
        return super().format(shown)


class _NotItsOwn(logging.Filter):
    """Leaves out what the exporters say, or a collector that is away would be told so for ever."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.name.startswith(("opentelemetry.", "urllib3."))


def start(service: str) -> None:
    """Logs to standard error; call it once a process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_WithTrace(f"%(asctime)s %(levelname)s {service}%(trace)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(logging.INFO)


def send_otlp(resource: "Resource") -> "LoggerProvider":
    """Sends every record that is logged by OTLP as well. Shut the provider down at the end to flush it."""
    from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
    from opentelemetry.instrumentation.logging.handler import LoggingHandler
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor

    provider = LoggerProvider(resource, shutdown_on_exit=False)
    provider.add_log_record_processor(BatchLogRecordProcessor(OTLPLogExporter()))
    handler = LoggingHandler(logger_provider=provider)
    handler.addFilter(_NotItsOwn())
    logging.getLogger().addHandler(handler)
    return provider
