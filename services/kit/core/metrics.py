"""OpenTelemetry instruments, each declared once with its unit and its attributes, and the scrape that shows them.

In a scrape an instrument has its own name with `_` for `.`, then the unit's word, then `_total` if it counts:
`millrace.gateway.request` in `s` is `millrace_gateway_request_seconds`. OTLP carries the instrument's own name.
"""

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics
from opentelemetry.metrics import CallbackOptions, Observation
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.resources import Resource

SERIES_LIMIT: Final = 2_000
"""Series that one instrument may have; whatever comes after shares one, with `otel_metric_overflow="true"`."""
HISTOGRAM_SERIES_LIMIT: Final = 500
BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
NO_TENANT: Final = ""
"""The tenant of what nobody's key or event could name."""

DECLARED: Final[dict[str, "Instrument"]] = {}
"""Every instrument of this process by name; it grows only while modules are imported."""

_meter: Final = metrics.get_meter("millrace")
_scraping: Final = threading.Lock()


class Instrument:
    """A declared metric. Raises TypeError where a measurement has other attributes than were declared."""

    def __init__(self, name: str, attributes: Sequence[str]) -> None:
        if name in DECLARED:
            raise TypeError(f"{name} is declared twice")
        DECLARED[name] = self
        self.name = name
        self.attributes = frozenset(attributes)

    def _series(self, attributes: dict[str, str | int]) -> dict[str, str]:
        if attributes.keys() != self.attributes:
            raise TypeError(f"{self.name} has the attributes {sorted(self.attributes)}, not {sorted(attributes)}")
        return {name: str(value) for name, value in attributes.items()}  # an enum's member would be another series


class Counter(Instrument):
    """A sum that only grows."""

    def __init__(self, name: str, description: str, attributes: Sequence[str] = (), *, unit: str = "") -> None:
        super().__init__(name, attributes)
        self._counter = _meter.create_counter(name, unit, description)

    def add(self, amount: float = 1, /, **attributes: str | int) -> None:
        self._counter.add(amount, self._series(attributes))


class Histogram(Instrument):
    """A distribution of measurements over fixed buckets."""

    def __init__(
        self,
        name: str,
        description: str,
        attributes: Sequence[str] = (),
        *,
        unit: str = "",
        buckets: Sequence[float] = BUCKETS,
    ) -> None:
        super().__init__(name, attributes)
        bounds = [float(bound) for bound in buckets]
        self._histogram = _meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)

    def record(self, amount: float, /, **attributes: str | int) -> None:
        self._histogram.record(amount, self._series(attributes))

    @contextmanager
    def time(self, **attributes: str | int) -> Iterator[None]:
        """The seconds that the block takes, however it ends."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.record(time.perf_counter() - began, **attributes)


class Gauge(Instrument):
    """The latest value of something."""

    def __init__(self, name: str, description: str, attributes: Sequence[str] = (), *, unit: str = "") -> None:
        super().__init__(name, attributes)
        self._gauge = _meter.create_gauge(name, unit, description)

    def set(self, value: float, /, **attributes: str | int) -> None:
        self._gauge.set(value, self._series(attributes))


class UpDownCounter(Instrument):
    """A number of things that begin and end."""

    def __init__(self, name: str, description: str, attributes: Sequence[str] = (), *, unit: str = "") -> None:
        super().__init__(name, attributes)
        self._counter = _meter.create_up_down_counter(name, unit, description)

    def add(self, amount: float, /, **attributes: str | int) -> None:
        self._counter.add(amount, self._series(attributes))

    @contextmanager
    def one(self, **attributes: str | int) -> Iterator[None]:
        """One more while the block runs."""
        self.add(1, **attributes)
        try:
            yield
        finally:
            self.add(-1, **attributes)


class ObservableGauge(Instrument):
    """A value that is read when somebody looks."""

    def __init__(self, name: str, description: str, *, unit: str = "") -> None:
        super().__init__(name, ())
        self._read: Callable[[], float] | None = None
        _meter.create_observable_gauge(name, [self._observe], unit, description)

    def follow(self, read: Callable[[], float]) -> None:
        """Reads the value from there, from now on."""
        self._read = read

    def _observe(self, _: CallbackOptions) -> Iterable[Observation]:
        return () if self._read is None else (Observation(self._read()),)


def start(resource: "Resource") -> "MeterProvider":
    """Measures from now on, for this whole process; call it once. Shut the provider down at the end to flush it."""
    from opentelemetry.exporter.prometheus import PrometheusMetricReader
    from opentelemetry.sdk import metrics as sdk
    from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader

    limits: dict[type, int] = {
        sdk.Counter: SERIES_LIMIT,
        sdk.UpDownCounter: SERIES_LIMIT,
        sdk.Histogram: HISTOGRAM_SERIES_LIMIT,
    }
    readers: list[MetricReader] = [
        PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, cardinality_limits=limits)
    ]
    if sends_otlp("METRICS"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(), cardinality_limits=limits))
    # Only OTLP carries exemplars; without it nobody would read what they cost.
    exemplars = None if len(readers) > 1 else sdk.AlwaysOffExemplarFilter()
    provider = sdk.MeterProvider(readers, resource, exemplar_filter=exemplars, shutdown_on_exit=False)
    metrics.set_meter_provider(provider)
    return provider


def scrape() -> tuple[bytes, str]:
    """Every series in Prometheus' text format, the process's own among them, and the content type.

    Takes tens of milliseconds where there are many series: call it on a thread beside the event loop.
    """
    with _scraping:  # the reader would hand the measurements of two scrapes to whichever asks first
        return generate_latest(), CONTENT_TYPE_LATEST


def sends_otlp(signal: str) -> bool:
    """Whether `TRACES`, `METRICS` or `LOGS` go out by OTLP, by the environment variables of OpenTelemetry."""
    if os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") == "none":
        return False
    endpoints = "OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"
    return any(os.environ.get(name) for name in endpoints)
