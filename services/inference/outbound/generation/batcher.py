"""Continuous batching: one thread that decodes all sequences of a model together, a token of each at a time.

A sequence begins as soon as a row and its tokens are free, and leaves when it ends; nothing waits for a batch to
drain. Between two steps at most one piece of one prompt is computed, so that a long prompt does not stall the others.
Rows are kept without holes: sequences that decode lie in rows 0 to B-1, and the prompt under way in row B.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.contracts.errors import MillraceError
from services.contracts.tasks.generation import TokenLogprob
from services.inference.domain.admission import Admission, Budget
from services.inference.domain.prefixes import PrefixCache
from services.inference.domain.sampling import DrawnToken, Logits
from services.inference.domain.scoring import StepFacts
from services.inference.errors import DeadlinePassed, EngineFailed
from services.inference.outbound.generation.decoder import Cache, Decoder
from services.inference.outbound.generation.sequences import Answering, Job, JobEvent
from services.kit.core.log import logger

_IDLE_SECONDS: Final = 5.0
SMALLEST_PIECE: Final = 2
"""Tokens; see `domain/prefixes.py`."""


@dataclass(frozen=True, slots=True)
class Pieces:
    """How much of a prompt is computed at once: while others decode, and while none does."""

    shared: int = 64
    alone: int = 512


MEASURED_PIECES: Final = Pieces()


class Batcher:
    """Owns the decoder: nothing else may call it once `start` was called.

    `token_bytes` gives the bytes of a token for log probabilities, `observe` is called on the thread after each step,
    and `stopped` makes the error that ends what is under way when the batcher stops.
    """

    def __init__(
        self,
        decoder: Decoder,
        budget: Budget,
        *,
        prefix_tokens: int,
        token_bytes: Callable[[int], bytes],
        monotonic: Callable[[], float],
        observe: Callable[[StepFacts], None],
        stopped: Callable[[], MillraceError],
        pieces: Pieces = MEASURED_PIECES,
    ) -> None:
        self._decoder = decoder
        self._admission: Admission[Answering] = Admission(budget, size=lambda sequence: sequence.reserved)
        self._prefixes: PrefixCache[list[Cache]] = PrefixCache(prefix_tokens)
        self._token_bytes = token_bytes
        self._monotonic = monotonic
        self._observe = observe
        self._stopped = stopped
        self._pieces = pieces
        self._condition = threading.Condition()
        self._stopping = False
        self._decoding: list[Answering] = []
        self._filling: Answering | None = None
        self._outgoing: list[tuple[Job, JobEvent]] = []
        self._thread = threading.Thread(target=self._work, name="decoder", daemon=True)

    @property
    def held(self) -> int:
        """Sequences that wait or are under way."""
        return self._admission.held

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns once the thread has ended."""
        with self._condition:
            self._stopping = True
            self._condition.notify_all()
        self._thread.join()

    def submit(self, sequences: Sequence[Answering]) -> None:
        """All of one request. Raises QueueFull."""
        with self._condition:
            self._admission.submit(sequences)
            self._condition.notify_all()

    def drop(self, job: Job) -> None:
        """Its rows are free after the step under way."""
        job.dropped = True
        with self._condition:
            self._condition.notify_all()

    # --- the thread

    def _work(self) -> None:
        while self._wait():
            try:
                self._iterate()
            except Exception:  # noqa: BLE001 - whatever broke, its callers are answered
                logger.exception("the decoder failed on %s sequences", len(self._under_way()))
                self._end_all(EngineFailed)
            self._deliver()
        self._end_all(self._stopped)
        self._deliver()

    def _wait(self) -> bool:
        """Until there is something to do; False when the thread is to end."""
        with self._condition:
            while not (self._admission.held or self._stopping):
                self._condition.wait(_IDLE_SECONDS)
            return not self._stopping

    def _iterate(self) -> None:
        """One piece of a prompt, then one step of all that decode."""
        self._drop_over()
        if self._filling is None:
            self._begin()
        if self._filling is not None:
            self._fill(self._filling)
        if self._decoding:
            self._step()

    def _under_way(self) -> list[Answering]:
        return [*self._decoding, *([self._filling] if self._filling is not None else [])]

    def _drop_over(self) -> None:
        now = self._monotonic()
        with self._condition:
            waiting = self._admission.remove(lambda sequence: sequence.job.is_over(now))
        for sequence in waiting:
            self._send(sequence.job, DeadlinePassed(seconds=0))
        for sequence in self._under_way():
            if sequence.job.is_over(now):
                self._send(sequence.job, DeadlinePassed(seconds=0))
                self._release(sequence)

    def _begin(self) -> None:
        with self._condition:
            sequence = self._admission.begin()
        if sequence is None:
            return
        self._filling = sequence
        if sequence.job.began is None:
            sequence.job.began = self._monotonic()
        prefix = self._prefixes.find(sequence.prompt)
        if prefix is not None:
            self._decoder.copy_in(len(self._decoding), prefix.value, prefix.length)
            sequence.computed = prefix.length
            if sequence.index % sequence.job.request.choices == 0:
                sequence.job.cached_tokens += prefix.length

    def _fill(self, sequence: Answering) -> None:
        """Computes the next piece of its prompt, and its first token after the last one."""
        row, start, now = len(self._decoding), sequence.computed, self._monotonic()
        piece = self._pieces.shared if self._decoding else self._pieces.alone
        if sequence.remaining - piece < SMALLEST_PIECE:  # nothing so small may be left for the next piece
            piece = sequence.remaining
        logits_V = self._decoder.prefill(row, sequence.prompt[start : start + piece], start)
        sequence.computed += piece
        self._observe(StepFacts(sequence.job.tenant, piece, is_prompt=True, seconds=self._monotonic() - now))
        if sequence.remaining:
            return
        self._remember(sequence, row)
        self._filling = None
        self._decoding.append(sequence)
        self._take(sequence, logits_V)
        self._release_ended()

    def _remember(self, sequence: Answering, row: int) -> None:
        """Prompts alone: keys and values of drawn tokens differ from a prompt's in their last bits."""
        if self._prefixes.needs(sequence.prompt):
            self._prefixes.add(sequence.prompt, self._decoder.copy_out(row, len(sequence.prompt)))

    def _step(self) -> None:
        sequences, now = self._decoding, self._monotonic()
        logits_BV = self._decoder.step(
            [sequence.tokens[-1] for sequence in sequences], [sequence.computed for sequence in sequences]
        )
        for sequence, logits_V in zip(sequences, logits_BV, strict=True):
            sequence.computed += 1
            self._take(sequence, logits_V)
        seconds = self._monotonic() - now
        self._observe(StepFacts(sequences[0].job.tenant, len(sequences), is_prompt=False, seconds=seconds))
        self._release_ended()

    def _take(self, sequence: Answering, logits_V: Logits) -> None:
        """A sequence whose logits are no numbers fails alone: rows do not touch each other."""
        job, now = sequence.job, self._monotonic()
        if not np.isfinite(logits_V).all():
            sequence.finish_reason = "stop"
            self._send(job, EngineFailed())
            return
        drawn = sequence.sampler.draw(logits_V)
        job.first_token = now if job.first_token is None else job.first_token
        job.last_token = now
        logprob = self._logprob(drawn) if sequence.sampler.top_logprobs is not None else None
        chunk = sequence.take(drawn.token, logprob)
        if chunk is not None:
            self._send(job, chunk)

    def _logprob(self, drawn: DrawnToken) -> TokenLogprob:
        top = [TokenLogprob(self._token_bytes(token), logprob) for token, logprob in drawn.top]
        return TokenLogprob(self._token_bytes(drawn.token), drawn.logprob, top)

    def _release_ended(self) -> None:
        for sequence in [one for one in self._decoding if one.finish_reason is not None]:
            self._release(sequence)

    def _release(self, sequence: Answering) -> None:
        """Frees its row: the last sequence that decodes moves there, and the prompt under way one row down."""
        with self._condition:
            self._admission.end(sequence)
        if sequence is self._filling:
            self._filling = None
            return
        row = self._decoding.index(sequence)
        last = self._decoding.pop()
        if last is not sequence:
            self._decoder.move(len(self._decoding), row, last.computed)
            self._decoding[row] = last
        if self._filling is not None:
            self._decoder.move(len(self._decoding) + 1, len(self._decoding), self._filling.computed)

    def _end_all(self, error: Callable[[], MillraceError]) -> None:
        """What is under way ends with an error; after a failure nothing in the rows is trusted."""
        for sequence in list(self._all()):
            self._send(sequence.job, error())
        under_way, self._decoding, self._filling = self._under_way(), [], None
        with self._condition:
            for sequence in under_way:
                self._admission.end(sequence)
        self._prefixes.clear()

    def _all(self) -> Iterator[Answering]:
        """Those under way; the waiting ones too where the thread is to end."""
        yield from self._under_way()
        if self._stopping:
            with self._condition:
                yield from self._admission.remove(lambda _: True)

    # --- to the callers

    def _send(self, job: Job, event: JobEvent) -> None:
        self._outgoing.append((job, event))

    def _deliver(self) -> None:
        """What one iteration brought, a loop woken once."""
        outgoing, self._outgoing = self._outgoing, []
        for loop in dict.fromkeys(job.loop for job, _ in outgoing):
            events = [(job, event) for job, event in outgoing if job.loop is loop and not job.dropped]
            if not loop.is_closed():
                loop.call_soon_threadsafe(_put, events)


def _put(events: Sequence[tuple[Job, JobEvent]]) -> None:
    for job, event in events:
        job.events.put_nowait(event)
