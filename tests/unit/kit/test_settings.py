"""Settings from the environment: what is refused is named."""

from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.kit.core.settings import BadSettings, ServiceSettings


class MillSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="MILLRACE_MILL_")
    service: ClassVar[str] = "mill"

    stones: int = Field(default=2, ge=1)
    sizes: tuple[int, ...] = (1, 2)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("MILLRACE_HOME", "MILLRACE_HOST", "MILLRACE_ENVIRONMENT", "MILLRACE_ARTIFACT_STORE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MILLRACE_HOME", str(tmp_path))


def refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> BadSettings:
    monkeypatch.setenv(name, value)
    with pytest.raises(BadSettings) as error:
        MillSettings.load()
    return error.value


def test_own_and_shared_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MILLRACE_MILL_STONES", "3")
    monkeypatch.setenv("MILLRACE_MILL_SIZES", "[4, 5]")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "broker:1")
    loaded = MillSettings.load()
    assert (loaded.stones, loaded.sizes, loaded.kafka_bootstrap_servers) == (3, (4, 5), "broker:1")
    assert loaded.data_folder == tmp_path / "data" / "mill"
    assert loaded.sql_url() == f"sqlite+aiosqlite:///{tmp_path}/data/mill/state.db"


@pytest.mark.parametrize("name", ["MILLRACE_MILL_STONE", "millrace_mill_stonez", "MILLRACE_MILL_HOME"])
def test_an_unknown_setting_is_refused_by_its_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    error = refused(monkeypatch, name, "1")
    assert error.details == {"key": name, "problem": "there is no such setting"}
    assert error.hint == f"correct or unset {name} in the environment"


def test_settings_of_other_services_are_none_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_MILLER_STONES", "x")
    monkeypatch.setenv("MILLRACE_GATEWAY_PORT", "1")
    assert MillSettings.load().stones == 2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MILLRACE_MILL_STONES", "0"),
        ("MILLRACE_MILL_STONES", "many"),
        ("MILLRACE_MILL_STONES", ""),
        ("MILLRACE_MILL_SIZES", "4, 5"),
        ("MILLRACE_MILL_SIZES", '["a"]'),
        ("MILLRACE_MILL_GRPC_PORT", "70000"),
    ],
)
def test_a_bad_value_is_refused_with_its_key(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    assert refused(monkeypatch, name, value).details["key"] == name


def test_production_does_not_make_its_own_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    error = refused(monkeypatch, "MILLRACE_ENVIRONMENT", "production")
    assert error.details["key"] == "MILLRACE_ENVIRONMENT"
    assert "keyring.json" in str(error)


def test_the_artifact_store_lies_in_the_home_folder_whatever_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILLRACE_HOME", "/srv/my home")
    assert MillSettings.load().artifact_root() == "file:///srv/my home/artifacts"
    monkeypatch.setenv("MILLRACE_ARTIFACT_STORE", "s3://bucket")
    assert MillSettings.load().artifact_root() == "s3://bucket"
