"""Whatever happens, in whatever order: these stay true."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.contracts.errors import MillraceError
from services.contracts.events import Role, Verdict
from services.registry.domain import Approval, ModelState, SpecChanges, VersionRef, commands, fold, state_hash
from services.registry.domain.evolve import fold_deployments
from services.registry.domain.facts import ModelFact
from services.registry.domain.state import RolloutState, VersionStatus
from tests.unit.registry.scenario import MODEL, OTHER, Scenario, canary_of_two, serving_one, serving_two

VERSIONS = st.integers(min_value=1, max_value=4)


class AnyScenario(RuleBasedStateMachine):
    """Commands of people, events and timers, in any order, refused ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.scenario = Scenario()
        self.runs = 0

    @initialize(begin=st.sampled_from([Scenario, serving_one, canary_of_two, serving_two]))
    def begins(self, begin: Callable[[], Scenario]) -> None:
        self.scenario = begin()
        self.scenario.trains("other-1", model=OTHER, deploy=False)
        self.scenario.after_each = self.each_step_holds
        self.runs = len(self.scenario.state.versions)

    @precondition(lambda self: self.runs < 6)
    @rule(good=st.booleans(), fresh=st.booleans(), deploy=st.booleans())
    def trains(self, good: bool, fresh: bool, deploy: bool) -> None:
        self.runs += 1
        against = self.scenario.aliases.get("champion") if fresh else 1
        self.scenario.trains(f"run-{self.runs}", against, macro_f1=0.8 if good else 0.3, deploy=deploy)

    @rule(run=st.integers(min_value=1, max_value=4))
    def gets_a_run_again(self, run: int) -> None:
        if run <= self.runs:
            assert self.scenario.trains(f"run-{run}") == []

    @precondition(lambda self: MODEL in self.scenario.deployments)
    @rule(version=VERSIONS, state=st.sampled_from(["loading", "ready", "ready", "failed"]), late=st.booleans())
    def reports(self, version: int, state: str, late: bool) -> None:
        self.scenario.reports(version, state, seen=0 if late else None)

    @precondition(lambda self: MODEL in self.scenario.deployments)
    @rule()
    def what_loads_is_ready(self) -> None:
        if rollout := self.scenario.deployment.rollout:
            self.scenario.reports(rollout.version.version, model=rollout.version.model)

    @precondition(lambda self: MODEL in self.scenario.deployments)
    @rule(verdict=st.sampled_from(list(Verdict)), requests=st.sampled_from([0, 80]), late=st.booleans())
    def judges(self, verdict: Verdict, requests: int, late: bool) -> None:
        self.scenario.judges(verdict, requests=requests, step=0 if late else None)

    @precondition(lambda self: self.scenario.on_trial)
    @rule(verdict=st.sampled_from(list(Verdict)), first=st.booleans())
    def evidence_comes_about_the_canary(self, verdict: Verdict, first: bool) -> None:
        if not first:
            self.scenario.wait(60)
        self.scenario.judges(verdict)
        if first:
            self.scenario.wait(60)

    @precondition(lambda self: self.scenario.on_trial)
    @rule(by_hand=st.booleans())
    def the_canary_stops(self, by_hand: bool) -> None:
        if by_hand:
            self.or_refused(self.scenario.pauses)
        else:
            self.scenario.wait(600)

    @rule(seconds=st.sampled_from([1, 29, 30, 60, 600]))
    def time_passes(self, seconds: int) -> None:
        self.scenario.wait(seconds)

    @rule(version=VERSIONS, skip_gate=st.booleans())
    def starts(self, version: int, skip_gate: bool) -> None:
        self.or_refused(lambda: self.scenario.starts(version, skip_gate=skip_gate))

    @rule(move=st.sampled_from(["approves", "pauses", "resumes", "promotes", "rolls_back", "stops"]))
    def moves(self, move: str) -> None:
        self.or_refused(getattr(self.scenario, move))

    @rule(version=VERSIONS, since=st.integers(min_value=0, max_value=12))
    def a_stray_drain_timer_fires(self, version: int, since: int) -> None:
        self.scenario.do(commands.DrainElapsed(MODEL, VersionRef(model=MODEL, version=version), since))

    @rule(version=VERSIONS)
    def breaches(self, version: int) -> None:
        self.scenario.breaches(version)

    @rule(model=st.sampled_from([MODEL, OTHER]), approval=st.sampled_from(Approval), automatic=st.booleans())
    def is_specified(self, model: str, approval: Approval, automatic: bool) -> None:
        changes = SpecChanges(model=model, approval=approval, automatic=automatic)
        self.or_refused(lambda: self.scenario.changes(changes))

    @rule(model=st.sampled_from([MODEL, OTHER]))
    def is_created(self, model: str) -> None:
        self.or_refused(lambda: self.scenario.creates(model=model))

    @rule()
    def is_deleted(self) -> None:
        self.or_refused(self.scenario.deletes)

    def or_refused(self, move: Callable[[], object]) -> None:
        before, refused = self.scenario.deployments.get(MODEL), None
        try:
            move()
        except MillraceError as error:
            refused = error
        if refused is not None:
            assert self.scenario.deployments.get(MODEL) is before
            assert "{" not in str(refused) + (refused.hint or "")

    def each_step_holds(self) -> None:
        """After every single command, and so for everything that is ever published."""
        if MODEL not in self.scenario.deployments:
            return
        deployment, desired = self.scenario.deployment, self.scenario.desired
        primaries = [target for target in desired.targets if target.role is Role.PRIMARY]
        canaries = [target for target in desired.targets if target.role is Role.CANARY]
        assert len({(target.model, target.version) for target in desired.targets}) == len(desired.targets)
        assert len(primaries) <= 1
        assert sum(target.weight for target in desired.targets) == (100 if primaries else 0)
        assert all(target.weight == 0 for target in desired.targets if target.role is Role.DRAINING)
        serving = [VersionRef(model=target.model or "", version=target.version) for target in primaries]
        assert ([deployment.version] if deployment.version else []) == serving
        assert desired.deleted == (deployment.spec is None)
        rollout = deployment.active_rollout
        loading = rollout is not None and rollout.state is not RolloutState.PENDING
        assert [(target.model, target.version) for target in canaries] == (
            [(rollout.version.model, rollout.version.version)] if rollout and loading else []
        )
        assert deployment.aliases.get("challenger") == (rollout.version if rollout else None)
        if deployment.stopped or deployment.spec is None:
            assert all(target.role is Role.DRAINING for target in desired.targets)
            assert rollout is None
        if rollout is None or rollout.state in (RolloutState.PENDING, RolloutState.LOADING):
            assert desired.mirror == 0
            assert all(target.weight == 0 for target in canaries)
        elif primaries:
            assert canaries[0].weight == rollout.policy.weights[rollout.step]
            assert {target.model for target in (*primaries, *canaries)} == {desired.model}, "a canary has a champion"

    @invariant()
    def the_fold_of_the_history_is_the_state(self) -> None:
        facts = [row for row in self.scenario.rows if isinstance(row[0].fact, ModelFact)]
        mine = [row for row in facts if row[0].fact.stream == f"model/{MODEL}"]
        assert fold(ModelState(model=MODEL), mine) == self.scenario.state
        for again in fold_deployments(self.scenario.rows):
            assert state_hash(again) == state_hash(self.scenario.deployments[again.name])

    @invariant()
    def generations_grow_and_are_published_once(self) -> None:
        published = [change.generation for change in self.scenario.published]
        assert published == sorted(set(published))
        if published:
            assert published[-1] == self.scenario.deployment.generation

    @invariant()
    def what_is_served_follows_from_a_rollout_that_started_once(self) -> None:
        kinds = [decided.fact.kind for decided, _ in self.scenario.rows]
        ended = kinds.count("rollout_promoted") + kinds.count("rollout_rolled_back")
        assert 0 <= kinds.count("rollout_started") - ended <= 1

    @invariant()
    def nothing_refused_takes_traffic_unless_its_gate_was_skipped(self) -> None:
        if MODEL not in self.scenario.deployments or not (rollout := self.scenario.deployment.rollout):
            return
        if not rollout.gate_skipped and not rollout.returning:
            model = self.scenario.models[rollout.version.model]
            assert model.version(rollout.version.version).status is VersionStatus.PASSED

    @invariant()
    def every_timer_that_is_set_lies_ahead(self) -> None:
        assert all(spec.due >= self.scenario.now for spec in self.scenario.timers)


AnyScenario.TestCase.settings = settings(stateful_step_count=40)
TestAnyScenario = AnyScenario.TestCase
