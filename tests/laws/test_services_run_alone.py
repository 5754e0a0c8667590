"""Each room installs alone: all of it imports where only its own extra's packages are, and torch never is."""

import subprocess
import sys
from typing import Final

import pytest

from tests.laws.absence import foreign, without
from tests.laws.source import ROOT

IMPORT_ALL: Final = """
import importlib, pkgutil

package = importlib.import_module({package!r})
names = [module.name for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")]
for name in names:
    if not name.startswith({left_out!r}) and "migrations" not in name:
        importlib.import_module(name)
print(len(names))
"""


def import_all(package: str, blocked: set[str], left_out: str = "-") -> subprocess.CompletedProcess[str]:
    program = without(blocked, IMPORT_ALL.format(package=package, left_out=left_out))
    return subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("service", ["gateway", "registry", "monitor", "inference", "cli"])
def test_a_service_imports_with_only_its_own_packages(service: str) -> None:
    assert {"torch", "transformers"} <= foreign(service)
    result = import_all(f"services.{service}", foreign(service))
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) >= 5


def test_the_trainers_service_imports_with_torch_absent() -> None:
    """All of it but the stages, which run in a child process."""
    heavy = {"torch", "transformers", "sklearn", "onnx", "onnxruntime", "onnxscript"}
    result = import_all("services.trainer", heavy, left_out="services.trainer.stages")
    assert result.returncode == 0, result.stderr


def test_an_import_of_what_is_absent_is_caught() -> None:
    """The way of testing itself: what needs a blocked package does not pass."""
    result = import_all("services.contracts", {"pydantic"})
    assert result.returncode != 0
    assert "No module named 'pydantic'" in result.stderr
