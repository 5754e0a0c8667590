"""proto/asyncapi.json, read by the parser of AsyncAPI's own project. It reads no examples; we do."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import pytest

from services.contracts.events import EVENTS
from tests.fixtures.npm import package

DOCUMENT: Final = Path(__file__).parents[2] / "proto/asyncapi.json"
PARSER: Final = ("@asyncapi/parser", "3.6.3")
SCRIPT: Final = Path(__file__).parent / "asyncapi_parser.cjs"
WARNING: Final = 1
"""Severities: 0 error, 1 warning, 2 information (such as that 3.1.0 exists), 3 hint."""

pytestmark = pytest.mark.slow

Read = Callable[[dict[str, Any]], tuple[list[dict[str, Any]], list[str]]]


@pytest.fixture(scope="module")
def read() -> Read:
    """What the parser finds wrong with a document, and the messages that it sees."""
    node, folder = package(*PARSER)

    def reading(document: dict[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
        command = [node, str(SCRIPT), str(DOCUMENT)]
        text = json.dumps(document)
        done = subprocess.run(command, input=text, cwd=folder, check=True, capture_output=True, text=True, timeout=60)
        output = json.loads(done.stdout)
        return [response for response in output["told"] if response["severity"] <= WARNING], output["messages"]

    return reading


def original() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DOCUMENT.read_text())
    return document


def test_the_official_parser_finds_nothing_wrong_and_sees_every_message(read: Read) -> None:
    problems, messages = read(original())
    assert problems == []
    assert set(messages) == {event.__name__ for event in EVENTS} | {"DeadLetter"}


def test_a_broken_document_is_found_out(read: Read) -> None:
    document = original()
    del document["info"]["version"]
    document["components"]["messages"]["DatasetReady"]["examples"][0]["nonsense"] = True
    document["operations"]["gateway.send.datasetReady"]["channel"]["$ref"] = "#/channels/nowhere"
    problems, messages = read(document)
    assert len(problems) >= 3
    assert messages == []
