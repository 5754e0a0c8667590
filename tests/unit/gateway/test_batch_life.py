"""A batch's life: what follows from a command, which moves there are, and how its rows become parts."""

from dataclasses import replace
from datetime import UTC, datetime

import orjson
import pytest

from services.contracts.errors import BadField
from services.contracts.tasks import CLASSIFICATION
from services.contracts.tasks.classification import ClassificationRequest, ClassificationResult, LabelScore, Prediction
from services.contracts.tasks.records import Source
from services.contracts.tasks.task import AnswerInfo, RequestLimits
from services.gateway.domain.batches import (
    NEXT,
    Batch,
    BatchFailed,
    BatchFailure,
    BatchSpec,
    BatchStatus,
    Cancel,
    Command,
    Fail,
    Outcome,
    StartAttempt,
    Succeed,
    decide,
    evolve,
    with_part,
)
from services.gateway.domain.requests import Answer
from services.gateway.domain.rows import InputRow, answer_lines, checked, command_of, error_line, groups, part_of
from services.gateway.errors import BatchHasEnded
from services.kit.core.tabular import NotUtf8

NOON = datetime(2026, 11, 3, 12, tzinfo=UTC)
QUEUED = Batch("batch-1", "acme", BatchSpec(deployment="news", uri="file:///x"), "operator:k", NOON)
OUTCOME = Outcome(output_uri="file:///o", manifest_uri="file:///m", size_bytes=1, sha256="0" * 64)
FAILURE = BatchFailure(code="bad_row", reason="no", row=3)


def after(batch: Batch, *commands: Command) -> Batch:
    for command in commands:
        for fact in decide(batch, command):
            batch = evolve(batch, fact, NOON)
    return batch


RUNNING = after(QUEUED, StartAttempt(1, "stamp", 100))


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (Succeed(OUTCOME), BatchStatus.SUCCEEDED),
        (Fail(FAILURE), BatchStatus.FAILED),
        (Cancel(), BatchStatus.CANCELLED),
    ],
)
def test_a_batch_that_has_ended_stays_as_it_is(command: Command, status: BatchStatus) -> None:
    ended = after(RUNNING, command)
    assert (ended.status, ended.ended, ended.ended_at) == (status, True, NOON)
    for later in (StartAttempt(2, "stamp", 100), Succeed(OUTCOME), Fail(FAILURE), Cancel()):
        with pytest.raises(BatchHasEnded, match=status):
            decide(ended, later)


def test_a_batch_is_taken_up_again_where_it_stood() -> None:
    again = after(replace(RUNNING, parts=3, rows=24, last_row=25), StartAttempt(2, "stamp", 100))
    assert (again.status, again.attempt, again.parts, again.last_row) == (BatchStatus.RUNNING, 2, 3, 25)


def test_a_batch_whose_input_is_another_one_by_now_has_failed() -> None:
    (fact,) = decide(RUNNING, StartAttempt(2, "another", 100))
    assert isinstance(fact, BatchFailed)
    assert after(RUNNING, StartAttempt(2, "another", 100)).failure == fact.failure
    assert fact.failure.code == "input_changed"


@pytest.mark.parametrize("status", BatchStatus)
def test_a_move_that_the_table_does_not_know_raises(status: BatchStatus) -> None:
    batch = replace(QUEUED, status=status)
    fact = BatchFailed(failure=FAILURE)
    if BatchStatus.FAILED in NEXT[status]:
        assert evolve(batch, fact, NOON).status is BatchStatus.FAILED
    else:
        with pytest.raises(ValueError, match=f"a batch that is {status} cannot become failed"):
            evolve(batch, fact, NOON)


def answer(texts: int) -> Answer:
    result = ClassificationResult([Prediction("dev", 0.75, (LabelScore("dev", 0.75),)) for _ in range(texts)])
    payload = CLASSIFICATION.encode_result(result, AnswerInfo("req", "news", "news", 2, tokens=7))
    return Answer("req", "news", CLASSIFICATION, payload, "news", 2, tokens=7)


def test_a_part_has_its_lines_in_order_and_only_the_next_one_is_counted() -> None:
    rows = [InputRow(4, "four"), InputRow(5, "five")]
    lines = [error_line(InputRow(6, "", NotUtf8(row=6)), NotUtf8(row=6)), *answer_lines(rows, answer(2))]
    part, content = part_of(RUNNING, lines, fence=7, read_bytes=50)
    assert [orjson.loads(line)["row"] for line in content.splitlines()] == [4, 5, 6]
    assert (part.name, part.rows, part.failed_rows, part.versions) == ("part-000001-7.jsonl", 3, 1, [2])
    grown = with_part(RUNNING, part)
    assert (grown.rows, grown.failed_rows, grown.last_row, grown.progress) == (3, 1, 6, 0.5)
    with pytest.raises(ValueError, match="part 1 does not follow part 1"):
        with_part(grown, part)


def test_rows_without_a_text_are_not_sent_and_say_nothing_of_their_neighbours() -> None:
    limits = RequestLimits(characters=5)
    read = [InputRow(number, text) for number, text in enumerate(["a", " ", "b", "longer"], 1)]
    rows = [checked(row, RUNNING, CLASSIFICATION, limits) for row in read]
    assert [[row.number for row in group] for group in groups(rows, 1)] == [[1], [3]]
    assert isinstance(rows[1].problem, BadField)
    response = orjson.loads(error_line(rows[1], rows[1].problem).content)
    assert response == {
        "row": 2,
        "error": {"code": "bad_field", "message": "The field 'text' is not valid: it is empty."},
    }


def test_a_repeated_request_has_the_same_request_id() -> None:
    rows = [InputRow(9, "nine"), InputRow(11, "eleven")]
    command = command_of(RUNNING, CLASSIFICATION, rows, deadline=1.0)
    assert (command.request_id, command.tenant, command.source) == ("batch-1.9", "acme", Source.BATCH)
    assert command.request == ClassificationRequest(["nine", "eleven"])


def test_the_options_of_a_batch_are_fields_of_its_tasks_request() -> None:
    batch = replace(RUNNING, spec=BatchSpec(deployment="news", uri="file:///x", options={"with_embeddings": True}))
    command = command_of(batch, CLASSIFICATION, [InputRow(1, "one")], deadline=1.0)
    assert command.request == ClassificationRequest(["one"], with_embeddings=True)
