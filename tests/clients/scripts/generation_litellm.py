"""LiteLLM: completion, streamed and not, and a context that is too long as its own class."""

import json
import os
from importlib.metadata import version

import litellm

OPTIONS = {
    "model": f"openai/{os.environ['MILLRACE_DEPLOYMENT']}",
    "api_key": os.environ["MILLRACE_KEY"],
    "api_base": f"http://{os.environ['MILLRACE_REST']}/v1",
    "messages": [{"role": "user", "content": "Reads the file"}],
    "seed": 4,
}


def report(call, result="works"):
    print(json.dumps({"client": "litellm", "version": version("litellm"), "call": call, "result": result}), flush=True)


answer = litellm.completion(**OPTIONS, max_tokens=10)
text = answer.choices[0].message.content
assert answer.usage.completion_tokens <= 10
report("completion")
parts = [chunk.choices[0].delta.content or "" for chunk in litellm.completion(**OPTIONS, max_tokens=10, stream=True)]
assert "".join(parts) == text
report("completion, streamed")
try:
    litellm.completion(**OPTIONS, max_tokens=9_000)
except litellm.ContextWindowExceededError:
    report("a context that is too long", "refused: ContextWindowExceededError")
else:
    raise AssertionError("it is not refused")
