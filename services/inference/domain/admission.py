"""Which of the waiting sequences may begin: a bounded queue before a bounded number of rows and tokens.

A sequence reserves the tokens of its prompt and of the longest answer that it may give, so that what has begun can
always end. Sequences begin in the order of their arrival: a long one is not passed by, else it might wait for ever.

Pure and not locked: the owner calls it under its own lock.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from services.inference.errors import QueueFull

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the sequences under way may take together."""

    rows: int
    tokens: int
    waiting: int
    """Sequences that wait; more are refused."""


@dataclass(slots=True)
class Admission(Generic[S]):
    """`size` gives the tokens that a sequence reserves: at most the budget's, or it would never begin."""

    budget: Budget
    size: Callable[[S], int]
    _waiting: deque[S] = field(default_factory=deque)
    _rows: int = 0
    _tokens: int = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def held(self) -> int:
        """Sequences that wait or are under way."""
        return len(self._waiting) + self._rows

    @property
    def reserved_tokens(self) -> int:
        return self._tokens

    def submit(self, sequences: Sequence[S]) -> None:
        """Takes all or none. Raises QueueFull."""
        if len(self._waiting) + len(sequences) > self.budget.waiting:
            raise QueueFull(queued=len(self._waiting), capacity=self.budget.waiting, retry_after_seconds=1)
        self._waiting.extend(sequences)

    def begin(self) -> S | None:
        """The next sequence, if there is capacity for it; give it back to `end`."""
        if not self._waiting or self._rows >= self.budget.rows:
            return None
        size = self.size(self._waiting[0])
        if self._tokens + size > self.budget.tokens:
            return None
        self._rows += 1
        self._tokens += size
        return self._waiting.popleft()

    def end(self, sequence: S) -> None:
        self._rows -= 1
        self._tokens -= self.size(sequence)

    def remove(self, is_over: Callable[[S], bool]) -> list[S]:
        """Takes out those of the waiting ones that need not begin any more."""
        over = [sequence for sequence in self._waiting if is_over(sequence)]
        if over:
            self._waiting = deque(sequence for sequence in self._waiting if not is_over(sequence))
        return over
