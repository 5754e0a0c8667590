"""The loop and every door on five real processes and the embedded broker."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.cli.watching import ReceivedEvent
from services.contracts.artifact import ArtifactRef
from services.contracts.rpc import gateway_pb2, gateway_pb2_grpc, inference_pb2, inference_pb2_grpc
from services.kit.storage.artifacts import ArtifactStore
from tests.e2e.fleet.doors import Client
from tests.e2e.fleet.invariants import nothing_is_lost_or_doubled
from tests.e2e.fleet.story import RECIPE, Story, playing
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOLD_SECONDS = 120.0


@pytest.fixture(scope="module")
def embedded_story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """A fleet on the embedded broker that serves a first version."""
    with playing(tmp_path_factory.mktemp("fleet")) as story:
        story.serve_first()
        yield story


def test_a_second_data_set_becomes_a_canary_and_takes_over(embedded_story: Story) -> None:
    story = embedded_story
    with story.traffic(seed=1).flowing() as traffic:
        version = story.registered(story.announce("second", seed=2))
        story.promoted(version)
    assert traffic.failures == []
    assert {1, version} <= set(traffic.by_version())
    assert story.champion() == version
    nothing_is_lost_or_doubled(story, admin=False)


def test_one_trace_follows_a_data_set_through_all_five_services_to_the_first_answer(embedded_story: Story) -> None:
    story = embedded_story
    run = story.trained("second").body["run"]
    trace = story.client.get_patiently(f"/runs/{run}").json()["trace_id"]
    steps = {
        ("trainer", "process dataset.ready"),
        ("trainer", "job run"),
        ("trainer", "stage train"),
        ("registry", "process model.trained"),
        ("monitor", "process deployment.changed"),
        ("registry", "process rollout.judged"),
        ("gateway", "millrace.first_request"),
    }
    rooms = {"gateway", "trainer", "registry", "inference", "monitor"}
    until(lambda: rooms <= {room for room, _ in spans_of(story, trace)}, "spans of all five services", TOLD_SECONDS)
    told = spans_of(story, trace)
    assert steps <= told, steps - told


def spans_of(story: Story, trace: str) -> set[tuple[str, str]]:
    """Service and name of the trace's spans, from the files that every service keeps."""
    lines = (line for path in story.fleet.home.traces.glob("*.jsonl") for line in path.read_text().splitlines())
    spans = (json.loads(line) for line in lines if trace in line)
    return {(span["service"].removeprefix("millrace-"), span["name"]) for span in spans if span["trace_id"] == trace}


# --- what outside producers send ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code", "reason"),
    [
        (b"not json", "malformed_event", "not JSON"),
        (b"\x80\x04\x95\x10", "malformed_event", "not JSON"),
        (b"[1, 2]", "malformed_event", "not a JSON object"),
        (b"", "malformed_event", "empty"),
        (b'{"dataset": "x", "uri": "file:///x"}', "malformed_event", "model"),
        (b'{"dataset": "../x", "uri": "file:///x", "model": "m"}', "malformed_event", "dataset"),
    ],
    ids=["text", "pickle", "list", "null", "field-missing", "bad-name"],
)
def test_a_malformed_event_is_a_dead_letter_with_its_reason(
    embedded_story: Story, value: bytes, code: str, reason: str
) -> None:
    key = f"malformed-{abs(hash(value))}"
    embedded_story.producer.send("dataset.ready", key, value)
    dead = dead_letter(embedded_story, "dataset.ready", key)
    assert dead.headers["dlq-code"] == code
    assert reason in dead.headers["dlq-reason"]
    assert dead.value == value


def test_an_event_of_an_unknown_version_is_a_dead_letter(embedded_story: Story) -> None:
    headers = {"ce_specversion": "1.0", "ce_id": "v9", "ce_source": "tests", "ce_type": "millrace.dataset.ready.v9"}
    embedded_story.producer.send("dataset.ready", "version-9", b"{}", headers)
    assert dead_letter(embedded_story, "dataset.ready", "version-9").headers["dlq-code"] == "unknown_event_type"


def test_plain_json_without_headers_is_accepted_once(embedded_story: Story) -> None:
    story = embedded_story
    body = json.dumps(story.dataset("plain", seed=3) | {"model": "plain", "deploy": False}).encode()
    for _ in range(2):
        story.producer.send("dataset.ready", "plain", body)
    assert story.trained("plain").body["model"] == "plain"
    assert story.fleet.rows("trainer", "SELECT count(*) FROM trainer_run WHERE dataset = 'plain'") == [(1,)]


# --- data sets ---------------------------------------------------------------------------------


def test_a_missing_file_ends_the_run_with_its_code(embedded_story: Story) -> None:
    missing = (embedded_story.fleet.home.datasets / "nowhere.jsonl").as_uri()
    failed = failure(embedded_story, "missing", {"uri": missing})
    assert (failed["code"], failed["stage"], failed["retryable"]) == ("missing_file", "prepare", False)
    assert str(embedded_story.fleet.home.root) not in failed["reason"]


def test_a_file_outside_the_allowed_folders_is_refused(embedded_story: Story) -> None:
    failed = failure(embedded_story, "outside", {"uri": "file:///etc/hostname"})
    assert (failed["code"], failed["retryable"]) == ("outside_roots", False)


def test_a_data_set_with_one_class_ends_with_the_row(embedded_story: Story) -> None:
    path = embedded_story.write("one-class", [{**row, "label": "fruit"} for row in texts(60)])
    failed = failure(embedded_story, "one-class", {"uri": path.as_uri()})
    assert (failed["code"], failed["row"], failed["retryable"]) == ("one_class", 1, False)


def test_a_ragged_row_is_named(embedded_story: Story) -> None:
    path = embedded_story.fleet.home.datasets / "ragged.csv"
    path.write_text("text,label\nold iron,metal\nrain,weather,more\n")
    failed = failure(embedded_story, "ragged", {"uri": path.as_uri(), "format": "csv"})
    assert (failed["code"], failed["row"]) == ("ragged_row", 2)


# --- artifacts ---------------------------------------------------------------------------------


def test_a_truncated_graph_is_refused_by_its_hash_and_the_old_version_serves(embedded_story: Story) -> None:
    story = embedded_story
    serving, trained = story.champion(), story.log.distinct("model.trained")[0].body
    folder = copy_of(story, trained, "truncated")
    truncate(folder)
    story.producer.tell(
        "model.trained", story.model, forged(trained, "truncated", artifact_at(trained, folder)), "forged-1"
    )
    dead = dead_letter(story, "model.trained", story.model)
    assert dead.headers["dlq-code"] == "artifact_refused"
    assert str(story.fleet.home.root) not in dead.headers["dlq-reason"]
    serves(story, serving)


def test_a_truncated_graph_with_a_good_signature_is_refused_by_the_replica(embedded_story: Story) -> None:
    """As if the trainer had shipped it: the registry cannot know, the replica's checks find out before any traffic."""
    story = embedded_story
    serving, trained = story.champion(), story.log.distinct("model.trained")[0].body
    folder = copy_of(story, trained, "signed-draft")
    truncate(folder)
    store = ArtifactStore(folder.parent.as_uri(), story.fleet.home.root / "keys")
    put = asyncio.run(store.put(folder, "signed"))
    paired = {
        "champion": serving,
        "slices": [{"name": "all", "both": 60, "candidate_only": 0, "champion_only": 0, "neither": 0}],
    }
    body = forged(trained, "signed", put.model_dump(mode="json")) | {"comparison": paired}
    with story.traffic(seed=4).flowing() as traffic:
        story.producer.tell("model.trained", story.model, body, "forged-2")
        number = story.fact("version_registered", lambda told: told["trained"]["run"] == "signed")["version"]
        story.fact("rollout_rolled_back", lambda told: told["version"] == number)
    assert traffic.failures == []
    assert set(traffic.by_version()) == {serving}
    serves(story, serving)


# --- REST and gRPC -----------------------------------------------------------------------------


def test_unknown_names_are_not_found(embedded_story: Story) -> None:
    client = embedded_story.client
    told = client.post("/deployments/nobody/classify", {"texts": ["rain"]})
    assert (told.status_code, told.json()["error"]["code"]) == (404, "unknown_deployment")
    assert client.get("/models/nobody").status_code == 404
    assert client.get("/deployments/nobody").status_code == 404
    assert client.get("/runs/nobody").status_code == 404
    feedback = {"request_id": "r", "label": "metal"}
    assert client.post("/deployments/nobody/feedback", feedback).status_code == 404


def test_an_over_long_text_is_refused_and_named(embedded_story: Story) -> None:
    path = f"/deployments/{embedded_story.model}/classify"
    told = embedded_story.client.post(path, {"texts": ["rain", "x" * 10_001]})
    assert (told.status_code, told.json()["error"]["field"]) == (422, "texts[1]")
    # Shorter than any text may be, but longer than this model reads.
    told = embedded_story.client.post(path, {"texts": ["x" * 9_000]})
    assert (told.status_code, told.json()["error"]["code"]) == (413, "text_too_long")


def test_without_a_key_no_door_opens(embedded_story: Story) -> None:
    for key in ("", "mr_00000000_nokey"):
        client = Client(embedded_story.fleet, key)
        told = client.post(f"/deployments/{embedded_story.model}/classify", {"texts": ["rain"]})
        assert (told.status_code, told.json()["error"]["code"]) == (401, "unauthenticated")
        assert client.get("/models").status_code == 401
        client.close()
    assert over_grpc(embedded_story, ()) is grpc.StatusCode.UNAUTHENTICATED
    assert over_grpc(embedded_story, (("authorization", "Bearer nokey"),)) is grpc.StatusCode.UNAUTHENTICATED
    good = (("authorization", f"Bearer {embedded_story.fleet.key}"),)
    assert over_grpc(embedded_story, good) is grpc.StatusCode.NOT_FOUND


def test_after_all_that_the_fleet_serves_and_its_tables_agree(embedded_story: Story) -> None:
    from tests.e2e.fleet.invariants import history_is_gapless, tables_agree_with_history

    serves(embedded_story, embedded_story.champion())
    history_is_gapless(embedded_story.log)
    tables_agree_with_history(embedded_story.fleet)


# --- pieces ------------------------------------------------------------------------------------


def dead_letter(story: Story, topic: str, key: str) -> ReceivedEvent:
    return story.log.wait(
        lambda event: (event.topic, event.key) == (f"{topic}.dlq", key), "the dead letter", TOLD_SECONDS
    )


def failure(story: Story, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What `training.failed` says of a data set that differs from a good one."""
    body = {"dataset": name, "model": "never", "recipe": RECIPE} | dict(changes)
    story.producer.tell("dataset.ready", name, body, f"bad-{name}")
    ends = ("training.failed", "model.trained")
    told = story.log.wait(
        lambda event: event.topic in ends and event.body["dataset"] == name, f"the end of {name}", TOLD_SECONDS
    )
    assert told.topic == "training.failed"
    return told.body


def serves(story: Story, version: int) -> None:
    told = story.client.post(f"/deployments/{story.model}/classify", {"texts": ["old iron"]})
    assert (told.status_code, told.json()["version"]) == (200, version)


def copy_of(story: Story, trained: Mapping[str, Any], name: str) -> Path:
    """A copy of a version's artifact beside the store's own."""
    source = Path(trained["artifact"]["uri"].removeprefix("file://"))
    return Path(shutil.copytree(source, story.fleet.home.root / "artifacts" / name))


def truncate(folder: Path) -> None:
    for graph in folder.glob("*.onnx"):
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def artifact_at(trained: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    ref = ArtifactRef.model_validate(trained["artifact"])
    return ref.model_copy(update={"uri": folder.as_uri()}).model_dump(mode="json")


def forged(trained: Mapping[str, Any], run: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {**trained, "run": run, "artifact": artifact}


def over_grpc(story: Story, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    """The status of asking for an unknown deployment; without a key even its absence is not told."""
    with grpc.insecure_channel(story.fleet.state.endpoints["grpc"]) as channel:
        feedback: Any = gateway_pb2_grpc.GatewayServiceStub(channel).SendFeedback
        classify: Any = inference_pb2_grpc.InferenceServiceStub(channel).Classify
        codes = set()
        for method, request in (
            (feedback, gateway_pb2.SendFeedbackRequest(deployment="nobody", request_id="r", label="metal")),
            (classify, inference_pb2.ClassifyRequest(deployment="nobody", texts=["rain"])),
        ):
            with pytest.raises(grpc.RpcError) as refused:
                method(request, metadata=metadata, timeout=30)
            codes.add(refused.value.code())
    (code,) = codes
    return grpc.StatusCode[code.name]
