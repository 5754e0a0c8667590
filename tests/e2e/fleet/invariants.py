"""What must hold of a fleet once it has come to rest, whatever was done to it."""

import json
import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from typing import Any

from services.kit.core.hash_chain import GENESIS
from tests.e2e.fleet.event_log import EventLog
from tests.e2e.fleet.running import SERVICES, Fleet
from tests.e2e.fleet.scenario import Scenario
from tests.waiting import until

WITH_DATABASE = ("gateway", "trainer", "registry", "monitor")
REST_SECONDS = 120.0


def nothing_is_lost_or_doubled(scenario: Scenario, *, admin: bool) -> None:
    """`admin`: the broker answers questions about consumer groups (the embedded one does not)."""
    fleet, log = scenario.fleet, scenario.log
    until(lambda: all(map(fleet.is_ready, SERVICES)), "every service is ready", REST_SECONDS)
    until(lambda: outbox_depth(fleet) == 0, "every outbox is empty", REST_SECONDS)
    if admin:
        bootstrap = fleet.state.endpoints["kafka"]
        until(lambda: lag(bootstrap) == 0, "every consumer is at the end", REST_SECONDS)
    assert log.dead_letters() == []
    until(lambda: log_is_complete(fleet, log), "the whole history was told")
    history_is_gapless(log)
    tables_agree_with_history(fleet)
    repetitions_are_alike(log)
    each_run_has_one_version(fleet, log)


def outbox_depth(fleet: Fleet, *services: str) -> int:
    return sum(fleet.rows(name, "SELECT count(*) FROM outbox")[0][0] for name in services or WITH_DATABASE)


def lag(bootstrap: str) -> int:
    """Messages that some group of ours has yet to read."""
    from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
    from confluent_kafka.admin import AdminClient, OffsetSpec

    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    behind = 0
    for group in admin.list_consumer_groups().result(10).valid:
        if not group.group_id.startswith("millrace."):
            continue
        matches = [ConsumerGroupTopicPartitions(group.group_id)]
        for answer in admin.list_consumer_group_offsets(matches).values():
            read = {(part.topic, part.partition): part.offset for part in answer.result(10).topic_partitions}
            workspaces = {TopicPartition(topic, number): OffsetSpec.latest() for topic, number in read}
            for workspace, end in admin.list_offsets(workspaces).items():
                behind += max(0, end.result(10).offset - max(0, read[workspace.topic, workspace.partition]))
    return behind


def log_is_complete(fleet: Fleet, log: EventLog) -> bool:
    (last,) = fleet.rows("registry", "SELECT max(sequence) FROM history")[0]
    return len(log.facts()) == (last or 0)


def history_is_gapless(log: EventLog) -> None:
    """Numbered from 1 without a gap and chained; told in order, repetitions aside."""
    outcome = log.all("registry.history")
    facts: dict[int, dict[str, Any]] = {}
    for event in outcome:
        number = event.body["sequence"]
        assert number in facts or number == len(facts) + 1, f"{number} was told after {len(facts)}"
        assert facts.setdefault(number, event.body) == event.body, f"{number} was told in two ways"
    chain = [GENESIS, *(facts[number]["hash"] for number in sorted(facts))]
    assert [facts[number]["previous_hash"] for number in sorted(facts)] == chain[:-1]


def tables_agree_with_history(fleet: Fleet) -> None:
    """`millrace registry rebuild --check`, beside the running registry."""
    command = [sys.executable, "-m", "services.cli", "registry", "rebuild", "--check", "--json"]
    environment = {**os.environ, "MILLRACE_HOME": str(fleet.home.root)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["differing"] == []


def repetitions_are_alike(log: EventLog) -> None:
    """A relay may send an event again; then it is the same event, under the same id.

    A request that is delivered again is answered anew, under the same id: that answer may differ in its last digits.
    """
    values: dict[tuple[str, str], bytes] = {}
    for event in log.all():
        if event.topic == "inference.completed":
            continue
        if name := event.headers.get("ce_id"):
            assert values.setdefault((event.topic, name), event.value) == event.value, (event.topic, name)


def each_run_has_one_version(fleet: Fleet, log: EventLog) -> None:
    """One run a data set, one `model.trained` a run, one version a `model.trained`; nothing is left undone."""
    runs = fleet.rows("trainer", "SELECT id, dataset, status FROM trainer_run")
    succeeded = sorted(run for run, _, status in runs if status == "succeeded")
    assert {status for _, _, status in runs} <= {"succeeded", "failed"}
    assert sorted(event.body["run"] for event in log.distinct("model.trained")) == succeeded
    registered = log.facts("version_registered")
    assert sorted(fact["trained"]["run"] for fact in registered) == succeeded
    ready = Counter(event.body["dataset"] for event in log.distinct("dataset.ready"))
    assert Counter(dataset for _, dataset, _ in runs) == ready
    numbers = Counter(fact["model"] for fact in registered)
    for model, count in numbers.items():
        assert [fact["version"] for fact in registered if fact["model"] == model] == list(range(1, count + 1))
    started = [fact["rollout"] for fact in log.facts("rollout_started")]
    promoted = [fact["rollout"] for fact in log.facts("rollout_promoted")]
    assert all(count == 1 for count in Counter(started).values())
    assert all(count == 1 for count in Counter(promoted).values())


def order_holds(names: list[str], outcome: list[str]) -> None:
    """`told` holds each of `names`, in their order."""
    workspaces = [outcome.index(name) for name in names]
    assert all(earlier < later for earlier, later in pairwise(workspaces)), outcome
