"""What is asked and what is right: texts of two topics, told apart by their words, and how well a model knows them.

Everything is a function of a text's own words, so that an answer never depends on when or where it was asked.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

LABELS: Final = ("concurrency", "data", "dev", "files", "internet", "numeric")
WIDTH: Final = 12
SHIFT: Final = 1.5
"""How far apart the topics' embeddings lie, on one axis, in standard deviations."""


class Topic(StrEnum):
    OLD = "old"
    NEW = "new"


@dataclass(frozen=True)
class Text:
    """A text that somebody may ask about, and its true label."""

    body: str
    label: str
    topic: Topic


def make_text(topic: Topic, key: str) -> Text:
    """The text of this key; its label is drawn by the key."""
    digest = hashlib.sha256(f"{topic}/{key}".encode()).hexdigest()
    label = LABELS[int(digest[:8], 16) % len(LABELS)]
    words = " ".join(digest[workspace : workspace + 6] for workspace in range(8, 44, 6))
    return Text(f"{topic} {label} {words}", label, topic)


def read_text(body: str) -> Text:
    """What `make_text` wrote: topic and label stand in front."""
    topic, label, _ = body.split(" ", 2)
    return Text(body, label, Topic(topic))


class Source:
    """Texts of one seed that never repeat."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._made = 0

    def texts(self, topic: Topic, count: int) -> Iterator[Text]:
        for _ in range(count):
            self._made += 1
            yield make_text(topic, f"{self._seed}:{self._made}")


def luck(body: str) -> float:
    """A number in [0, 1) of the text alone: a version that knows a share s of a topic answers those below s."""
    return int.from_bytes(hashlib.blake2b(body.encode(), digest_size=8).digest()) / 2.0**64


def embedding(body: str) -> NDArray[np.float32]:
    """float32 [WIDTH]: drawn by the text's words around the mean of its topic."""
    generator = np.random.default_rng(int.from_bytes(hashlib.sha256(body.encode()).digest()[:8]))
    row_D = generator.normal(size=WIDTH).astype(np.float32)
    row_D[0] += SHIFT if read_text(body).topic is Topic.NEW else 0.0
    return row_D


@dataclass(frozen=True)
class Skill:
    """The share of each topic's texts that a model answers rightly."""

    old: float
    new: float

    def knows(self, text: Text) -> bool:
        return luck(text.body) < (self.new if text.topic is Topic.NEW else self.old)

    def answer(self, body: str) -> str:
        """The right label, or the one after it."""
        text = read_text(body)
        workspace = LABELS.index(text.label)
        return text.label if self.knows(text) else LABELS[(workspace + 1) % len(LABELS)]

    def to_json(self) -> bytes:
        return json.dumps({"old": self.old, "new": self.new}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Skill":
        return cls(**json.loads(content))
