"""The `millrace dlq` commands: what they show, and what they send to the gateway."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from google.protobuf.message import Message
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.commands.dlq import age, event_of, readable
from services.cli.errors import Exit
from services.contracts.rpc import dead_letters_pb2 as wire
from services.gateway.inbound.http.wire_model import to_json


@pytest.mark.parametrize(
    ("value", "form", "shown"),
    [
        (b'{"a":[1]}', "json", '{\n  "a": [\n    1\n  ]\n}'),
        ("kein JSON \u00e9".encode(), "text", "kein JSON \u00e9"),
        (b"\x1b[31mred", "text", "\\x1b[31mred"),
        (b'"\\u009b31m \\ud800"', "json", '"\\x9b31m \\xd800"'),
        (b"\x80\x04K\x01.", "hex", "00000000  80 04 4b 01 2e                                   ..K.."),
        (b"", "text", ""),
    ],
    ids=["json", "text", "escapes", "escapes in JSON", "bytes", "empty"],
)
def test_a_body_is_shown_as_what_it_is(value: bytes, form: str, shown: str) -> None:
    assert readable(value, 1000) == (form, shown)


def test_a_large_body_is_cut_and_says_so() -> None:
    form, shown = readable(b"\xff" * 100_000, 4000)
    assert (form, len(shown) < 8000) == ("hex", True)
    assert shown.endswith("... 99000 bytes more; --whole shows them")
    assert readable(b"a" * 5000, 4000)[1].endswith("... 1000 characters more; --whole shows them")
    assert readable(b"[" * 100_000, 4000)[0] == "text"


def test_an_age_is_shown_in_its_largest_unit() -> None:
    assert [age(seconds) for seconds in (-1, 59, 150, 8000, 200_000)] == ["0 s", "59 s", "2 min", "2 h", "2 d"]


def test_of_a_structured_event_the_content_is_corrected() -> None:
    assert event_of(b'{"specversion": "1.0", "id": "mine", "data": {"a": 1}}') == b'{\n  "a": 1\n}'
    for other in (b'{"a": 1}', b"\x80", b"[1]"):
        assert event_of(other) == other


def test_a_redelivery_of_nothing_and_of_everything_at_once_is_wrong_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("MILLRACE_API_KEY", "none")
    for arguments in ([], ["dataset.ready/0/1", "--all"], ["nonsense"], ["--all", "--body", "-"]):
        assert CliRunner().invoke(app, ["dlq", "redeliver", *arguments]).exit_code == Exit.USAGE, arguments


LETTER = wire.DeadLetter(address="dataset.ready/0/3", topic="dataset.ready", status="waiting", code="not_now", tries=1)
LETTER.given_up_at.FromJsonString("2026-11-03T12:00:00Z")


class Gateway:
    """Answers as the gateway does, and records what it was sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def answer(self, verb: str, path: str, body: dict[str, Any]) -> Message:
        if verb == "POST":
            self.sent.append(body)
            one = wire.Redelivery(address=LETTER.address, event_id="evt-1")
            return wire.RedeliverDeadLettersResponse(redeliveries=[one], sent=0 if body.get("dry_run") else 1)
        if path.endswith("/dead-letters"):
            return wire.ListDeadLettersResponse(dead_letters=[LETTER], total=3)
        return wire.DeadLetterContent(dead_letter=LETTER, headers={"dlq-code": "not_now"}, body=b'{"a": 1}')


@pytest.fixture
def gateway(monkeypatch: pytest.MonkeyPatch) -> Iterator[Gateway]:
    served = Gateway()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}")
            answer = json.dumps(to_json(served.answer(self.command, self.path.partition("?")[0], body))).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_GET  # noqa: N815 - the base class names it

        def log_message(self, *_: Any) -> None:
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("MILLRACE_URL", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("MILLRACE_API_KEY", "any")
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["dlq", *arguments])
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.usefixtures("gateway")
def test_letters_are_listed_and_shown_as_text_and_as_json() -> None:
    assert "dataset.ready/0/3" in run("list")
    assert json.loads(run("list", "--json"))["dead_letters"][0]["address"] == LETTER.address
    assert "address        dataset.ready/0/3" in run("show", LETTER.address)
    assert json.loads(run("show", LETTER.address, "--json"))["body_form"] == "json"


def test_a_dry_run_asks_and_sends_nothing(gateway: Gateway) -> None:
    assert "dataset.ready/0/3  would be sent as evt-1" in run("redeliver", "dataset.ready.dlq/0/3", "--dry-run")
    assert gateway.sent == [{"addresses": [LETTER.address], "all": False, "again": False, "dry_run": True}]


def test_what_would_be_sent_is_sent_once_confirmed(gateway: Gateway) -> None:
    assert "records sent: 1" in run("redeliver", "--code", "not_now", "--yes")
    assert [(one["code"], one["dry_run"]) for one in gateway.sent] == [("not_now", True), ("not_now", False)]
    assert json.loads(run("redeliver", LETTER.address, "--yes", "--json"))["sent"] == 1
