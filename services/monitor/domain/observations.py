"""What is known of one request: the answers of versions, and the feedback on its items."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final

from services.contracts.artifact import Precision
from services.contracts.tasks import Tasks
from services.contracts.tasks.feedback import Feedback

HALF: Final = 0.5
"""An answer of less quality counts as wrong."""


@dataclass(frozen=True)
class Answer:
    """One version's answer to one request. `mirrored`: no client saw it."""

    version: int
    mirrored: bool
    at: datetime
    ok: bool
    slow: bool
    task: str
    variant: Precision | None = None
    """Of the version; None where no one says."""
    answers: tuple[Any, ...] = ()
    """By item, what the task judges and compares; nothing where the version failed."""


@dataclass(frozen=True)
class TimedFeedback:
    """Feedback on one item, and when it was given."""

    feedback: Feedback
    at: datetime

    def is_after(self, other: "TimedFeedback") -> bool:
        """By its own time, not by its arrival; of two with one time the same one counts whatever their order."""
        return (self.at, self.feedback.model_dump_json()) > (other.at, other.feedback.model_dump_json())


@dataclass(frozen=True)
class Observation:
    """All that is known of one request. Of each item the latest feedback counts."""

    answers: tuple[Answer, ...] = ()
    feedback: Mapping[int, TimedFeedback] = field(default_factory=dict)

    def with_answer(self, answer: Answer) -> "Observation":
        """The first answer of each version counts."""
        if any(earlier.version == answer.version for earlier in self.answers):
            return self
        return replace(self, answers=(*self.answers, answer))

    def with_feedback(self, item: int, feedback: TimedFeedback) -> "Observation":
        before = self.feedback.get(item)
        if before is not None and not feedback.is_after(before):
            return self
        return replace(self, feedback={**self.feedback, item: feedback})


def quality(answer: Answer, observation: Observation, tasks: Tasks) -> float | None:
    """How good the answer was, 0 to 1: the mean over its judged items. None where no feedback can say.

    A grade is about the answer that its sender saw, so it says nothing of a mirrored one; a right answer judges both.
    """
    task = tasks.find(answer.task)
    if task is None or not answer.ok:
        return None
    grades = [
        grade
        for item, timed in observation.feedback.items()
        if item < len(answer.answers) and not (answer.mirrored and timed.feedback.grade is not None)
        if (grade := task.judge(answer.answers[item], timed.feedback)) is not None
    ]
    return sum(grades) / len(grades) if grades else None


def likeness(left: Answer, right: Answer, tasks: Tasks) -> float | None:
    """How alike two answers to one request are, 0 to 1: the mean over the items that can be compared."""
    task = tasks.find(left.task)
    if task is None or left.task != right.task:
        return None
    shares = [task.compare(*pair) for pair in zip(left.answers, right.answers, strict=False)]
    comparable = [share for share in shares if share is not None]
    return sum(comparable) / len(comparable) if comparable else None
