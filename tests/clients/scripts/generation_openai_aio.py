"""openai-python, asynchronous: a dozen conversations at once, streamed."""

import asyncio
import json
import os

import httpx
import openai

DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]


async def answer_to(client, number, *, stream):
    options = {
        "model": DEPLOYMENT,
        "messages": [{"role": "user", "content": f"Reads file {number}"}],
        "seed": number,
        "max_tokens": 8 + number,
    }
    if not stream:
        return (await client.chat.completions.create(**options)).choices[0].message.content
    chunks = await client.chat.completions.create(**options, stream=True)
    return "".join([chunk.choices[0].delta.content or "" async for chunk in chunks])


async def main():
    async with openai.AsyncOpenAI(
        api_key=os.environ["MILLRACE_KEY"],
        base_url=f"http://{os.environ['MILLRACE_REST']}/v1",
        http_client=httpx.AsyncClient(trust_env=False),
    ) as client:
        alone = [await answer_to(client, number, stream=False) for number in range(12)]
        together = await asyncio.gather(*(answer_to(client, number, stream=True) for number in range(12)))
        assert together == alone
    call = "chat.completions.create, 12 streams at once"
    print(json.dumps({"client": "openai (async)", "version": openai.__version__, "call": call, "result": "works"}))


asyncio.run(main())
