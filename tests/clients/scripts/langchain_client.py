"""langchain-openai: OpenAIEmbeddings, with texts instead of token ids."""

import asyncio
import json
import math
import os
from importlib.metadata import version

import httpx
import openai
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import OpenAIEmbeddings

ADDRESS = os.environ["MILLRACE_REST"]
KEY = os.environ["MILLRACE_KEY"]
DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])


def embeddings(**changes):
    options = {
        "model": DEPLOYMENT,
        "api_key": KEY,
        "base_url": f"http://{ADDRESS.removeprefix('http://')}/v1",
        "check_embedding_ctx_length": False,
        "http_client": httpx.Client(trust_env=False),
        "http_async_client": httpx.AsyncClient(trust_env=False),
    }
    return OpenAIEmbeddings(**options | changes)


def report(call, result="works"):
    line = {"client": "langchain-openai", "version": version("langchain-openai"), "call": call, "result": result}
    print(json.dumps(line), flush=True)


def documents():
    vectors = embeddings().embed_documents(TEXTS * 10)
    assert len(vectors) == 120
    assert all(abs(math.hypot(*vector) - 1) < 1e-4 for vector in vectors)
    report("embed_documents, 120 texts")
    assert len(embeddings(dimensions=8).embed_query(TEXTS[0])) == 8
    report("embed_query, dimensions")


def later():
    async def both():
        client = embeddings()
        return await asyncio.gather(client.aembed_query(TEXTS[0]), client.aembed_documents(TEXTS[:2]))

    one, two = asyncio.run(both())
    assert sum(a * b for a, b in zip(one, two[0], strict=True)) > 0.98
    report("aembed_query and aembed_documents")


def store():
    vectors = InMemoryVectorStore(embeddings())
    vectors.add_texts(TEXTS)
    assert vectors.similarity_search(TEXTS[3], k=1)[0].page_content == TEXTS[3]
    report("a vector store finds a text by itself")


def errors():
    for kind, code, changes, text in (
        (openai.NotFoundError, "model_not_found", {"model": "nobody"}, "a"),
        (openai.AuthenticationError, "invalid_api_key", {"api_key": "sk-wrong"}, "a"),
        (openai.BadRequestError, "context_length_exceeded", {}, "word " * 300),
    ):
        error = None
        try:
            embeddings(**changes).embed_query(text)
        except kind as caught:
            error = caught
        assert error is not None, f"{code} is not refused"
        assert error.code == code, error
        report(f"an error of {kind.__name__}", f"refused: {kind.__name__}, {code}")


for check in (documents, later, store, errors):
    check()
