"""Classification of short texts through the gateway, beside a bare ONNX Runtime loop over the same texts.

The two take turns, round by round, so that both meet the same weather. CPU-seconds are those of all of Millrace's
processes together; the client's are counted apart.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from bench.fleet import START_SECONDS, Fleet
from bench.report import Figure, at_least
from demo.corpus import build, write_jsonl

MODEL: Final = "bench"
CLIENTS: Final = 16
ROUNDS: Final = 5
ROUND_SECONDS: Final = 4.0
TRAIN_SECONDS: Final = 300.0
TEXTS: Final = 400


@dataclass(frozen=True)
class Round:
    requests: int
    seconds: float
    cpu_seconds: float
    latencies_ms: list[float]

    @property
    def per_cpu_second(self) -> float:
        return self.requests / self.cpu_seconds


def deploy(fleet: Fleet) -> list[str]:
    """Trains and rolls out a MiniLM classifier; the texts to ask it. Quality is not the point: one short epoch."""
    corpus = build()
    data = fleet.home / "datasets" / "bench.jsonl"
    data.parent.mkdir(exist_ok=True)
    write_jsonl(corpus.data_set, data)
    recipe = {"epochs": 1, "train_rows": 200, "test_rows": 300, "reference_rows": 200}
    announced = {"dataset": MODEL, "uri": data.as_uri(), "model": MODEL, "recipe_json": json.dumps(recipe)}
    _post(fleet, "/api/v1/datasets", announced)
    give_up = time.monotonic() + TRAIN_SECONDS
    while time.monotonic() < give_up:
        deployments = fleet.millrace("deployments", "list")["deployments"]
        if any(one["version"] for one in deployments):
            return [text.text for text in corpus.quiet[:TEXTS]]
        time.sleep(1)
    raise RuntimeError(f"nothing was deployed within {TRAIN_SECONDS:g} s; see {fleet.home}/logs")


def _post(fleet: Fleet, path: str, body: dict[str, str]) -> None:
    headers = {"authorization": f"Bearer {fleet.key}", "content-type": "application/json"}
    request = urllib.request.Request(fleet.rest + path, json.dumps(body).encode(), headers)  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=START_SECONDS):  # noqa: S310 - our own
        return


def measure(fleet: Fleet, texts: list[str]) -> list[Figure]:
    artifact = next((fleet.home / "data" / "inference").glob("*/artifacts/*/int8.onnx")).parent
    through, bare, client = [], [], []
    asyncio.run(load(fleet, texts, 2.0))
    for _ in range(ROUNDS):
        begin, own = fleet.cpu_seconds(), time.process_time()
        requests, seconds, latencies = asyncio.run(load(fleet, texts, ROUND_SECONDS))
        client.append((time.process_time() - own) / requests)
        through.append(Round(requests, seconds, fleet.cpu_seconds() - begin, latencies))
        bare.append(_bare_loop(artifact, texts))
    return _figures(through, bare, client)


def _figures(through: list[Round], bare: list[Round], client: list[float]) -> list[Figure]:
    section = f"classification, {CLIENTS} clients, int8"
    middle = statistics.median
    latencies = sorted(latency for one in through for latency in one.latencies_ms)
    ratio = middle(a.per_cpu_second / b.per_cpu_second for a, b in zip(through, bare, strict=True))
    remark = f"median of {ROUNDS} rounds of {ROUND_SECONDS:g} s, in turn with the loop"
    return [
        at_least(section, "through the gateway", middle(r.per_cpu_second for r in through), "req/CPU-s", 200, remark),
        Figure(section, "bare ONNX Runtime loop", middle(r.per_cpu_second for r in bare), "req/CPU-s"),
        Figure(section, "gateway over bare loop", ratio, "x", remark="median of the rounds' ratios"),
        Figure(section, "through the gateway, wall", middle(r.requests / r.seconds for r in through), "req/s"),
        Figure(section, "latency p50", middle(latencies), "ms"),
        Figure(section, "latency p99", latencies[int(len(latencies) * 0.99)], "ms"),
        Figure(section, "the client's own cost", 1000 * middle(client), "CPU-ms/req", remark="not counted above"),
    ]


async def load(fleet: Fleet, texts: list[str], seconds: float) -> tuple[int, float, list[float]]:
    """How many requests were answered, in how long, and how long each took (ms). Raises on any answer but 200."""
    begin = time.monotonic()
    clients = [_client(fleet, texts[number::CLIENTS], begin + seconds) for number in range(CLIENTS)]
    latencies = [latency for measured in await asyncio.gather(*clients) for latency in measured]
    return len(latencies), time.monotonic() - begin, latencies


async def _client(fleet: Fleet, texts: list[str], end: float) -> list[float]:
    address = urlsplit(fleet.rest)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    requests = [_request(fleet.key, address.netloc, text) for text in texts]
    latencies: list[float] = []
    try:
        while time.monotonic() < end:
            started = time.monotonic()
            writer.write(requests[len(latencies) % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            body = await reader.readexactly(int(length.partition(b":")[2]))
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(body.decode())
            latencies.append(1000 * (time.monotonic() - started))
    finally:
        writer.close()
    return latencies


def _request(key: str, host: str, text: str) -> bytes:
    body = json.dumps({"texts": [text]}).encode()
    head = (
        f"POST /api/v1/deployments/{MODEL}/classify HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _bare_loop(artifact: Path, texts: list[str]) -> Round:
    """In a process of its own, pinned to one thread, as a user without a server would write it."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(texts, file)
        file.flush()
        command = [sys.executable, "-m", "bench.bare_loop", str(artifact), file.name, str(ROUND_SECONDS)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(command, check=True, capture_output=True, timeout=START_SECONDS, env=environment)
    report: dict[str, Any] = json.loads(done.stdout)
    return Round(report["requests"], report["seconds"], report["cpu_seconds"], [])
