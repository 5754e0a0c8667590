"""Which broker the commands talk to."""

import os
from collections.abc import Mapping
from typing import Final

from services.cli.errors import CliError, Exit, NotRunning
from services.cli.home import Home
from services.cli.launcher.launch import running_state

BOOTSTRAP_SETTING: Final = "KAFKA_BOOTSTRAP_SERVERS"


def bootstrap_of(home: Home, environment: Mapping[str, str] = os.environ) -> str:
    """KAFKA_BOOTSTRAP_SERVERS where it is set, so that a fleet elsewhere can be followed; else what runs here.

    Raises NotRunning.
    """
    if address := environment.get(BOOTSTRAP_SETTING):
        return address
    state = running_state(home)
    if state is None or "kafka" not in state.endpoints:
        raise NotRunning
    return state.endpoints["kafka"]


class NoBroker(CliError):
    """The broker does not answer, or refuses."""

    def __init__(self, bootstrap: str, problem: str = "does not answer") -> None:
        hint = f"millrace status, or correct {BOOTSTRAP_SETTING}"
        super().__init__(f"the broker at {bootstrap} {problem}", hint=hint, code="no_broker", status=Exit.NOT_RUNNING)
