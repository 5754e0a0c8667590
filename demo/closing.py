"""The last section: the numbers collected, and shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from demo.context import DemoContext
from demo.errors import DemoFailed
from demo.steps import Trained
from demo.summary import (
    Check,
    Client,
    Drift,
    Int8,
    Interval,
    Recovery,
    Rollback,
    Summary,
    TimelineEvent,
    Traffic,
    Verdict,
    VersionSummary,
)
from demo.view import clock_time
from services.cli.home import Home
from services.cli.scores import overall
from services.cli.waterfall import Span, draw, read_spans, waterfall

WATERFALL_ROWS: Final = 40
SERVICE_PREFIX: Final = "millrace-"
FLUSH_SECONDS: Final = 2.0


@dataclass(frozen=True)
class Findings:
    """What the sections returned."""

    trained: Sequence[Trained]
    clients: list[Client]
    quiet_windows: int
    drift: Drift
    recovery: Recovery
    rollback: Rollback


async def collect(
    demo: DemoContext,
    matches: Findings,
    timeline: list[TimelineEvent],
    *,
    home: Home,
    broker: str,
    trace_id: str,
    started: datetime,
) -> Summary:
    """Asks the running system for what the sections have not measured themselves."""
    model = await demo.client.get(f"/models/{demo.model}")
    versions = {version["number"]: version for version in model["versions"]}
    await demo.clock.sleep(FLUSH_SECONDS)  # the services write their spans twice a second
    spans = read_spans(home.traces, trace_id)
    return Summary(
        broker=broker,
        model=demo.model,
        started=started,
        seconds=(demo.clock.now() - started).total_seconds(),
        steps=demo.steps,
        trace_id=trace_id,
        services_in_trace=services_of(spans),
        spans_in_trace=len(spans),
        versions=[_version(versions[trained.number], trained) for trained in matches.trained],
        int8=_int8(versions[matches.trained[0].number]),
        clients=matches.clients,
        traffic=_traffic(demo),
        quiet_windows=matches.quiet_windows,
        drift=matches.drift,
        recovery=matches.recovery,
        rollback=matches.rollback,
        timeline=timeline,
        data_folder=str(home.root),
        logs=str(home.logs),
    )


def _traffic(demo: DemoContext) -> Traffic:
    totals = demo.traffic.totals
    return Traffic(
        requests_sent=totals.sent,
        requests_failed=totals.failed,
        by_version=dict(sorted(totals.by_version.items())),
        feedback_sent=totals.feedback_sent,
        feedback_failed=totals.feedback_failed,
        failures=totals.failures,
    )


def services_of(spans: Sequence[Span]) -> list[str]:
    """Without the demo itself, which is no service."""
    return sorted({span.service.removeprefix(SERVICE_PREFIX) for span in spans} - {"demo"})


def _version(event: dict[str, Any], trained: Trained) -> VersionSummary:
    scores = overall(event)
    checks = event["gate"]["checks"]
    return VersionSummary(
        number=event["number"],
        status=event["status"],
        run=event["run"],
        data_set=event["dataset"],
        parent=event["parent"] or None,
        precision=event["precision"],
        macro_f1=scores["macro_f1"],
        ci95=Interval(**scores["macro_f1_ci95"]),
        accuracy=scores["accuracy"],
        tfidf_macro_f1=event["tfidf_macro_f1"],
        test_rows=scores["rows"],
        gate=Verdict(
            passed=event["gate"]["passed"],
            checks=[Check(name=one["name"], passed=one["passed"], detail=one["detail"]) for one in checks],
        ),
        training_seconds=trained.seconds,
    )


def _int8(event: dict[str, Any]) -> Int8:
    variants = {one["precision"]: one for one in event["variants"]}
    if not {"int8", "fp32"} <= variants.keys():
        raise DemoFailed(f"version {event['number']} has no int8 variant to tell of")
    small, full = variants["int8"], variants["fp32"]
    return Int8(
        macro_f1=small["macro_f1"],
        fp32_macro_f1=full["macro_f1"],
        agreement=small["agreement"],
        speedup=small["speedup"],
        size_ratio=small["size_kib"] / full["size_kib"],
        passed=small["passed"],
    )


def closing_lines(summary: Summary, home: Home, width: int) -> list[str]:
    """The end of the scenario, for people."""
    return [
        *_timeline(summary),
        "",
        f"trace {summary.trace_id}: {summary.spans_in_trace} spans of {', '.join(summary.services_in_trace)}",
        *draw(waterfall(read_spans(home.traces, summary.trace_id), WATERFALL_ROWS), width),
        "",
        *_figures(summary),
        "",
        f"summary  {home.demo / 'summary.json'}",
        f"data     {summary.data_folder}",
        f"logs     {summary.logs}",
    ]


def _timeline(summary: Summary) -> list[str]:
    lines = [f"{'began':<12}  {'seconds':>7}  step"]
    lines += [f"{clock_time(step.started):<12}  {step.seconds:>7.1f}  {step.name}" for step in summary.steps]
    return [*lines, f"{'':12}  {summary.seconds:>7.1f}  in all"]


def _figures(summary: Summary) -> list[str]:
    int8, drift, recovery, rollback = summary.int8, summary.drift, summary.recovery, summary.rollback
    by_version = ", ".join(f"v{version} {count}" for version, count in summary.traffic.by_version.items())
    return [
        *map(_scores, summary.versions),
        f"int8: macro F1 {int8.macro_f1:.3f} against {int8.fp32_macro_f1:.3f}; {int8.speedup:.1f} times as fast",
        f"int8: {int8.size_ratio:.0%} of the size",
        f"traffic: {summary.traffic.requests_sent} requests, {summary.traffic.requests_failed} failed ({by_version})",
        f"quiet: {summary.quiet_windows} windows of unchanged traffic without an alarm",
        f"drift: noticed after {drift.detected_after_requests} requests, {drift.detection_seconds:.1f} s",
        f"recovery: {recovery.seconds:.1f} s from the alarm to the new version having all the traffic",
        f"accuracy on the new traffic: before {recovery.accuracy_before:.3f}{_bounds(recovery.ci95_before)}",
        f"accuracy on the new traffic: after  {recovery.accuracy_after:.3f}{_bounds(recovery.ci95)}",
        f"bad version {rollback.version}: refused; forced in, rolled back in {rollback.seconds:.1f} s",
        f"bad version {rollback.version}: {rollback.requests_failed} requests failed",
    ]


def _scores(version: VersionSummary) -> str:
    gate = "passed" if version.gate.passed else "refused"
    scores = f"macro F1 {version.macro_f1:.3f}{_bounds(version.ci95)} on {version.test_rows} test texts"
    return f"version {version.number}: {scores}, TF-IDF {version.tfidf_macro_f1:.3f}; gate {gate}"


def _bounds(interval: Interval) -> str:
    return f" (95% CI {interval.low:.3f}..{interval.high:.3f})"
