"""openai-python, asynchronous: the same endpoints, many calls at once."""

import asyncio
import json
import math
import os

import httpx
import openai

ADDRESS = os.environ["MILLRACE_REST"]
KEY = os.environ["MILLRACE_KEY"]
DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])


def report(call, result="works"):
    line = {"client": "openai (async)", "version": openai.__version__, "call": call, "result": result}
    print(json.dumps(line), flush=True)


async def models(client):
    listed = [model.id async for model in client.models.list()]
    assert DEPLOYMENT in listed, listed
    assert (await client.models.retrieve(DEPLOYMENT)).id == DEPLOYMENT
    report("models.list and models.retrieve")


async def at_once(client):
    answers = await asyncio.gather(
        *(client.embeddings.create(model=DEPLOYMENT, input=text, encoding_format="float") for text in TEXTS)
    )
    together = await client.embeddings.create(model=DEPLOYMENT, input=TEXTS)
    for answer, part in zip(answers, together.data, strict=True):
        one, other = answer.data[0].embedding, part.embedding
        assert abs(math.hypot(*one) - 1) < 1e-4
        assert sum(a * b for a, b in zip(one, other, strict=True)) > 0.98
    report("embeddings.create, twelve at once")


async def errors(client):
    for kind, code, call in (
        (openai.NotFoundError, "model_not_found", client.embeddings.create(model="nobody", input="a")),
        (openai.AuthenticationError, "invalid_api_key", client.with_options(api_key="sk-wrong").models.retrieve("a")),
        (
            openai.BadRequestError,
            "context_length_exceeded",
            client.embeddings.create(model=DEPLOYMENT, input="w " * 999),
        ),
        (openai.NotFoundError, "unknown_url", client.responses.create(model=DEPLOYMENT, input="a")),
    ):
        error = None
        try:
            await call
        except kind as caught:
            error = caught
        assert error is not None, f"{code} is not refused"
        assert error.code == code, error
        report(f"an error of {kind.__name__}", f"refused: {kind.__name__}, {code}")


async def main():
    transport = httpx.AsyncClient(trust_env=False)
    url = f"http://{ADDRESS.removeprefix('http://')}/v1"
    async with openai.AsyncOpenAI(api_key=KEY, base_url=url, http_client=transport) as client:
        for check in (models, at_once, errors):
            await check(client)


asyncio.run(main())
