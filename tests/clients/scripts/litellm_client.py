"""litellm: `openai/...` models behind an address of one's own."""

import asyncio
import json
import math
import os
from importlib.metadata import version

# Its prices and its tokenizer come with the package; nothing is fetched.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

litellm.telemetry = False
litellm.suppress_debug_info = True

ADDRESS = os.environ["MILLRACE_REST"]
KEY = os.environ["MILLRACE_KEY"]
DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])
ENDPOINT = {"api_base": f"http://{ADDRESS.removeprefix('http://')}/v1", "api_key": KEY}


def report(call, result="works"):
    line = {"client": "litellm", "version": version("litellm"), "call": call, "result": result}
    print(json.dumps(line), flush=True)


def embedding():
    answer = litellm.embedding(model=f"openai/{DEPLOYMENT}", input=TEXTS, **ENDPOINT)
    assert len(answer.data) == len(TEXTS)
    assert abs(math.hypot(*answer.data[0]["embedding"]) - 1) < 1e-4
    assert answer.usage.prompt_tokens > 0
    report("embedding")
    packed = litellm.embedding(model=f"openai/{DEPLOYMENT}", input=TEXTS[:1], encoding_format="base64", **ENDPOINT)
    assert isinstance(packed.data[0]["embedding"], str)
    report("embedding, base64")
    short = {"dimensions": 8, "allowed_openai_params": ["dimensions"]}  # litellm knows them of OpenAI's own models only
    pinned = litellm.embedding(model=f"openai/{DEPLOYMENT}@1", input=TEXTS[:1], **short, **ENDPOINT)
    assert len(pinned.data[0]["embedding"]) == 8
    report("embedding of a pinned version, dimensions")
    later = asyncio.run(litellm.aembedding(model=f"openai/{DEPLOYMENT}", input=TEXTS[:1], **ENDPOINT))
    assert len(later.data) == 1
    report("aembedding")


def listing():
    models = litellm.get_valid_models(check_provider_endpoint=True, custom_llm_provider="openai", **ENDPOINT)
    assert f"openai/{DEPLOYMENT}" in models or DEPLOYMENT in models, models
    report("get_valid_models")


def errors():
    for kind, changes in (
        (litellm.NotFoundError, {"model": "openai/nobody"}),
        (litellm.AuthenticationError, {"api_key": "sk-wrong"}),
        (litellm.ContextWindowExceededError, {"input": ["word " * 300]}),
        (litellm.ContextWindowExceededError, {"input": ["word " * 5000]}),
        (litellm.BadRequestError, {"input": [[1, 2]]}),
    ):
        try:
            litellm.embedding(
                **{"model": f"openai/{DEPLOYMENT}", "input": TEXTS[:1], "max_retries": 0, **ENDPOINT} | changes
            )
        except kind:
            report(f"an error of {kind.__name__}", f"refused: {kind.__name__}")
        else:
            raise AssertionError(f"{kind} is not raised")


for check in (embedding, listing, errors):
    check()
