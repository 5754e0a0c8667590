"""The data folder: where Millrace keeps everything on one machine."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Home:
    """Paths below `MILLRACE_HOME`, `.millrace` in the present folder when it is not set."""

    root: Path

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> "Home":
        return cls(Path(environment.get("MILLRACE_HOME") or ".millrace").resolve())

    @property
    def run(self) -> Path:
        return self.root / "run"

    @property
    def endpoints_file(self) -> Path:
        """What runs and where, while it runs."""
        return self.run / "endpoints.json"

    @property
    def lock_file(self) -> Path:
        """Held by the supervisor while it lives."""
        return self.run / "supervisor.lock"

    @property
    def broker_file(self) -> Path:
        return self.run / "broker.json"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def traces(self) -> Path:
        return self.root / "traces"

    @property
    def keys(self) -> Path:
        return self.root / "keys"

    @property
    def api_key_file(self) -> Path:
        return self.keys / "api-key"

    @property
    def datasets(self) -> Path:
        """Where the trainer may read data sets that were not uploaded."""
        return self.root / "datasets"

    @property
    def demo(self) -> Path:
        return self.root / "demo"

    def log_of(self, part: str) -> Path:
        return self.logs / f"{part}.log"
