"""One logger, one line a record, with the trace id so that a log line leads to its trace."""

import logging
import sys
from typing import Final

from opentelemetry import trace

logger: Final = logging.getLogger("millrace")


class _WithTrace(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        told = trace.get_current_span().get_span_context()
        record.trace = f" trace={told.trace_id:032x}" if told.is_valid else ""
        return True


def start(service: str) -> None:
    """Logs to standard error; call it once a process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_WithTrace())
    handler.setFormatter(logging.Formatter(f"%(asctime)s %(levelname)s {service}%(trace)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logger.setLevel(logging.INFO)
