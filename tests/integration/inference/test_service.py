"""A whole replica as a process: from a wish to logged answers, through changes, kills and bad artifacts."""

import asyncio
import signal
from pathlib import Path

import pytest

from services.contracts.errors import MillraceError
from services.contracts.events import Role
from services.contracts.tasks import CLASSIFICATION
from tests.integration.inference.replica import TRACE, Traffic, replica_on, target
from tests.waiting import LIMIT_SECONDS

pytestmark = pytest.mark.slow


def states(report: dict[str, object]) -> dict[int, str]:
    return {entry["version"]: entry["state"] for entry in report["versions"]}  # type: ignore[attr-defined]


async def test_a_desired_version_becomes_answers_reports_and_a_log_in_one_trace(
    tmp_path: Path, bootstrap_servers: str
) -> None:
    async with replica_on(tmp_path, bootstrap_servers) as replica:
        ref = await replica.put(1)
        await replica.deployment(target(1, ref))
        replica.start()
        await replica.answers(1)
        answer = await replica.send("read the file and close the socket", request="mine")
        reports = await replica.reports(
            "replica.reported", lambda matches: any(states(one) == {1: "ready"} for one in matches)
        )
        ready = next(report for report in reports if states(report) == {1: "ready"})
        assert TRACE[3:35] in ready["headers"]["traceparent"]
        assert ready["generations"] == {"topics": 1}
        assert [report["sequence"] for report in reports] == sorted({report["sequence"] for report in reports})
        logged = await replica.reports(
            "inference.logged",
            lambda matches: "mine" in [record["request"] for one in matches for record in one["records"]],
        )
        record = next(record for one in logged for record in one["records"] if record["request"] == "mine")
        label = CLASSIFICATION.decode_result(answer.payload).predictions[0].label
        assert (record["items"][0]["label"], record["tokens"]) == (label, 9)
        assert record["items"][0]["text"] == "read the file and close the socket"


async def test_versions_change_under_traffic_without_a_failed_request(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with replica_on(tmp_path, embedded_bootstrap) as replica:
        first, second = await replica.put(1), await replica.put(2)
        await replica.deployment(target(1, first))
        replica.start()
        await replica.answers(1)
        traffic = Traffic(replica)
        async with traffic.flowing():
            await replica.deployment(target(1, first, weight=90), target(2, second, Role.CANARY, 10))
            await replica.answers(2)
            await replica.deployment(target(1, first, Role.DRAINING, 0), target(2, second))
            await replica.reports(
                "replica.reported", lambda matches: bool(matches) and states(matches[-1]) == {2: "ready"}
            )
        assert traffic.failed == []
        assert {answer.result.version for answer in traffic.answered} == {1, 2}
        assert traffic.answered[-1].result.version == 2


async def test_a_killed_replica_serves_again_without_broker_and_registry(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with replica_on(tmp_path, embedded_bootstrap) as replica:
        await replica.deployment(target(1, await replica.put(1)))
        replica.start()
        await replica.answers(1)
        assert replica.end(signal.SIGKILL) == -signal.SIGKILL
        replica.bootstrap = "127.0.0.1:9"  # nobody answers there
        replica.start()
        await replica.answers(1)
        assert (await replica.send()).version == 1


async def test_a_flipped_bit_is_refused_and_the_old_version_serves_on(tmp_path: Path, embedded_bootstrap: str) -> None:
    async with replica_on(tmp_path, embedded_bootstrap) as replica:
        first, second = await replica.put(1), await replica.put(2)
        graph = tmp_path / "artifacts" / "topics" / "2" / "fp32.onnx"
        content = bytearray(await asyncio.to_thread(graph.read_bytes))
        content[len(content) // 2] ^= 1
        await asyncio.to_thread(graph.write_bytes, content)
        await replica.deployment(target(1, first))
        replica.start()
        await replica.answers(1)
        await replica.deployment(target(1, first, weight=90), target(2, second, Role.CANARY, 10))
        reports = await replica.reports(
            "replica.reported", lambda matches: bool(matches) and states(matches[-1]) == {1: "ready", 2: "failed"}
        )
        reason = next(entry["reason"] for entry in reports[-1]["versions"] if entry["version"] == 2)
        assert reason.startswith("artifact_refused:")
        assert str(tmp_path) not in reason
        assert (await replica.send()).version == 1
        with pytest.raises(MillraceError) as refused:
            await replica.send(version=2)
        assert refused.value.code == "version_not_served"


async def test_a_stop_under_load_answers_every_request_that_was_read_and_says_goodbye(
    tmp_path: Path, embedded_bootstrap: str
) -> None:
    async with replica_on(tmp_path, embedded_bootstrap) as replica:
        await replica.deployment(target(1, await replica.put(1)))
        replica.start()
        await replica.answers(1)
        traffic = Traffic(replica)
        async with traffic.flowing():
            async with asyncio.timeout(LIMIT_SECONDS):
                while len(traffic.answered) <= 20:  # noqa: ASYNC110 - another process answers
                    await asyncio.sleep(0.05)
            assert replica.process is not None
            replica.process.terminate()
            await asyncio.sleep(0.2)
            traffic.stop()
        assert traffic.failed == []
        assert await asyncio.to_thread(replica.process.wait, LIMIT_SECONDS) == 0
        reports = await replica.reports("replica.reported", lambda matches: bool(matches) and matches[-1]["leaving"])
        assert reports[-1]["leaving"] is True
        expected = len(traffic.answered)
        logged = await replica.reports(
            "inference.logged", lambda events: sum(len(event["records"]) for event in events) >= expected
        )
        assert {record["variant"] for event in logged for record in event["records"]} == {"fp32"}
