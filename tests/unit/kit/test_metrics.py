"""Instruments: what a scrape shows of them, what they refuse, and how many series they may have."""

import enum
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.kit.core import metrics
from services.kit.core.metrics import (
    HISTOGRAM_SERIES_LIMIT,
    SERIES_LIMIT,
    Counter,
    Gauge,
    Histogram,
    ObservableGauge,
    UpDownCounter,
)
from tests.fixtures.metrics import Scraped

ANSWERS = Counter("test.answers", "Answers.", ["tenant", "outcome"], unit="{answer}")
BYTES = Counter("test.read", "Bytes read.", ["tenant"], unit="By")
WAIT = Histogram("test.wait", "Seconds.", ["tenant"], unit="s", buckets=(1, 5))
SHARE = Histogram("test.share_ratio", "A share.", ["tenant"], unit="1", buckets=(0.5, 1))
LATEST = Gauge("test.latest", "The latest value.", ["tenant"])
OPEN = UpDownCounter("test.open", "Open ones.", ["tenant"])
HELD = ObservableGauge("test.held", "Read when somebody looks.")
FLOODED = Counter("test.flooded", "By whoever calls.", ["tenant"])
FLOODED_WAIT = Histogram("test.flooded_wait", "By whoever calls.", ["tenant"], unit="s", buckets=(1,))

OVERFLOW = "otel_metric_overflow"


class Outcome(enum.StrEnum):
    OK = "ok"


def lines(prefix: str) -> list[str]:
    return [line for line in metrics.scrape()[0].decode().splitlines() if line.startswith(prefix)]


@pytest.mark.usefixtures("scraped")
def test_a_scrape_names_a_metric_by_its_unit_and_shows_its_own_labels_alone() -> None:
    BYTES.add(7, tenant="names")
    WAIT.record(3, tenant="names")
    SHARE.record(0.5, tenant="names")
    assert lines("test_read") == ['test_read_bytes_total{tenant="names"} 7.0']
    assert lines("test_wait") == [
        'test_wait_seconds_bucket{le="1.0",tenant="names"} 0.0',
        'test_wait_seconds_bucket{le="5.0",tenant="names"} 1.0',
        'test_wait_seconds_bucket{le="+Inf",tenant="names"} 1.0',
        'test_wait_seconds_count{tenant="names"} 1.0',
        'test_wait_seconds_sum{tenant="names"} 3.0',
    ]
    assert 'test_share_ratio_bucket{le="0.5",tenant="names"} 1.0' in lines(
        "test_share"
    )  # a bound belongs to its bucket
    assert lines("target_info") == []


def test_a_label_is_one_series_whatever_type_its_value_has(scraped: Scraped) -> None:
    ANSWERS.add(1, tenant="types", outcome="ok")
    ANSWERS.add(1, tenant="types", outcome=Outcome.OK)
    ANSWERS.add(1, tenant="types", outcome=3)
    ANSWERS.add(1, tenant="types", outcome="3")
    of_types = [sample for sample in scraped.samples(ANSWERS) if sample.labels["tenant"] == "types"]
    assert {(sample.labels["outcome"], sample.value) for sample in of_types} == {("ok", 2), ("3", 2)}
    assert len(of_types) == 2


@pytest.mark.parametrize(
    "attributes", [{}, {"tenant": "a"}, {"outcome": "ok"}, {"tenant": "a", "outcome": "b", "key": "c"}]
)
def test_a_measurement_with_other_attributes_than_declared_is_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(TypeError, match=r"test\.answers has the attributes \['outcome', 'tenant'\]"):
        ANSWERS.add(1, **attributes)


def test_an_instrument_is_declared_once() -> None:
    with pytest.raises(TypeError, match="declared twice"):
        Gauge("test.answers", "Another.")


def test_levels_go_up_and_down_and_observed_values_are_read_at_each_scrape(scraped: Scraped) -> None:
    with OPEN.one(tenant="levels"):
        assert scraped.value(OPEN, tenant="levels") == 1
    assert scraped.value(OPEN, tenant="levels") == 0
    with pytest.raises(RuntimeError), OPEN.one(tenant="levels"):
        raise RuntimeError
    assert scraped.value(OPEN, tenant="levels") == 0
    LATEST.set(2, tenant="levels")
    LATEST.set(1, tenant="levels")
    assert scraped.value(LATEST, tenant="levels") == 1
    assert scraped.samples(HELD) == []
    values = iter([4.0, 5.0])
    HELD.follow(lambda: next(values))
    assert [scraped.value(HELD), scraped.value(HELD)] == [4, 5]


def test_a_block_is_timed_also_when_it_fails(scraped: Scraped) -> None:
    with pytest.raises(RuntimeError), WAIT.time(tenant="timed"):
        raise RuntimeError
    (count,) = [
        sample.value
        for sample in scraped.samples(WAIT)
        if sample.name.endswith("_count") and sample.labels["tenant"] == "timed"
    ]
    assert count == 1


def test_names_that_callers_choose_share_a_series_from_the_limit_on_and_nothing_is_lost(scraped: Scraped) -> None:
    for number in range(SERIES_LIMIT + 50):
        FLOODED.add(1, tenant=f"tenant-{number}")
        FLOODED.add(1, tenant="tenant-0")
    for number in range(HISTOGRAM_SERIES_LIMIT + 50):
        FLOODED_WAIT.record(0.5, tenant=f"tenant-{number}")
    flooded = scraped.samples(FLOODED)
    assert len(flooded) == SERIES_LIMIT + 1
    assert sum(sample.value for sample in flooded) == 2 * (SERIES_LIMIT + 50)
    assert scraped.value(FLOODED, tenant="tenant-0", **{OVERFLOW: ""}) == SERIES_LIMIT + 51
    assert scraped.value(FLOODED, tenant="", **{OVERFLOW: "true"}) == 50
    counts = [sample for sample in scraped.samples(FLOODED_WAIT) if sample.name.endswith("_count")]
    assert len(counts) == HISTOGRAM_SERIES_LIMIT + 1
    assert sum(sample.value for sample in counts) == HISTOGRAM_SERIES_LIMIT + 50


@pytest.mark.slow
@pytest.mark.usefixtures("scraped")
def test_scrapes_at_the_same_time_show_each_series_once() -> None:
    for number in range(200):
        WAIT.record(1, tenant=f"at-once-{number}")
    between = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change places wherever they can
    try:
        with ThreadPoolExecutor(8) as pool:
            shown = list(pool.map(lambda _: lines('test_wait_seconds_count{tenant="at-once-'), range(64)))
    finally:
        sys.setswitchinterval(between)
    assert {len(match) for match in shown} == {200}
