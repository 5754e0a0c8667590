"""One trace tells the story: from the data set through run, rollout and drift to the first answer of the successor."""

from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.gateway.telemetry import FIRST_REQUEST
from tests.e2e.virtual.outcome import Outcome, run_scenario

SEED = 1


class Waterfall:
    """The spans of one trace, and how they hang together."""

    def __init__(self, spans: list[ReadableSpan]) -> None:
        self.spans = spans
        self._by_id = {_id(span): span for span in spans}

    def named(self, name: str, **attributes: object) -> list[ReadableSpan]:
        return [
            span
            for span in self.spans
            if span.name == name and attributes.items() <= dict(span.attributes or {}).items()
        ]

    def way_to(self, span: ReadableSpan) -> list[str]:
        """The names from the root down to the span."""
        names = [span.name]
        while span.parent is not None:
            span = self._by_id[span.parent.span_id]
            names.append(span.name)
        return names[::-1]


def _id(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.span_id


def _trace_of(span: ReadableSpan) -> int:
    context = span.get_span_context()
    assert context is not None
    return context.trace_id


@pytest.fixture(scope="module")
def spans() -> Iterator[InMemorySpanExporter]:
    """The provider can be set once a process; a collector of our own is added to whichever it is."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()


@pytest.fixture(scope="module")
def outcome(spans: InMemorySpanExporter, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    folder = tmp_path_factory.mktemp("traced")
    return run_scenario(folder / "house", folder / "common", seed=SEED)


@pytest.fixture(scope="module")
def waterfall(spans: InMemorySpanExporter, outcome: Outcome) -> Waterfall:
    """The trace of the first data set; it was announced in plain JSON, so its first handler opened it."""
    finished = spans.get_finished_spans()
    first = next(span for span in finished if span.name == "process dataset.ready")
    return Waterfall([span for span in finished if _trace_of(span) == _trace_of(first)])


def test_the_first_version_is_reached_from_the_data_set_without_a_gap(waterfall: Waterfall) -> None:
    first = waterfall.named(FIRST_REQUEST, **{"millrace.version": 1})
    assert len(first) == 1
    way = waterfall.way_to(first[0])
    assert way[:6] == [
        "process dataset.ready", "job run", "send model.trained", "process model.trained", "send deployment.changed",
        FIRST_REQUEST,
    ]  # fmt: skip


def test_the_trace_goes_on_through_drift_and_retraining_to_the_first_answer_of_the_successor(
    waterfall: Waterfall,
) -> None:
    first = waterfall.named(FIRST_REQUEST, **{"millrace.version": 2})
    assert len(first) == 1
    way = waterfall.way_to(first[0])
    assert way[0] == "process dataset.ready"
    steps = [
        "process deployment.changed", "timer monitor.window", "send drift.detected", "process drift.detected",
        "timer retraining", "job run", "send model.trained", "process model.trained", "send deployment.changed",
        FIRST_REQUEST,
    ]  # fmt: skip
    assert [name for name in way if name in steps][-len(steps) :] == steps


def test_the_versions_loading_and_the_rollouts_timers_stand_in_the_same_trace(waterfall: Waterfall) -> None:
    for name in ("load chapters/1", "load chapters/2", "process replica.reported", "timer rollout.bake"):
        assert waterfall.named(name), name
    assert waterfall.named("send rollout.judged")
    assert waterfall.named("process rollout.judged")


def test_what_the_next_data_set_brings_is_a_trace_of_its_own(waterfall: Waterfall) -> None:
    assert len(waterfall.named("process dataset.ready")) == 1
    assert waterfall.named("load chapters/3") == []
