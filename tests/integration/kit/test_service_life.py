"""The life of a service, as its supervisor sees it."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.kit.services import SERVICES

Start = Callable[[str], "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    begun: list[subprocess.Popen[str]] = []

    def begin(how: str, **more: str) -> "subprocess.Popen[str]":
        environment = {**os.environ, "MILLRACE_HOME": str(tmp_path), "PYTHONPATH": str(SERVICES.parent), **more}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.kit.service_to_run", how],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
            cwd=SERVICES.parent,
        )
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        for pipe in (process.stdout, process.stderr):
            assert pipe is not None
            pipe.close()


def read_until(process: "subprocess.Popen[str]", line: str) -> list[str]:
    assert process.stdout is not None
    seen = []
    for read in process.stdout:
        seen.append(read.strip())
        if seen[-1] == line:
            break
    assert seen[-1:] == [line]
    return seen


def ended(process: "subprocess.Popen[str]") -> tuple[int, list[str], str]:
    out, errors = process.communicate(timeout=30)
    return process.returncode, out.split("\n")[:-1], errors


def test_parts_open_in_order_and_close_in_reverse_on_shutdown(start: Start) -> None:
    process = start("well")
    assert read_until(process, "open last") == ["open first", "open second", "open last"]
    process.terminate()
    code, output, errors = ended(process)
    assert (code, output) == (0, ["close last", "close second", "close first"])
    assert "tested has stopped" in errors


def test_a_runner_that_ends_by_itself_stops_the_service_with_an_error(start: Start) -> None:
    code, output, errors = ended(start("ends"))
    assert code == 1
    assert output[-1] == "close first"
    assert "the runner broke" in errors


def test_a_part_that_does_not_close_keeps_no_other_open(start: Start) -> None:
    process = start("raises:second")
    read_until(process, "open last")
    process.terminate()
    code, output, errors = ended(process)
    assert (code, output) == (0, ["close last", "close first"])
    assert "second did not close" in errors


def test_a_service_that_still_waits_for_a_part_can_be_stopped(start: Start) -> None:
    process = start("stuck:second")
    read_until(process, "open second")
    process.terminate()
    code, output, _ = ended(process)
    assert (code, output) == (0, ["close first"])


def test_a_bad_setting_ends_the_start_with_one_line_that_names_it(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLRACE_TESTED_PORT", "1")
    code, output, errors = ended(start("well"))
    assert (code, output) == (2, [])
    assert "MILLRACE_TESTED_PORT" in errors
    assert "Traceback" not in errors
