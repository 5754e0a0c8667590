"""The commands: data on standard output, the rest on standard error, exit codes that mean something."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.commands.events import chosen_topics
from services.cli.commands.fleet import Broker, chosen_broker
from services.cli.errors import CliError, Exit
from services.cli.home import Home
from services.cli.launcher import fleet
from services.cli.launcher.state import READY, FleetState, Lock
from services.cli.rest import address_and_key
from services.cli.uploading import dataset_name
from tests.unit.cli.test_chain import chain

DEPLOYMENT: dict[str, Any] = {
    "name": "topics",
    "model": "topics",
    "generation": 3,
    "version": 1,
    "targets": [{"version": 1, "precision": "int8", "role": "primary", "weight": 100}],
}


MODEL: dict[str, Any] = {"name": "topics", "versions": [], "aliases": {}}


def node(node_id: str, kind: str, label: str, **facts: str) -> dict[str, Any]:
    return {"id": node_id, "kind": kind, "label": label, "facts": facts}


LINEAGE: dict[str, Any] = {
    "model": "m",
    "version": 2,
    "nodes": [
        node("version/m/2", "version", "version 2"),
        node("run/run-2", "run", "run-2"),
        node("d", "dataset", "texts"),
        node("version/m/1", "version", "version 1"),
        node("drift/m/1", "drift", "away"),
        node("served", "deployment", "m", **{"from": "noon", "until": ""}),
    ],
    "edges": [
        {"source": "run/run-2", "target": "version/m/2", "relation": "produced"},
        {"source": "d", "target": "run/run-2", "relation": "read_by"},
        {"source": "drift/m/1", "target": "run/run-2", "relation": "asked_for"},
        {"source": "version/m/1", "target": "drift/m/1", "relation": "drifted"},
        {"source": "version/m/1", "target": "version/m/2", "relation": "parent_of"},
        {"source": "version/m/2", "target": "served", "relation": "served"},
    ],
}


@dataclass(frozen=True)
class Request:
    """What a gateway was asked."""

    method: str
    path: str
    headers: dict[str, str]
    content: bytes


class Gateway:
    """A real HTTP server that answers by path, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], tuple[int, Any]] = {}
        self.pages: dict[str, dict[str, Any]] = {}
        self.requested: list[Request] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            def answer(self) -> None:
                content = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                gateway.requested.append(Request(self.command, self.path, headers, content))
                path, _, query = self.path.partition("?")
                status, body = gateway.answers.get((self.command, path), (404, {"error": NOT_FOUND}))
                if path in gateway.pages:
                    status, body = 200, gateway.pages[path][dict(parse_qsl(query)).get("page_token", "")]
                sent = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 - the server's own names

            def log_message(self, *_: object) -> None:
                """Silence."""

        return Handler


NOT_FOUND = {"code": "unknown_model", "message": "There is no such thing.", "hint": "look elsewhere", "field": "model"}


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Gateway]:
    """A fleet that runs as far as the commands can see: a held lock, an endpoints file, a key, and a gateway."""
    response, home = Gateway(), Home(tmp_path)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    home.api_key_file.parent.mkdir()
    home.api_key_file.write_text("key")
    state = FleetState(str(tmp_path), "embedded", str(home.api_key_file), 0, READY, endpoints={"rest": response.url})
    state.write(home.endpoints_file)
    lock = Lock(home.lock_file)
    assert lock.take()
    yield response
    lock.close()
    response.close()


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


def test_json_is_all_that_standard_output_carries(gateway: Gateway) -> None:
    gateway.answers["GET", "/api/v1/deployments"] = (200, {"deployments": [DEPLOYMENT]})
    done = run("deployments", "list", "--json")
    assert json.loads(done.stdout) == {"deployments": [DEPLOYMENT]}
    assert "next: millrace deployments show topics" in done.stderr


def test_people_get_a_table_without_colours_where_there_is_no_terminal(gateway: Gateway) -> None:
    gateway.answers["GET", "/api/v1/deployments"] = (200, {"deployments": [DEPLOYMENT]})
    done = run("deployments", "list")
    assert "v1 100% (primary, int8)" in done.stdout
    assert "\x1b" not in done.stdout


def test_every_request_carries_the_key(gateway: Gateway) -> None:
    gateway.answers["GET", "/api/v1/models"] = (200, {"models": []})
    run("models", "list")
    assert gateway.requested[0].headers["authorization"] == "Bearer key"


def test_an_error_is_shown_with_its_hint_and_its_own_exit_code(gateway: Gateway) -> None:
    done = run("models", "show", "nope")
    assert done.exit_code == Exit.NOT_FOUND
    assert done.stdout == ""
    assert "There is no such thing. (field model)" in done.stderr
    assert "look elsewhere" in done.stderr


def test_a_refusal_with_json_is_json_on_standard_error(gateway: Gateway) -> None:
    done = run("models", "show", "nope", "--json")
    assert json.loads(done.stderr)["error"]["code"] == "unknown_model"


def test_what_moves_traffic_asks_first(gateway: Gateway) -> None:
    done = run("deployments", "rollback", "topics")
    assert done.exit_code == Exit.FAILED
    assert "--yes" in done.stderr
    assert gateway.requested == []


MOVES = {"rollback": ":rollback", "stop": ":stop", "pause": "/rollouts:pause", "resume": "/rollouts:resume"}
MOVES |= {"promote": "/rollouts:promote", "approve": "/rollouts:approve"}


@pytest.mark.parametrize("move", MOVES)
def test_a_dry_run_asks_the_registry_what_would_be_and_says_that_nothing_was_changed(
    gateway: Gateway, move: str
) -> None:
    gateway.answers["POST", f"/api/v1/deployments/topics{MOVES[move]}"] = (200, {**DEPLOYMENT, "dry_run": True})
    done = run("deployments", move, "topics", "--dry-run", "--generation", "3")
    assert done.exit_code == Exit.DONE
    sent = json.loads(gateway.requested[0].content)
    assert (sent["dry_run"], sent["expected_generation"]) == (True, 3)
    assert "nothing was changed" in done.stderr
    assert "next:" not in done.stderr


def test_a_stopped_deployment_is_shown_and_how_to_bring_it_back(gateway: Gateway) -> None:
    gateway.answers["POST", "/api/v1/deployments/topics:stop"] = (200, {**DEPLOYMENT, "targets": [], "stopped": True})
    done = run("deployments", "stop", "topics", "--yes")
    assert "stopped, nothing is served" in done.stdout
    assert "next: millrace deployments rollout topics @previous" in done.stderr


def test_what_a_rollout_waits_for_is_shown(gateway: Gateway) -> None:
    words = "1 more of 1 replicas must have it ready: inference-0 failed (its graph is empty)"
    rollout = {"version": 2, "state": "loading", "weights": [10], "step": 0, "reason": "by hand", "waits_for": words}
    gateway.answers["POST", "/api/v1/deployments/topics/rollouts:pause"] = (200, {**DEPLOYMENT, "rollout": rollout})
    done = run("deployments", "pause", "topics")
    assert f"rollout: v2 loading; by hand\nwaits for: {words}\n" in done.stdout


def test_every_change_carries_a_key_of_its_own(gateway: Gateway) -> None:
    gateway.answers["POST", "/api/v1/deployments/topics/rollouts:pause"] = (200, DEPLOYMENT)
    gateway.answers["PUT", "/api/v1/models/topics/aliases/stable"] = (200, {"name": "topics", "aliases": {"stable": 1}})
    for _ in range(2):
        run("deployments", "pause", "topics")
    assert run("models", "alias", "set", "topics", "stable", "1", "--yes").stdout == "topics: @stable version 1\n"
    keys = {request.headers["idempotency-key"] for request in gateway.requested}
    assert len(keys) == len(gateway.requested) == 3


def test_a_listing_is_read_page_after_page(gateway: Gateway) -> None:
    gateway.pages["/api/v1/models"] = {
        "": {"models": [MODEL], "next_page_token": "t"},
        "t": {"models": [{**MODEL, "name": "others"}]},
    }
    assert [one["name"] for one in json.loads(run("models", "list", "--json").stdout)["models"]] == ["topics", "others"]


@pytest.mark.parametrize("touched", [False, True])
def test_a_broken_history_ends_with_a_difference_and_its_number(gateway: Gateway, touched: bool) -> None:
    entries, head = chain(3)
    if touched:
        entries[1]["actor"] = "eve"
    gateway.answers["GET", "/api/v1/history/head"] = (200, head)
    gateway.pages["/api/v1/history"] = {
        "": {"entries": entries[:2], "next_page_token": "t"},
        "t": {"entries": entries[2:]},
    }
    done = run("audit", "verify", "--json")
    response = json.loads(done.stdout)
    assert (done.exit_code, response["whole"]) == ((Exit.DIFFERS, False) if touched else (Exit.DONE, True))
    assert response["broken_at"] == (2 if touched else None)
    assert "whole_chain=true" in gateway.requested[1].path


def test_a_lineage_is_drawn_as_a_tree_that_names_each_thing_once(gateway: Gateway) -> None:
    gateway.answers["GET", "/api/v1/models/m/versions/2/lineage"] = (200, LINEAGE)
    done = run("models", "lineage", "m", "2")
    assert done.stdout.splitlines() == [
        "m version 2",
        "comes from",
        "├─ produced by run run-2",
        "│  ├─ which read dataset texts",
        "│  └─ asked for by drift away",
        "│     └─ of version 1",
        "└─ child of version 1",
        "became",
        "└─ served deployment m, from noon",
    ]


def test_a_rollout_sends_version_reason_and_whether_the_gate_is_skipped(gateway: Gateway) -> None:
    gateway.answers["POST", "/api/v1/deployments/topics/rollouts"] = (200, DEPLOYMENT)
    run("deployments", "rollout", "topics", "3", "--skip-gate", "--yes", "--reason", "a test")
    assert json.loads(gateway.requested[0].content) == {
        "version": "3", "skip_gate": True, "reason": "a test", "dry_run": False,
    }  # fmt: skip


def test_a_file_that_is_not_there_is_wrong_usage(gateway: Gateway) -> None:
    assert run("datasets", "push", "nowhere.csv", "--model", "topics").exit_code == Exit.USAGE
    assert gateway.requested == []


def test_where_nothing_runs_the_command_says_how_to_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))
    done = run("status")
    assert done.exit_code == Exit.NOT_RUNNING
    assert "millrace up --detach" in done.stderr
    assert json.loads(run("status", "--json").stdout)["state"] == "stopped"


def test_a_gateway_elsewhere_is_named_by_the_environment(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.write_text("secret\n")
    response = {"MILLRACE_URL": "https://elsewhere", "MILLRACE_API_KEY_FILE": str(key_file)}
    assert address_and_key(Home(tmp_path), response) == ("https://elsewhere", "secret")
    with pytest.raises(CliError, match="no API key"):
        address_and_key(Home(tmp_path), {"MILLRACE_URL": "https://elsewhere"})


@pytest.mark.parametrize(
    ("chosen", "environment", "kind"),
    [
        (None, {}, "embedded"),
        (None, {"MILLRACE_BROKER": "kafka"}, "kafka"),
        (None, {"KAFKA_BOOTSTRAP_SERVERS": "there:9092"}, "external"),
        (Broker.EMBEDDED, {"KAFKA_BOOTSTRAP_SERVERS": "there:9092"}, "embedded"),
    ],
    ids=["default", "setting", "address", "option"],
)
def test_the_broker_is_chosen_by_option_then_setting_then_address(
    chosen: Broker | None, environment: dict[str, str], kind: str
) -> None:
    assert chosen_broker(chosen, environment)[0] == kind


def test_an_unknown_broker_is_refused() -> None:
    with pytest.raises(CliError):
        chosen_broker(None, {"MILLRACE_BROKER": "pigeon"})


def test_every_service_gets_its_ports_and_the_addresses_it_calls(tmp_path: Path) -> None:
    services = [fleet.ServicePorts(service.name, service.http_port, service.grpc_port) for service in fleet.SERVICES]
    gateway = next(service for service in services if service.name == "gateway")
    response = fleet.service_environment(
        gateway, services, home=Home(tmp_path), bootstrap="127.0.0.1:9", outside={"OMP_NUM_THREADS": "2"}
    )
    assert response["MILLRACE_GATEWAY_HTTP_PORT"] == "8080"
    assert response["MILLRACE_GATEWAY_REGISTRY_ADDRESS"] == "127.0.0.1:8121"
    assert response["KAFKA_BOOTSTRAP_SERVERS"] == "127.0.0.1:9"
    assert response["OMP_NUM_THREADS"] == "2"
    assert response["OMP_WAIT_POLICY"] == "passive"


def test_loud_topics_are_followed_only_when_named() -> None:
    assert "inference.logged" not in chosen_topics(None, dead_letters=False)
    assert chosen_topics(["inference.logged"], dead_letters=False) == ["inference.logged"]
    assert "model.trained.dlq" in chosen_topics(None, dead_letters=True)
    with pytest.raises(CliError, match="there is no topic"):
        chosen_topics(["nonsense"], dead_letters=False)


@pytest.mark.parametrize(("stem", "name"), [("My Data (1)", "my-data-1"), ("___", "data"), ("a" * 80, "a" * 63)])
def test_a_file_name_becomes_a_name(stem: str, name: str) -> None:
    assert dataset_name(stem) == name


def test_every_command_that_tells_data_has_json() -> None:
    import typer

    group: Any = typer.main.get_command(app)
    leaves: list[Any] = []
    groups = [group]
    while groups:
        for one in groups.pop().commands.values():
            (groups if hasattr(one, "commands") else leaves).append(one)
    assert len(leaves) > 20
    for leaf in leaves:
        assert any("--json" in option.opts for option in leaf.params), leaf.name


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, services.cli.app\n"
        "heavy = {'rich', 'httpx', 'grpc', 'confluent_kafka', 'pydantic', 'opentelemetry', 'yaml', 'torch'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert output.stdout == "[]\n"
