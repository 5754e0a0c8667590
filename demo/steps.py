"""The scenario's sections, one function each. They only do what any user could: publish, ask, read, move rollouts."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from demo.clients import classify_over_grpc
from demo.context import DemoContext
from demo.corpus import Text, spoiled
from demo.errors import DemoFailed, NotInTime
from demo.statistics import mcnemar, wilson
from demo.summary import Client, Drift, Interval, Recovery, Rollback
from demo.traffic import Answered
from services.cli.consumer import ReceivedEvent

TRAINING_SECONDS: Final = 900.0
MOVE_SECONDS: Final = 240.0
DRIFT_SECONDS: Final = 180.0
QUIET_WINDOWS: Final = 3
BUSY_RATE: Final = 80.0
"""Requests a second while windows are to fill."""
BACKGROUND_RATE: Final = 4.0
"""While a model is trained: enough to notice a failed request, little enough to leave the trainer its cores."""
CANARY_RATE: Final = 30.0
SHIFTED_SHARE: Final = 0.85
"""Of the shifted traffic: below three quarters two windows are not always enough."""
SETTLED_SHARE: Final = 0.5
"""Afterwards both kinds come; it is what the new version's baseline was made of."""
SPOILED_SHARE: Final = 0.6
SPOILED_ROWS: Final = {"train": 400, "test": 300, "reference": 100}
"""Of the bad data set: enough to be refused by, and soon trained on."""
CLIENT_TEXTS: Final = 24
HELD_OUT_TEXTS: Final = 300
LABELS_SECONDS: Final = 120.0


@dataclass(frozen=True)
class Trained:
    """A version, and how long it took from what asked for it to `model.trained`."""

    number: int
    passed: bool
    seconds: float
    event: ReceivedEvent


# --- 1. train ----------------------------------------------------------------------------------


async def train_first(demo: DemoContext) -> Trained:
    """A data set is published on Kafka; the trainer makes version 1 of it."""
    sizes = [sum(text.split == split for text in demo.corpus.data_set) for split in ("train", "test", "reference")]
    demo.view.warn(
        f"{len(demo.corpus.data_set)} docstrings of Python's library in six classes: {sizes[0]} to train on, "
        f"{sizes[1]} to test, {sizes[2]} as reference"
    )
    with demo.step("train version 1"):
        return await _train(demo, f"{demo.model}-first", demo.corpus.data_set)


async def _train(demo: DemoContext, data_set: str, rows: tuple[Text, ...]) -> Trained:
    since, published = demo.log.mark(), demo.clock.now()
    demo.publish_data_set(data_set, rows)
    event = await demo.trained(lambda event: event.body["dataset"] == data_set, since, TRAINING_SECONDS)
    return await _judged(demo, event, since, published)


async def _judged(demo: DemoContext, event: ReceivedEvent, since: int, requests: datetime) -> Trained:
    """Waits for what the registry's gate says of the run's version."""
    run = event.body["run"]
    _, registered = await demo.fact_where(
        lambda kind, payload: kind == "version_registered" and payload["trained"]["run"] == run,
        "the registry to give the run a version",
        MOVE_SECONDS,
        since,
    )
    number = int(registered["version"])
    verdict, payload = await demo.fact_where(
        lambda kind, payload: kind in {"version_passed", "version_refused"} and payload["version"] == number,
        f"the gate to judge version {number}",
        MOVE_SECONDS,
        since,
    )
    for check in payload["gate"]["checks"]:
        demo.view.warn(f"{'passed ' if check['passed'] else 'REFUSED'} {check['name']}: {check['detail']}")
    seconds = (event.time - requests).total_seconds()
    return Trained(number, verdict.body["kind"] == "version_passed", seconds, event)


# --- 2. serve ----------------------------------------------------------------------------------


async def serve_first(demo: DemoContext, trained: Trained) -> list[Client]:
    """Version 1 is loaded and takes all traffic; a client asks over REST and over gRPC."""
    if not trained.passed:
        raise DemoFailed(f"the gate refused version {trained.number}, the first one")
    with demo.step(f"roll out version {trained.number}"):
        await demo.fact("rollout_promoted", "version 1 to be rolled out", MOVE_SECONDS, version=trained.number)
    with demo.step("ask over REST and gRPC"):
        return [await _classify_by_rest(demo), await _classify_by_grpc(demo)]


def _test_texts(demo: DemoContext) -> list[Text]:
    """Spread over the classes, from the rows that no version learns from."""
    tests = [text for text in demo.corpus.data_set if text.split == "test"]
    return sorted(tests[: CLIENT_TEXTS * 4], key=lambda text: text.label)[::4]


async def _classify_by_rest(demo: DemoContext) -> Client:
    answers = [await demo.traffic.classify(text, feedback=False) for text in _test_texts(demo)]
    for answer in [one for one in answers if one is not None][::8]:
        mark = "right" if answer.right else f"wrong, it is {answer.text.label}"
        demo.view.warn(f"“{answer.text.text[:64]}…” → {answer.label} ({mark})")
    return _client(demo, "REST", sum(answer is not None and answer.right for answer in answers), len(answers))


async def _classify_by_grpc(demo: DemoContext) -> Client:
    texts = _test_texts(demo)
    version, labels = await classify_over_grpc(
        demo.endpoints["grpc"], demo.key, demo.model, [text.text for text in texts]
    )
    right = sum(label == text.label for label, text in zip(labels, texts, strict=True))
    return _client(demo, f"gRPC (v{version})", right, len(texts))


def _client(demo: DemoContext, client: str, right: int, requests: int) -> Client:
    demo.view.warn(f"a client over {client}: {right} of {requests} test texts answered rightly")
    if right * 2 < requests:
        raise DemoFailed(f"only {right} of {requests} answers over {client} were right")
    return Client(client=client, requests=requests, right=right)


# --- 3. drift and recovery ---------------------------------------------------------------------


async def stay_quiet(demo: DemoContext, version: int) -> int:
    """Unchanged traffic flows until some windows have closed. The number of quiet ones; raises if any was not."""
    demo.traffic.mix.share = 0.0
    demo.traffic.labelled = 0.25
    with demo.step("unchanged traffic"):
        demo.traffic.rate = BUSY_RATE
        async with demo.showing(demo.traffic_line):
            windows = await _windows(demo, version, QUIET_WINDOWS)
        demo.traffic.rate = 0
    for window in windows:
        demo.view.warn(
            f"window {window['number']}: {window['rows']} texts, p={window['p_value']:.3f}, {window['verdict']}"
        )
    if demo.log.first(lambda event: event.topic == "drift.detected" and event.key == demo.model):
        raise DemoFailed("the monitor saw drift where there was none")
    return sum(window["verdict"] == "quiet" for window in windows)


async def _windows(demo: DemoContext, version: int, matching: int) -> list[dict[str, Any]]:
    deadline = demo.clock.monotonic() + DRIFT_SECONDS
    while demo.clock.monotonic() < deadline:
        windows = await demo.windows(version)
        if len(windows) >= matching:
            return windows
        await demo.clock.sleep(0.3)
    raise NotInTime(f"{matching} windows of version {version}", DRIFT_SECONDS)


async def drift(demo: DemoContext, version: int) -> tuple[Drift, ReceivedEvent]:
    """The mix shifts, and every answer gets its right label. What the monitor told, and when."""
    demo.view.warn(
        f"now {SHIFTED_SHARE:.0%} of the texts come from installed packages: the same six subjects in other words. "
        "These packages were chosen because version 1 is weak on them"
    )
    demo.traffic.mix.share = SHIFTED_SHARE
    demo.traffic.labelled = 1.0
    since, before, began = demo.log.mark(), demo.traffic.totals.sent, demo.clock.now()
    with demo.step("shifted traffic until drift.detected"):
        demo.traffic.rate = BUSY_RATE
        async with demo.showing(demo.traffic_line):
            event = await demo.log.wait(
                lambda event: event.topic == "drift.detected" and event.body["version"] == version,
                "drift.detected",
                DRIFT_SECONDS,
                since,
            )
        after = demo.traffic.totals.sent - before
    body = event.body
    matches = Drift(
        test=body["test"],
        p_value=body["p_value"],
        statistic=body["statistic"],
        consecutive_windows=body["consecutive"],
        shifted_share=SHIFTED_SHARE,
        detected_after_requests=after,
        detection_seconds=(event.time - began).total_seconds(),
    )
    demo.view.warn(
        f"noticed after {matches.detected_after_requests} requests and {matches.detection_seconds:.1f} s of the new mix"
    )
    return matches, event


async def recover(demo: DemoContext, version: int, drifted: ReceivedEvent) -> tuple[Trained, Recovery]:
    """The trainer retrains with the labels, the new version passes its gate and its canary, and takes over."""
    held_out = list(demo.corpus.shifted_unseen)[:HELD_OUT_TEXTS]
    queued = demo.log.events.index(drifted)
    with demo.step("wait for enough labels"):
        await _enough_labels(demo, version)
    before = await _measure(demo, held_out, version)
    demo.traffic.rate = BACKGROUND_RATE
    demo.traffic.labelled = 0.0
    with demo.step("retrain with labelled feedback"):
        event = await demo.trained(lambda event: event.body["parent"] == version, queued, TRAINING_SECONDS)
        trained = await _judged(demo, event, queued, drifted.time)
    if not trained.passed:
        raise DemoFailed(f"the gate refused version {trained.number}, which should have been better")
    demo.traffic.labelled = 1.0
    with demo.step(f"canary of version {trained.number}"):
        promoted = await _end_of_rollout(demo, trained.number, queued)
    if promoted.body["kind"] != "rollout_promoted":
        raise DemoFailed(f"version {trained.number} was not promoted: {promoted.body['reason']}")
    demo.traffic.mix.share = SETTLED_SHARE
    demo.traffic.rate = 0
    after = await _measure(demo, held_out, trained.number)
    return trained, _recovery(demo, before, after, (promoted.time - drifted.time).total_seconds())


async def _enough_labels(demo: DemoContext, version: int) -> None:
    """Labelled traffic goes on until the trainer has queued a run because of the drift."""
    demo.traffic.rate = CANARY_RATE
    deadline = demo.clock.monotonic() + LABELS_SECONDS
    while demo.clock.monotonic() < deadline:
        runs = (await demo.client.get("/runs", model=demo.model))["runs"]
        matches = next((run for run in runs if run["cause"] == f"drift of version {version}"), None)
        if matches is not None:
            demo.view.warn(f"{matches['run']} is queued: enough of the new texts have labels")
            return
        demo.view.progress(await demo.traffic_line())
        await demo.clock.sleep(0.3)
    raise NotInTime("the trainer to queue a run because of the drift", LABELS_SECONDS)


async def _end_of_rollout(demo: DemoContext, version: int, since: int) -> ReceivedEvent:
    """The registry's fact that ended or paused the rollout of this version."""
    ends = {"rollout_promoted", "rollout_rolled_back", "rollout_paused"}
    demo.traffic.rate = CANARY_RATE
    async with demo.showing(demo.traffic_line):
        ended, _ = await demo.fact_where(
            lambda kind, payload: kind in ends and payload["version"] == version,
            f"the rollout of version {version} to end",
            MOVE_SECONDS,
            since,
        )
    return ended


async def _measure(demo: DemoContext, held_out: Sequence[Text], version: int) -> list[Answered]:
    """Held-out texts of the new mix among as many of the old, without a label. Only this version's answers count."""
    dice = random.Random(0)
    quiet = [demo.traffic.mix.quiet[index % len(demo.traffic.mix.quiet)] for index in range(len(held_out))]
    requests = [*held_out, *quiet]
    dice.shuffle(requests)
    matching = set(held_out)
    demo.traffic.rate = 0
    with demo.step(f"measure version {version} on held-out texts"):
        answers = await demo.traffic.classify_all(requests)
    return [answer for answer in answers if answer.text in matching and answer.version == version]


def _recovery(demo: DemoContext, before: Sequence[Answered], after: Sequence[Answered], seconds: float) -> Recovery:
    was = {answer.text: answer.right for answer in before}
    now = {answer.text: answer.right for answer in after}
    both = was.keys() & now.keys()
    lost, won = sum(was[text] and not now[text] for text in both), sum(now[text] and not was[text] for text in both)
    low_before, high_before = wilson(sum(was.values()), len(was))
    low_after, high_after = wilson(sum(now.values()), len(now))
    matches = Recovery(
        seconds=seconds,
        rows=len(now),
        accuracy_before=sum(was.values()) / max(1, len(was)),
        ci95_before=Interval(low=low_before, high=high_before),
        accuracy_after=sum(now.values()) / max(1, len(now)),
        ci95=Interval(low=low_after, high=high_after),
        mcnemar_p=mcnemar(lost, won),
    )
    demo.view.warn(
        f"accuracy on {matches.rows} texts from other modules of those packages, never labelled for it: "
        f"{matches.accuracy_before:.3f} ({low_before:.3f}..{high_before:.3f}) before, "
        f"{matches.accuracy_after:.3f} ({low_after:.3f}..{high_after:.3f}) after; McNemar p={matches.mcnemar_p:.1e}"
    )
    demo.view.warn(f"recovered {matches.seconds:.1f} s after the drift was noticed")
    return matches


# --- 4. a bad version --------------------------------------------------------------------------


async def refuse_bad(demo: DemoContext) -> Trained:
    """A data set with spoiled labels is published; the gate must refuse what comes of it."""
    complete = demo.corpus.data_set
    honest = tuple(
        row for split, most in SPOILED_ROWS.items() for row in [one for one in complete if one.split == split][:most]
    )
    rows = spoiled(honest, SPOILED_SHARE)
    changed = sum(one.label != other.label for one, other in zip(rows, honest, strict=True))
    demo.view.warn(
        f"{len(rows)} rows of the same data set, the labels of {SPOILED_SHARE:.0%} of the "
        f"{SPOILED_ROWS['train']} training rows shuffled ({changed} changed)"
    )
    demo.traffic.rate = BACKGROUND_RATE
    demo.traffic.labelled = 0.0
    with demo.step("train a bad version"):
        trained = await _train(demo, f"{demo.model}-spoiled", rows)
    if trained.passed:
        raise DemoFailed(f"the gate passed version {trained.number}, although its labels were spoiled")
    demo.view.warn(f"the gate refused version {trained.number}: nothing was rolled out")
    return trained


async def force_bad(demo: DemoContext, bad: Trained) -> Rollback:
    """The bad version is forced past its gate; the evidence must bring it down again."""
    demo.traffic.labelled = 1.0
    demo.traffic.rate = CANARY_RATE
    since, failed = demo.log.mark(), demo.traffic.totals.failed
    with demo.step(f"force version {bad.number} into a canary"):
        body = {"version": str(bad.number), "skip_gate": True, "reason": "the demo forces a refused version"}
        await demo.client.post(f"/deployments/{demo.model}/rollouts", body)
        loaded, _ = await demo.fact(
            "rollout_loaded", "the bad version to load", MOVE_SECONDS, since, version=bad.number
        )
        ended = await _end_of_rollout(demo, bad.number, since)
    if ended.body["kind"] != "rollout_rolled_back":
        raise DemoFailed(f"version {bad.number} was not rolled back: {ended.body['kind']}, {ended.body['reason']}")
    verdict = await demo.log.wait(
        lambda event: event.topic == "rollout.judged" and event.body["verdict"] == "roll_back",
        "the verdict",
        MOVE_SECONDS,
        since,
    )
    await demo.clock.sleep(2.0)  # a late answer of the bad version would be seen now
    demo.traffic.rate = 0
    return _rollback(demo, bad, loaded, ended, verdict, demo.traffic.totals.failed - failed)


def _rollback(
    demo: DemoContext, bad: Trained, loaded: ReceivedEvent, ended: ReceivedEvent, verdict: ReceivedEvent, failed: int
) -> Rollback:
    last = demo.traffic.totals.last_at.get(bad.number)
    matches = Rollback(
        version=bad.number,
        gate_refused=not bad.passed,
        verdict=verdict.body["verdict"],
        reason=verdict.body["reason"],
        evidence=verdict.body["evidence"],
        requests=verdict.body["requests"],
        seconds=(ended.time - loaded.time).total_seconds(),
        last_request_on_bad_version_after_seconds=max(0.0, (last - verdict.time).total_seconds()) if last else 0.0,
        requests_answered_by_it=demo.traffic.totals.by_version[bad.number],
        requests_failed=failed,
    )
    demo.view.warn(
        f"rolled back {matches.seconds:.1f} s after its first traffic, on {matches.requests} requests; its last answer "
        f"came {matches.last_request_on_bad_version_after_seconds:.2f} s after the verdict; {failed} requests failed"
    )
    return matches
