"""The run's spans: part of the trace that the service hands over in TRACEPARENT, kept where it keeps its own."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from services.kit.core import telemetry
from services.trainer.domain.spec import TRACES_VARIABLE, Stage


@contextmanager
def traced_process() -> Iterator[None]:
    """Keeps the spans of the block; without a folder for them in the environment they are dropped."""
    folder = os.environ.get(TRACES_VARIABLE)
    provider = telemetry.start_tracing("trainer", Path(folder)) if folder else None
    carrier = {name: os.environ[name.upper()] for name in ("traceparent", "tracestate") if name.upper() in os.environ}
    try:
        with telemetry.attached(carrier):
            yield
    finally:
        if provider is not None:
            provider.shutdown()


@contextmanager
def stage_span(stage: Stage, run: str) -> Iterator[None]:
    with telemetry.span(f"stage {stage}", attributes={"millrace.run.id": run, "millrace.run.stage": stage.value}):
        yield
