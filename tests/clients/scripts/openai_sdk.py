"""openai-python, synchronous: models, embeddings in both encodings, batches, and each error as its own class."""

import json
import math
import os

import httpx
import openai

ADDRESS = os.environ["MILLRACE_REST"]
KEY = os.environ["MILLRACE_KEY"]
DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
TEXTS = json.loads(os.environ["MILLRACE_TEXTS"])

paths = []
counted = httpx.Client(event_hooks={"request": [lambda request: paths.append(request.url.path)]}, trust_env=False)
client = openai.OpenAI(
    api_key=KEY,
    base_url=f"http://{ADDRESS.removeprefix('http://')}/v1",
    organization="org-nobody-knows",
    project="proj-nobody-knows",
    http_client=counted,
)


def report(call, result="works"):
    print(json.dumps({"client": "openai", "version": openai.__version__, "call": call, "result": result}), flush=True)


def cosine(one, other):
    lengths = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / lengths


def refused(kind, call):
    """The error of a call that is refused for good: it is asked once, though the client would try twice more."""
    before = len(paths)
    error = None
    try:
        call()
    except kind as caught:
        error = caught
    assert error is not None, f"it is not refused with {kind}"
    assert len(paths) == before + 1, paths[before:]
    assert error.request_id.startswith("req-"), error.request_id
    return error


def models():
    listed = [model.id for model in client.models.list()]
    assert DEPLOYMENT in listed, listed
    assert f"{DEPLOYMENT}@1" in listed, listed
    report("models.list")
    one = client.models.retrieve(f"{DEPLOYMENT}@1")
    assert (one.object, one.owned_by) == ("model", "millrace")
    assert one.created > 1_700_000_000
    report("models.retrieve")


def encodings():
    packed = client.embeddings.create(model=DEPLOYMENT, input=TEXTS[0])  # the client asks for base64, and unpacks it
    plain = client.embeddings.create(model=DEPLOYMENT, input=TEXTS[0], encoding_format="float")
    raw = client.embeddings.create(model=DEPLOYMENT, input=TEXTS[0], encoding_format="base64")
    assert isinstance(raw.data[0].embedding, str)
    one, other = packed.data[0].embedding, plain.data[0].embedding
    assert max(abs(a - b) for a, b in zip(one, other, strict=True)) < 1e-6
    assert abs(math.hypot(*one) - 1) < 1e-4
    assert packed.model.startswith(f"{DEPLOYMENT}@"), packed.model
    assert packed.usage.prompt_tokens == packed.usage.total_tokens > 0
    report("embeddings.create, base64 and float")


def batches():
    many = (TEXTS * 20)[:200]
    answer = client.embeddings.create(model=DEPLOYMENT, input=many, user="somebody")
    assert [part.index for part in answer.data] == list(range(200))
    for position in (0, 70, 199):
        alone = client.embeddings.create(model=DEPLOYMENT, input=[many[position]]).data[0].embedding
        assert cosine(alone, answer.data[position].embedding) > 0.98
    report("embeddings.create, 200 texts")
    most = client.embeddings.create(model=f"{DEPLOYMENT}@1", input=(TEXTS * 171)[:2048])
    assert len(most.data) == 2048
    report("embeddings.create, 2,048 texts of a pinned version")


def dimensions():
    full = client.embeddings.create(model=DEPLOYMENT, input=TEXTS[0]).data[0].embedding
    short = client.embeddings.create(model=DEPLOYMENT, input=TEXTS[0], dimensions=8).data[0].embedding
    assert len(short) == 8
    assert abs(math.hypot(*short) - 1) < 1e-4
    assert cosine(short, full[:8]) > 0.9999
    report("embeddings.create, dimensions")


def raw_response():
    answer = client.embeddings.with_raw_response.create(model=DEPLOYMENT, input=TEXTS[0])
    assert answer.request_id.startswith("req-")
    assert answer.parse().data
    report("with_raw_response, x-request-id")


def unknown_model():
    for call in (
        lambda: client.embeddings.create(model="text-embedding-3-small", input="a"),
        lambda: client.embeddings.create(model=f"{DEPLOYMENT}@99", input="a"),
        lambda: client.models.retrieve("nobody"),
    ):
        assert refused(openai.NotFoundError, call).code == "model_not_found"
    report("an unknown model", "refused: NotFoundError, model_not_found, asked once")


def wrong_key():
    stranger = client.with_options(api_key="sk-wrong")
    assert refused(openai.AuthenticationError, stranger.models.list).code == "invalid_api_key"
    report("a wrong key", "refused: AuthenticationError, invalid_api_key, asked once")


def bad_requests():
    create = client.embeddings.create
    error = refused(openai.BadRequestError, lambda: create(model=DEPLOYMENT, input=["a word " * 300]))
    assert error.code == "context_length_exceeded"
    assert "This model's maximum context length is 32 tokens" in error.message, error.message
    report("a text that is too long", "refused: BadRequestError, context_length_exceeded, asked once")
    error = refused(openai.BadRequestError, lambda: create(model=DEPLOYMENT, input=[[1, 2, 3]]))
    assert "check_embedding_ctx_length=False" in error.message
    report("token ids", "refused: BadRequestError, which names check_embedding_ctx_length=False")
    error = refused(openai.BadRequestError, lambda: create(model=DEPLOYMENT, input=["a", ""]))
    assert error.param == "input[1]"
    report("an empty text", "refused: BadRequestError, param input[1]")
    error = refused(openai.BadRequestError, lambda: create(model=DEPLOYMENT, input="a", dimensions=4096))
    assert error.param == "dimensions"
    report("too many dimensions", "refused: BadRequestError, param dimensions")
    assert refused(openai.BadRequestError, lambda: create(model=DEPLOYMENT, input=["a"] * 2049)).param == "input"
    report("2,049 texts", "refused: BadRequestError, param input")


def not_built():
    messages = [{"role": "user", "content": "hello"}]
    error = refused(openai.BadRequestError, lambda: client.chat.completions.create(model=DEPLOYMENT, messages=messages))
    assert error.code == "task_not_served"
    report(
        "chat.completions.create of a model that does not generate",
        "refused: BadRequestError, task_not_served, asked once",
    )


for check in (
    models,
    encodings,
    batches,
    dimensions,
    raw_response,
    unknown_model,
    wrong_key,
    bad_requests,
    not_built,
):
    check()
