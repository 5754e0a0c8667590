"""`millrace keys`: on the keyring itself where nothing runs, by the gateway where it does."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.commands.keys import seconds
from services.cli.errors import CliError, Exit
from services.cli.home import Home
from services.kit.core.clock import SystemClock
from services.kit.identity.auth import Keyring
from tests.unit.cli.test_commands import Gateway, gateway

__all__ = ["gateway"]  # the fixture


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, list(arguments))


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Home:
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MILLRACE_URL", raising=False)
    return Home(tmp_path / "home")


def listed(*arguments: str) -> list[dict[str, Any]]:
    response: list[dict[str, Any]] = json.loads(run("keys", "list", "--json", *arguments).stdout)["keys"]
    return response


def test_keys_can_be_made_before_the_first_start_and_production_then_starts(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    from services.kit.core.settings import BadSettings
    from services.registry.settings import RegistrySettings

    monkeypatch.setenv("MILLRACE_ENVIRONMENT", "production")
    with pytest.raises(BadSettings):
        RegistrySettings.load()
    done = run("keys", "create", "--role", "admin", "--json")
    assert done.exit_code == Exit.DONE
    RegistrySettings.load()
    secret = json.loads(done.stdout)["secret"]
    assert Keyring(home.keys, SystemClock()).authenticate(f"Bearer {secret}").role == "admin"


def test_a_key_can_go_to_a_file_for_its_owner_alone_and_is_not_shown(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "key"
    done = run("keys", "create", "--role", "client", "--out", str(out), "--json")
    response = json.loads(done.stdout)
    assert (response["secret"], response["file"]) == ("", str(out))
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    secret = out.read_text().strip()
    assert secret not in done.output
    assert Keyring(home.keys, SystemClock()).authenticate(f"Bearer {secret}").key_id == response["key"]["id"]


def test_a_file_that_is_there_is_not_overwritten_and_no_key_is_made(home: Home, tmp_path: Path) -> None:
    out = tmp_path / "key"
    out.write_text("mine")
    assert run("keys", "create", "--role", "client", "--out", str(out)).exit_code == Exit.USAGE
    assert out.read_text() == "mine"
    assert not home.keys.exists()


def test_a_key_that_is_refused_leaves_no_file(home: Home, tmp_path: Path) -> None:
    done = run("keys", "create", "--role", "client", "--tenant", "Not A Tenant", "--out", str(tmp_path / "key"))
    assert done.exit_code == Exit.FAILED
    assert not (tmp_path / "key").exists()


def test_the_operator_of_the_machine_makes_keys_for_every_tenant(home: Home) -> None:
    made = json.loads(run("keys", "create", "--role", "admin", "--tenant", "acme", "--json").stdout)
    assert (made["key"]["tenant"], made["key"]["created_by"]) == ("acme", "machine")
    assert {one["tenant"] for one in listed()} == {"default", "acme"}
    refused = run("keys", "revoke", made["key"]["id"])
    assert refused.exit_code == Exit.FAILED
    assert "--yes" in refused.stderr
    assert run("keys", "revoke", made["key"]["id"], "--yes").exit_code == Exit.DONE
    assert {one["tenant"] for one in listed()} == {"default"}
    assert made["key"]["id"] in [one["id"] for one in listed("--revoked")]


def test_people_see_the_key_once_on_standard_output(home: Home) -> None:
    done = run("keys", "create", "--role", "viewer", "--name", "a board", "--expires-in", "90d")
    secret = next(line for line in done.stdout.splitlines() if line.startswith("mr_"))
    assert "only time" in done.stderr
    shown = run("keys", "list")
    assert "a board" in shown.stdout
    assert secret not in shown.stdout
    assert "hash" not in json.dumps(listed())


def test_where_a_gateway_runs_it_answers(gateway: Gateway, tmp_path: Path) -> None:
    key = {"id": "k1", "name": "n", "role": "client", "tenant": "default"}
    gateway.answers["POST", "/api/v1/keys"] = (201, {"key": key, "secret": "mr_k1_x"})
    gateway.answers["GET", "/api/v1/keys"] = (200, {"keys": [key], "next_page_token": ""})
    gateway.answers["POST", "/api/v1/keys/k1:revoke"] = (200, key)
    limits = ("--limit", "requests_per_second=2.5", "--limit", "concurrent=0")
    done = run("keys", "create", "--role", "client", "--expires-in", "1h", *limits, "--idempotency-key", "again")
    assert "mr_k1_x" in done.stdout
    assert [one["id"] for one in listed()] == ["k1"]
    assert run("keys", "revoke", "k1", "--yes").exit_code == Exit.DONE
    sent = json.loads(gateway.requested[0].content)
    assert sent == {
        "role": "client", "name": "", "tenant": "", "valid_seconds": 3600,
        "limits": {"requests_per_second": 2.5, "concurrent": 0},
    }  # fmt: skip
    assert gateway.requested[0].headers["idempotency-key"] == "again"
    assert json.loads(gateway.requested[-1].content) == {"even_if_last": True}
    assert not (Home(tmp_path).keys / "keyring.json").exists()


def test_the_keyring_itself_can_be_used_while_services_run(gateway: Gateway, tmp_path: Path) -> None:
    made = json.loads(run("keys", "create", "--role", "client", "--tenant", "acme", "--file", "--json").stdout)
    assert made["secret"]
    assert gateway.requested == []
    assert made["key"]["id"] in [one["id"] for one in listed("--file")]


@pytest.mark.parametrize(("text", "response"), [("", 0), ("30m", 1_800), ("12h", 43_200), ("90d", 7_776_000)])
def test_times_are_read(text: str, response: int) -> None:
    assert seconds(text) == response


@pytest.mark.parametrize("text", ["90", "d", "0d", "-1d", "1.5h", "99999999d", "9999999d", "1w"])
def test_what_is_no_time_is_wrong_usage(text: str) -> None:
    with pytest.raises(CliError):
        seconds(text)


@pytest.mark.parametrize("text", ["burst", "burst=", "burst=-1", "burst=1.5", "dollars=1", "burst=1e9"])
def test_what_is_no_limit_is_wrong_usage(home: Home, text: str) -> None:
    assert run("keys", "create", "--role", "client", "--limit", text).exit_code == Exit.USAGE
    assert not home.keys.exists()


def test_what_is_no_id_is_wrong_usage(home: Home) -> None:
    assert run("keys", "revoke", "../../etc").exit_code == Exit.USAGE
