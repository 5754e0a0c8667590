"""The batch queue: bounded, oldest first, and sparing with padding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.inference.domain.batching import BatchQueue, Limits, Row
from services.inference.errors import QueueFull

LIMITS = Limits(capacity=100, rows=4, tokens=200, padding=0.1)


def queue_of(lengths: list[int], limits: Limits = LIMITS, batch_keys: list[str] | None = None) -> BatchQueue[str, int]:
    queue: BatchQueue[str, int] = BatchQueue(limits)
    rows = [Row(batch_key, index, 10.0) for index, batch_key in enumerate(batch_keys or ["v1"] * len(lengths))]
    queue.submit(rows)
    for row, length in zip(queue.raw(len(lengths)), lengths, strict=True):
        queue.measured(row, length)
    return queue


def taken(queue: BatchQueue[str, int]) -> list[int]:
    batch = queue.take()
    return sorted(row.payload for row in batch.rows) if batch else []


def test_the_oldest_row_leads_the_next_batch() -> None:
    assert 0 in taken(queue_of([50, 5, 5, 5, 5]))


def test_rows_of_near_equal_length_go_together_and_others_wait() -> None:
    queue = queue_of([10, 60, 10, 61, 11])
    assert [taken(queue), taken(queue), taken(queue)] == [[0, 2, 4], [1, 3], []]


def test_versions_never_share_a_batch() -> None:
    queue = queue_of([10, 10, 10], batch_keys=["v1", "v2", "v1"])
    assert [taken(queue), taken(queue)] == [[0, 2], [1]]


def test_a_batch_stays_under_its_limit_of_rows() -> None:
    assert len(taken(queue_of([10] * 9))) == 4


def test_a_batch_stays_under_its_limit_of_tokens_but_one_long_row_always_runs() -> None:
    queue = queue_of([150, 150, 500])
    assert [taken(queue), taken(queue), taken(queue)] == [[0], [1], [2]]


def test_a_full_queue_refuses_instead_of_waiting() -> None:
    queue = queue_of([5] * 100)
    with pytest.raises(QueueFull) as caught:
        queue.submit([Row("v1", 0, 10.0)])
    assert caught.value.body().retry_after_seconds == 1
    assert str(caught.value) == "100 texts are already waiting, and the limit is 100."


def test_a_request_that_does_not_fit_is_refused_completely() -> None:
    queue = queue_of([5] * 98)
    with pytest.raises(QueueFull):
        queue.submit([Row("v1", index, 10.0) for index in range(3)])
    queue.submit([Row("v1", index, 10.0) for index in range(2)])


def test_running_rows_count_until_they_are_released() -> None:
    queue = queue_of([5] * 100)
    batch = queue.take()
    assert batch is not None
    with pytest.raises(QueueFull):
        queue.submit([Row("v1", 0, 10.0)])
    queue.release(len(batch.rows))
    queue.submit([Row("v1", 0, 10.0)])


def test_rows_past_their_deadline_are_swept_measured_or_not() -> None:
    queue = queue_of([5, 5])
    queue.submit([Row("v1", 2, 3.0), Row("v1", 3, 30.0)])
    assert sorted(row.payload for row in queue.sweep(10.0)) == [0, 1, 2]
    assert [row.payload for row in queue.raw(9)] == [3]
    assert queue.take() is None


def test_rows_whose_caller_has_gone_are_swept() -> None:
    queue = queue_of([])
    row = Row("v1", 0, 10.0)
    queue.submit([row])
    row.dropped = True
    assert queue.sweep(0.0) == [row]


@given(st.lists(st.tuples(st.integers(1, 128), st.sampled_from(["v1", "v2"])), max_size=60), st.floats(0, 0.5))
def test_every_row_comes_out_once_and_every_batch_keeps_every_limit(
    rows: list[tuple[int, str]], padding: float
) -> None:
    limits = Limits(capacity=100, rows=6, tokens=300, padding=padding)
    queue = queue_of([length for length, _ in rows], limits, [batch_key for _, batch_key in rows])
    seen: list[int] = []
    while (batch := queue.take()) is not None:
        waiting = set(range(len(rows))) - set(seen)
        assert min(waiting) in [row.payload for row in batch.rows]
        assert len({row.batch_key for row in batch.rows}) == 1
        assert len(batch.rows) <= limits.rows
        assert len(batch.rows) == 1 or batch.longest * len(batch.rows) <= limits.tokens
        assert len(batch.rows) == 1 or batch.padding <= padding + 1e-9
        seen += [row.payload for row in batch.rows]
    assert sorted(seen) == list(range(len(rows)))
