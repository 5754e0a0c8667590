"""Where a version comes from and what became of it: a graph that is read out of the history, nothing else.

An edge leads from what came first to what came of it. Read up to any moment, it is the graph of that moment.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias

from services.contracts.events import ModelTrained
from services.registry.domain import facts
from services.registry.domain.facts import Decided
from services.registry.domain.spec import VersionRef

Row: TypeAlias = tuple[Decided, datetime]


@dataclass(frozen=True)
class Node:
    """One thing in the story of a version. `at` is when it came about, where the history says so."""

    id: str
    kind: str
    label: str
    at: datetime | None = None
    facts: Mapping[str, str] = field(default_factory=dict)
    evidence: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Edge:
    source: str
    target: str
    relation: str


@dataclass(frozen=True)
class Lineage:
    """Nodes in the order in which they are reached, the version itself first; edges likewise."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]


def lineage(model: str, version: int, rows: Iterable[Row]) -> Lineage:
    """The graph around a version that the rows have registered.

    The rows are those of the model and of the deployments that ever served it, in order.
    """
    journal = _Journal(model)
    for decided, at in rows:
        journal.add(decided, at)
    graph = _Graph(journal)
    graph.version(version)
    graph.past(version)
    graph.future(version)
    return Lineage(tuple(graph.nodes.values()), tuple(dict.fromkeys(graph.edges)))


@dataclass
class _Journal:
    """What the history says, sorted by what it is about."""

    model: str
    trained: dict[int, tuple[ModelTrained, datetime, str]] = field(default_factory=dict)
    gates: dict[int, tuple[facts.Gate, datetime]] = field(default_factory=dict)
    drifts: dict[int, Node] = field(default_factory=dict)
    rollouts: dict[str, Node] = field(default_factory=dict)
    rolled_out: dict[str, int] = field(default_factory=dict)
    periods: list[tuple[int, Node]] = field(default_factory=list)
    """Of serving a deployment, and of holding an alias: who, and the period."""

    def add(self, decided: Decided, at: datetime) -> None:
        match decided.fact:
            case facts.VersionRegistered() as fact:
                self.trained[fact.version] = fact.trained, at, fact.precision
            case facts.VersionPassed() | facts.VersionRefused() as fact:
                self.gates[fact.version] = fact.gate, at
            case facts.VersionDrifted() as fact:
                self._drifted(fact, decided.reason, at)
            case facts.RolloutFact() as fact:
                self._rollout(fact, decided, at)
            case facts.DeploymentRolledBack() as fact:
                self._change_hands("deployment", fact.deployment, self._own(fact.after), at)
            case facts.DeploymentStopped() as fact:
                self._change_hands("deployment", fact.deployment, None, at)
            case facts.AliasMoved() as fact:
                self._change_hands("alias", fact.alias, fact.after, at)

    def _own(self, version: VersionRef) -> int | None:
        """Its number, where it is a version of this model."""
        return version.version if version.model == self.model else None

    def _drifted(self, fact: facts.VersionDrifted, reason: str, at: datetime) -> None:
        details = {"test": fact.test, "statistic": f"{fact.statistic:.6g}", "p_value": f"{fact.p_value:.6g}"}
        node_id = f"drift/{self.model}/{fact.version}"
        label = f"away from version {fact.version}"
        self.drifts[fact.version] = Node(node_id, "drift", label, at, {**details, "reason": reason})

    def _rollout(self, fact: facts.RolloutFact, decided: Decided, at: datetime) -> None:
        if isinstance(fact, facts.RolloutPromoted):
            self._change_hands("deployment", fact.deployment, self._own(fact.ref), at)
        if fact.model != self.model:
            return
        match fact:
            case facts.RolloutStarted():
                started = {
                    "deployment": fact.deployment,
                    "outcome": "under way",
                    "gate_skipped": _yes(fact.gate_skipped),
                    "started_by": decided.actor,
                    "started_because": decided.reason,
                }
                node = Node(f"rollout/{fact.rollout}", "rollout", fact.rollout, at, started)
                self.rollouts[fact.rollout], self.rolled_out[fact.rollout] = node, fact.version
            case facts.RolloutPromoted() | facts.RolloutRolledBack():
                ended = {"outcome": fact.kind.removeprefix("rollout_"), "ended_at": at.isoformat()}
                ended |= {"ended_by": decided.actor, "ended_because": decided.reason}
                evidence = tuple(part.model_dump(mode="json") for part in fact.evidence)
                before = self.rollouts[fact.rollout]
                self.rollouts[fact.rollout] = replace(before, facts={**before.facts, **ended}, evidence=evidence)

    def _change_hands(self, kind: str, name: str, after: int | None, at: datetime) -> None:
        """Ends the period that is open, and begins that of `after`."""
        for node_id, (version, node) in enumerate(self.periods):
            if (node.kind, node.label) == (kind, name) and not node.facts["until"]:
                self.periods[node_id] = version, replace(node, facts={**node.facts, "until": at.isoformat()})
        if after is not None:
            began = {"from": at.isoformat(), "until": ""}
            self.periods.append((after, Node(f"{kind}/{name}/{len(self.periods) + 1}", kind, name, at, began)))


class _Graph:
    """Walks from one version to everything that the journal connects with it."""

    def __init__(self, journal: _Journal) -> None:
        self._journal = journal
        self.nodes: dict[str, Node] = {}
        self.edges: list[Edge] = []

    def version(self, number: int) -> str:
        trained, at, precision = self._journal.trained[number]
        node_id = f"version/{self._journal.model}/{number}"
        details = {"precision": precision, "digest": trained.artifact.digest, "signer": trained.artifact.signer}
        return self._add(Node(node_id, "version", f"version {number}", at, details))

    def past(self, number: int) -> None:
        """Data set, base model and run; then the parent, what made it, and the drift that asked for this one."""
        trained, _, _ = self._journal.trained[number]
        here, run = self.version(number), self._run(number)
        data = Node(f"dataset/{trained.dataset}/{trained.data_hash}", "dataset", trained.dataset)
        self._join(self._add(replace(data, facts={"data_hash": trained.data_hash})), run, "read_by")
        base = Node(f"base_model/{trained.base_model}", "base_model", trained.base_model)
        self._join(self._add(base), run, "began_from")
        self._join(run, here, "produced")
        if trained.parent in self._journal.trained and trained.parent < number:
            self._join(self.version(trained.parent), here, "parent_of")
            self._requested(trained.parent, run)
            self.past(trained.parent)

    def future(self, number: int) -> None:
        """Its gate, rollouts, when it served, the aliases it held; then its children and theirs."""
        here, journal = self.version(number), self._journal
        if number in journal.gates:
            self._join(here, self._gate(number), "judged_by")
        for rollout, node in journal.rollouts.items():
            if journal.rolled_out[rollout] == number:
                self._join(here, self._add(node), "rolled_out")
        for version, period in journal.periods:
            if version == number:
                self._join(here, self._add(period), "served" if period.kind == "deployment" else "held")
        if number in journal.drifts:
            self._join(here, self._add(journal.drifts[number]), "drifted")
        for child, (trained, _, _) in journal.trained.items():
            if trained.parent == number and child > number:
                run = self._run(child)
                self._requested(number, run)
                self._join(run, self.version(child), "produced")
                self._join(here, self.version(child), "parent_of")
                self.future(child)

    def _run(self, number: int) -> str:
        trained, _, _ = self._journal.trained[number]
        details = {"code_version": trained.code_version, "recipe": trained.recipe.model_dump_json()}
        return self._add(Node(f"run/{trained.run}", "run", trained.run, None, details))

    def _gate(self, number: int) -> str:
        gate, at = self._journal.gates[number]
        details = {"passed": _yes(gate.passed), "against": str(gate.champion or "")}
        checks = tuple(check.model_dump(mode="json") for check in gate.checks)
        label = "passed" if gate.passed else "refused"
        return self._add(Node(f"gate/{self._journal.model}/{number}", "gate", label, at, details, checks))

    def _requested(self, parent: int, run: str) -> None:
        if parent in self._journal.drifts:
            drift = self._add(self._journal.drifts[parent])
            self._join(self.version(parent), drift, "drifted")
            self._join(drift, run, "asked_for")

    def _add(self, node: Node) -> str:
        self.nodes.setdefault(node.id, node)
        return node.id

    def _join(self, source: str, target: str, relation: str) -> None:
        self.edges.append(Edge(source, target, relation))


def _yes(value: bool) -> str:
    return "yes" if value else "no"
