"""The guides say nothing that was not run: their `python` and `sh` blocks, each guide's in one go."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from tests.clients import tools
from tests.clients.conftest import Environment
from tests.clients.tried import LIMIT_SECONDS
from tests.fixtures.presence import left_out

GUIDES: Final = tools.ROOT / "docs/guides"
BLOCK: Final = re.compile(r"^```(python|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KINDS: Final = [("openai", "python"), ("openai", "sh"), ("rest", "sh")]

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def blocks(guide: str, kind: str) -> str:
    matches = BLOCK.findall((GUIDES / f"{guide}.md").read_text(encoding="utf-8"))
    return "\n".join(text for language, text in matches if language == kind)


def promised_lines(text: str) -> list[str]:
    """What the comments at the ends of the `print` lines promise, as far as it is the same each time."""
    return [line for line in re.findall(r"print\(.*\)     # (.+)$", text, re.MULTILINE) if "..." not in line]


@pytest.mark.parametrize(("guide", "kind"), KINDS)
def test_the_blocks_of_a_guide_run_as_they_stand(
    guide: str, kind: str, embedded_environment: Environment, tmp_path: Path
) -> None:
    text = blocks(guide, kind)
    if kind == "sh" and shutil.which("curl") is None:
        left_out("curl", "it is not on the PATH")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MILLRACE_", "PYTHON", "OTEL_"))}
    command = ["bash", "-euo", "pipefail", "-c", text] if kind == "sh" else [str(tools.python()), "-c", text]
    done = subprocess.run(
        command,
        env=clean | embedded_environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    print(done.stdout)
    output = done.stdout.splitlines()
    assert [line for line in promised_lines(text) if line not in output] == []
