"""langchain-openai: a chat model, invoked and streamed."""

import json
import os
from importlib.metadata import version

from langchain_openai import ChatOpenAI

chat = ChatOpenAI(
    model=os.environ["MILLRACE_DEPLOYMENT"],
    api_key=os.environ["MILLRACE_KEY"],
    base_url=f"http://{os.environ['MILLRACE_REST']}/v1",
    max_tokens=10,
    seed=4,
)
PROMPT = [("system", "Be short."), ("human", "Reads the file")]


def report(call):
    shown = {"client": "langchain-openai", "version": version("langchain-openai"), "call": call, "result": "works"}
    print(json.dumps(shown), flush=True)


answer = chat.invoke(PROMPT)
assert answer.usage_metadata["output_tokens"] <= 10, answer.usage_metadata
report("ChatOpenAI.invoke")
assert "".join(part.content for part in chat.stream(PROMPT)) == answer.content
report("ChatOpenAI.stream")
