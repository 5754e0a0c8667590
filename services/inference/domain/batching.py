"""A bounded queue that hands out batches of near-equal length, oldest first.

Padding is what a batch wastes: each row is computed as long as the longest. So a batch starts with the
oldest row and takes in the rows nearest to it in length, of the same version, while the padded share stays
under a limit. Nothing waits for company: on a CPU a lone row runs at once, and batches form by themselves
while the engines are busy.

A row passes through two stages: *raw* (its length in tokens is not known yet) and *measured*. It is *held*
from `submit` until `release`, so the bound covers rows that wait and rows that run.

Pure and not locked: the owner calls it under its own lock and passes the time in.
"""

from collections import deque
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.inference.errors import QueueFull

L = TypeVar("L", bound=Hashable)
P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much may wait, and how large one batch may get."""

    capacity: int
    """Rows held at once, waiting and running; more are refused."""
    rows: int
    """Rows of one batch."""
    tokens: int
    """Tokens of one batch, padding included. A single row may be longer."""
    padding: float
    """Share of a batch's tokens that may be padding, 0 to 1."""


@dataclass(slots=True)
class Row(Generic[L, P]):
    """One text on its way to the engine. `lane` is what it must share with its batch: the version."""

    batch_key: L
    payload: P
    deadline: float
    """Monotonic seconds; at or after it the row is not run any more."""
    number: int = -1
    length: int = 0
    dropped: bool = False
    """Nobody waits for the answer any more."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[L, P]):
    """Rows of one lane to run together."""

    batch_key: L
    rows: list[Row[L, P]]

    @property
    def longest(self) -> int:
        return max(row.length for row in self.rows)

    @property
    def padding(self) -> float:
        """Share of the batch's tokens that is padding, 0 to 1."""
        return 1 - sum(row.length for row in self.rows) / (self.longest * len(self.rows))


@dataclass(slots=True)
class BatchQueue(Generic[L, P]):
    """Raw rows in order of arrival, and measured rows by lane and length."""

    limits: Limits
    held: int = 0
    _count: int = 0
    _raw: deque[Row[L, P]] = field(default_factory=deque)
    _measured: dict[L, dict[int, deque[Row[L, P]]]] = field(default_factory=dict)

    def submit(self, rows: Sequence[Row[L, P]]) -> None:
        """Takes all of `rows` or none. Raises QueueFull when they do not fit."""
        if self.held + len(rows) > self.limits.capacity:
            raise QueueFull(queued=self.held, capacity=self.limits.capacity, retry_after_seconds=1)
        self.held += len(rows)
        for row in rows:
            row.number = self._count
            self._count += 1
            self._raw.append(row)

    def release(self, rows: int) -> None:
        """`rows` rows have been answered, one way or another."""
        self.held -= rows

    def raw(self, most: int) -> list[Row[L, P]]:
        """Takes out up to `most` rows whose length is to be measured, oldest first; give them to `measured`."""
        return [self._raw.popleft() for _ in range(min(most, len(self._raw)))]

    def measured(self, row: Row[L, P], length: int) -> None:
        """Puts a row back, now that its length in tokens (at least 1) is known."""
        row.length = max(1, length)
        self._measured.setdefault(row.batch_key, {}).setdefault(row.length, deque()).append(row)

    @property
    def has_raw(self) -> bool:
        return bool(self._raw)

    @property
    def has_measured(self) -> bool:
        return bool(self._measured)

    def sweep(self, now: float) -> list[Row[L, P]]:
        """Takes out every row whose deadline has passed or whose caller has gone."""
        gone = [row for row in self._raw if _is_over(row, now)]
        if gone:
            self._raw = deque(row for row in self._raw if not _is_over(row, now))
        for batch_key, by_length in list(self._measured.items()):
            for length, rows in list(by_length.items()):
                over = [row for row in rows if _is_over(row, now)]
                if over:
                    gone.extend(over)
                    by_length[length] = deque(row for row in rows if not _is_over(row, now))
                    self._tidy(batch_key, length)
        return gone

    def take(self) -> Batch[L, P] | None:
        """The next batch: the oldest measured row and its nearest neighbours in length; None when there is none.

        Call `sweep` first: rows past their deadline are not looked for here.
        """
        oldest = min((row for row in self._heads()), key=lambda row: row.number, default=None)
        if oldest is None:
            return None
        rows = [self._pop(oldest.batch_key, oldest.length)]
        longest = total = oldest.length
        for length in self._near(oldest.batch_key, oldest.length):
            while self._fits(len(rows) + 1, max(longest, length), total + length):
                rows.append(self._pop(oldest.batch_key, length))
                longest, total = max(longest, length), total + length
                if not self._measured.get(oldest.batch_key, {}).get(length):
                    break
        return Batch(oldest.batch_key, rows)

    def _heads(self) -> Iterator[Row[L, P]]:
        return (rows[0] for by_length in self._measured.values() for rows in by_length.values())

    def _near(self, batch_key: L, length: int) -> list[int]:
        return sorted(self._measured.get(batch_key, {}), key=lambda other: abs(other - length))

    def _fits(self, rows: int, longest: int, total: int) -> bool:
        area = rows * longest
        limits = self.limits
        return rows <= limits.rows and area <= limits.tokens and area - total <= limits.padding * area

    def _pop(self, batch_key: L, length: int) -> Row[L, P]:
        row = self._measured[batch_key][length].popleft()
        self._tidy(batch_key, length)
        return row

    def _tidy(self, batch_key: L, length: int) -> None:
        by_length = self._measured[batch_key]
        if not by_length[length]:
            del by_length[length]
            if not by_length:
                del self._measured[batch_key]


def _is_over(row: Row[L, P], now: float) -> bool:
    return row.dropped or row.deadline <= now
