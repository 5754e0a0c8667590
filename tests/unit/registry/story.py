"""A model's story told in sentences: commands go in, time passes, timers fall due, facts and the state come out."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.events import (
    DeploymentChanged,
    DriftDetected,
    Evidence,
    ModelTrained,
    ReplicaReported,
    ReplicaVersion,
    RolloutJudged,
    SloBreached,
    TrainingFailed,
    Verdict,
    Window,
)
from services.contracts.training import Comparison, Interval, Metrics, PairedCounts, Recipe, SliceScore, VariantReport
from services.registry.domain import (
    Decided,
    ModelState,
    RolloutPolicy,
    Rules,
    changes,
    decide,
    desired,
    elapsed,
    evolve,
    timers,
)
from services.registry.domain import commands as ask
from services.registry.domain.commands import Command
from services.registry.domain.state import Deployment, Rollout, RolloutState

MODEL = "chapters"
NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
POLICY = RolloutPolicy(
    weights=(10, 50), bake_seconds=60, minimum_requests=50, step_timeout_seconds=600, mirror=0.5, drain_seconds=30
)
EVIDENCE = Evidence(
    indicator="correctness",
    pairs=120,
    candidate=0.66,
    champion=0.84,
    e_value_worse=140.0,
    e_value_safe=0.1,
    alpha=0.01,
    decision="worse",
)


def variant(precision: Precision, *, passed: bool = True) -> VariantReport:
    return VariantReport(
        precision=precision,
        size_bytes=22_000_000,
        macro_f1=0.82,
        agreement=0.988,
        max_difference=1e-6,
        speedup=1.0,
        passed=passed,
        reason="" if passed else "it lost 4 points",
    )


def counts(name: str = "all", *, both: int = 400, gained: int = 20, lost: int = 20, neither: int = 60) -> PairedCounts:
    return PairedCounts(name=name, both=both, candidate_only=gained, champion_only=lost, neither=neither)


def trained(
    run: str,
    *,
    against: int | None = None,
    slices: list[PairedCounts] | None = None,
    macro_f1: float = 0.82,
    tfidf: float = 0.77,
    test_rows: int = 500,
    variants: list[VariantReport] | None = None,
    deploy: bool = True,
    parent: int | None = None,
) -> ModelTrained:
    score = SliceScore(
        name="all", rows=test_rows, accuracy=0.83, macro_f1=macro_f1, macro_f1_ci95=Interval(low=0.78, high=0.86)
    )
    return ModelTrained(
        model=MODEL,
        run=run,
        dataset="docstrings",
        data_hash="d" * 64,
        code_version="0.1.0",
        base_model="all-MiniLM-L6-v2",
        recipe=Recipe(),
        artifact=ArtifactRef(uri=f"file:///artifacts/{run}", digest="a" * 64, signer="key-1", size_bytes=1),
        variants=[variant(Precision.FP32), variant(Precision.INT8)] if variants is None else variants,
        metrics=Metrics(slices=[score], tfidf_macro_f1=tfidf, train_rows=1000, test_rows=test_rows),
        comparison=None if against is None else Comparison(champion=against, slices=slices or [counts()]),
        deploy=deploy,
        parent=parent,
    )


class Story:
    """Applies what `decide` says, keeps the history, and lets due timers fire as time passes."""

    def __init__(self, policy: RolloutPolicy = POLICY) -> None:
        self.rules = Rules(rollout=policy)
        self.state = ModelState(model=MODEL)
        self.now = NOON
        self.rows: list[tuple[Decided, datetime]] = []
        self.told: list[DeploymentChanged] = []
        self.after_each: Callable[[], None] = lambda: None

    def do(self, command: Command) -> list[str]:
        """The kinds of the facts that followed."""
        before, decided = self.state, decide(self.state, command, at=self.now, rules=self.rules)
        for fact in decided:
            self.state = evolve(self.state, fact, self.now)
            self.rows.append((fact, self.now))
        self.told.extend(changes(before, self.state))
        self.after_each()
        return [row.fact.kind for row in decided]

    def wait(self, seconds: float) -> list[str]:
        """Lets the time pass and every timer that falls due in it fire, in order."""
        until, kinds = self.now + timedelta(seconds=seconds), []
        while due := sorted((spec for spec in timers(self.state).values() if spec.due <= until), key=lambda x: x.due):
            self.now = max(self.now, due[0].due)
            kinds.extend(self.do(elapsed(due[0].kind, due[0].payload)))
        self.now = until
        return kinds

    # --- what is said by others

    def trains(self, run: str, against: int | None = None, **how: object) -> list[str]:
        return self.do(ask.RegisterVersion(trained(run, against=against, **how)))  # type: ignore[arg-type]

    def fails_to_train(self, run: str) -> list[str]:
        failed = TrainingFailed(
            model=MODEL, run=run, dataset="docstrings", stage="prepare", code="one_class", reason="r", retryable=False
        )
        return self.do(ask.RecordTrainingFailed(failed))

    def reports(
        self, version: int, state: str = "ready", *, seen: int | None = None, waiting: frozenset[str] = frozenset()
    ) -> list[str]:
        part = ReplicaVersion.model_validate(
            {"deployment": MODEL, "model": MODEL, "version": version, "state": state, "reason": "bad hash"}
        )
        deployment = self.state.deployments.get(MODEL)
        generation = seen if seen is not None else deployment.generation if deployment else 0
        report = ReplicaReported(
            replica="replica-1",
            address="127.0.0.1:1",
            sequence=1,
            generations={MODEL: generation},
            versions=[part],
            capacity=8,
        )
        return self.do(ask.ApplyReport(report, waiting))

    def judges(self, verdict: Verdict, *, requests: int = 80, step: int | None = None, rollout: str = "") -> list[str]:
        present = self.deployment.rollout
        judged = RolloutJudged(
            deployment=MODEL,
            rollout=rollout or (present.id if present else "none"),
            version=present.version if present else 1,
            step=step if step is not None else present.step if present else 0,
            verdict=verdict,
            requests=requests,
            evidence=[EVIDENCE],
            reason="what the evidence says",
        )
        return self.do(ask.ApplyVerdict(judged))

    def breaches(self, version: int) -> list[str]:
        breach = SloBreached(
            deployment=MODEL,
            version=version,
            indicator="errors",
            objective=0.99,
            burn_rate=14.4,
            window_seconds=300,
            requests=500,
        )
        return self.do(ask.ApplyBreach(breach))

    def drifts(self, version: int) -> list[str]:
        drift = DriftDetected(
            model=MODEL,
            deployment=MODEL,
            version=version,
            test="mmd-rbf",
            statistic=0.1,
            p_value=0.005,
            alpha=0.01,
            consecutive=2,
            window=Window(number=3, rows=200, opened=NOON, closed=NOON),
            baseline_rows=500,
            requests_since_quiet=400,
        )
        return self.do(ask.RecordDrift(drift))

    # --- what is asked by people

    def starts(self, version: int, *, skip_gate: bool = False) -> list[str]:
        return self.do(ask.StartRollout(MODEL, version, "ada", "because", skip_gate=skip_gate))

    def pauses(self) -> list[str]:
        return self.do(ask.PauseRollout(MODEL, "ada", "because"))

    def resumes(self) -> list[str]:
        return self.do(ask.ResumeRollout(MODEL, "ada", "because"))

    def promotes(self) -> list[str]:
        return self.do(ask.PromoteRollout(MODEL, "ada", "because"))

    def rolls_back(self) -> list[str]:
        return self.do(ask.RollBack(MODEL, "ada", "because"))

    def stops(self) -> list[str]:
        return self.do(ask.StopDeployment(MODEL, "ada", "because"))

    # --- what is seen

    @property
    def deployment(self) -> Deployment:
        return self.state.deployment(MODEL)

    @property
    def rollout(self) -> Rollout:
        assert self.deployment.rollout is not None
        return self.deployment.rollout

    @property
    def on_trial(self) -> bool:
        """A canary has traffic, or is paused with it."""
        rollout = self.deployment.active_rollout if MODEL in self.state.deployments else None
        return rollout is not None and rollout.state is not RolloutState.LOADING

    @property
    def wanted(self) -> DeploymentChanged:
        return desired(self.state, MODEL)

    @property
    def weights(self) -> dict[int, int]:
        return {target.version: target.weight for target in self.wanted.targets}

    @property
    def roles(self) -> dict[int, str]:
        return {target.version: str(target.role) for target in self.wanted.targets}


def serving_one(policy: RolloutPolicy = POLICY) -> Story:
    """Version 1 is champion and has all traffic."""
    story = Story(policy)
    story.trains("run-1")
    story.reports(1)
    return story


def canary_of_two(policy: RolloutPolicy = POLICY) -> Story:
    """Version 2 is in its first canary step beside champion 1."""
    story = serving_one(policy)
    story.trains("run-2", against=1)
    story.reports(2)
    return story


def serving_two() -> Story:
    """Version 2 took over from version 1, which still drains."""
    story = canary_of_two()
    story.promotes()
    return story
