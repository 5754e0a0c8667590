"""The loop and every door on five real processes and the embedded broker."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest

from services.cli.consumer import ReceivedEvent
from services.contracts.artifact import ArtifactRef
from services.contracts.rpc import gateway_pb2, gateway_pb2_grpc, inference_pb2, inference_pb2_grpc
from services.kit.storage.artifacts import ArtifactStore
from tests.e2e.fleet.clients import Client
from tests.e2e.fleet.invariants import nothing_is_lost_or_doubled
from tests.e2e.fleet.scenario import RECIPE, Scenario, playing
from tests.unit.trainer.tiny import texts
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LOGGED_SECONDS = 120.0


@pytest.fixture(scope="module")
def embedded_scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scenario]:
    """A fleet on the embedded broker that serves a first version."""
    with playing(tmp_path_factory.mktemp("fleet")) as scenario:
        scenario.serve_first()
        yield scenario


def test_a_second_data_set_becomes_a_canary_and_takes_over(embedded_scenario: Scenario) -> None:
    scenario = embedded_scenario
    with scenario.traffic(seed=1).flowing() as traffic:
        version = scenario.registered(scenario.announce("second", seed=2))
        scenario.promoted(version)
    assert traffic.failures == []
    assert {1, version} <= set(traffic.by_version())
    assert scenario.champion() == version
    nothing_is_lost_or_doubled(scenario, admin=False)


def test_one_trace_follows_a_data_set_through_all_five_services_to_the_first_answer(
    embedded_scenario: Scenario,
) -> None:
    scenario = embedded_scenario
    run = scenario.trained("second").body["run"]
    trace = scenario.client.get_patiently(f"/runs/{run}").json()["trace_id"]
    steps = {
        ("trainer", "process dataset.ready"),
        ("trainer", "job run"),
        ("trainer", "stage train"),
        ("registry", "process model.trained"),
        ("monitor", "process deployment.changed"),
        ("registry", "process rollout.judged"),
        ("gateway", "millrace.first_request"),
    }
    services = {"gateway", "trainer", "registry", "inference", "monitor"}
    until(
        lambda: services <= {service for service, _ in spans_of(scenario, trace)},
        "spans of all five services",
        LOGGED_SECONDS,
    )
    outcome = spans_of(scenario, trace)
    assert steps <= outcome, steps - outcome


def spans_of(scenario: Scenario, trace: str) -> set[tuple[str, str]]:
    """Service and name of the trace's spans, from the files that every service keeps."""
    lines = (line for path in scenario.fleet.home.traces.glob("*.jsonl") for line in path.read_text().splitlines())
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
    embedded_scenario: Scenario, value: bytes, code: str, reason: str
) -> None:
    key = f"malformed-{abs(hash(value))}"
    embedded_scenario.producer.send("dataset.ready", key, value)
    dead = dead_letter(embedded_scenario, "dataset.ready", key)
    assert dead.headers["dlq-code"] == code
    assert reason in dead.headers["dlq-reason"]
    assert dead.value == value


def test_an_event_of_an_unknown_version_is_a_dead_letter(embedded_scenario: Scenario) -> None:
    headers = {"ce_specversion": "1.0", "ce_id": "v9", "ce_source": "tests", "ce_type": "millrace.dataset.ready.v9"}
    embedded_scenario.producer.send("dataset.ready", "version-9", b"{}", headers)
    assert dead_letter(embedded_scenario, "dataset.ready", "version-9").headers["dlq-code"] == "unknown_event_type"


def test_plain_json_without_headers_is_accepted_once(embedded_scenario: Scenario) -> None:
    scenario = embedded_scenario
    body = json.dumps(scenario.dataset("plain", seed=3) | {"model": "plain", "deploy": False}).encode()
    for _ in range(2):
        scenario.producer.send("dataset.ready", "plain", body)
    assert scenario.trained("plain").body["model"] == "plain"
    assert scenario.fleet.rows("trainer", "SELECT count(*) FROM trainer_run WHERE dataset = 'plain'") == [(1,)]


# --- data sets ---------------------------------------------------------------------------------


def test_a_missing_file_ends_the_run_with_its_code(embedded_scenario: Scenario) -> None:
    missing = (embedded_scenario.fleet.home.datasets / "nowhere.jsonl").as_uri()
    failed = failure(embedded_scenario, "missing", {"uri": missing})
    assert (failed["code"], failed["stage"], failed["retryable"]) == ("missing_file", "prepare", False)
    assert str(embedded_scenario.fleet.home.root) not in failed["reason"]


def test_a_file_outside_the_allowed_folders_is_refused(embedded_scenario: Scenario) -> None:
    failed = failure(embedded_scenario, "outside", {"uri": "file:///etc/hostname"})
    assert (failed["code"], failed["retryable"]) == ("outside_roots", False)


def test_a_data_set_with_one_class_ends_with_the_row(embedded_scenario: Scenario) -> None:
    path = embedded_scenario.write("one-class", [{**row, "label": "fruit"} for row in texts(60)])
    failed = failure(embedded_scenario, "one-class", {"uri": path.as_uri()})
    assert (failed["code"], failed["row"], failed["retryable"]) == ("one_class", 1, False)


def test_a_ragged_row_is_named(embedded_scenario: Scenario) -> None:
    path = embedded_scenario.fleet.home.datasets / "ragged.csv"
    path.write_text("text,label\nold iron,metal\nrain,weather,more\n")
    failed = failure(embedded_scenario, "ragged", {"uri": path.as_uri(), "format": "csv"})
    assert (failed["code"], failed["row"]) == ("ragged_row", 2)


# --- artifacts ---------------------------------------------------------------------------------


def test_a_truncated_graph_is_refused_by_its_hash_and_the_old_version_serves(embedded_scenario: Scenario) -> None:
    scenario = embedded_scenario
    serving, trained = scenario.champion(), scenario.log.distinct("model.trained")[0].body
    folder = copy_of(scenario, trained, "truncated")
    truncate(folder)
    scenario.producer.send_event(
        "model.trained", scenario.model, forged(trained, "truncated", artifact_at(trained, folder)), "forged-1"
    )
    dead = dead_letter(scenario, "model.trained", scenario.model)
    assert dead.headers["dlq-code"] == "artifact_refused"
    assert str(scenario.fleet.home.root) not in dead.headers["dlq-reason"]
    serves(scenario, serving)


def test_a_truncated_graph_with_a_good_signature_is_refused_by_the_replica(embedded_scenario: Scenario) -> None:
    """As if the trainer had shipped it: the registry cannot know, the replica's checks find out before any traffic."""
    scenario = embedded_scenario
    serving, trained = scenario.champion(), scenario.log.distinct("model.trained")[0].body
    folder = copy_of(scenario, trained, "signed-draft")
    truncate(folder)
    store = ArtifactStore(folder.parent.as_uri(), scenario.fleet.home.root / "keys")
    put = asyncio.run(store.put(folder, "signed"))
    paired = {
        "champion": serving,
        "slices": [{"name": "all", "both": 60, "candidate_only": 0, "champion_only": 0, "neither": 0}],
    }
    body = forged(trained, "signed", put.model_dump(mode="json")) | {"comparison": paired}
    with scenario.traffic(seed=4).flowing() as traffic:
        scenario.producer.send_event("model.trained", scenario.model, body, "forged-2")
        number = scenario.fact("version_registered", lambda outcome: outcome["trained"]["run"] == "signed")["version"]
        scenario.fact("rollout_rolled_back", lambda outcome: outcome["version"] == number)
    assert traffic.failures == []
    assert set(traffic.by_version()) == {serving}
    serves(scenario, serving)


# --- REST and gRPC -----------------------------------------------------------------------------


def test_unknown_names_are_not_found(embedded_scenario: Scenario) -> None:
    client = embedded_scenario.client
    outcome = client.post("/deployments/nobody/classify", {"texts": ["rain"]})
    assert (outcome.status_code, outcome.json()["error"]["code"]) == (404, "unknown_deployment")
    assert client.get("/models/nobody").status_code == 404
    assert client.get("/deployments/nobody").status_code == 404
    assert client.get("/runs/nobody").status_code == 404
    feedback = {"request_id": "r", "label": "metal"}
    assert client.post("/deployments/nobody/feedback", feedback).status_code == 404


def test_an_over_long_text_is_refused_and_named(embedded_scenario: Scenario) -> None:
    path = f"/deployments/{embedded_scenario.model}/classify"
    outcome = embedded_scenario.client.post(path, {"texts": ["rain", "x" * 10_001]})
    assert (outcome.status_code, outcome.json()["error"]["field"]) == (422, "texts[1]")
    # Shorter than any text may be, but longer than this model reads.
    outcome = embedded_scenario.client.post(path, {"texts": ["x" * 9_000]})
    assert (outcome.status_code, outcome.json()["error"]["code"]) == (413, "text_too_long")


def test_without_a_key_no_endpoint_opens(embedded_scenario: Scenario) -> None:
    for key in ("", "mr_00000000_nokey"):
        client = Client(embedded_scenario.fleet, key)
        outcome = client.post(f"/deployments/{embedded_scenario.model}/classify", {"texts": ["rain"]})
        assert (outcome.status_code, outcome.json()["error"]["code"]) == (401, "unauthenticated")
        assert client.get("/models").status_code == 401
        client.close()
    assert over_grpc(embedded_scenario, ()) is grpc.StatusCode.UNAUTHENTICATED
    assert over_grpc(embedded_scenario, (("authorization", "Bearer nokey"),)) is grpc.StatusCode.UNAUTHENTICATED
    good = (("authorization", f"Bearer {embedded_scenario.fleet.key}"),)
    assert over_grpc(embedded_scenario, good) is grpc.StatusCode.NOT_FOUND


def test_after_all_that_the_fleet_serves_and_its_tables_agree(embedded_scenario: Scenario) -> None:
    from tests.e2e.fleet.invariants import history_is_gapless, tables_agree_with_history

    serves(embedded_scenario, embedded_scenario.champion())
    history_is_gapless(embedded_scenario.log)
    tables_agree_with_history(embedded_scenario.fleet)


# --- pieces ------------------------------------------------------------------------------------


def dead_letter(scenario: Scenario, topic: str, key: str) -> ReceivedEvent:
    return scenario.log.wait(
        lambda event: (event.topic, event.key) == (f"{topic}.dlq", key), "the dead letter", LOGGED_SECONDS
    )


def failure(scenario: Scenario, name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """What `training.failed` says of a data set that differs from a good one."""
    body = {"dataset": name, "model": "never", "recipe": RECIPE} | dict(changes)
    scenario.producer.send_event("dataset.ready", name, body, f"bad-{name}")
    ends = ("training.failed", "model.trained")
    outcome = scenario.log.wait(
        lambda event: event.topic in ends and event.body["dataset"] == name, f"the end of {name}", LOGGED_SECONDS
    )
    assert outcome.topic == "training.failed"
    return outcome.body


def serves(scenario: Scenario, version: int) -> None:
    outcome = scenario.client.post(f"/deployments/{scenario.model}/classify", {"texts": ["old iron"]})
    assert (outcome.status_code, outcome.json()["version"]) == (200, version)


def copy_of(scenario: Scenario, trained: Mapping[str, Any], name: str) -> Path:
    """A copy of a version's artifact beside the store's own."""
    source = Path(trained["artifact"]["uri"].removeprefix("file://"))
    return Path(shutil.copytree(source, scenario.fleet.home.root / "artifacts" / name))


def truncate(folder: Path) -> None:
    for graph in folder.glob("*.onnx"):
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])


def artifact_at(trained: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    ref = ArtifactRef.model_validate(trained["artifact"])
    return ref.model_copy(update={"uri": folder.as_uri()}).model_dump(mode="json")


def forged(trained: Mapping[str, Any], run: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {**trained, "run": run, "artifact": artifact}


def over_grpc(scenario: Scenario, metadata: tuple[tuple[str, str], ...]) -> grpc.StatusCode:
    """The status of asking for an unknown deployment; without a key even its absence is not told."""
    with grpc.insecure_channel(scenario.fleet.state.endpoints["grpc"]) as channel:
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
