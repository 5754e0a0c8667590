"""Writes everything that is generated from the contracts: gRPC stubs, the models of REST, event JSON
Schemas, asyncapi.json, openapi.json.

`--check` writes nothing and exits 1, naming each file that differs from what would be written.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from scripts.asyncapi import document as asyncapi_document  # noqa: E402  (the repository is put on the path above)
from scripts.rest_models import rest_models  # noqa: E402
from services.contracts.events import EVENTS  # noqa: E402
from services.contracts.schemas import event_schema  # noqa: E402

PACKAGES: Final = ("millrace/v1", "inference")
STUBS: Final = Path("services/contracts/rpc")
SCHEMAS: Final = Path("proto/events")
MODELS: Final = Path("services/gateway/inbound/http/models")
GENERATED: Final = {".py", ".pyi", ".json"}


def grpc_stubs() -> dict[Path, str]:
    """The stubs of every .proto, with imports that are absolute inside this package."""
    protos = [proto for package in PACKAGES for proto in sorted((ROOT / "proto" / package).glob("*.proto"))]
    bin_folder = Path(sys.executable).parent
    with tempfile.TemporaryDirectory() as folder:
        outputs = ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")
        subprocess.run(
            [
                sys.executable,
                "-m",
                "grpc_tools.protoc",
                f"-I{ROOT / 'proto'}",
                f"--plugin=protoc-gen-mypy={bin_folder / 'protoc-gen-mypy'}",
                f"--plugin=protoc-gen-mypy_grpc={bin_folder / 'protoc-gen-mypy_grpc'}",
                *(f"--{output}={folder}" for output in outputs),
                *map(str, protos),
            ],
            check=True,
            stderr=subprocess.DEVNULL,
        )
        return {
            STUBS / made.name: _absolute(made.read_text(), ".".join(made.parent.relative_to(folder).parts), made.suffix)
            for made in sorted(Path(folder).rglob("*_pb2*"))
        }


def _absolute(stub: str, package: str, suffix: str) -> str:
    """The stub with its imports of the protobuf package as imports of this one."""
    if suffix == ".pyi":
        stub = re.sub(rf"(?<![\w.]){re.escape(package)}\.(?=\w+_pb2)", "services.contracts.rpc.", stub)
    return stub.replace(f"from {package} import", "from services.contracts.rpc import")


def event_schemas() -> dict[Path, str]:
    return {
        SCHEMAS / f"{event.topic}.v{event.schema_version}.json": json.dumps(event_schema(event), indent=2) + "\n"
        for event in EVENTS
    }


def models() -> dict[Path, str]:
    return {MODELS / f"{name}.py": source for name, source in rest_models(ROOT / "proto").items()}


def documents() -> dict[Path, str]:
    """The documents of the doors that are no gRPC: topics and REST."""
    from services.gateway.inbound.http.api import (
        document as openapi_document,  # of the stubs that were written a moment ago
    )

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    made = {"asyncapi": asyncapi_document(version), "openapi": openapi_document()}
    return {Path(f"proto/{name}.json"): json.dumps(document, indent=2) + "\n" for name, document in made.items()}


def main(arguments: list[str]) -> int:
    check = "--check" in arguments
    stubs = grpc_stubs() | models()
    stale = _stale(stubs)
    if stale and not check:
        _write(stale, stubs)  # before the documents are made, which read them
    expected = {**event_schemas(), **documents()}
    stale += _stale(expected)
    expected |= stubs
    strays = _strays(set(expected))
    if check:
        for path in (*stale, *strays):
            print(f"not up to date: {path} (run 'make contracts')")
        return 1 if stale or strays else 0
    _write(stale, expected)
    for path in strays:
        (ROOT / path).unlink()
    print(f"{len(stale)} written, {len(strays)} removed, {len(expected) - len(stale)} unchanged")
    return 0


def _stale(expected: dict[Path, str]) -> list[Path]:
    return [path for path, text in expected.items() if not (ROOT / path).exists() or (ROOT / path).read_text() != text]


def _strays(expected: set[Path]) -> list[Path]:
    """What lies among the generated files and is generated from nothing."""
    known = {path.relative_to(ROOT) for folder in (STUBS, SCHEMAS, MODELS) for path in (ROOT / folder).glob("*[_.]*")}
    return sorted(path for path in known - expected if path.name != "__init__.py" and path.suffix in GENERATED)


def _write(paths: list[Path], expected: dict[Path, str]) -> None:
    for path in paths:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(expected[path])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
