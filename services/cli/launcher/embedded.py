"""The embedded broker: the mock cluster of the librdkafka that the confluent-kafka wheel bundles.

It speaks the Kafka protocol on a loopback port of its own choice and needs no Java. It keeps everything in
memory (at most 5 MiB or 100,000 batches a partition, the oldest dropped), serves one consumer per group, lets a
group whose consumer left form again only after the session timeout less a second, and honours neither transactions
nor admin calls: for a quickstart and for tests, never called durable.

    python -m services.cli.launcher.embedded --ready-file FILE

creates every topic of topics.yaml, writes its bootstrap address to FILE and runs until SIGTERM.
The functions called here are documented in librdkafka's `rdkafka_mock.h`.
"""

import argparse
import contextlib
import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from ctypes.util import find_library
from pathlib import Path
from typing import Final

from services.cli.launcher.broker import BrokerReady, hold_signals, stop_requested, write_ready
from services.cli.launcher.ports import answers
from services.cli.launcher.topics import Topic, load_topics

_PRODUCER: Final = 0
_CONF_OK: Final = 0
_NO_ERROR: Final = 0
_ERROR_BYTES: Final = 512


class NoEmbeddedBroker(RuntimeError):
    """No librdkafka with a mock cluster was found."""


class EmbeddedBroker:
    """One broker of a mock cluster, alive until `close`."""

    def __init__(self, topics: Sequence[Topic], library: ctypes.CDLL | None = None) -> None:
        """Raises NoEmbeddedBroker, or RuntimeError with librdkafka's reason."""
        self._lib = library if library is not None else load_librdkafka()
        self._client = self._new_client()
        self._cluster = self._lib.rd_kafka_mock_cluster_new(self._client, 1)
        if not self._cluster:
            raise RuntimeError("librdkafka could not start its mock cluster")
        with _knocking(self.bootstrap):
            # The default of 3 s would be paid by each consumer group at each start, one after another.
            self._lib.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, 0)
            for topic in topics:
                self._create(topic)

    @property
    def bootstrap(self) -> str:
        """host:port"""
        address: bytes = self._lib.rd_kafka_mock_cluster_bootstraps(self._cluster)
        return address.decode()

    def close(self) -> None:
        """Ends the broker; whatever it held is gone."""
        if self._cluster:
            self._lib.rd_kafka_mock_cluster_destroy(self._cluster)
            self._lib.rd_kafka_destroy(self._client)
            self._cluster = self._client = None

    def _new_client(self) -> int | None:
        """The client that the mock cluster hangs on; it never connects anywhere."""
        reason = ctypes.create_string_buffer(_ERROR_BYTES)
        conf = self._lib.rd_kafka_conf_new()
        for name, value in ((b"client.id", b"millrace-embedded"), (b"log_level", b"4")):
            if self._lib.rd_kafka_conf_set(conf, name, value, reason, _ERROR_BYTES) != _CONF_OK:
                raise RuntimeError(f"librdkafka: {reason.value.decode()}")
        client: int | None = self._lib.rd_kafka_new(_PRODUCER, conf, reason, _ERROR_BYTES)
        if not client:
            raise RuntimeError(f"librdkafka: {reason.value.decode()}")
        return client

    def _create(self, topic: Topic) -> None:
        error = self._lib.rd_kafka_mock_topic_create(self._cluster, topic.name.encode(), topic.partitions, 1)
        if error != _NO_ERROR:
            reason: bytes = self._lib.rd_kafka_err2str(error)
            raise RuntimeError(f"topic {topic.name}: {reason.decode()}")


@contextlib.contextmanager
def _knocking(address: str) -> Iterator[None]:
    """Opens and closes connections meanwhile.

    The mock cluster's thread looks at its orders only when a socket stirs or a second has passed: left alone, each
    topic costs up to that second.
    """
    host, _, port = address.rpartition(":")
    done = threading.Event()

    def knock() -> None:
        while not done.wait(0.001):
            answers(host, int(port))

    knocker = threading.Thread(target=knock, name="knock")
    knocker.start()
    try:
        yield
    finally:
        done.set()
        knocker.join()


def load_librdkafka() -> ctypes.CDLL:
    """The first library with a mock cluster among those found. Raises NoEmbeddedBroker, naming what was tried."""
    tried: list[str] = []
    for candidate in _candidates():
        tried.append(candidate)
        try:
            library = ctypes.CDLL(candidate)
            return _declare(library)
        except (OSError, AttributeError):
            continue
    raise NoEmbeddedBroker(f"no librdkafka with a mock cluster; install confluent-kafka (tried: {', '.join(tried)})")


def _candidates() -> Iterator[str]:
    """Without importing confluent_kafka, which would cost its memory for nothing."""
    spec = importlib.util.find_spec("confluent_kafka")
    for location in spec.submodule_search_locations or () if spec else ():
        package = Path(location)
        yield from sorted(map(str, (package.parent / "confluent_kafka.libs").glob("librdkafka*")))  # Linux wheels
        yield from sorted(map(str, (package / ".dylibs").glob("librdkafka*")))  # macOS wheels
        # Built from source: the extension is linked to a librdkafka, whose functions are found through it.
        yield from sorted(map(str, package.glob("cimpl*.so")))
    system = find_library("rdkafka")
    if system:
        yield system


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Gives the functions their types: pointers are wider than the int that ctypes assumes.

    Raises AttributeError when a function is missing.
    """
    pointer, text, number = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
    signatures: dict[str, tuple[type | None, list[type]]] = {
        "rd_kafka_conf_new": (pointer, []),
        "rd_kafka_conf_set": (number, [pointer, text, text, text, ctypes.c_size_t]),
        "rd_kafka_new": (pointer, [number, pointer, text, ctypes.c_size_t]),
        "rd_kafka_destroy": (None, [pointer]),
        "rd_kafka_err2str": (text, [number]),
        "rd_kafka_mock_cluster_new": (pointer, [pointer, number]),
        "rd_kafka_mock_cluster_destroy": (None, [pointer]),
        "rd_kafka_mock_cluster_bootstraps": (text, [pointer]),
        "rd_kafka_mock_topic_create": (number, [pointer, text, number, number]),
        "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [pointer, ctypes.c_int32]),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the broker until SIGTERM. Exit code 3 when no library was found."""
    parser = argparse.ArgumentParser(prog="python -m services.cli.launcher.embedded", description="Embedded broker.")
    parser.add_argument("--ready-file", type=Path, required=True, help="gets the bootstrap address as JSON")
    options = parser.parse_args(arguments)
    hold_signals()
    try:
        broker = EmbeddedBroker(load_topics())
    except NoEmbeddedBroker as missing:
        print(missing, file=sys.stderr)
        return 3
    ready = BrokerReady(kind="embedded", bootstrap=broker.bootstrap, pid=os.getpid())
    write_ready(options.ready_file, ready)
    print(f"embedded broker on {ready.bootstrap}", flush=True)
    stop_requested()
    options.ready_file.unlink(missing_ok=True)
    broker.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
