"""The loaded versions of models that generate."""

import asyncio
import gc
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from services.contracts.artifact import SPEC_FILE, DecoderSpec, Device, Precision, graph_file
from services.contracts.errors import MillraceError
from services.contracts.tasks import GENERATION
from services.contracts.tasks.errors import PromptTooLong
from services.contracts.tasks.generation import GenerationRequest, Prompt
from services.inference.domain.admission import Budget
from services.inference.domain.sampling import Sampler
from services.inference.domain.scoring import Chunk, Done, EngineEvent, EngineRequest, Loaded, StepFacts
from services.inference.domain.versions import VersionKey
from services.inference.errors import ArtifactRefused, VersionNotServed
from services.inference.outbound.generation.batcher import MEASURED_PIECES, Batcher, Pieces
from services.inference.outbound.generation.decoder import Decoder
from services.inference.outbound.generation.sequences import Answering, Job, result_of
from services.inference.outbound.generation.session import open_decoder_session
from services.inference.outbound.generation.text import TextCodec
from services.kit.core.clock import Clock

WARM_TOKENS: Final = 16
WARM_SECONDS: Final = 60.0
_MIB: Final = 1024**2


@dataclass(frozen=True, slots=True)
class GenerationLimits:
    """What one loaded model may take."""

    rows: int = 16
    """Sequences that decode at once."""
    cache_tokens: int = 16_384
    """Of all sequences under way, prompts and longest answers."""
    waiting: int = 256
    answer_tokens: int = 1_024
    """Of an answer whose request sets no limit."""
    prefix_cache_mib: int = 256
    threads: int = 1


@dataclass(frozen=True, slots=True)
class _Model:
    """One loaded version."""

    spec: DecoderSpec
    codec: TextCodec
    batcher: Batcher
    context_length: int
    """Tokens of prompt and answer: the model's, or the cache's where that is smaller."""


class GenerationEngines:
    """`Engines` of models that generate: each loaded version decodes on a thread of its own.

    `new_seed` draws the seed of a request that names none; `observe` is called on those threads after each step.
    """

    def __init__(
        self,
        limits: GenerationLimits,
        *,
        clock: Clock,
        new_seed: Callable[[], int],
        observe: Callable[[StepFacts], None],
        pieces: Pieces = MEASURED_PIECES,
    ) -> None:
        self._limits = limits
        self._pieces = pieces
        self._clock = clock
        self._new_seed = new_seed
        self._observe = observe
        self._models: dict[VersionKey, _Model] = {}

    @property
    def queued(self) -> int:
        return sum(model.batcher.held for model in self._models.values())

    @property
    def capacity(self) -> int:
        return self._limits.waiting + self._limits.rows

    async def load(self, key: VersionKey, folder: Path, precision: Precision) -> None:
        """Raises ArtifactRefused when it cannot be opened. It answers from now on."""
        self._models[key] = await asyncio.to_thread(self._open, key, folder, precision)
        self._models[key].batcher.start()

    async def warm(self, key: VersionKey) -> None:
        """Answers a few tokens by itself, so that the first request finds the graph's memory allocated."""
        request = GenerationRequest(inputs=[" ".join(["warm"] * WARM_TOKENS)], max_tokens=2)
        deadline = self._clock.monotonic() + WARM_SECONDS
        async for _ in self.submit(EngineRequest(key, GENERATION, request, deadline)):
            pass

    async def unload(self, key: VersionKey) -> None:
        """Frees it; what still waits is answered with VersionNotServed."""
        model = self._models.pop(key, None)
        if model is not None:
            await asyncio.to_thread(model.batcher.stop)
            del model
            await asyncio.to_thread(gc.collect)

    async def stop(self) -> None:
        for key in list(self._models):
            await self.unload(key)

    def has(self, key: VersionKey) -> bool:
        return key in self._models

    def loaded(self, key: VersionKey) -> Loaded:
        return Loaded([], self._models[key].context_length, Device.CPU, frozenset({GENERATION.name}))

    async def submit(self, request: EngineRequest) -> AsyncGenerator[EngineEvent, None]:
        """Parts of the answers as they come, then all of them. Raises QueueFull and PromptTooLong before the first
        part, DeadlinePassed, EngineFailed and VersionNotServed at any time."""
        model = self._models.get(request.key)
        if model is None:
            raise VersionNotServed(version=request.key.version, deployment=request.key.deployment)
        job = Job(
            request.request,
            request.deadline,
            self._clock.monotonic(),
            asyncio.get_running_loop(),
            request.key.tenant,
        )
        sequences = await asyncio.to_thread(self._sequences, model, job)
        model.batcher.submit(sequences)
        left = len(sequences)
        try:
            while left:
                event = await job.events.get()
                if isinstance(event, MillraceError):
                    raise event
                left -= event.finish_reason is not None
                yield Chunk(event)
        finally:
            model.batcher.drop(job)
        result = result_of(job, sequences)
        yield Done(result, tokens=result.prompt_tokens + result.completion_tokens)

    def _open(self, key: VersionKey, folder: Path, precision: Precision) -> _Model:
        spec = DecoderSpec.model_validate_json((folder / SPEC_FILE).read_bytes())
        if Device.CPU not in spec.meant_for(precision):
            raise ArtifactRefused("wrong_device", f"its {precision} variant is not meant for {Device.CPU}")
        limits, codec = self._limits, TextCodec.open(folder, spec, self._clock.now)
        length = min(spec.context_length, limits.cache_tokens)
        session = open_decoder_session(folder / graph_file(precision), limits.threads)
        decoder = Decoder(session, rows=limits.rows, length=length, head_size=spec.head_size)
        batcher = Batcher(
            decoder,
            Budget(rows=limits.rows, tokens=limits.cache_tokens, waiting=limits.waiting),
            prefix_tokens=limits.prefix_cache_mib * _MIB // decoder.bytes_per_token,
            token_bytes=codec.token_bytes,
            monotonic=self._clock.monotonic,
            observe=self._observe,
            stopped=partial(VersionNotServed, version=key.version, deployment=key.deployment),
            pieces=self._pieces,
        )
        return _Model(spec, codec, batcher, length)

    def _sequences(self, model: _Model, job: Job) -> list[Answering]:
        """One for each answer. Raises BadField and PromptTooLong."""
        request = job.request
        sequences: list[Answering] = []
        seed = request.sampling.seed if request.sampling.seed is not None else self._new_seed()
        for number, prompt in enumerate(request.inputs):
            ids, limit = self._measured(model, prompt, f"inputs[{number}]", request.max_tokens)
            for _ in range(request.choices):
                index = len(sequences)
                sampler = Sampler(request.sampling, (seed, index), ids, request.top_logprobs)
                text = model.codec.answer(request.stop)
                end_tokens = frozenset(model.spec.end_token_ids)
                sequences.append(Answering(job, index, ids, limit, sampler, text, end_tokens))
        return sequences

    def _measured(self, model: _Model, prompt: Prompt, field: str, max_tokens: int) -> tuple[list[int], int]:
        """The prompt's tokens, and how many the answer may have."""
        ids, context = model.codec.encode(prompt, field), model.context_length
        left = context - len(ids)
        if left < 1 or max_tokens > left:
            raise PromptTooLong(limit=context, prompt=len(ids), answer=max(1, max_tokens), field=field)
        return ids, max_tokens or min(left, self._limits.answer_tokens)
