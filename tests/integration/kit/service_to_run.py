"""A service of the kit's own, run as a process: `python -m tests.integration.kit.service_to_run HOW`."""

import sys
from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from services.kit.core.settings import ServiceSettings
from services.kit.service import Service, main


class TestedSettings(ServiceSettings):
    model_config = SettingsConfigDict(env_prefix="MILLRACE_TESTED_")
    service: ClassVar[str] = "tested"


def build(settings: TestedSettings) -> Service[None]:
    service: Service[None] = Service(settings)
    how = sys.argv[1]

    def report(name: str) -> None:
        async def opened() -> None:
            print("open", name, flush=True)
            if how == f"stuck:{name}":
                await service.clock.sleep(600)

        async def closed() -> None:
            if how == f"raises:{name}":
                raise RuntimeError(name)
            print("close", name, flush=True)

        service.part(name, open=opened, close=closed)

    async def run() -> None:
        if how == "ends":
            raise RuntimeError("the runner broke")
        await service.clock.sleep(600)

    report("first")
    service.runs("runner", run)
    report("second")
    service.http()
    report("last")
    return service


if __name__ == "__main__":
    sys.exit(main(TestedSettings, build))
