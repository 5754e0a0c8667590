"""openai-python, synchronous: chat and text completions, streamed and not, and what is refused."""

import json
import os

import httpx
import openai

DEPLOYMENT = os.environ["MILLRACE_DEPLOYMENT"]
MESSAGES = [{"role": "user", "content": "Reads the file"}]
client = openai.OpenAI(
    api_key=os.environ["MILLRACE_KEY"],
    base_url=f"http://{os.environ['MILLRACE_REST']}/v1",
    http_client=httpx.Client(trust_env=False),
)


def report(call, result="works"):
    print(json.dumps({"client": "openai", "version": openai.__version__, "call": call, "result": result}), flush=True)


def chat():
    answer = client.chat.completions.create(
        model=DEPLOYMENT, messages=MESSAGES, seed=4, max_completion_tokens=12, temperature=0.8, top_p=0.9
    )
    assert answer.model == f"{DEPLOYMENT}@1", answer.model
    assert answer.usage.completion_tokens <= 12
    assert answer.usage.prompt_tokens_details.cached_tokens >= 0
    report("chat.completions.create")
    text, reason, usage = "", None, None
    for chunk in client.chat.completions.create(
        model=DEPLOYMENT, messages=MESSAGES, seed=4, max_completion_tokens=12, temperature=0.8, top_p=0.9,
        stream=True, stream_options={"include_usage": True},
    ):  # fmt: skip
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reason = choice.finish_reason or reason
        usage = chunk.usage or usage
    assert (text, reason) == (answer.choices[0].message.content, answer.choices[0].finish_reason)
    assert usage.completion_tokens == answer.usage.completion_tokens
    report("chat.completions.create, streamed with usage")


def options():
    several = client.chat.completions.create(
        model=f"{DEPLOYMENT}@1", messages=MESSAGES, seed=4, max_tokens=5, n=3, logprobs=True, top_logprobs=2,
        extra_body={"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1},
    )  # fmt: skip
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    for choice in several.choices:
        assert all(len(one.top_logprobs) == 2 and one.logprob < 0 for one in choice.logprobs.content)
    report("chat.completions.create, n, logprobs, top_k, min_p")
    again = client.chat.completions.create(
        model=DEPLOYMENT, messages=MESSAGES, seed=4, max_tokens=5, n=3,
        extra_body={"top_k": 40, "min_p": 0.01, "repetition_penalty": 1.1},
    )  # fmt: skip
    assert [one.message.content for one in again.choices] == [one.message.content for one in several.choices]
    report("chat.completions.create, the same seed")
    complete = client.chat.completions.create(model=DEPLOYMENT, messages=MESSAGES, seed=9, max_tokens=20)
    stop = complete.choices[0].message.content[4:6]
    stopped = client.chat.completions.create(model=DEPLOYMENT, messages=MESSAGES, seed=9, max_tokens=20, stop=stop)
    assert stopped.choices[0].finish_reason == "stop"
    assert stop not in stopped.choices[0].message.content
    report("chat.completions.create, stop")


def completions():
    answer = client.completions.create(model=DEPLOYMENT, prompt=["Reads", "the file"], seed=1, logprobs=1)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len(choice.logprobs.tokens) <= 16 for choice in answer.choices)
    parts = ["", ""]
    for chunk in client.completions.create(model=DEPLOYMENT, prompt=["Reads", "the file"], seed=1, stream=True):
        for choice in chunk.choices:
            parts[choice.index] += choice.text
    assert parts == [choice.text for choice in answer.choices]
    report("completions.create, streamed and not")


def refusals():
    for call, code, param in (
        (lambda: client.chat.completions.create(model="nobody", messages=MESSAGES), "model_not_found", "model"),
        (
            lambda: client.chat.completions.create(model=DEPLOYMENT, messages=MESSAGES, max_tokens=9_000),
            "context_length_exceeded",
            "messages",
        ),
        (
            lambda: client.chat.completions.create(
                model=DEPLOYMENT, messages=MESSAGES, response_format={"type": "json_object"}
            ),
            "unsupported_parameter",
            "response_format",
        ),
        (lambda: client.embeddings.create(model=DEPLOYMENT, input="a"), "task_not_served", None),
    ):
        error = None
        try:
            call()
        except openai.APIStatusError as caught:
            error = caught
        assert error is not None, f"{code} was expected"
        assert (error.code, error.status_code < 500) == (code, True), (error.code, error.status_code)
        assert param is None or error.param == param, error.param
    report("what cannot be done", "refused: by code and parameter")


def hang_up():
    stream = client.chat.completions.create(
        model=DEPLOYMENT, messages=MESSAGES, max_tokens=400, logit_bias={2: -100}, stream=True
    )
    next(iter(stream))
    stream.close()
    report("a stream that is closed early")


chat()
options()
completions()
refusals()
hang_up()
