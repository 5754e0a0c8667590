"""Domain and handlers import from a positive list, and nobody imports by name; each law catches planted breaches."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.laws.imports import imports_by_name, outside_the_list
from tests.laws.source import ROOT, python_sources

Law = Callable[[Path, str], Iterator[str]]

# Reads what the standard library's modules written in C say of themselves; they have no source to parse.
READS_BUILTINS = Path("services/cli/demo/docstrings.py")

DOMAIN = Path("services/gateway/domain/planted.py")
HANDLERS = Path("services/registry/handlers/planted.py")
OTHER_HANDLERS = Path("services/inference/handlers/planted.py")
OUTBOUND = Path("services/gateway/outbound/planted.py")


def breaches(law: Law) -> list[str]:
    services = [path for path in python_sources() if path.parts[0] == "services"]
    assert len(services) > 300
    return [breach for path in services for breach in law(path, (ROOT / path).read_text())]


def test_domain_and_handlers_import_from_the_list() -> None:
    caught = breaches(outside_the_list)
    assert not caught, "\n".join(caught)


def test_nobody_imports_by_name() -> None:
    caught = breaches(imports_by_name)
    assert not caught, "\n".join(caught)


@pytest.mark.parametrize(
    ("path", "text", "line", "named"),
    [
        (DOMAIN, "import asyncio", 1, "asyncio"),
        (DOMAIN, "import os", 1, "os"),
        (DOMAIN, "import random", 1, "random"),
        (DOMAIN, "import httpx", 1, "httpx"),
        (DOMAIN, "import json, socket", 1, "socket"),
        (DOMAIN, "from pathlib import Path", 1, "pathlib.Path"),
        (DOMAIN, "from time import monotonic as now", 1, "time.monotonic"),
        (DOMAIN, "from sys import argv", 1, "sys.argv"),
        (DOMAIN, "from services.kit.core.clock import SystemClock", 1, "services.kit.core.clock.SystemClock"),
        (DOMAIN, "from services.kit.core import telemetry", 1, "services.kit.core.telemetry"),
        (DOMAIN, "import services.kit", 1, "services.kit"),
        (DOMAIN, "from services.kit.identity.keys import KeyringFile", 1, "services.kit.identity.keys.KeyringFile"),
        (DOMAIN, "from services.contracts.rpc import common_pb2", 1, "services.contracts.rpc.common_pb2"),
        (DOMAIN, "from services.gateway import telemetry", 1, "services.gateway.telemetry"),
        (DOMAIN, "from services.gateway.settings import GatewaySettings", 1, "services.gateway.settings"),
        (DOMAIN, "from services.registry.domain import decide", 1, "services.registry.domain.decide"),
        (DOMAIN, "from . import outbound", 1, "outbound"),
        (DOMAIN, "TEXT = open('x').read()", 1, "open"),
        (DOMAIN, "import numpy as np\n\nROWS = np.load('x.npy')", 3, "numpy.load"),
        (DOMAIN, "import codecs as c\n\nF = c.open('x')", 3, "codecs.open"),
        (HANDLERS, "import sqlalchemy as sa", 1, "sqlalchemy"),
        (HANDLERS, "def f() -> None:\n    from sqlalchemy import select", 2, "sqlalchemy.select"),
        (HANDLERS, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import sqlmodel", 3, "sqlmodel"),
        (HANDLERS, "try:\n    import orjson as json\nexcept ImportError:\n    import json", 2, "orjson"),
        (HANDLERS, "from opentelemetry import trace", 1, "opentelemetry.trace"),
        (HANDLERS, "from services.kit.persistence.sql.store import SqlStore", 1, "services.kit.persistence.sql.store"),
        (HANDLERS, "from services.registry.outbound import store", 1, "services.registry.outbound.store"),
        (
            HANDLERS,
            "import asyncio\n\n\nasync def f() -> None:\n    await asyncio.open_connection('x', 1)",
            5,
            "asyncio",
        ),
        (HANDLERS, "from asyncio import to_thread as run\n\nX = run", 3, "asyncio.to_thread"),
        (OTHER_HANDLERS, "from services.inference.outbound.engine import OrtEngine", 1, "services.inference.outbound"),
        (OTHER_HANDLERS, "import subprocess", 1, "subprocess"),
        (OTHER_HANDLERS, "print('done')", 1, "print"),
    ],
)
def test_what_is_not_on_the_list_is_caught(path: Path, text: str, line: int, named: str) -> None:
    caught = list(outside_the_list(path, text))
    assert len(caught) == 1
    assert caught[0].startswith(f"{path}:{line} ")
    assert named in caught[0]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (DOMAIN, "import math\nfrom collections.abc import Sequence\nfrom sys import byteorder"),
        (DOMAIN, "import numpy as np\nfrom numpy.typing import NDArray\n\nX = np.zeros(3)"),
        (DOMAIN, "from services.contracts.events import Target\nfrom services.gateway.domain import routing"),
        (DOMAIN, "class File:\n    def open(self) -> None: ...\n\n\nFile().open()"),
        (HANDLERS, "import asyncio\n\nLOCK = asyncio.Semaphore(3)\nclass A(asyncio.CancelledError): ..."),
        (HANDLERS, "from services.registry import telemetry\nfrom services.kit.persistence.unit_of_work import Job"),
        (OUTBOUND, "import os\nimport sqlalchemy"),
        (Path("services/kit/core/domain.py"), "import os"),
        (Path("tests/unit/gateway/domain.py"), "import os"),
    ],
)
def test_what_is_on_the_list_is_let_through(path: Path, text: str) -> None:
    assert list(outside_the_list(path, text)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import importlib\n\nX = importlib.import_module('services.trainer.domain')",
        "from importlib import import_module as load\n\nX = load('services.' + 'trainer')",
        "import importlib as i\n\n\ndef f(name: str) -> object:\n    return i.import_module(name)",
        "X = __import__('services.trainer')",
        "import runpy\n\nrunpy.run_module('services.trainer')",
        "import pkgutil\n\nX = pkgutil.resolve_name('services.trainer.app:build')",
        "from importlib import util\n\nX = util.spec_from_file_location('x', 'services/trainer/app.py')",
    ],
)
def test_an_import_by_name_is_caught(text: str) -> None:
    assert len(list(imports_by_name(OUTBOUND, text))) == 1


def test_looking_whether_a_package_is_there_is_no_import() -> None:
    text = "import importlib.util\n\nTHERE = importlib.util.find_spec('onnxruntime') is not None"
    assert list(imports_by_name(OUTBOUND, text)) == []
