"""The supervisor with stand-ins for the services: `python supervised.py HOME [BROKEN ROOM]`."""

import asyncio
import os
import sys
from pathlib import Path

from services.cli.home import Home
from services.cli.launcher.fleet import ServicePorts
from services.cli.launcher.state import Lock
from services.cli.launcher.supervisor import Supervisor
from services.kit.core.clock import SystemClock

STAND_IN = str(Path(__file__).with_name("stand_in.py"))


def command_of(service: ServicePorts) -> list[str]:
    return [sys.executable, STAND_IN, "broken" if service.name in sys.argv[2:] else str(service.http_port)]


async def main() -> int:
    home = Home(Path(sys.argv[1]))
    lock = Lock(home.lock_file)
    assert lock.take()
    return await Supervisor(home, "embedded", "", os.environ, SystemClock(), command_of).run()


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
