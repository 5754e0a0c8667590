"""A deployment as the monitor watches it: the version that serves, and the windows of each of its variants."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import DeploymentChanged, Role
from services.contracts.tasks.records import InferenceRecord
from services.monitor.domain.drift import DriftTest, WindowVerdict


@dataclass(frozen=True, order=True)
class DeploymentKey:
    """One tenant's deployment among those of all."""

    tenant: str
    deployment: str


@dataclass(frozen=True)
class EventContext:
    """The event that made a version serve or began a step: its id, its workflow's correlation id and its trace."""

    id: str
    correlation_id: str
    trace: dict[str, str]


@dataclass(frozen=True)
class PrimaryVersion:
    """The version that serves, and the artifact that holds its baselines, one a variant."""

    version: int
    artifact: ArtifactRef


@dataclass(frozen=True)
class WindowSeries:
    """The windows of one variant, one after another. `number` is the one being filled, `answered` its requests."""

    number: int
    answered: int = 0
    low_windows: int = 0
    """Windows in a row at or below alpha."""
    since_quiet: int = 0
    """Requests in the tested windows since the last quiet one."""

    def tested(self, verdict: WindowVerdict, low_windows: int, answered: int) -> "WindowSeries":
        """After a window of `answered` requests got its verdict."""
        since_quiet = 0 if verdict is WindowVerdict.QUIET else self.since_quiet + answered
        return replace(self, low_windows=low_windows, since_quiet=since_quiet)


@dataclass(frozen=True)
class Watch:
    """A deployment that is watched. Its windows are numbered across all variants, in the order they were opened."""

    key: DeploymentKey
    model: str
    generation: int
    primary: PrimaryVersion | None
    context: EventContext
    cpu_variants: Mapping[int, Precision] = field(default_factory=dict)
    """What a CPU serves of each version."""
    series: Mapping[Precision, WindowSeries] = field(default_factory=dict)
    """Of the version that serves, by variant."""
    next_window: int = 1
    drift_published: bool = False
    """Of this version: once is enough."""

    @property
    def version(self) -> int | None:
        """The one whose traffic is tested for drift."""
        return self.primary.version if self.primary is not None else None

    def variant_of(self, record: InferenceRecord) -> Precision | None:
        """What answered. A record that does not say it counts for what a CPU serves of its version; None where the
        deployment has no such version."""
        return record.variant or self.cpu_variants.get(record.version)

    def open_series(self, variant: Precision) -> "Watch":
        """With a window that this variant's requests fill."""
        if variant in self.series:
            return self
        return replace(self.with_series(variant, WindowSeries(self.next_window)), next_window=self.next_window + 1)

    def with_series(self, variant: Precision, series: WindowSeries) -> "Watch":
        return replace(self, series={**self.series, variant: series})


@dataclass(frozen=True)
class ClosedWindow:
    """A full window; `verdict` and `test` are None until it has been tested."""

    key: DeploymentKey
    number: int
    version: int
    variant: Precision
    rows: int
    answered: int
    opened: datetime
    closed: datetime
    verdict: WindowVerdict | None = None
    test: DriftTest | None = None
    reason: str = ""
    """Why it was not tested."""


def apply_change(
    watch: Watch | None, key: DeploymentKey, event: DeploymentChanged, context: EventContext
) -> Watch | None:
    """The watch after the change; None when the event is older than what is known.

    When another version serves, its watch begins afresh: nothing of the version before counts for or against it.
    """
    if watch is not None and event.generation <= watch.generation:
        return None
    primary = next(
        (PrimaryVersion(target.version, target.artifact) for target in event.targets if target.role is Role.PRIMARY),
        None,
    )
    of_model = [target for target in event.targets if target.model in (None, event.model)]
    cpu_variants = {target.version: target.precision for target in of_model}
    version = primary.version if primary is not None else None
    if watch is not None and (watch.model, watch.version) == (event.model, version):
        return replace(watch, generation=event.generation, primary=primary, cpu_variants=cpu_variants)
    return Watch(
        key=key,
        model=event.model,
        generation=event.generation,
        primary=primary,
        context=context,
        cpu_variants=cpu_variants,
        next_window=watch.next_window if watch is not None else 1,
    )
