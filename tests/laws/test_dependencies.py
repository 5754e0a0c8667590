"""What is declared is imported, and each service imports only what it brings; both laws catch planted breaches."""

from pathlib import Path

import pytest

from tests.laws.dependencies import NOT_IMPORTED, Declared, owners, undeclared, unused
from tests.laws.source import ROOT, tracked

PYPROJECT = (ROOT / "pyproject.toml").read_text()
SOURCES = {
    path: (ROOT / path).read_text()
    for path in tracked()
    if path.suffix == ".py" and path.parts[0] == "services" and len(path.parts) > 2
}


def test_each_part_imports_only_what_it_declares() -> None:
    declared = Declared(PYPROJECT)
    caught = [breach for path, text in SOURCES.items() for breach in undeclared(path, text, declared)]
    assert not caught, "\n".join(caught)


def test_what_is_declared_is_imported() -> None:
    caught = list(unused(SOURCES, Declared(PYPROJECT)))
    assert not caught, "\n".join(caught)


@pytest.mark.parametrize(
    ("path", "text", "brought_by"),
    [
        # What only another service's extra brings.
        ("services/gateway/domain/planted.py", "import numpy as np", "numpy"),
        ("services/gateway/outbound/planted.py", "import torch", "torch"),
        ("services/monitor/outbound/planted.py", "def f() -> None:\n    from redis.asyncio import Redis", "redis"),
        ("services/registry/outbound/planted.py", "import httpx", "httpx"),
        ("services/trainer/outbound/planted.py", "import confluent_kafka", "confluent-kafka"),
        ("services/inference/outbound/planted.py", "from sklearn import metrics", "scikit-learn"),
        ("services/inference/outbound/planted.py", "if False:\n    import psutil", "psutil"),
        # What an extra brings, in what every service stands on.
        ("services/kit/core/planted.py", "import numpy", "numpy"),
        ("services/contracts/planted.py", "import yaml", "pyyaml"),
        # What nobody declares: it comes along with something else, today.
        ("services/gateway/inbound/planted.py", "from starlette.routing import Route", "starlette"),
        ("services/kit/transport/planted.py", "import requests", "requests"),
        ("services/monitor/outbound/planted.py", "from scipy import stats", "scipy"),
        # Several distributions share one top-level package: the file decides.
        ("services/kit/core/planted.py", "from opentelemetry.instrumentation import utils", "opentelemetry-instr"),
        ("services/cli/planted.py", "import not_there_at_all", "nothing that is installed"),
    ],
)
def test_an_import_of_what_is_not_declared_is_caught(path: str, text: str, brought_by: str) -> None:
    caught = list(undeclared(Path(path), text, Declared(PYPROJECT)))
    assert len(caught) == 1
    assert caught[0].startswith(f"{path}:{len(text.splitlines())} ")
    assert brought_by in caught[0]


def test_the_standard_library_and_our_own_packages_need_no_declaration() -> None:
    text = "import os, services\nfrom services.kit.core import clock\nimport google.rpc.status_pb2, pydantic"
    assert list(undeclared(Path("services/registry/planted.py"), text, Declared(PYPROJECT))) == []


@pytest.mark.parametrize(
    ("declared", "instead", "named"),
    [
        ('"aiokafka>=0.14,<0.15",', '"aiokafka>=0.14,<0.15", "requests>=2",', "requests of the dependencies"),
        ('"opentelemetry-api>=1.40",', '"opentelemetry-api>=1.40", "opentelemetry-propagator-b3",', "propagator-b3"),
        ('monitor = ["numpy>=2.2"]', 'monitor = ["numpy>=2.2", "httpx"]', "httpx of monitor"),
        ("registry = []", 'registry = ["numpy"]', "numpy of registry"),
        ('postgres = ["asyncpg>=0.31"]', 'postgres = ["asyncpg>=0.31", "psycopg"]', "psycopg of postgres"),
        ("onnxruntime-gpu[cuda,cudnn]", "onnxruntime-silicon", "onnxruntime-silicon of gpu"),
        ('postgres = ["asyncpg>=0.31"]', "postgres = []", "asyncpg is declared no more"),
    ],
)
def test_a_declaration_that_nobody_imports_is_caught(declared: str, instead: str, named: str) -> None:
    assert declared in PYPROJECT
    caught = list(unused(SOURCES, Declared(PYPROJECT.replace(declared, instead))))
    assert len(caught) == 1
    assert named in caught[0]


def test_an_exception_that_is_imported_after_all_is_caught() -> None:
    assert "httptools" in NOT_IMPORTED
    planted = {**SOURCES, Path("services/kit/core/planted.py"): "import httptools"}
    (breach,) = unused(planted, Declared(PYPROJECT))
    assert "httptools is imported now" in breach


def test_a_module_belongs_to_the_distribution_that_has_its_file() -> None:
    assert owners("google.protobuf.struct_pb2") == {"protobuf"}
    assert owners("google.rpc.status_pb2") == {"googleapis-common-protos"}
    assert owners("opentelemetry.trace.Span") == {"opentelemetry-api"}
    assert owners("opentelemetry.sdk.trace") == {"opentelemetry-sdk"}
    assert owners("yaml") == {"pyyaml"}
    assert owners("sklearn.metrics.f1_score") == {"scikit-learn"}
    assert owners("no_such_package") == set()
