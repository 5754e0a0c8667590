"""Keeps the broker and the five services running, as children that cannot outlive it.

    python -m services.cli.launcher.supervisor --home FOLDER [--broker embedded|kafka|external]

A service that ends is started again after a pause that doubles from half a second to fifteen. One that cannot start
at all ends the whole. SIGTERM stops everything in order, each within a limit. What runs where stands in
`run/endpoints.json`. Only the standard library is imported: this process stays small beside what it watches.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from services.cli.home import Home
from services.cli.launcher import fleet
from services.cli.launcher.broker import read_ready
from services.cli.launcher.fleet import BrokerKind, ServicePorts
from services.cli.launcher.probe import status_of
from services.cli.launcher.processes import kill_group, run, spawn
from services.cli.launcher.state import FAILED, READY, RESTARTING, STARTING, STOPPING, FleetState, Lock, PartState
from services.contracts.addresses import LOOPBACK
from services.kit.core.clock import Clock, SystemClock

BROKER: Final = "broker"
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 15.0
STEADY_SECONDS: Final = 30.0
FAILED_STARTS: Final = 3
START_LIMIT_SECONDS: Final = 120.0
BROKER_LIMIT_SECONDS: Final = 700.0
STOP_LIMIT_SECONDS: Final = 20.0
LOOK_SECONDS: Final = 0.05


class CannotStart(RuntimeError):
    """A part of the fleet did not come up; the message says which and where its log is."""


def pause_before_restart(restarts_in_a_row: int) -> float:
    """Seconds: half a second, doubling, at most fifteen."""
    return float(min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(restarts_in_a_row, 10)))


@dataclass
class Child:
    """A process of the fleet and what is told of it."""

    part: PartState
    command: list[str]
    process: "subprocess.Popen[bytes] | None" = None
    exited: asyncio.Event | None = None
    failed_in_a_row: int = 0
    was_ready: bool = False


class Supervisor:
    """Starts, watches and stops; one a data folder."""

    def __init__(
        self,
        home: Home,
        broker: BrokerKind,
        bootstrap: str,
        environment: Mapping[str, str],
        clock: Clock,
        command_of: Callable[[ServicePorts], list[str]] = fleet.service_command,
    ) -> None:
        self._home = home
        self._kind: BrokerKind = broker
        self._bootstrap = bootstrap
        self._environment = environment
        self._clock = clock
        self._command_of = command_of
        self._ports = fleet.choose_ports()
        self._stopping = asyncio.Event()
        self._failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._watchers: list[asyncio.Task[None]] = []
        command = fleet.broker_command(broker, home, bootstrap)
        self._broker = Child(PartState(BROKER, str(home.log_of(BROKER))), command)
        self._services = [_child_of(ports, home, command_of(ports)) for ports in self._ports]
        self._state = FleetState(
            home=str(home.root),
            broker=broker,
            api_key_file=str(home.api_key_file),
            supervisor_pid=os.getpid(),
            parts=[child.part for child in (self._broker, *self._services)],
        )

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; 0 then, 1 when the fleet could not start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGCHLD, self._look_at_children)
        self._write_state(STARTING)
        try:
            await self._until_stopped(self._start())
            await self._until_stopped(self._raise_failure())
        except CannotStart as problem:
            self._state.problem = str(problem)
            print(problem, file=sys.stderr, flush=True)
        await self._stop()
        if self._state.problem:
            self._write_state(FAILED)
            return 1
        self._home.endpoints_file.unlink(missing_ok=True)
        return 0

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs `work` unless it is time to stop; raises what it raises."""
        task = asyncio.ensure_future(work)
        part = asyncio.ensure_future(self._stopping.wait())
        await asyncio.wait({task, part}, return_when=asyncio.FIRST_COMPLETED)
        part.cancel()
        if not task.done():
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _start(self) -> None:
        await self._start_broker()
        self._watch(self._keep_broker())
        for child in self._services:
            self._watch(self._keep(child))
        for child in self._services:
            await self._until_ready(child)
        self._state.endpoints = fleet.endpoints(self._ports, self._bootstrap)
        self._write_state(READY)
        print("ready", flush=True)

    def _watch(self, work: Coroutine[Any, Any, None]) -> None:
        self._watchers.append(asyncio.ensure_future(work))

    async def _raise_failure(self) -> None:
        raise CannotStart(await self._failure)

    # --- the broker ----------------------------------------------------------------------------

    async def _start_broker(self) -> None:
        self._home.broker_file.unlink(missing_ok=True)
        self._spawn(self._broker, self._environment)
        started = self._clock.monotonic()
        while not self._broker_answers():
            if self._has_ended(self._broker) and not (self._kind == "external" and self._code(self._broker) == 0):
                raise CannotStart(_ended_early(self._broker))
            if self._clock.monotonic() - started > BROKER_LIMIT_SECONDS:
                raise CannotStart(f"the broker did not answer within {BROKER_LIMIT_SECONDS:.0f} s")
            await self._clock.sleep(LOOK_SECONDS)
        self._broker.part.state = READY
        self._write_state()

    def _broker_answers(self) -> bool:
        if self._kind == "external":
            return self._has_ended(self._broker) and self._code(self._broker) == 0
        ready = read_ready(self._home.broker_file)
        if ready is not None:
            self._bootstrap = ready.bootstrap
        return ready is not None

    async def _keep_broker(self) -> None:
        """Starts the broker again when it ends; services follow it to a new address."""
        if self._kind == "external":
            return
        while True:
            await _exited(self._broker)
            if self._stopping.is_set():
                return
            before = self._bootstrap
            await self._pause(self._broker)
            try:
                await self._start_broker()
            except CannotStart as problem:
                print(problem, file=sys.stderr, flush=True)
                continue
            if self._bootstrap != before:
                self._state.endpoints = fleet.endpoints(self._ports, self._bootstrap)
                for child in self._services:
                    if child.process is not None and child.process.poll() is None:
                        child.process.terminate()

    # --- the services --------------------------------------------------------------------------

    async def _keep(self, child: Child) -> None:
        """Runs the service again and again, until it is time to stop."""
        while not self._stopping.is_set():
            self._spawn(child, self._settings_of(self._ports_of(child)))
            started = self._clock.monotonic()
            watcher = asyncio.ensure_future(self._note_ready(child))
            await _exited(child)
            watcher.cancel()
            if self._stopping.is_set():
                return
            steady = self._clock.monotonic() - started > STEADY_SECONDS
            child.failed_in_a_row = 0 if steady or self._code(child) == 0 else child.failed_in_a_row + 1
            if not child.was_ready and child.failed_in_a_row >= FAILED_STARTS and not self._failure.done():
                self._failure.set_result(_ended_early(child))
                return
            await self._pause(child)

    async def _pause(self, child: Child) -> None:
        print(f"{child.part.name} ended with {self._code(child)}", flush=True)
        if child.process is not None:
            kill_group(child.process)
        child.part.state = RESTARTING
        child.part.restarts += 1
        self._write_state()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_before_restart(max(0, child.failed_in_a_row - 1))):
                await self._stopping.wait()

    async def _note_ready(self, child: Child) -> None:
        while await status_of(child.part.http, "/readyz") != 200:
            await self._clock.sleep(LOOK_SECONDS)
        child.part.state = READY
        child.was_ready = True
        self._write_state()

    async def _until_ready(self, child: Child) -> None:
        started = self._clock.monotonic()
        while not child.was_ready:
            if self._failure.done():
                raise CannotStart(self._failure.result())
            if self._clock.monotonic() - started > START_LIMIT_SECONDS:
                raise CannotStart(
                    f"{child.part.name} was not ready within {START_LIMIT_SECONDS:.0f} s; its log: {child.part.log}"
                )
            await self._clock.sleep(LOOK_SECONDS)

    # --- processes -----------------------------------------------------------------------------

    def _spawn(self, child: Child, environment: Mapping[str, str]) -> None:
        child.exited = asyncio.Event()
        child.process = spawn(child.command, log=Path(child.part.log), environment=environment)
        child.part.pid = child.process.pid
        child.part.state = STARTING
        self._write_state()

    def _look_at_children(self) -> None:
        for child in (self._broker, *self._services):
            if self._has_ended(child) and child.exited is not None:
                child.exited.set()

    def _has_ended(self, child: Child) -> bool:
        return child.process is not None and child.process.poll() is not None

    def _code(self, child: Child) -> int | None:
        return None if child.process is None else child.process.returncode

    async def _stop(self) -> None:
        self._stopping.set()
        self._write_state(STOPPING)
        for watcher in self._watchers:
            watcher.cancel()
        await asyncio.gather(*self._watchers, return_exceptions=True)
        by_name = {child.part.name: child for child in self._services}
        for names in fleet.STOP_ORDER:
            await asyncio.gather(*(self._end(by_name[name]) for name in names))
        await asyncio.gather(*(self._clean_up(by_name[name], argument) for name, argument in fleet.CLEAN_UPS.items()))
        await self._end(self._broker)

    async def _clean_up(self, child: Child, argument: str) -> None:
        """A service that did not end by itself may have left processes of its own behind."""
        if child.process is None or self._code(child) == 0:
            return
        ports = self._ports_of(child)
        await run(
            [*self._command_of(ports), argument],
            log=Path(child.part.log),
            environment=self._settings_of(ports),
            limit_seconds=STOP_LIMIT_SECONDS,
            clock=self._clock,
        )

    def _ports_of(self, child: Child) -> ServicePorts:
        return next(ports for ports in self._ports if ports.name == child.part.name)

    def _settings_of(self, ports: ServicePorts) -> dict[str, str]:
        return fleet.service_environment(
            ports, self._ports, home=self._home, bootstrap=self._bootstrap, outside=self._environment
        )

    async def _end(self, child: Child) -> None:
        process, exited = child.process, child.exited
        if process is None or exited is None:
            return
        if process.poll() is None:
            process.terminate()
            try:
                async with asyncio.timeout(STOP_LIMIT_SECONDS):
                    await exited.wait()
            except TimeoutError:
                print(f"{child.part.name} did not stop within {STOP_LIMIT_SECONDS:.0f} s: killed", flush=True)
        kill_group(process)

    def _write_state(self, state: str | None = None) -> None:
        if state is not None:
            self._state.state = state
        self._state.write(self._home.endpoints_file)


def _child_of(ports: ServicePorts, home: Home, command: list[str]) -> Child:
    part = PartState(
        ports.name,
        str(home.log_of(ports.name)),
        http=f"{LOOPBACK}:{ports.http_port}",
        grpc=f"{LOOPBACK}:{ports.grpc_port}",
    )
    return Child(part, command)


async def _exited(child: Child) -> None:
    if child.exited is not None:
        await child.exited.wait()


def _ended_early(child: Child) -> str:
    code = None if child.process is None else child.process.returncode
    return f"{child.part.name} ended with {code} before it was ready; its log: {child.part.log}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 after SIGTERM, 1 when the fleet could not start, 4 when another supervisor has the folder."""
    parser = argparse.ArgumentParser(prog="python -m services.cli.launcher.supervisor", description="The supervisor.")
    parser.add_argument("--home", type=Path, required=True, help="the data folder")
    parser.add_argument("--broker", choices=["embedded", "kafka", "external"], default="embedded")
    parser.add_argument("--bootstrap", default="", help="host:port of an external broker")
    options = parser.parse_args(arguments)
    home = Home(options.home.resolve())
    lock = Lock(home.lock_file)
    if not lock.take():
        print(f"another supervisor runs in {home.root}", file=sys.stderr)
        return 4

    async def live() -> int:
        return await Supervisor(home, options.broker, options.bootstrap, os.environ, SystemClock()).run()

    return asyncio.run(live())


if __name__ == "__main__":
    sys.exit(main())
