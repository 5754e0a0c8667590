"""One version, told in two places."""

import tomllib
from pathlib import Path

from services import __version__

ROOT = Path(__file__).resolve().parents[3]


def test_the_code_tells_the_version_of_the_project() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
