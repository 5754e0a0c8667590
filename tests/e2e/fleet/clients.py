"""The fleet as clients and outside producers see it."""

import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
from confluent_kafka import Producer

from services.cli.rest import BASE
from tests.e2e.fleet.running import Fleet

RETRY_SECONDS: Final = 60.0
PAUSE_SECONDS: Final = 0.2
CLIENTS: Final = 2

Row = Mapping[str, str]

logging.getLogger("httpx").setLevel(logging.WARNING)  # a line a request would bury what a failed test has to tell


class Client:
    """REST with a key; safe to use from several threads."""

    def __init__(self, fleet: Fleet, key: str | None = None) -> None:
        headers = {} if key == "" else {"authorization": f"Bearer {key or fleet.key}"}
        url = fleet.state.endpoints["rest"]
        self._http = httpx.Client(base_url=url + BASE, headers=headers, timeout=RETRY_SECONDS, trust_env=False)

    def get(self, path: str) -> httpx.Response:
        return self._http.get(path)

    def post(self, path: str, body: Mapping[str, Any], *, idempotency_key: str = "") -> httpx.Response:
        headers = {"idempotency-key": idempotency_key} if idempotency_key else {}
        return self._http.post(path, json=dict(body), headers=headers)

    def patch(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        return self._http.patch(path, json=dict(body))

    def delete(self, path: str) -> httpx.Response:
        return self._http.delete(path)

    def get_patiently(self, path: str) -> httpx.Response:
        return _patiently(lambda: self.get(path), path)

    def post_patiently(self, path: str, body: Mapping[str, Any], *, idempotency_key: str = "") -> httpx.Response:
        return _patiently(lambda: self.post(path, body, idempotency_key=idempotency_key), path)

    def close(self) -> None:
        self._http.close()


def _patiently(classify: Callable[[], httpx.Response], path: str) -> httpx.Response:
    """Repeats while nobody answers or the answer asks to come again. Fails the test after a minute."""
    deadline = time.monotonic() + RETRY_SECONDS
    while True:
        try:
            answer = classify()
            if answer.status_code not in (429, 502, 503, 504):
                return answer
            reply = answer.text
        except httpx.TransportError as error:
            reply = repr(error)
        assert time.monotonic() < deadline, f"{path} was not taken: {reply}"
        time.sleep(PAUSE_SECONDS)


@dataclass(frozen=True)
class Answer:
    """An answered request."""

    request: str
    version: int
    seconds: float


@dataclass
class Traffic:
    """Clients that ask, and say afterwards what the right answer was.

    A patient client repeats a request that met no gateway, as any client library does; an impatient one counts it as
    failed. The id of a request stays the same, so that repeating it changes nothing.
    """

    client: Client
    deployment: str
    rows: Sequence[Row]
    prefix: str
    retrying: bool = False
    answers: list[Answer] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    labelled: int = 0

    @contextmanager
    def flowing(self) -> Iterator["Traffic"]:
        """While the block runs; every request that was begun has ended after it."""
        stop, numbers, lock = threading.Event(), itertools.count(), threading.Lock()
        work = [threading.Thread(target=self._classify, args=(stop, numbers, lock)) for _ in range(CLIENTS)]
        for thread in work:
            thread.start()
        try:
            yield self
        finally:
            stop.set()
            for thread in work:
                thread.join()

    def by_version(self) -> dict[int, int]:
        versions = [answer.version for answer in self.answers]
        return {version: versions.count(version) for version in sorted(set(versions))}

    @property
    def longest_seconds(self) -> float:
        return max((answer.seconds for answer in self.answers), default=0.0)

    def _classify(self, stop: threading.Event, numbers: Iterator[int], lock: threading.Lock) -> None:
        while not stop.wait(PAUSE_SECONDS):
            with lock:
                number = next(numbers)
            row, request = self.rows[number % len(self.rows)], f"{self.prefix}-{number}"
            started = time.monotonic()
            answered = {"texts": [row["text"]], "request_id": request}
            try:
                outcome = self._post("classify", answered, "")
                with lock:
                    self.answers.append(Answer(request, outcome["version"], time.monotonic() - started))
                self._post("feedback", {"request_id": request, "label": row["label"]}, request)
                with lock:
                    self.labelled += 1
            except (AssertionError, httpx.HTTPError) as error:
                with lock:
                    self.failures.append(f"{request} after {time.monotonic() - started:.1f} s: {error!r}")

    def _post(self, what: str, body: Mapping[str, Any], key: str) -> Any:
        send = self.client.post_patiently if self.retrying else self.client.post
        answer = send(f"/deployments/{self.deployment}/{what}", body, idempotency_key=key)
        assert answer.is_success, f"{answer.status_code} {answer.text}"
        return answer.json()


class OutsideProducer:
    """Any program with a Kafka client."""

    def __init__(self, bootstrap: str) -> None:
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, "enable.idempotence": True})

    def send(self, topic: str, key: str, value: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Returns once the broker has it."""
        problems: list[str] = []
        self._producer.produce(
            topic,
            value,
            key=key.encode(),
            headers=list((headers or {}).items()),
            on_delivery=lambda error, _: problems.append(str(error)) if error is not None else None,
        )
        assert self._producer.flush(30) == 0
        assert not problems, problems

    def send_event(self, topic: str, key: str, body: Mapping[str, Any], event_id: str) -> None:
        """As a CloudEvent in binary mode."""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id,
            "ce_source": "tests",
            "ce_type": f"millrace.{topic}.v1",
            "ce_subject": key,
            "content-type": "application/json",
        }
        self.send(topic, key, json.dumps(body).encode(), headers)
