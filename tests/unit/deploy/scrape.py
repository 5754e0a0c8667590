"""`python -m tests.unit.deploy.scrape SERVICE...`: the series of a scrape after each declared metric was measured once.

A process of its own, so that what it measures is in nobody's figures. Prints the labels by the series' name, as JSON.
"""

import importlib
import json
import sys
from collections import defaultdict

from opentelemetry.sdk.resources import Resource
from prometheus_client.parser import text_string_to_metric_families

from services.kit.core import metrics
from services.kit.core.metrics import Counter, Gauge, Histogram, Instrument, ObservableGauge, UpDownCounter


def measure(instrument: Instrument) -> None:
    attributes: dict[str, str | int] = dict.fromkeys(instrument.attributes, "x")
    match instrument:
        case Counter() | UpDownCounter():
            instrument.add(1, **attributes)
        case Histogram():
            instrument.record(1, **attributes)
        case Gauge():
            instrument.set(1, **attributes)
        case ObservableGauge():
            instrument.follow(lambda: 1.0)
        case _:
            raise AssertionError(instrument.name)


def labels_by_series() -> dict[str, set[str]]:
    labels = defaultdict[str, set[str]](set)
    for family in text_string_to_metric_families(metrics.scrape()[0].decode()):
        for sample in family.samples:
            labels[sample.name].update(sample.labels)
    return labels


if __name__ == "__main__":
    for service in sys.argv[1:]:
        importlib.import_module(f"services.{service}.telemetry")
    importlib.import_module("services.kit.core.telemetry")
    metrics.start(Resource.get_empty())
    for declared in metrics.DECLARED.values():
        measure(declared)
    json.dump({name: sorted(match) for name, match in labels_by_series().items()}, sys.stdout)
