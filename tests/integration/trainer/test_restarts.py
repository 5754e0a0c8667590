"""The trainer's real process is killed, stopped and doubled while its run goes on: one run, one attempt, one event."""

import os
import shlex
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest

from services.cli.launcher.ports import any_free
from services.contracts.rpc import registry_pb2_grpc, trainer_pb2, trainer_pb2_grpc
from services.kit.identity.auth import ensure_keys, read_key
from services.kit.transport.rpc import metadata
from services.trainer.domain.spec import EXECUTION_VARIABLE
from services.trainer.outbound.processes import kill_marked, marked
from tests.e2e.fleet.clients import OutsideProducer
from tests.e2e.fleet.event_log import EventLog, listening
from tests.integration.trainer.service import result_of
from tests.unit.trainer.tiny import base_model, texts, write_jsonl
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SECONDS = 90.0
CHILD = Path(__file__).parent / "child.py"
RECIPE = {"max_length": 32, "batch_size": 8, "learning_rate": 0.001, "head_learning_rate": 0.01, "test_rows": 60}


class NoModels(registry_pb2_grpc.RegistryServiceServicer):
    """A registry that has no champion for anybody."""

    def GetVersion(self, request: Any, context: Any) -> Any:  # noqa: N802 - as in the .proto
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown")


class Service:
    """The trainer as a process of its own."""

    def __init__(self, harness: "RunHarness", **settings: str) -> None:
        self.http, self.grpc = any_free(), any_free()
        environment = {
            **harness.environment,
            "MILLRACE_TRAINER_HTTP_PORT": str(self.http),
            "MILLRACE_TRAINER_GRPC_PORT": str(self.grpc),
            **{f"MILLRACE_TRAINER_{name.upper()}": value for name, value in settings.items()},
        }
        with (harness.root / "trainer.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "services.trainer"], env=environment, stdout=log, stderr=log
            )

    def answers(self, path: str) -> bool:
        assert self.process.poll() is None, "the trainer has ended"
        try:
            return httpx.get(f"http://127.0.0.1:{self.http}{path}", timeout=2, trust_env=False).is_success
        except httpx.TransportError:
            return False

    def end(self, number: signal.Signals = signal.SIGKILL) -> int:
        self.process.send_signal(number)
        return self.process.wait(60)


class RunHarness:
    """A home, a broker, a registry, and a data set."""

    def __init__(self, root: Path, bootstrap: str, registry: str, log: EventLog) -> None:
        self.root = root
        self.log = log
        self.services: list[Service] = []
        self._producer = OutsideProducer(bootstrap)
        (root / "datasets").mkdir()
        ensure_keys(root / "keys")
        self.data = write_jsonl(root / "datasets" / "rows.jsonl", texts(480))
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "OTEL_"))},
            "PYTHONPATH": str(Path.cwd()),
            "MILLRACE_HOME": str(root),
            "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
            "MILLRACE_TRAINER_REGISTRY_ADDRESS": registry,
            "MILLRACE_TRAINER_BASE_MODEL": str(base_model(root / "base")),
            "MILLRACE_TRAINER_THREADS": "1",
            "MILLRACE_TRAINER_CHECKPOINT_STEPS": "20",
            "MILLRACE_TRAINER_LEASE_SECONDS": "2",
            "MILLRACE_TRAINER_RETRY_SECONDS": "0.1",
            "MILLRACE_TRAINER_ORPHAN_SECONDS": "1",
        }

    def train_nothing(self) -> None:
        """From now on runs are done by a stand-in that needs no torch, and goes on until it may finish."""
        self.environment |= {
            "MILLRACE_TRAINER_CHILD_COMMAND": shlex.join([sys.executable, str(CHILD)]),
            "MILLRACE_TRAINER_BASE_MODEL": "patient",
            "CHILD_FINISH": str(self.root / "finish"),
            "CHILD_RESULT": result_of("RUN").model_dump_json(),
        }

    def finish(self) -> None:
        (self.root / "finish").touch()

    def start(self, *, alone: bool = True, **settings: str) -> Service:
        """Beside another one it never gets to the embedded broker, which serves one consumer a group."""
        service = Service(self, **settings)
        self.services.append(service)
        path = "/readyz" if alone else "/healthz"
        until(lambda: service.answers(path), "the trainer is ready", SECONDS)
        return service

    def announce(self) -> str:
        """The run that follows from it."""
        recipe = RECIPE | {"epochs": 100}  # longer than a service takes to start
        body = {"dataset": "topics-1", "uri": self.data.as_uri(), "model": "topics", "recipe": recipe}
        self._producer.send_event("dataset.ready", "topics-1", body, "evt-topics-1")
        until(lambda: bool(self.rows("SELECT id FROM trainer_run")), "the run is queued", SECONDS)
        ((run,),) = self.rows("SELECT id FROM trainer_run")
        return str(run)

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        path = self.root / "data" / "trainer" / "state.db"
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
            return database.execute(query).fetchall()

    def status(self) -> str:
        return str(self.rows("SELECT status FROM trainer_run")[0][0])

    def facts(self) -> list[str]:
        return [kind for (kind,) in self.rows("SELECT kind FROM history ORDER BY sequence")]

    def progress(self, run: str, attempt: int = 1) -> str:
        path = self.root / "data" / "trainer" / "runs" / run / f"attempt-{attempt}" / "progress.jsonl"
        return path.read_text() if path.exists() else ""

    def child(self, run: str, attempt: int = 1, step: int = 30) -> psutil.Process:
        """The process that trains, once it has taken so many steps."""
        until(lambda: f"step {step} of" in self.progress(run, attempt), f"step {step}", SECONDS)
        (child,) = [
            matches
            for matches in marked(EXECUTION_VARIABLE, f"{run}.{attempt}")
            if os.getsid(matches.pid) == matches.pid
        ]
        return child

    def succeeds_once(self, run: str, attempts: int) -> None:
        """The run's one event, one success in its history, and as many attempts as there should be."""
        self.finish()
        until(lambda: self.status() == "succeeded", "the run succeeds", SECONDS)
        until(lambda: bool(self.log.distinct("model.trained")), "its event", SECONDS)
        assert [event.body["run"] for event in self.log.distinct("model.trained")] == [run]
        assert self.log.distinct("training.failed") == []
        assert self.facts().count("RunSucceeded") == 1
        assert self.facts().count("AttemptStarted") == attempts
        assert self.rows("SELECT attempt, executing FROM trainer_run") == [(attempts, 0)]
        assert self.rows("SELECT state FROM job") == [("done",)]


@pytest.fixture
def harness(real_harness: RunHarness) -> RunHarness:
    real_harness.train_nothing()
    return real_harness


@pytest.fixture
def real_harness(tmp_path: Path, embedded_bootstrap: str) -> Iterator[RunHarness]:
    registry = grpc.server(ThreadPoolExecutor(2))
    registry_pb2_grpc.add_RegistryServiceServicer_to_server(NoModels(), registry)  # type: ignore[abstract]
    port = registry.add_insecure_port("127.0.0.1:0")
    registry.start()
    with listening(embedded_bootstrap) as log:
        made = RunHarness(tmp_path, embedded_bootstrap, f"127.0.0.1:{port}", log)
        yield made
        for service in made.services:
            service.process.kill()
            service.process.wait()
        for (run,) in made.rows("SELECT id FROM trainer_run"):
            for attempt in range(1, 4):
                kill_marked(EXECUTION_VARIABLE, f"{run}.{attempt}")
    registry.stop(None)


def is_gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_a_service_killed_in_mid_epoch_attaches_to_the_child_that_goes_on(real_harness: RunHarness) -> None:
    harness = real_harness
    service = harness.start()
    run = harness.announce()
    child = harness.child(run)
    service.end()
    assert not is_gone(child)
    child.suspend()  # on a fast machine it would end before the next service has started
    harness.start()
    child.resume()
    assert harness.child(run, step=60) == child
    harness.succeeds_once(run, attempts=1)
    assert "resumed" not in harness.progress(run)
    until(lambda: is_gone(child), "the child has ended")


def test_a_killed_service_changes_nothing_for_its_run(harness: RunHarness) -> None:
    services = [harness.start()]
    run = harness.announce()
    child = harness.child(run)
    for step in (100, 200):
        services[-1].end()
        services.append(harness.start())
        assert harness.child(run, step=step) == child
    harness.succeeds_once(run, attempts=1)


def test_a_service_that_is_stopped_leaves_the_child_going_and_the_next_one_follows_it(harness: RunHarness) -> None:
    service = harness.start()
    run = harness.announce()
    child = harness.child(run)
    assert service.end(signal.SIGTERM) == 0
    assert not is_gone(child)
    assert harness.rows("SELECT state, owner FROM job") == [("waiting", "")]
    harness.start()
    harness.succeeds_once(run, attempts=1)


def test_where_it_must_not_outlive_the_service_the_child_ends_and_the_next_attempt_resumes(harness: RunHarness) -> None:
    service = harness.start(on_shutdown="cancel", stop_seconds="8")
    run = harness.announce()
    child = harness.child(run)
    assert service.end(signal.SIGTERM) == 0
    assert is_gone(child)
    assert "AttemptInterrupted" in harness.facts()
    harness.start()
    harness.succeeds_once(run, attempts=2)
    assert harness.progress(run, 2).count("resumed at step") == 1


def test_a_child_killed_while_the_service_is_down_goes_on_from_its_checkpoint_as_another_attempt(
    harness: RunHarness,
) -> None:
    service = harness.start()
    run = harness.announce()
    child = harness.child(run)
    service.end()
    child.kill()
    harness.start()
    harness.succeeds_once(run, attempts=2)
    assert harness.progress(run, 2).count("resumed at step") == 1
    assert harness.facts().count("RunPutBack") == 1


def test_a_run_that_ends_while_the_service_is_down_is_reported_by_the_next_one(harness: RunHarness) -> None:
    service = harness.start()
    run = harness.announce()
    child = harness.child(run)
    service.end()
    harness.finish()
    until(lambda: is_gone(child), "the run ends by itself", SECONDS)
    assert harness.log.distinct("model.trained") == []
    harness.start()
    harness.succeeds_once(run, attempts=1)


def test_a_run_cancelled_while_its_service_is_down_is_ended_by_whoever_took_the_order(harness: RunHarness) -> None:
    """Two services on one database: the one that follows the run is gone when somebody cancels it."""
    first = harness.start()
    run = harness.announce()
    child = harness.child(run)
    os.kill(first.process.pid, signal.SIGSTOP)
    second = harness.start(alone=False)
    with grpc.insecure_channel(f"127.0.0.1:{second.grpc}") as channel:
        stub: Any = trainer_pb2_grpc.TrainerServiceStub(channel)
        request = trainer_pb2.CancelRunRequest(run=run, reason="not needed")
        key = metadata(read_key(harness.root / "keys"))
        assert stub.CancelRun(request, metadata=key, timeout=30).status == "cancelled"
    until(lambda: is_gone(child), "the child is ended", SECONDS)
    os.kill(first.process.pid, signal.SIGCONT)
    until(lambda: harness.rows("SELECT count(*) FROM timer WHERE kind = 'execution'") == [(0,)], "the order is done")
    assert (harness.status(), harness.log.distinct("model.trained")) == ("cancelled", [])
    assert list(marked(EXECUTION_VARIABLE, f"{run}.1")) == []


def test_two_services_on_one_database_never_drive_one_run_twice(harness: RunHarness) -> None:
    first = harness.start()
    run = harness.announce()
    child = harness.child(run)
    os.kill(first.process.pid, signal.SIGSTOP)  # silent for longer than its lease
    harness.start(alone=False)
    until(lambda: harness.rows("SELECT fence >= 2 FROM job") == [(1,)], "the other one took the lease", SECONDS)
    os.kill(first.process.pid, signal.SIGCONT)
    assert harness.child(run, step=200) == child
    harness.succeeds_once(run, attempts=1)


def test_an_orphan_whose_run_nobody_knows_is_ended(harness: RunHarness) -> None:
    service = harness.start()
    run = harness.announce()
    child = harness.child(run)
    service.end()
    for file in (harness.root / "data" / "trainer").glob("state.db*"):
        file.unlink()
    harness.start()
    until(lambda: is_gone(child), "the orphan is ended", SECONDS)
    assert harness.rows("SELECT count(*) FROM trainer_run") == [(0,)]


def test_a_command_ends_what_a_killed_service_left(harness: RunHarness) -> None:
    service = harness.start()
    run = harness.announce()
    child = harness.child(run)
    service.end()
    done = subprocess.run([sys.executable, "-m", "services.trainer", "end-runs"], env=harness.environment, check=False)
    assert done.returncode == 0
    assert is_gone(child)
    harness.start()
    harness.succeeds_once(run, attempts=2)
