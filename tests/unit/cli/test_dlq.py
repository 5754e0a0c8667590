"""The `millrace dlq` commands: what they show, and what they send to the gateway."""

import pytest
from typer.testing import CliRunner

from services.cli.app import app
from services.cli.commands.dlq import age, event_of, readable
from services.cli.errors import Exit


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


def test_an_age_is_told_in_its_largest_unit() -> None:
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
