"""A model and its deployments in sentences: commands go in, time passes, timers fall due, facts and states come out."""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

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
    Deployment,
    DeploymentSpec,
    ModelState,
    RolloutPolicy,
    Rules,
    SpecChanges,
    TimerSpec,
    VersionRef,
    commands,
    decide_deployment,
    decide_model,
    desired,
    elapsed,
    fold,
    timers,
)
from services.registry.domain.commands import DeploymentCommand, ModelCommand
from services.registry.domain.state import Rollout, RolloutState, champion, main_deployment, view

MODEL = "chapters"
OTHER = "essays"
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
    model: str = MODEL,
) -> ModelTrained:
    score = SliceScore(
        name="all", rows=test_rows, accuracy=0.83, macro_f1=macro_f1, macro_f1_ci95=Interval(low=0.78, high=0.86)
    )
    return ModelTrained(
        model=model,
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


class Scenario:
    """Applies what is decided, keeps the history, and lets due timers fire as time passes."""

    def __init__(self, policy: RolloutPolicy = POLICY) -> None:
        self.rules = Rules(rollout=policy)
        self.models: dict[str, ModelState] = {}
        self.deployments: dict[str, Deployment] = {}
        self.now = NOON
        self.rows: list[tuple[Decided, datetime]] = []
        self.published: list[DeploymentChanged] = []
        self.after_each: Callable[[], None] = lambda: None

    def do(self, command: ModelCommand | DeploymentCommand, model: str = MODEL) -> list[str]:
        """The kinds of the facts that followed."""
        if isinstance(command, ModelCommand):
            kinds = self._change_model(command, model)
        else:
            kinds = self._change_deployment(command)
        self.after_each()
        return kinds

    def _change_model(self, command: ModelCommand, model: str) -> list[str]:
        before = self.models.get(model, ModelState(model=model))
        decided = decide_model(before, command, at=self.now, rules=self.rules)
        self.models[model] = fold(before, [(one, self.now) for one in decided])
        return self._record(decided)

    def _change_deployment(self, command: DeploymentCommand) -> list[str]:
        name = command.deployment
        before = self.deployments.get(name, Deployment(name=name))
        decided = decide_deployment(before, command, models=self.models, at=self.now, rules=self.rules)
        after = fold(before, [(one, self.now) for one in decided])
        if decided:
            self.deployments[name] = after
        if after.generation > before.generation:
            self.published.append(desired(after, self.models))
        return self._record(decided)

    def _record(self, decided: list[Decided]) -> list[str]:
        self.rows.extend((one, self.now) for one in decided)
        return [one.fact.kind for one in decided]

    def wait(self, seconds: float) -> list[str]:
        """Lets the time pass and every timer that falls due in it fire, in order."""
        until, kinds = self.now + timedelta(seconds=seconds), []
        while due := [spec for spec in self.timers if spec.due <= until]:
            self.now = max(self.now, due[0].due)
            kinds.extend(self.do(elapsed(due[0].kind, due[0].payload)))
        self.now = until
        return kinds

    @property
    def timers(self) -> list[TimerSpec]:
        """Those that are set, the next one first."""
        every = [spec for deployment in self.deployments.values() for spec in timers(deployment).values()]
        return sorted(every, key=lambda spec: spec.due)

    # --- events of other services

    def trains(self, run: str, against: int | None = None, **how: object) -> list[str]:
        event = trained(run, against=against, **how)  # type: ignore[arg-type]
        model = event.model
        kinds = self.do(commands.RegisterVersion(event, champion(model, self.deployments.values())), model)
        if "version_passed" in kinds and event.deploy:
            ref = VersionRef(model=model, version=len(self.models[model].versions))
            for name in sorted({*self.deployments, model}):
                kinds += self.do(commands.OfferVersion(name, ref, "it passed its gate"))
        return kinds

    def fails_to_train(self, run: str) -> list[str]:
        failed = TrainingFailed(
            model=MODEL, run=run, dataset="docstrings", stage="prepare", code="one_class", reason="r", retryable=False
        )
        return self.do(commands.RecordTrainingFailed(failed))

    def reports(
        self,
        version: int,
        state: str = "ready",
        *,
        seen: int | None = None,
        missing: int = 0,
        deployment: str = MODEL,
        model: str = MODEL,
    ) -> list[str]:
        part = ReplicaVersion.model_validate(
            {"deployment": deployment, "model": model, "version": version, "state": state, "reason": "bad hash"}
        )
        current = self.deployments.get(deployment)
        generation = seen if seen is not None else current.generation if current else 0
        report = ReplicaReported(
            replica="replica-1",
            address="127.0.0.1:1",
            sequence=1,
            generations={deployment: generation},
            versions=[part],
            capacity=8,
        )
        return self.do(commands.ApplyReport(deployment, report, missing))

    def judges(self, verdict: Verdict, *, requests: int = 80, step: int | None = None, rollout: str = "") -> list[str]:
        current = self.deployment.rollout
        judged = RolloutJudged(
            deployment=MODEL,
            rollout=rollout or (current.id if current else "none"),
            version=current.version.version if current else 1,
            step=step if step is not None else current.step if current else 0,
            verdict=verdict,
            requests=requests,
            evidence=[EVIDENCE],
            reason="what the evidence says",
        )
        return self.do(commands.ApplyVerdict(judged))

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
        return self.do(commands.ApplyBreach(breach))

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
        return self.do(commands.RecordDrift(drift))

    # --- commands of people

    def creates(self, name: str = MODEL, *, model: str = MODEL, **spec: Any) -> list[str]:
        return self.do(commands.CreateDeployment(name, DeploymentSpec(model=model, **spec), "ada", "because"))

    def changes(self, changes: SpecChanges, name: str = MODEL) -> list[str]:
        return self.do(commands.UpdateDeployment(name, changes, "ada", "because"))

    def deletes(self, name: str = MODEL) -> list[str]:
        return self.do(commands.DeleteDeployment(name, "ada", "because"))

    def starts(self, version: int, name: str = MODEL, *, skip_gate: bool = False) -> list[str]:
        return self.do(commands.StartRollout(name, version, "ada", "because", skip_gate=skip_gate))

    def approves(self, name: str = MODEL) -> list[str]:
        return self.do(commands.ApproveRollout(name, "ada", "because"))

    def pauses(self) -> list[str]:
        return self.do(commands.PauseRollout(MODEL, "ada", "because"))

    def resumes(self) -> list[str]:
        return self.do(commands.ResumeRollout(MODEL, "ada", "because"))

    def promotes(self) -> list[str]:
        return self.do(commands.PromoteRollout(MODEL, "ada", "because"))

    def rolls_back(self, name: str = MODEL) -> list[str]:
        return self.do(commands.RollBack(name, "ada", "because"))

    def stops(self, name: str = MODEL) -> list[str]:
        return self.do(commands.StopDeployment(name, "ada", "because"))

    # --- the outcome

    @property
    def state(self) -> ModelState:
        return self.models.get(MODEL, ModelState(model=MODEL))

    @property
    def aliases(self) -> Mapping[str, int]:
        return view(
            self.state, main_deployment(MODEL, self.deployments.values()) or self.deployments.get(MODEL)
        ).aliases

    @property
    def deployment(self) -> Deployment:
        return self.deployments[MODEL]

    @property
    def rollout(self) -> Rollout:
        assert self.deployment.rollout is not None
        return self.deployment.rollout

    @property
    def on_trial(self) -> bool:
        """A canary has traffic, or is paused with it."""
        rollout = self.deployment.active_rollout if MODEL in self.deployments else None
        return rollout is not None and rollout.state in (RolloutState.CANARY, RolloutState.PAUSED)

    @property
    def desired(self) -> DeploymentChanged:
        return desired(self.deployment, self.models)

    @property
    def weights(self) -> dict[int, int]:
        return {target.version: target.weight for target in self.desired.targets}

    @property
    def roles(self) -> dict[int, str]:
        return {target.version: str(target.role) for target in self.desired.targets}


def serving_one(policy: RolloutPolicy = POLICY) -> Scenario:
    """Version 1 is champion and has all traffic."""
    scenario = Scenario(policy)
    scenario.trains("run-1")
    scenario.reports(1)
    return scenario


def canary_of_two(policy: RolloutPolicy = POLICY) -> Scenario:
    """Version 2 is in its first canary step beside champion 1."""
    scenario = serving_one(policy)
    scenario.trains("run-2", against=1)
    scenario.reports(2)
    return scenario


def serving_two() -> Scenario:
    """Version 2 took over from version 1, which still drains."""
    scenario = canary_of_two()
    scenario.promotes()
    return scenario
