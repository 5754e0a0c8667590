"""Apache Kafka on this machine: the version that `deploy/kafka/pom.xml` pins, one KRaft node.

    python -m services.cli.launcher.kafka --ready-file FILE --data FOLDER [--port N]

fetches the libraries once (Maven; kept in a cache), formats FOLDER once, starts the server, creates the topics
of topics.yaml that are missing, writes its bootstrap address to FILE and runs until SIGTERM.
Data in FOLDER outlives a restart. `--topics-of HOST:PORT` only makes the topics of a server that runs elsewhere.
"""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGCHLD, SIGKILL
from typing import Any, Final

from services.cli.launcher.broker import BrokerReady, hold_signals, stop_requested, write_ready
from services.cli.launcher.ports import any_free, next_free
from services.cli.launcher.processes import spawn, stop
from services.cli.launcher.topics import Topic, kafka_files, load_topics
from services.contracts.addresses import BROKER_PORT, LOOPBACK

HEAP: Final = "-Xmx512m"
START_LIMIT_SECONDS: Final = 60.0
STOP_LIMIT_SECONDS: Final = 20.0
FETCH_LIMIT_SECONDS: Final = 600.0
LEADER_TRIES: Final = 200
LEADER_PAUSE_SECONDS: Final = 0.05


class NoKafka(RuntimeError):
    """Apache Kafka cannot be run here; the message says what is missing."""


@dataclass(frozen=True)
class KafkaFiles:
    """Where one server keeps its things."""

    data: Path
    port: int
    controller_port: int

    @property
    def properties(self) -> Path:
        return self.data / "server.properties"

    @property
    def log(self) -> Path:
        return self.data / "server.log"

    @property
    def records(self) -> Path:
        return self.data / "records"

    @property
    def bootstrap(self) -> str:
        return f"{LOOPBACK}:{self.port}"


def missing_tools() -> list[str]:
    """The programs that are needed and not found; Maven only while the libraries are not cached."""
    needed = ["java"] if _is_complete(libraries_folder()) else ["java", "mvn"]
    return [tool for tool in needed if shutil.which(tool) is None]


def libraries_folder(environment: Mapping[str, str] = os.environ) -> Path:
    """The cache folder of exactly this pom.xml: another pin gets another folder."""
    pin = hashlib.sha256((kafka_files() / "pom.xml").read_bytes()).hexdigest()[:16]
    caches = environment.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(caches) / "millrace" / f"kafka-{pin}"


def ensure_libraries() -> Path:
    """The folder with Kafka's jars, fetched with Maven when it is not there yet. Raises NoKafka."""
    folder = libraries_folder()
    if missing := missing_tools():
        raise NoKafka(f"Apache Kafka needs {' and '.join(missing)}; install them, or use the embedded broker")
    if _is_complete(folder):
        return folder
    draft = folder.with_name(f"{folder.name}.{os.getpid()}")
    draft.mkdir(parents=True, exist_ok=True)
    command = ["mvn", "-q", "-B", "-f", str(kafka_files() / "pom.xml"), "dependency:copy-dependencies"]
    try:
        fetch = [*command, f"-DoutputDirectory={draft}"]
        subprocess.run(fetch, check=True, capture_output=True, text=True, timeout=FETCH_LIMIT_SECONDS)
        (draft / "complete").touch()
        try:
            draft.replace(folder)
        except OSError:  # another process was faster: its copy is as good
            if not _is_complete(folder):
                raise
    except subprocess.CalledProcessError as error:
        raise NoKafka(f"Maven could not fetch Kafka: {(error.stdout or error.stderr).strip()[-600:]}") from error
    except subprocess.TimeoutExpired as error:
        raise NoKafka(f"Maven did not fetch Kafka within {FETCH_LIMIT_SECONDS:.0f} s") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / "complete").is_file()


def properties_of(files: KafkaFiles) -> str:
    """server.properties of a single KRaft node on the loopback interface."""
    settings: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{files.controller_port}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{files.port},CONTROLLER://{LOOPBACK}:{files.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{files.port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": files.records,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
    }
    return "".join(f"{name}={value}\n" for name, value in settings.items())


def prepare(files: KafkaFiles, libraries: Path) -> None:
    """Writes the settings, and formats the records folder the first time. Raises NoKafka."""
    files.data.mkdir(parents=True, exist_ok=True)
    files.properties.write_text(properties_of(files), encoding="utf-8")
    if (files.records / "meta.properties").exists():
        return
    cluster = _storage_tool(libraries, "random-uuid").strip().splitlines()[-1]
    _storage_tool(libraries, "format", "-t", cluster, "-c", str(files.properties))


def _storage_tool(libraries: Path, *arguments: str) -> str:
    java = ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", f"{libraries}/*"]
    command = [*java, "kafka.tools.StorageTool", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=START_LIMIT_SECONDS)
    if done.returncode != 0:
        raise NoKafka(f"Kafka's storage tool failed: {(done.stderr or done.stdout).strip()[-600:]}")
    return done.stdout


def start(files: KafkaFiles, libraries: Path) -> "subprocess.Popen[bytes]":
    """The server process; it may not answer yet."""
    log4j = kafka_files() / "log4j2.properties"
    logging = [f"-Dlog4j2.configurationFile={log4j}", f"-Dmillrace.kafka.log={files.log}"]
    options = [HEAP, "-XX:+UseSerialGC", *logging]
    command = ["java", *options, "-cp", f"{libraries}/*", "kafka.Kafka", str(files.properties)]
    output = files.data / "stderr.log"
    return spawn(command, log=output, environment=os.environ, folder=files.data, parent_death=SIGKILL)


def await_server(bootstrap: str, server: "subprocess.Popen[bytes] | None" = None) -> set[str]:
    """The topics it has, once it answers. Raises NoKafka after 60 s, or at once when `server` has ended."""
    from confluent_kafka import KafkaException
    from confluent_kafka.admin import AdminClient

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 250})
    for _ in range(int(START_LIMIT_SECONDS)):
        if server is not None and server.poll() is not None:
            raise NoKafka(f"Apache Kafka ended with {server.returncode} at its start")
        try:
            return set(admin.list_topics(timeout=1.0).topics)
        except KafkaException:
            continue  # each try has waited its second
    raise NoKafka(f"no Kafka server answers at {bootstrap} within {START_LIMIT_SECONDS:.0f} s")


def create_topics(bootstrap: str, topics: Sequence[Topic]) -> list[str]:
    """Creates the topics that the server lacks, and waits until each can be used; those it has stay as they are.

    Returns the names created. Raises NoKafka with the server's reason.
    """
    from confluent_kafka import KafkaError, KafkaException
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    options = [NewTopic(topic.name, topic.partitions, 1, config=dict(topic.config)) for topic in topics]
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    created: list[str] = []
    for name, answer in admin.create_topics(options, operation_timeout=START_LIMIT_SECONDS).items():
        try:
            answer.result(START_LIMIT_SECONDS)
            created.append(name)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise NoKafka(f"the Kafka server at {bootstrap} refused {name}: {error.args[0].str()}") from error
    _await_leaders(admin, [topic for topic in topics if topic.name in created])
    return created


def _await_leaders(admin: Any, topics: Sequence[Topic]) -> None:
    """A topic is created some moments before its partitions have a leader: until then requests are refused."""
    from confluent_kafka import KafkaException, TopicPartition
    from confluent_kafka.admin import OffsetSpec

    waiting = {TopicPartition(topic.name, number) for topic in topics for number in range(topic.partitions)}
    for _ in range(LEADER_TRIES):
        answers = admin.list_offsets({files: OffsetSpec.latest() for files in waiting}) if waiting else {}
        for files, answer in answers.items():
            with contextlib.suppress(KafkaException):
                answer.result(START_LIMIT_SECONDS)
                waiting.discard(files)
        if not waiting:
            return
        threading.Event().wait(LEADER_PAUSE_SECONDS)
    raise NoKafka(f"no leader for {', '.join(sorted({files.topic for files in waiting}))}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server until SIGTERM. Exit code 3 when it cannot be run here, 1 when it died."""
    parser = argparse.ArgumentParser(prog="python -m services.cli.launcher.kafka", description="Apache Kafka.")
    parser.add_argument("--ready-file", type=Path, help="gets the bootstrap address as JSON")
    parser.add_argument("--data", type=Path, help="folder for records, settings and the server's log")
    parser.add_argument("--port", type=int, default=0, help="the first free one from 9092 on when 0")
    parser.add_argument("--topics-of", metavar="HOST:PORT", help="make the topics of a server that runs, and end")
    options = parser.parse_args(arguments)
    try:
        if options.topics_of:
            await_server(options.topics_of)
            create_topics(options.topics_of, load_topics())
            return 0
        if options.ready_file is None or options.data is None:
            parser.error("--ready-file and --data are needed")
        return _run_server(options.data.resolve(), options.port, options.ready_file)
    except NoKafka as missing:
        print(missing, file=sys.stderr)
        return 3


def _run_server(data: Path, preferred: int, ready_file: Path) -> int:
    hold_signals(SIGCHLD)
    port = preferred or next_free(BROKER_PORT)
    files = KafkaFiles(data=data, port=port, controller_port=any_free({port}))
    libraries = ensure_libraries()
    prepare(files, libraries)
    return _serve(files, libraries, ready_file)


def _serve(files: KafkaFiles, libraries: Path, ready_file: Path) -> int:
    server = start(files, libraries)
    try:
        await_server(files.bootstrap, server)
        create_topics(files.bootstrap, load_topics())
        write_ready(ready_file, BrokerReady(kind="kafka", bootstrap=files.bootstrap, pid=os.getpid()))
        print(f"Apache Kafka on {files.bootstrap}, log in {files.log}", flush=True)
        while not stop_requested(SIGCHLD):
            if server.poll() is not None:
                print(f"Apache Kafka ended with {server.returncode}; see {files.log}", file=sys.stderr)
                return 1
        return 0
    finally:
        ready_file.unlink(missing_ok=True)
        stop(server, limit_seconds=STOP_LIMIT_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
