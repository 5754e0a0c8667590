"""A Dockerfile a room: every file, extra, module, setting and port that it names exists."""

import fnmatch
import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

from tests.unit.deploy.files import DOCKERFILES, ROOT, SERVICE_NAMES, settings_of, variables_of

each = pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def service_of(path: Path) -> str:
    return path.name.partition(".")[0]


def copied(text: str) -> set[str]:
    """What is copied from the repository: every source but the last word, which is the place."""
    lines = re.findall(r"^COPY (?!--from)(.*)$", text, re.MULTILINE)
    return {word for line in lines for word in line.split()[:-1]}


def is_sent(name: str) -> bool:
    """Whether .dockerignore, which leaves out everything first, lets a path through."""
    patterns = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    return any(fnmatch.fnmatch(name, pattern) or name.startswith(f"{pattern}/") for pattern in patterns)


def test_each_service_has_one() -> None:
    assert {*SERVICE_NAMES, "cli"} == {service_of(path) for path in DOCKERFILES}


@each
def test_what_it_copies_exists_and_is_sent_to_the_builder(path: Path) -> None:
    for name in copied(path.read_text()):
        assert (ROOT / name).exists(), name
        assert is_sent(name), name


@each
def test_it_installs_its_services_extras_by_hash_from_a_lock_that_has_them(path: Path) -> None:
    text = path.read_text()
    extras = set(re.findall(r"--extra (\S+)", text))
    service = service_of(path)
    assert extras <= set(EXTRAS)
    assert extras & ({"gpu"} if ".gpu." in path.name else {service})
    assert not extras & (set(EXTRAS) - {service, "gpu", "postgres"})
    assert text.count("--require-hashes") == 2
    lock = re.search(r"-c (\S+\.lock)", text)
    assert lock is not None
    locked = (ROOT / lock.group(1)).read_text()
    for extra in extras:
        for line in EXTRAS[extra]:
            name = re.split(r"[\[<>=;, ]", line)[0].lower()
            assert re.search(rf"^{re.escape(name)}(\[.*\])?==", locked, re.MULTILINE), name


@each
def test_it_starts_a_module_that_exists_and_copies_all_that_it_may_import(path: Path) -> None:
    text = path.read_text()
    module = re.search(r'"-m", "(services\.\w+)"\]', text)
    assert module is not None
    assert importlib.util.find_spec(f"{module.group(1)}.__main__") is not None
    assert {"services/__init__.py", "services/contracts", "services/kit", f"services/{service_of(path)}"} <= copied(
        text
    )


@each
def test_its_settings_exist_and_its_ports_are_the_ones_it_listens_on(path: Path) -> None:
    text = path.read_text()
    given = dict(re.findall(r"\b(MILLRACE_\w+)=(\S+)", text))
    service = service_of(path)
    if service == "cli":
        assert set(given) == {"MILLRACE_HOME"}
        return
    assert set(given) - variables_of(settings_of(service)) == set()
    exposed = re.search(r"^EXPOSE (.*)$", text, re.MULTILINE)
    assert exposed is not None
    ports = {given[f"MILLRACE_{service.upper()}_HTTP_PORT"], given[f"MILLRACE_{service.upper()}_GRPC_PORT"]}
    assert set(exposed.group(1).split()) == ports
    assert f"http://127.0.0.1:{given[f'MILLRACE_{service.upper()}_HTTP_PORT']}/readyz" in text


@each
def test_it_does_not_run_as_root(path: Path) -> None:
    users = re.findall(r"^USER (.*)$", path.read_text(), re.MULTILINE)
    assert users == ["millrace"]


def test_the_probes_are_served() -> None:
    served = (ROOT / "services/kit/transport/http.py").read_text()
    assert all(f'"{path}"' in served for path in ("/readyz", "/healthz", "/metrics"))
