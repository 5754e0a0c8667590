"""The laws that ruff, import-linter, mypy and the contract diff enforce: the real tool catches each breach.

The tools run with this repository's own configuration, on a copy of its sources.
"""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.laws.source import ROOT

SERVICE_NAMES: Final = ("gateway", "inference", "monitor", "registry", "trainer")
BIN: Final = Path(sys.executable).parent
CONTRACT_IDS: Final = {
    contract["name"]: contract["id"]
    for contract in tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the tools read."""
    copy = tmp_path_factory.mktemp("tree")
    for name in ("services", "demo", "proto", "scripts", "tests/contracts"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


def run(
    *call: str | Path, cwd: Path, stdin: str = "", env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*map(str, call)], cwd=cwd, input=stdin, env=env, capture_output=True, text=True, check=False)


# --- import-linter: laws 1 and 2 ---------------------------------------------------------------


def plant(tree: Path, name: str, line: str) -> None:
    """Adds an import to a module (in a folder of that name, to its `__init__`), making what the room has not got."""
    path = tree / name
    if path.with_suffix("").is_dir():
        path = path.with_suffix("") / "__init__.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    for folder in path.parents:
        if folder == tree:
            break
        if not (folder / "__init__.py").exists():
            (folder / "__init__.py").touch()
    text = path.read_text() if path.exists() else ""
    path.write_text(f"{text}\n{line}\n")


# Contract, the module that breaks it, its line, and what the report must name.
IMPORT_BREACHES: Final = [
    ("services", "services/gateway/domain.py", "import services.trainer", "gateway.domain -> services.trainer"),
    ("services", "services/kit/core/clock.py", "import services.registry", "kit.core.clock -> services.registry"),
    ("services", "services/contracts/names.py", "import services.kit", "contracts.names -> services.kit"),
    (
        "services",
        "services/contracts/access.py",
        "import services.kit.core.ids",
        "contracts.access -> services.kit.core.ids",
    ),
    ("services", "services/cli/rest.py", "import services.gateway.errors", "cli.rest -> services.gateway.errors"),
    # Inside a service, in the order of its layers.
    (
        "service",
        "services/registry/domain.py",
        "import services.registry.handlers",
        "domain -> services.registry.handlers",
    ),
    ("service", "services/monitor/ports.py", "import services.monitor.app", "monitor.ports -> services.monitor.app"),
    ("service", "services/gateway/inbound/x.py", "import services.gateway.outbound", "x -> services.gateway.outbound"),
    ("service", "services/registry/settings.py", "import services.registry.app", "settings -> services.registry.app"),
    (
        "service",
        "services/monitor/settings.py",
        "import services.monitor.domain",
        "settings -> services.monitor.domain",
    ),
    ("service", "services/inference/telemetry.py", "import services.inference.domain", "-> services.inference.domain"),
    ("service", "services/trainer/errors.py", "import services.trainer.domain", "errors -> services.trainer.domain"),
    ("service", "services/trainer/stages/x.py", "import services.trainer.inbound", "x -> services.trainer.inbound"),
    ("service", "services/trainer/outbound/x.py", "import services.trainer.stages", "x -> services.trainer.stages"),
    (
        "service",
        "services/gateway/app.py",
        "import services.gateway.__main__",
        "app -> services.gateway.__main__",
    ),
    ("service", "services/monitor/news.py", "import json", "- services.monitor.news"),
    ("service", "services/trainer/planted/x.py", "import json", "- services.trainer.planted"),
    ("settings", "services/gateway/inbound/x.py", "import services.gateway.settings", "x -> services.gateway.settings"),
    (
        "settings",
        "services/inference/handlers/x.py",
        "import services.inference.settings",
        "-> services.inference.settings",
    ),
    ("stages", "services/trainer/stages/y.py", "import services.trainer.ports", "stages.y -> services.trainer.ports"),
    (
        "outbound",
        "services/registry/outbound/x.py",
        "import services.registry.handlers",
        "-> services.registry.handlers",
    ),
    (
        "outbound",
        "services/monitor/outbound/x.py",
        "def f():\n    from services.monitor.handlers import ingest",
        "monitor.outbound.x -> services.monitor.handlers.ingest",
    ),
    # Inside the kit.
    ("kit", "services/kit/jobs/__init__.py", "import services.kit.service", "kit.jobs -> services.kit.service"),
    ("kit", "services/kit/core/clock.py", "import services.kit.messaging", "kit.core.clock -> services.kit.messaging"),
    ("kit", "services/kit/core/ids.py", "import services.kit.identity.auth", "core.ids -> services.kit.identity.auth"),
    ("kit", "services/kit/messaging/x.py", "import services.kit.persistence", "x -> services.kit.persistence"),
    ("kit", "services/kit/identity/x.py", "import services.kit.messaging", "identity.x -> services.kit.messaging"),
    ("kit", "services/kit/storage/x.py", "import services.kit.transport", "storage.x -> services.kit.transport"),
    ("kit", "services/kit/planted.py", "import json", "- services.kit.planted"),
    # Inside the command, the demo and the launcher.
    ("cli", "services/cli/output.py", "import services.cli.session", "cli.output -> services.cli.session"),
    ("cli", "services/cli/launcher/x.py", "import services.cli.rest", "launcher.x -> services.cli.rest"),
    ("cli", "services/cli/planted.py", "import json", "- services.cli.planted"),
    ("demo", "demo/corpus.py", "import demo.context", "corpus -> demo.context"),
    ("demo", "demo/x.py", "import json", "- demo.x"),
    ("checkout", "services/cli/x.py", "def f():\n    import demo.corpus", "services.cli.x -> demo.corpus"),
    (
        "launcher",
        "services/cli/launcher/ports.py",
        "import services.cli.launcher.launch",
        "ports -> services.cli.launcher",
    ),
    ("launcher", "services/cli/launcher/x.py", "import json", "- services.cli.launcher.x"),
    (
        "launched",
        "services/cli/session.py",
        "import services.cli.launcher.supervisor",
        "-> services.cli.launcher.supervisor",
    ),
    (
        "launched",
        "services/cli/commands/fleet.py",
        "def f():\n    from services.cli.launcher.processes import spawn as s",
        "services.cli.commands.fleet -> services.cli.launcher.processes",
    ),
    # What rules and use cases may not reach, however far away, under whatever name.
    ("pure", "services/registry/domain.py", "import sqlmodel", "services.registry.domain -> sqlmodel"),
    (
        "pure",
        "services/inference/handlers/x.py",
        "import services.inference.planted",
        "inference.planted -> onnxruntime",
    ),
    ("pure", "services/contracts/events.py", "import grpc", "services.contracts.events -> grpc"),
    ("pure", "services/monitor/handlers/x.py", "import sqlalchemy as sa", "monitor.handlers.x -> sqlalchemy"),
    ("pure", "services/gateway/handlers/x.py", "def f():\n    import sqlalchemy", "gateway.handlers.x -> sqlalchemy"),
    (
        "pure",
        "services/trainer/handlers/x.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlmodel",
        "trainer.handlers.x -> sqlmodel",
    ),
    ("light", "services/gateway/app.py", "import torch", "services.gateway.app -> torch"),
    ("light", "services/monitor/outbound/x.py", "import transformers", "services.monitor.outbound.x -> transformers"),
    ("light", "services/trainer/__main__.py", "import services.trainer.stages.train", "trainer.stages.train -> torch"),
]


@pytest.fixture(scope="module")
def import_report(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What import-linter says, by contract, of a tree with every breach planted at once."""
    bad = tmp_path_factory.mktemp("bad") / "tree"
    shutil.copytree(tree, bad)
    plant(bad, "services/inference/planted.py", "import onnxruntime")
    for _, module, line, _ in IMPORT_BREACHES:
        plant(bad, module, line)
    wide = {**os.environ, "COLUMNS": "1000"}
    result = run(BIN / "lint-imports", "--no-cache", "--no-logo", cwd=bad, env=wide)
    assert result.returncode == 1, result.stdout
    _, *parts = re.split(r"^(.+)\n-+$", result.stdout.partition("Broken contracts")[2], flags=re.MULTILINE)
    return {CONTRACT_IDS[name]: text for name, text in zip(parts[::2], parts[1::2], strict=True)}


def test_the_services_keep_their_import_laws(tree: Path) -> None:
    result = run(BIN / "lint-imports", "--no-cache", "--no-logo", cwd=tree)
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("contract", "module", "line", "named"), IMPORT_BREACHES)
def test_a_forbidden_import_is_caught(
    import_report: dict[str, str], contract: str, module: str, line: str, named: str
) -> None:
    assert named in import_report[contract], f"{line!r} of {module} is let through"


# --- ruff: law 3, and no pickle ----------------------------------------------------------------

RUFF_BREACHES: Final = [
    ("TID251", "import time\n\nSTARTED = time.time()\n"),
    ("TID251", "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)\n"),
    ("DTZ005", "import datetime\n\nNOW = datetime.datetime.now()\n"),
    ("TID251", "from uuid import uuid4\n\nID = uuid4()\n"),
    ("TID251", "import asyncio\n\n\nasync def wait() -> None:\n    await asyncio.sleep(1)\n"),
    ("TID251", "import random\n\nPICKED = random.choice([1, 2])\n"),
    ("NPY002", "import numpy as np\n\nDRAWN = np.random.rand(3)\n"),
    ("TID251", "import pickle\n\nDATA = pickle.dumps(1)\n"),
    ("S301", "import pickle\n\nDATA = pickle.loads(b'')\n"),
    ("TID251", "import torch\n\nSTATE = torch.load('x')\n"),
    ("TID252", "from . import domain\n\nX = domain\n"),
    ("BLE001", "try:\n    X = 1\nexcept Exception:\n    X = 2\n"),
    ("ASYNC251", "import time\n\n\nasync def wait() -> None:\n    time.sleep(1)\n"),
    ("RUF006", "import asyncio\n\n\nasync def start(work) -> None:\n    asyncio.create_task(work)\n"),
    ("FIX002", "# TODO: more\nX = 1\n"),
    ("PLR0915", "def long() -> None:\n" + "".join(f"    x{n} = {n}\n" for n in range(41))),
]


@pytest.mark.parametrize(("code", "text"), RUFF_BREACHES)
def test_ruff_catches_a_breach(code: str, text: str) -> None:
    call = (
        BIN / "ruff",
        "check",
        "--no-cache",
        "--output-format",
        "concise",
        "--stdin-filename",
        "services/gateway/planted.py",
        "-",
    )
    result = run(*call, cwd=ROOT, stdin=text)
    assert result.returncode == 1
    assert code in result.stdout


def test_time_may_be_read_in_the_kit_alone() -> None:
    text = "import time\n\nSTARTED = time.time()\n"
    for service in SERVICE_NAMES:
        result = run(
            BIN / "ruff",
            "check",
            "--no-cache",
            "--stdin-filename",
            f"services/{service}/planted.py",
            "-",
            cwd=ROOT,
            stdin=text,
        )
        assert result.returncode == 1
    result = run(
        BIN / "ruff", "check", "--no-cache", "--stdin-filename", "services/kit/planted.py", "-", cwd=ROOT, stdin=text
    )
    assert result.returncode == 0, result.stdout


# --- mypy, contract diff -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("no-untyped-def", "def double(number):\n    return number * 2\n"),
        ("type-arg", "def count(rows: list) -> int:\n    return len(rows)\n"),
        (
            "call-arg",
            "from services.contracts.training import Interval\n\nX = Interval(low=0.1, high=0.2, middle=0.15)\n",
        ),
    ],
)
def test_mypy_is_strict(tmp_path: Path, code: str, text: str) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(text)
    cache = tmp_path / "cache"
    call = (sys.executable, "-m", "mypy", "--config-file", ROOT / "pyproject.toml", "--cache-dir", cache, planted)
    result = run(*call, cwd=ROOT)
    assert result.returncode == 1
    assert f"[{code}]" in result.stdout


def check_contracts(tree: Path) -> subprocess.CompletedProcess[str]:
    return run(sys.executable, "scripts/generate_contracts.py", "--check", cwd=tree)


def test_the_contract_diff_catches_a_stale_a_missing_and_a_stray_file(tree: Path, tmp_path: Path) -> None:
    bad = tmp_path / "tree"
    shutil.copytree(tree, bad)
    schema = bad / "proto/events/model.trained.v1.json"
    schema.write_text(schema.read_text().replace('"run"', '"run_id"', 1))
    (bad / "proto/asyncapi.json").unlink()
    (bad / "proto/events/model.forgotten.v1.json").write_text("{}\n")
    proto = bad / "proto/millrace/v1/common.proto"
    proto.write_text(proto.read_text().replace("string page_token = 2;", "string page_token = 2;\n  bool all = 3;"))
    result = check_contracts(bad)
    assert result.returncode == 1
    for name in (
        "model.trained.v1.json",
        "asyncapi.json",
        "model.forgotten.v1.json",
        "common_pb2.py",
        "common_pb2.pyi",
    ):
        assert name in result.stdout


def test_the_contracts_are_up_to_date(tree: Path) -> None:
    result = check_contracts(tree)
    assert result.returncode == 0, result.stdout


def test_every_import_contract_is_shown_to_catch_something() -> None:
    assert {contract for contract, *_ in IMPORT_BREACHES} == set(CONTRACT_IDS.values())
