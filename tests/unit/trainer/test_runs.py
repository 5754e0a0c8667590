"""A run's life keeps to its table."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.contracts.artifact import ArtifactRef
from services.contracts.events import DriftDetected, Window
from services.contracts.training import Interval, Metrics, SliceScore
from services.trainer.domain.datasets import shifted_since
from services.trainer.domain.runs import (
    NEXT,
    AttemptInterrupted,
    BeginStage,
    Cancel,
    Command,
    Fail,
    ReadData,
    Run,
    RunStatus,
    StageBegun,
    StartAttempt,
    Succeed,
    decide,
    evolve,
    has_abandoned,
)
from services.trainer.domain.spec import INTERRUPTED, DataContent, Failure, Handle, RunResult, Stage
from services.trainer.errors import AttemptUnderWay, RunHasEnded

NOW = datetime(2026, 1, 1, tzinfo=UTC)
QUEUED = Run(id="run-1", tenant="default", model="m", dataset="d", cause="dataset.ready d", created_at=NOW)
ARTIFACT = ArtifactRef(uri="file:///a/b", digest="0" * 64, signer="key", size_bytes=1)
ALL = SliceScore(name="all", rows=100, accuracy=0.8, macro_f1=0.8, macro_f1_ci95=Interval(low=0.7, high=0.9))
METRICS = Metrics(slices=[ALL], tfidf_macro_f1=0.7, train_rows=200, test_rows=100)
CANCEL = Cancel("admin:1", "enough")
CONTENT = DataContent(sha256="1" * 64, size_bytes=10, rows=2)
RESULT = RunResult(
    run="run-1",
    data_hash="0" * 64,
    base_model="tiny",
    labels=["a", "b"],
    metrics=METRICS,
    variants=[],
    comparison=None,
    artifact=ARTIFACT,
    seconds={},
)
INTERRUPTION = Failure(stage=Stage.TRAIN, code=INTERRUPTED, reason="the machine was restarted", retryable=True)


def failure(*, retryable: bool) -> Failure:
    return Failure(stage=Stage.TRAIN, code="killed", reason="it was killed", retryable=retryable)


def handle(attempt: int, pid: str = "7") -> Handle:
    return Handle(
        executor="local",
        tenant="default",
        run="run-1",
        attempt=attempt,
        working_uri="file:///w",
        reference={"pid": pid},
    )


def after(run: Run, command: Command) -> Run:
    for fact in decide(run, command):
        run = evolve(run, fact, NOW)
    return run


def test_a_run_goes_through_its_stages_to_success() -> None:
    run, seen = after(QUEUED, StartAttempt(handle(1))), []
    for stage in Stage:
        run = after(run, BeginStage(stage))
        seen.append(run.status)
    assert list(dict.fromkeys(seen)) == ["preparing", "training", "evaluating", "exporting"]
    assert (QUEUED.stage, run.stage) == (Stage.PREPARE, Stage.EXPORT)
    done = after(run, Succeed(RESULT))
    assert (done.status, done.progress, done.ended_at) == (RunStatus.SUCCEEDED, 1.0, NOW)


def test_the_stages_of_one_state_are_one_fact() -> None:
    exporting = after(QUEUED, BeginStage(Stage.EXPORT))
    assert decide(exporting, BeginStage(Stage.COMPRESS)) == ()


def test_a_failure_that_may_pass_is_tried_again_a_bounded_number_of_times() -> None:
    run = QUEUED
    for attempt in (1, 2, 3):
        trained = after(after(run, StartAttempt(handle(attempt))), BeginStage(Stage.TRAIN))
        run = after(trained, Fail(failure(retryable=True), attempts=3))
    assert (run.status, run.failed_attempts, run.attempt) == (RunStatus.FAILED, 2, 3)


def test_a_failure_that_cannot_pass_ends_the_run_at_once() -> None:
    run = after(after(QUEUED, BeginStage(Stage.PREPARE)), Fail(failure(retryable=False), attempts=3))
    assert run.status is RunStatus.FAILED


def test_an_interrupted_attempt_does_not_count_as_a_failed_one() -> None:
    run = QUEUED
    for attempt in range(1, 9):
        training = after(after(run, StartAttempt(handle(attempt))), BeginStage(Stage.TRAIN))
        (fact,) = decide(training, Fail(INTERRUPTION, attempts=1))
        assert isinstance(fact, AttemptInterrupted)
        run = evolve(training, fact, NOW)
        assert (run.status, run.executing, run.failed_attempts) == (RunStatus.QUEUED, False, 0)


def test_one_attempt_is_under_way_at_a_time_and_starting_it_again_changes_nothing() -> None:
    run = after(QUEUED, StartAttempt(handle(1)))
    assert (run.attempt, run.executing, run.handle) == (1, True, handle(1))
    assert decide(run, StartAttempt(handle(1))) == ()
    with pytest.raises(AttemptUnderWay):
        decide(run, StartAttempt(handle(1, pid="8")))


def test_an_execution_is_abandoned_once_its_run_ended_or_went_on_without_it_and_never_before_it_is_known() -> None:
    running = after(QUEUED, StartAttempt(handle(2)))
    assert not has_abandoned(running, handle(2))
    assert not has_abandoned(running, handle(3))
    assert not has_abandoned(QUEUED, handle(1))
    assert has_abandoned(running, handle(1))
    assert has_abandoned(after(running, Fail(failure(retryable=True), attempts=3)), handle(2))
    assert has_abandoned(after(running, CANCEL), handle(2))


COMMANDS = st.one_of(
    st.builds(lambda attempt: StartAttempt(handle(attempt)), st.integers(1, 9)),
    st.builds(BeginStage, st.sampled_from(Stage)),
    st.just(Succeed(RESULT)),
    st.builds(lambda retryable: Fail(failure(retryable=retryable), attempts=3), st.booleans()),
    st.just(CANCEL),
    st.just(ReadData(CONTENT)),
)


@given(commands=st.lists(COMMANDS, max_size=12))
def test_whatever_is_commanded_a_run_moves_only_as_the_table_allows_and_never_after_its_end(
    commands: list[Command],
) -> None:
    run = QUEUED
    for command in commands:
        if run.ended:
            with pytest.raises(RunHasEnded):
                decide(run, command)
            continue
        if isinstance(command, StartAttempt) and run.executing and run.handle != command.handle:
            with pytest.raises(AttemptUnderWay):
                decide(run, command)
            continue
        moved = after(run, command)
        assert moved.status is run.status or moved.status in NEXT[run.status]
        run = moved


def test_an_illegal_move_raises() -> None:
    with pytest.raises(ValueError, match="cannot become training"):
        evolve(
            after(QUEUED, Cancel("admin:1", "enough")), StageBegun(stage=Stage.TRAIN, status=RunStatus.TRAINING), NOW
        )


def test_what_was_read_is_a_fact_once_and_counts_more_than_what_was_announced() -> None:
    announced = replace(QUEUED, announced_hash="2" * 64)
    assert announced.content_hash == "2" * 64
    read = after(announced, ReadData(CONTENT))
    assert (read.content_hash, read.status) == ("1" * 64, RunStatus.QUEUED)
    assert decide(read, ReadData(CONTENT)) == ()


def test_a_cancelled_run_knows_by_whom_and_why() -> None:
    assert (after(QUEUED, CANCEL).cancelled_by, after(QUEUED, CANCEL).cancel_reason) == ("admin:1", "enough")


def test_labels_are_requested_from_the_first_suspect_window_on() -> None:
    window = Window(number=9, rows=200, opened=NOW, closed=NOW + timedelta(seconds=30))
    drift = DriftDetected(
        model="m", deployment="m", version=1, test="mmd-rbf", statistic=0.1, p_value=0.005, alpha=0.01, consecutive=3,
        window=window, baseline_rows=500, requests_since_quiet=600,
    )  # fmt: skip
    assert shifted_since(drift) == NOW - timedelta(seconds=60)
