"""What each served version was asked and how it went, as far as the gateway sees it. Pure, and bounded.

Kept in memory since the gateway started; what lasts longer is in the metrics and in the monitor.
"""

from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, TypeAlias

MAX_VERSIONS: Final = 1_000
NANOSECONDS: Final = 1_000_000_000

Served: TypeAlias = tuple[str, str, int]
"""Tenant, deployment and version."""


@dataclass(slots=True)
class Duration:
    """How often something took place, and how many nanoseconds it took altogether."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.ns += int(seconds * NANOSECONDS)


@dataclass(slots=True)
class VersionStatistics:
    """Of one version. Failed attempts count, whether or not another replica answered the request afterwards."""

    texts: int = 0
    answered: Duration = field(default_factory=Duration)
    """From the request to its answer."""
    failed: Duration = field(default_factory=Duration)
    """From asking a replica to its refusal."""
    waited: Duration = field(default_factory=Duration)
    """From the request to asking the replica that answered."""
    computed: Duration = field(default_factory=Duration)
    """From asking that replica to its answer, its own queue included."""
    last: datetime | None = None


class Statistics:
    """Counts by tenant, deployment and version; beyond `limit` versions, those not asked for longest are forgotten."""

    def __init__(self, *, limit: int = MAX_VERSIONS) -> None:
        self._limit = limit
        self._versions: OrderedDict[Served, VersionStatistics] = OrderedDict()

    def answered(
        self, served: Served, *, texts: int, waited_seconds: float, computed_seconds: float, at: datetime
    ) -> None:
        counted = self._counted(served)
        counted.texts += texts
        counted.waited.add(waited_seconds)
        counted.computed.add(computed_seconds)
        counted.answered.add(waited_seconds + computed_seconds)
        counted.last = at

    def failed(self, served: Served, *, seconds: float) -> None:
        self._counted(served).failed.add(seconds)

    def of(self, served: Served) -> VersionStatistics:
        """All zero where nothing was asked."""
        return self._versions.get(served) or VersionStatistics()

    def _counted(self, served: Served) -> VersionStatistics:
        counted = self._versions.get(served)
        if counted is None:
            counted = self._versions[served] = VersionStatistics()
            if len(self._versions) > self._limit:
                self._versions.popitem(last=False)
        else:
            self._versions.move_to_end(served)
        return counted
