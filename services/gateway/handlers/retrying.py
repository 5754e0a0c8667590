"""Predictions that nobody waits for: overload is waited out, and what is not ready is waited for, within a limit."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Final

from services.contracts.errors import Kind, MillraceError
from services.gateway.domain.requests import Answer, Predict
from services.gateway.errors import DeploymentNotReady, ReplicasBusy
from services.gateway.handlers.predictions import answer, least_waiting, somebody_is_ready
from services.gateway.ports import Ports, RetryLimits

PASSING: Final = frozenset({Kind.OVERLOADED, Kind.UNAVAILABLE, Kind.TIMED_OUT})
FIRST_PAUSE_SECONDS: Final = 0.1
LONGEST_PAUSE_SECONDS: Final = 2.0


@dataclass(slots=True)
class _TenantPermits:
    semaphore: asyncio.Semaphore
    users: int = 0


class TenantLimiter:
    """How many requests are with the replicas at once: of all tenants together, and of each one."""

    def __init__(self, limit: int, tenant_limit: int) -> None:
        self._all = asyncio.Semaphore(limit)
        self._tenant_limit = tenant_limit
        self._tenants: dict[str, _TenantPermits] = {}

    @asynccontextmanager
    async def permit(self, tenant: str) -> AsyncIterator[None]:
        """Waits for a permit; a tenant that has used all of its own keeps nobody else waiting."""
        permit = self._tenants.setdefault(tenant, _TenantPermits(asyncio.Semaphore(self._tenant_limit)))
        permit.users += 1
        try:
            async with permit.semaphore, self._all:
                yield
        finally:
            permit.users -= 1
            if not permit.users:
                del self._tenants[tenant]


class RetryingClient:
    """Asks again, with growing pauses, where any other client would be told to come back later.

    A deployment of which no request succeeds for `ready_wait_seconds` is given up: from then on its requests are
    refused at once, until one succeeds. So a backlog for it cannot keep the others waiting.
    """

    def __init__(self, ports: Ports, limits: RetryLimits) -> None:
        self._ports = ports
        self._limits = limits
        self._limiter = TenantLimiter(limits.concurrency, limits.tenant_concurrency)
        self._failing_since: dict[tuple[str, str], float] = {}

    async def predict(self, command: Predict) -> Answer:
        """`command.deadline` is when the whole of it is given up. Raises what `predict` does, in the end."""
        key = (command.tenant, command.deployment)
        began, pause = self._ports.clock.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                answered = await self._attempt(command)
            except MillraceError as error:
                now = self._ports.clock.monotonic()
                if error.kind not in PASSING or now >= command.deadline or self._is_over(key, error, began, now):
                    raise
                await self._ports.clock.sleep(min(pause, command.deadline - now))
                pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            else:
                self._failing_since.pop(key, None)
                return answered

    async def _attempt(self, command: Predict) -> Answer:
        if not somebody_is_ready(command, self._ports):  # waits outside the lanes: others may go
            raise DeploymentNotReady(
                deployment=command.deployment, retry_after_seconds=self._ports.policy.retry_after_seconds
            )
        async with self._limiter.permit(command.tenant):
            self._give_way(command)
            now = self._ports.clock.monotonic()
            deadline = min(command.deadline, now + self._limits.request_seconds)
            return await answer(replace(command, deadline=deadline), self._ports)

    def _give_way(self, command: Predict) -> None:
        """Raises ReplicasBusy where others are waiting."""
        limit, waiting = self._limits.yields_at, least_waiting(command, self._ports)
        if limit is not None and waiting is not None and waiting >= limit:
            raise ReplicasBusy(queued=waiting, retry_after_seconds=self._ports.policy.retry_after_seconds)

    def _is_over(self, key: tuple[str, str], error: MillraceError, began: float, now: float) -> bool:
        """Overload ends by itself; anything else does so for a limited time."""
        if error.kind is Kind.OVERLOADED:
            return False
        since = began
        if self._ports.routes.knows(*key):
            since = min(began, self._failing_since.setdefault(key, now))
        return now - since >= self._limits.ready_wait_seconds
