"""What the guide to Kafka shows is what the scripts run."""

import re
import shlex

import pytest

from tests.clients.tools import ROOT
from tests.clients.tried import SCRIPTS

GUIDE = (ROOT / "docs/guides/kafka.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n# (\w+\.py)\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)
PROGRAMS = {"kcat": "kcat", "java": "java"}


def commands() -> list[tuple[str, str]]:
    """Each command line of kcat and Java, without what is piped into it."""
    lines = [line for block in SHELL for line in block.replace("\\\n", " ").replace("|\n", "|\n").splitlines()]
    stripped = [line.strip() for line in lines if line.strip().partition(" ")[0] in PROGRAMS]
    return [(line.partition(" ")[0], line) for line in stripped]


def script_of(program: str, line: str) -> str:
    role = "producer" if " -P " in line or "ConsoleProducer" in line else "consumer"
    name = SCRIPTS / f"{role}_{PROGRAMS[program]}.py"
    return name.read_text(encoding="utf-8") + (SCRIPTS / "shared/announcing.py").read_text(encoding="utf-8")


def test_the_guide_shows_every_client() -> None:
    assert len(PYTHON) == 5
    assert [program for program, _ in commands()] == ["kcat", "kcat", "java", "kcat", "kcat", "java"]


@pytest.mark.parametrize(("script", "shown"), PYTHON, ids=[script for script, _ in PYTHON])
def test_a_shown_line_of_python_is_run_by_its_script(script: str, shown: str) -> None:
    run = {line.strip() for line in (SCRIPTS / script).read_text(encoding="utf-8").splitlines()}
    assert [line for line in shown.splitlines() if line.strip() not in run] == []


@pytest.mark.parametrize(("program", "line"), commands())
def test_a_shown_option_of_a_command_is_given_by_its_script(program: str, line: str) -> None:
    words = [word for word in shlex.split(line) if word.startswith("-") or "partitioner" in word or "parse." in word]
    run = script_of(program, line)
    assert [word for word in words if f'"{word}"' not in run] == []
