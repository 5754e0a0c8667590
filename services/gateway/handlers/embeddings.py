"""Embeddings of more texts than one request of the task holds."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

from services.contracts.errors import MillraceError
from services.contracts.tasks.embedding import EmbeddingRequest
from services.contracts.tasks.records import Source
from services.contracts.tasks.task import RequestLimits
from services.contracts.tasks.texts import MAX_TEXTS
from services.gateway.domain.requests import Answer, Embedded, Predict, moved
from services.gateway.handlers.predictions import answer
from services.gateway.ports import Ports


async def embed_all(command: Predict, ports: Ports) -> Embedded:
    """The embeddings of any number of texts, all by one version: those of two could not be compared.

    They are asked for in chunks of `MAX_TEXTS`, `chunks_at_once` of them at a time. Raises what `predict` raises;
    a text is named by its place among all.
    """
    texts = len(command.request.texts)
    command.task.check(command.request, RequestLimits(texts=texts, characters=ports.policy.text_limit_chars))
    chunks = _chunks(command)
    finished: list[Answer] = []
    answers = await _embed_chunks(dict(enumerate(chunks)), finished, ports)
    latest = finished[-1].version
    others = {index: answer for index, answer in answers.items() if answer.version != latest}
    if others:  # the version they went to first has gone meanwhile, or its weight has
        again = {index: replace(chunks[index], version=latest) for index in others}
        answers |= await _embed_chunks(again, finished, ports)
    results = [answers[index].result() for index in range(len(chunks))]
    return Embedded(
        deployment=command.deployment,
        version=latest,
        embeddings=tuple(vector for result in results for vector in result.embeddings),
        tokens=sum(answer.tokens for answer in answers.values()),
    )


def _chunks(command: Predict) -> list[Predict]:
    """All under one sticky key, so that one version gets them.

    The first stands for the request, under its id: it is one observation of the traffic, however many chunks it takes.
    """
    request: EmbeddingRequest = command.request
    key = command.sticky_key or command.request_id
    starts = range(0, max(1, len(request.texts)), MAX_TEXTS)
    return [
        replace(
            command,
            request=replace(request, texts=request.texts[start : start + MAX_TEXTS]),
            request_id=f"{command.request_id}.{index}" if index else command.request_id,
            sticky_key=key,
            source=Source.BATCH if index else command.source,
        )
        for index, start in enumerate(starts)
    ]


async def _embed_chunks(chunks: Mapping[int, Predict], finished: list[Answer], ports: Ports) -> dict[int, Answer]:
    """The answers by place; adds them to `finished` as they come. The first refusal ends the others."""
    semaphore = asyncio.Semaphore(ports.policy.chunks_at_once)

    async def embed_chunk(index: int, chunk: Predict) -> Answer:
        async with semaphore:
            try:
                answered = await answer(chunk, ports)
            except MillraceError as error:
                raise moved(error, by=index * MAX_TEXTS) from error
        finished.append(answered)
        return answered

    tasks = [asyncio.create_task(embed_chunk(index, chunk)) for index, chunk in chunks.items()]
    try:
        return dict(zip(chunks, await asyncio.gather(*tasks), strict=True))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
