"""Settings every service has. Each room adds its own in its `settings.py`.

Names come from the environment: `MILLRACE_HOME`, `MILLRACE_REGISTRY_BAKE_SECONDS`. A name that
starts with a room's prefix and is no setting of it is refused, so that a typing error is not silence.
"""

import os
import re
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import AliasChoices, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from services.contracts.addresses import BROKER, LOOPBACK
from services.contracts.errors import Invalid


class BadSettings(Invalid):
    """The setting {key} is refused: {problem}."""

    hint = "correct or unset {key} in the environment"


def shared(name: str, **field: Any) -> Any:
    """A setting that all services read under one name, such as MILLRACE_HOME."""
    return Field(validation_alias=AliasChoices(name), **field)


def port(default: int, purpose: str) -> Any:
    """A port to listen on; a service's default is that of `contracts/addresses.py`."""
    return Field(default=default, ge=0, le=65535, description=f"{purpose}; 0 picks a free one")


class ServiceSettings(BaseSettings):
    """What every service reads from its environment."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")
    service: ClassVar[str]

    home: Path = shared("MILLRACE_HOME", default=Path(".millrace"), description="the data folder")
    host: str = shared("MILLRACE_HOST", default=LOOPBACK, description="address to listen on")
    kafka_bootstrap_servers: str = shared(
        "KAFKA_BOOTSTRAP_SERVERS", default=BROKER, description="host:port, comma-separated"
    )
    artifact_store: str = shared(
        "MILLRACE_ARTIFACT_STORE",
        default="",
        description="fsspec URL of the artifact store; a folder of home when empty",
    )
    upload_store: str = shared(
        "MILLRACE_UPLOAD_STORE",
        default="",
        description="fsspec URL of the store for uploaded data sets; a folder of home when empty",
    )
    http_port: int = port(0, "health and metrics")
    grpc_port: int = port(0, "gRPC")
    database_url: str = Field(default="", description="SQLAlchemy URL; a SQLite file of home when empty")
    environment: str = shared("MILLRACE_ENVIRONMENT", default="development", description="development or production")

    @property
    def data_folder(self) -> Path:
        return self.home.resolve() / "data" / self.service

    @property
    def keys_folder(self) -> Path:
        return self.home.resolve() / "keys"

    @property
    def traces_folder(self) -> Path:
        return self.home.resolve() / "traces"

    def artifact_root(self) -> str:
        return self.artifact_store or f"file://{self.home.resolve() / 'artifacts'}"  # fsspec decodes no %20

    def upload_root(self) -> str:
        return self.upload_store or f"file://{self.home.resolve() / 'uploads'}"

    def sql_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.data_folder / 'state.db'}"

    @model_validator(mode="after")
    def _no_open_endpoint(self) -> Self:
        if self.environment == "production" and not (self.keys_folder / "keyring.json").exists():
            problem = "production needs MILLRACE_HOME/keys/keyring.json; make keys before the first start"
            raise BadSettings(key="MILLRACE_ENVIRONMENT", problem=problem)
        return self

    @classmethod
    def load(cls) -> Self:
        """From the environment. Raises BadSettings, which names the key."""
        prefix = str(cls.model_config.get("env_prefix", ""))
        own = (name for name, field in cls.model_fields.items() if field.validation_alias is None)
        known = {f"{prefix}{name}".upper() for name in own}
        for key in sorted(os.environ):
            if prefix and key.upper().startswith(prefix) and key.upper() not in known:
                raise BadSettings(key=key, problem="there is no such setting")
        try:
            return cls()
        except SettingsError as error:  # a value that ought to be JSON is not
            named = re.search(r'field "(\w+)"', str(error))
            key = f"{prefix}{named[1]}".upper() if named else prefix
            raise BadSettings(key=key, problem="it is not JSON") from error
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            key = str(first["loc"][0]) if first["loc"] else "environment"
            name = key if key.isupper() else f"{prefix}{key}".upper()
            raise BadSettings(key=name, problem=first["msg"]) from error
