"""Whatever happens, in whatever order: these stay true."""

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.contracts.errors import MillraceError
from services.contracts.events import Role, Verdict
from services.registry.domain import commands as ask
from services.registry.domain import fold, state_hash, timers
from services.registry.domain.state import RolloutState, VersionStatus
from tests.unit.registry.story import MODEL, Story, canary_of_two, serving_one, serving_two

VERSIONS = st.integers(min_value=1, max_value=4)


class AnyStory(RuleBasedStateMachine):
    """Commands of people, events and timers, in any order, refused ones among them."""

    def __init__(self) -> None:
        super().__init__()
        self.story = Story()
        self.runs = 0

    @initialize(begin=st.sampled_from([Story, serving_one, canary_of_two, serving_two]))
    def begins(self, begin: Callable[[], Story]) -> None:
        self.story = begin()
        self.story.after_each = self.each_step_holds
        self.runs = len(self.story.state.versions)

    @precondition(lambda self: self.runs < 6)
    @rule(good=st.booleans(), fresh=st.booleans(), deploy=st.booleans())
    def trains(self, good: bool, fresh: bool, deploy: bool) -> None:
        self.runs += 1
        against = self.story.state.champion if fresh else 1
        self.story.trains(f"run-{self.runs}", against, macro_f1=0.8 if good else 0.3, deploy=deploy)

    @rule(run=st.integers(min_value=1, max_value=4))
    def is_told_of_a_run_again(self, run: int) -> None:
        if run <= self.runs:
            assert self.story.trains(f"run-{run}") == []

    @precondition(lambda self: MODEL in self.story.state.deployments)
    @rule(version=VERSIONS, state=st.sampled_from(["loading", "ready", "ready", "failed"]), late=st.booleans())
    def reports(self, version: int, state: str, late: bool) -> None:
        self.story.reports(version, state, seen=0 if late else None)

    @precondition(lambda self: MODEL in self.story.state.deployments)
    @rule()
    def what_loads_is_ready(self) -> None:
        if rollout := self.story.deployment.rollout:
            self.story.reports(rollout.version)

    @precondition(lambda self: MODEL in self.story.state.deployments)
    @rule(verdict=st.sampled_from(list(Verdict)), requests=st.sampled_from([0, 80]), late=st.booleans())
    def judges(self, verdict: Verdict, requests: int, late: bool) -> None:
        self.story.judges(verdict, requests=requests, step=0 if late else None)

    @precondition(lambda self: self.story.on_trial)
    @rule(verdict=st.sampled_from(list(Verdict)), first=st.booleans())
    def evidence_comes_about_the_canary(self, verdict: Verdict, first: bool) -> None:
        if not first:
            self.story.wait(60)
        self.story.judges(verdict)
        if first:
            self.story.wait(60)

    @precondition(lambda self: self.story.on_trial)
    @rule(by_hand=st.booleans())
    def the_canary_stops(self, by_hand: bool) -> None:
        if by_hand:
            self.or_refused(self.story.pauses)
        else:
            self.story.wait(600)

    @rule(seconds=st.sampled_from([1, 29, 30, 60, 600]))
    def time_passes(self, seconds: int) -> None:
        self.story.wait(seconds)

    @rule(version=VERSIONS, skip_gate=st.booleans())
    def starts(self, version: int, skip_gate: bool) -> None:
        self.or_refused(lambda: self.story.starts(version, skip_gate=skip_gate))

    @rule(move=st.sampled_from(["pauses", "resumes", "promotes", "rolls_back", "stops"]))
    def moves(self, move: str) -> None:
        self.or_refused(getattr(self.story, move))

    @rule(version=VERSIONS, since=st.integers(min_value=0, max_value=12))
    def a_stray_drain_timer_fires(self, version: int, since: int) -> None:
        self.story.do(ask.DrainElapsed(MODEL, version, since))

    @rule(version=VERSIONS)
    def breaches(self, version: int) -> None:
        self.story.breaches(version)

    def or_refused(self, move: Callable[[], object]) -> None:
        before, refused = self.story.state, None
        try:
            move()
        except MillraceError as refusal:
            refused = refusal
        if refused is not None:
            assert self.story.state is before
            assert "{" not in str(refused) + (refused.hint or "")

    def each_step_holds(self) -> None:
        """After every single command, and so for everything that is ever told."""
        state = self.story.state
        if MODEL not in state.deployments:
            return
        deployment, wanted = self.story.deployment, self.story.wanted
        primaries = [target for target in wanted.targets if target.role is Role.PRIMARY]
        canaries = [target for target in wanted.targets if target.role is Role.CANARY]
        assert len({target.version for target in wanted.targets}) == len(wanted.targets)
        assert len(primaries) <= 1
        assert sum(target.weight for target in wanted.targets) == (100 if primaries else 0)
        assert all(target.weight == 0 for target in wanted.targets if target.role is Role.DRAINING)
        assert state.champion == deployment.version == (primaries[0].version if primaries else None)
        rollout = deployment.active_rollout
        assert [target.version for target in canaries] == ([rollout.version] if rollout else [])
        assert state.aliases.get("challenger") == (rollout.version if rollout else None)
        if deployment.stopped:
            assert all(target.role is Role.DRAINING for target in wanted.targets)
            assert rollout is None
        if rollout is None or rollout.state is RolloutState.LOADING:
            assert wanted.mirror == 0
            assert all(target.weight == 0 for target in canaries)
        elif primaries:
            assert canaries[0].weight == rollout.policy.weights[rollout.step]

    @invariant()
    def the_fold_of_the_history_is_the_state(self) -> None:
        again = fold(MODEL, self.story.rows)
        assert again == self.story.state
        assert state_hash(again) == state_hash(self.story.state)

    @invariant()
    def generations_grow_and_are_told_once(self) -> None:
        told = [change.generation for change in self.story.told]
        assert told == sorted(set(told))
        if told:
            assert told[-1] == self.story.deployment.generation

    @invariant()
    def what_is_told_follows_from_a_rollout_that_started_once(self) -> None:
        kinds = [decided.fact.kind for decided, _ in self.story.rows]
        ended = kinds.count("rollout_promoted") + kinds.count("rollout_rolled_back")
        assert 0 <= kinds.count("rollout_started") - ended <= 1

    @invariant()
    def nothing_refused_takes_traffic_unless_its_gate_was_skipped(self) -> None:
        if MODEL not in self.story.state.deployments or not (rollout := self.story.deployment.rollout):
            return
        if not rollout.gate_skipped and not rollout.returning:
            assert self.story.state.version(rollout.version).status is VersionStatus.PASSED

    @invariant()
    def every_timer_that_is_wanted_lies_ahead(self) -> None:
        assert all(spec.due >= self.story.now for spec in timers(self.story.state).values())


AnyStory.TestCase.settings = settings(stateful_step_count=40)
TestAnyStory = AnyStory.TestCase
