"""The demo from beginning to end: the data, the services, the sections, the summary."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from opentelemetry.sdk.trace import TracerProvider

from demo import closing, steps
from demo.clients import OutsideProducer, RestClient
from demo.context import DemoContext
from demo.corpus import Corpus, build
from demo.errors import DemoFailed
from demo.log import EventLog, Recorder
from demo.summary import Summary, TimelineEvent
from demo.traffic import Mix, Traffic
from demo.view import Filter, View, view_for
from services.cli import data_folder
from services.cli.consumer import ReceivedEvent
from services.cli.descriptions import in_words, version_of
from services.cli.errors import CliError
from services.cli.home import Home
from services.cli.launcher import launch
from services.cli.launcher.fleet import BrokerKind
from services.cli.launcher.ports import answers
from services.cli.launcher.state import READY, FleetState
from services.cli.launcher.topics import load_topics
from services.cli.output import PLAIN_WIDTH
from services.cli.rest import address_and_key
from services.cli.session import Session
from services.kit.core import telemetry
from services.kit.core.clock import Clock, SystemClock
from services.kit.core.ids import SystemIds

MODEL: Final = "library-topics"
SEED: Final = 0
COUNTED: Final = frozenset({"inference.logged", "feedback.received"})
"""Topics that are not followed: the demo sent those requests itself."""
SETTINGS: Final = {
    # A rollout in seconds instead of an hour; what it takes to decide stays the same.
    "MILLRACE_REGISTRY_BAKE_SECONDS": "3",
    "MILLRACE_REGISTRY_MINIMUM_REQUESTS": "30",
    "MILLRACE_REGISTRY_STEP_TIMEOUT_SECONDS": "150",
    "MILLRACE_REGISTRY_MIRROR": "1.0",
    "MILLRACE_REGISTRY_DRAIN_SECONDS": "5",
    "MILLRACE_INFERENCE_DRAIN_GRACE_SECONDS": "2",
    "MILLRACE_TRAINER_MINIMUM_FEEDBACK": "300",
    "MILLRACE_TRAINER_FROZEN_LAYERS": "3",
    "MILLRACE_TRAINER_FP16": "false",  # no replica of the demo's serves it
}
"""What the demo sets, unless the environment says otherwise."""


async def run_scenario(session: Session, broker: BrokerKind, bootstrap: str, *, keep: bool) -> None:
    """Runs the scenario and writes its summary. Raises CliError when it does not go as it should."""
    clock, home = SystemClock(), session.home
    fresh, started = data_folder.begin(home), clock.now()
    provider = telemetry.start_tracing("demo", home.traces)
    view = view_for(clock)
    corpus = asyncio.ensure_future(asyncio.to_thread(build, SEED))  # while the services start
    setting = _Setting(home, view, clock, broker, started, fresh, corpus, provider)
    options = launch.LaunchOptions(broker, bootstrap, detach=keep, settings=_settings())
    try:
        async with _running(home, options, view, clock):
            summary = await _run(setting)
            view.close()
            _show(session, summary)
            if keep:
                data_folder.belongs_to_user(home)
                await _show_endpoints(session, home)
            else:
                session.out.next("make demo KEEP=1", "millrace up --detach", f"millrace trace {summary.trace_id}")
    finally:
        view.close()
        provider.shutdown()


def _settings() -> dict[str, str]:
    return {name: value for name, value in SETTINGS.items() if name not in os.environ}


@asynccontextmanager
async def _running(home: Home, matching: launch.LaunchOptions, view: View, clock: Clock) -> AsyncIterator[None]:
    """The fleet, up while the block runs; a detached one is left up afterwards, to be looked at."""
    ready: set[str] = set()

    def progress(state: FleetState) -> None:
        for part in state.parts:
            if part.state == READY and part.name not in ready:
                ready.add(part.name)
                view.warn(f"{part.name} is ready{f' ({state.broker})' if part.name == 'broker' else ''}")

    view.section(0, "five services and a broker start")
    view.progress("starting")
    try:
        await launch.start(home, matching, clock, progress)
    except launch.LaunchFailed as failed:
        raise CliError(str(failed), hint="millrace doctor", code="start_failed") from failed
    try:
        yield
    finally:
        if not matching.detach:
            view.progress("stopping")
            await launch.stop(home, clock, lambda _: None)


@dataclass(frozen=True)
class _Setting:
    """What the scenario runs with."""

    home: Home
    view: View
    clock: Clock
    broker: str
    started: datetime
    fresh: bool
    corpus: "asyncio.Future[Corpus]"
    spans: TracerProvider


async def _run(setting: _Setting) -> Summary:
    """The sections, then the summary, which is written before anything can be wrong with it."""
    home, view = setting.home, setting.view
    changes = _Follower(view)
    async with _stage(setting, EventLog(changes)) as demo:
        with telemetry.span("demo"):
            trace_id = telemetry.current_trace_id()
            findings = await _sections(demo)
        setting.spans.force_flush()
        view.section(5, "what happened")
        summary = await closing.collect(
            demo,
            findings,
            changes.timeline,
            home=home,
            broker=setting.broker,
            trace_id=trace_id,
            started=setting.started,
        )
    summary.write(home.demo / "summary.json")
    if summary.traffic.requests_failed:
        raise DemoFailed(
            f"{summary.traffic.requests_failed} requests failed: {'; '.join(summary.traffic.failures)}",
            f"the whole summary is in {home.demo / 'summary.json'}",
        )
    return summary


@asynccontextmanager
async def _stage(setting: _Setting, log: EventLog) -> AsyncIterator[DemoContext]:
    """The running services as a client sees them, and every event that is told from now on."""
    home = setting.home
    state = launch.running_state(home)
    if state is None:
        raise DemoFailed("the services stopped")
    topics = [topic.name for topic in load_topics() if topic.name not in COUNTED]
    recorder = Recorder(state.endpoints["kafka"], topics, log)
    url, key = address_and_key(home)
    model = MODEL if setting.fresh else await _free_name(url, key)
    client = RestClient(url, key, model)
    try:
        corpus = await setting.corpus
        yield DemoContext(
            home=home.root,
            model=model,
            endpoints=state.endpoints,
            key=key,
            corpus=corpus,
            clock=setting.clock,
            ids=SystemIds(),
            log=log,
            view=setting.view,
            client=client,
            producer=OutsideProducer(state.endpoints["kafka"]),
            traffic=Traffic(client, Mix.of(corpus.quiet, corpus.shifted, SEED), setting.clock),
        )
    finally:
        recorder.close()
        await client.close()


async def _free_name(url: str, key: str) -> str:
    """In a folder that others use too, a model of its own."""
    client = RestClient(url, key, MODEL)
    try:
        taken = {model["name"] for model in (await client.get("/models", page_size=200))["models"]}
    finally:
        await client.close()
    return next(name for number in range(1, 10_000) if (name := f"{MODEL}-{number}") not in taken)


async def _sections(demo: DemoContext) -> closing.Findings:
    view = demo.view
    view.section(1, "real text becomes a model")
    first = await steps.train_first(demo)
    view.section(2, "the model is served")
    clients = await steps.serve_first(demo, first)
    async with demo.traffic.flowing():
        view.section(3, "the traffic drifts, and the loop closes")
        quiet = await steps.stay_quiet(demo, first.number)
        drift, drifted = await steps.drift(demo, first.number)
        second, recovery = await steps.recover(demo, first.number, drifted)
        view.section(4, "a bad version is refused, forced in, and rolled back")
        bad = await steps.refuse_bad(demo)
        rollback = await steps.force_bad(demo, bad)
    return closing.Findings([first, second, bad], clients, quiet, drift, recovery, rollback)


class _Follower:
    """Shows what is news, and keeps it for the timeline."""

    def __init__(self, view: View) -> None:
        self._view = view
        self.timeline: list[TimelineEvent] = []
        self._filter = Filter()

    def __call__(self, event: ReceivedEvent) -> None:
        if not self._filter.is_change(event):
            return
        self._view.event(event)
        self.timeline.append(
            TimelineEvent(
                time=event.time,
                topic=event.topic,
                source=event.source,
                version=version_of(event),
                words=in_words(event),
            )
        )


def _show(session: Session, summary: Summary) -> None:
    from rich.console import Console

    console = Console()
    width = console.width if console.is_terminal else PLAIN_WIDTH
    session.out.data(
        summary.model_dump(mode="json"),
        lambda _: print("\n".join(closing.closing_lines(summary, session.home, max(width, 100)))),
    )


async def _show_endpoints(session: Session, home: Home) -> None:
    """The addresses, only once each of them answers."""
    state = launch.running_state(home)
    if state is None:
        raise DemoFailed("the services stopped")
    event = await launch.describe(home, state)
    silent = [name for name, part in event["services"].items() if part["health"] != "ready"]
    for name in ("grpc", "kafka"):
        host, _, port = state.endpoints[name].split(",")[0].rpartition(":")
        if not answers(host, int(port)):
            silent.append(name)
    if silent:
        raise DemoFailed(f"these do not answer: {', '.join(silent)}")
    for name, address in event["endpoints"].items():
        session.out.say(f"{name:<8} {address}")
    session.out.say(f"API key  {event['api_key_file']}")
    session.out.next("millrace status", f"millrace infer {MODEL} TEXT", "millrace events tail", "millrace down")
