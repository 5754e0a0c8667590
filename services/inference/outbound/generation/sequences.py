"""A request under way on a model that generates: its sequences, and what its caller is sent."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from services.contracts.errors import MillraceError
from services.contracts.tasks.generation import (
    Choice,
    FinishReason,
    GenerationChunk,
    GenerationRequest,
    GenerationResult,
    Timing,
    TokenLogprob,
)
from services.inference.domain.sampling import Sampler
from services.inference.outbound.generation.text import AnswerText

JobEvent: TypeAlias = GenerationChunk | MillraceError


@dataclass(slots=True)
class Job:
    """One request. `events` is read on the loop; no more come than its answers may have tokens."""

    request: GenerationRequest
    deadline: float
    arrived: float
    loop: asyncio.AbstractEventLoop
    tenant: str
    events: "asyncio.Queue[JobEvent]" = field(default_factory=asyncio.Queue)
    dropped: bool = False
    """Nobody waits for the answers any more."""
    began: float | None = None
    first_token: float | None = None
    last_token: float = 0.0
    cached_tokens: int = 0

    def is_over(self, now: float) -> bool:
        return self.dropped or now >= self.deadline


@dataclass(slots=True)
class Answering:
    """One sequence: a prompt, and the answer to it as far as it has come."""

    job: Job
    index: int
    prompt: Sequence[int]
    limit: int
    """Tokens of the answer at most."""
    sampler: Sampler
    text: AnswerText
    end_tokens: frozenset[int]
    computed: int = 0
    """Tokens of prompt and answer that the row holds."""
    tokens: list[int] = field(default_factory=list)
    shown: list[str] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    unsent: list[TokenLogprob] = field(default_factory=list)
    """Log probabilities of tokens whose text is held back."""
    finish_reason: FinishReason | None = None

    @property
    def reserved(self) -> int:
        return len(self.prompt) + self.limit

    @property
    def remaining(self) -> int:
        """Tokens of the prompt that are not computed yet."""
        return len(self.prompt) - self.computed

    def take(self, token: int, logprob: TokenLogprob | None) -> GenerationChunk | None:
        """The answer goes on with `token`, or ends before it; what of it is to be shown now."""
        text = ""
        if token in self.end_tokens:
            self.finish_reason = "stop"
        else:
            self.tokens.append(token)
            if logprob is not None:
                self.logprobs.append(logprob)
                self.unsent.append(logprob)
            text = self.text.push(token)
            if self.text.stopped:
                self.finish_reason = "stop"
            elif len(self.tokens) >= self.limit:
                self.finish_reason = "length"
        if self.finish_reason is not None and not self.text.stopped:
            text += self.text.flush()
        if not text and self.finish_reason is None:
            return None
        self.shown.append(text)
        chunk = GenerationChunk(self.index, text, self.finish_reason, self.unsent)
        self.unsent = []
        return chunk

    def choice(self) -> Choice:
        return Choice(self.index, "".join(self.shown), self.finish_reason or "stop", self.logprobs)


def result_of(job: Job, sequences: Sequence[Answering]) -> GenerationResult:
    """Once all of its sequences have ended. A prompt that is answered several times counts once."""
    choices = job.request.choices
    tokens = sum(len(one.tokens) for one in sequences)
    began = job.began if job.began is not None else job.arrived
    first = job.first_token if job.first_token is not None else job.last_token
    steps = max(len(one.tokens) for one in sequences) - 1
    timing = Timing(
        queued_ms=(began - job.arrived) * 1000,
        first_token_ms=(first - job.arrived) * 1000,
        between_tokens_ms=(job.last_token - first) * 1000 / steps if steps > 0 else 0.0,
    )
    return GenerationResult(
        choices=[one.choice() for one in sequences],
        prompt_tokens=sum(len(one.prompt) for one in sequences[::choices]),
        completion_tokens=tokens,
        cached_tokens=job.cached_tokens,
        timing=timing,
    )
