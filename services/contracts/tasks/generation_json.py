"""A request of the task generation from JSON. Each option has one name, which OpenAI's API has too where it has one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from services.contracts.errors import BadField
from services.contracts.tasks.generation_request import (
    BOUNDS,
    Conversation,
    GenerationRequest,
    Message,
    Prompt,
    SamplingOptions,
)

FIELDS: Final = frozenset(
    {"prompt", "messages", "max_tokens", "n", "stop", "top_k", "logit_bias", "seed", "top_logprobs", *BOUNDS}
)


def read(sent: Mapping[str, Any]) -> GenerationRequest:
    """`prompt`, a text or a list of texts, or `messages`. Raises BadField."""
    if (sent.get("prompt") is None) == (sent.get("messages") is None):
        raise _bad("messages", "send either 'messages', a conversation, or 'prompt', a text to be continued")
    if sent.get("messages") is not None:
        return replace(read_options(sent), inputs=[read_messages(sent["messages"])])
    return replace(read_options(sent), inputs=_prompts(sent["prompt"]))


def read_rows(texts: Sequence[str], options: Mapping[str, Any]) -> GenerationRequest:
    """Each text as what a user says after `messages`, which are common to all. One answer to each. Raises BadField."""
    if options.get("prompt") is not None:
        raise _bad("prompt", "the rows are the prompts")
    if options.get("n") not in (None, 1):
        raise _bad("n", "a batch gives one answer to each row")
    before = read_messages(options["messages"]) if options.get("messages") is not None else ()
    return replace(read_options(options), inputs=[(*before, Message("user", text)) for text in texts])


def read_options(sent: Mapping[str, Any]) -> GenerationRequest:
    """All but the inputs. Raises BadField."""
    numbers = {name: value for name in BOUNDS if (value := _number(sent, name)) is not None}
    sampling = SamplingOptions(
        **numbers,
        top_k=_integer(sent, "top_k") or 0,
        logit_bias=_biases(sent.get("logit_bias")),
        seed=_integer(sent, "seed"),
    )
    choices = _integer(sent, "n")
    return GenerationRequest(
        inputs=(),
        max_tokens=_integer(sent, "max_tokens") or 0,
        choices=1 if choices is None else choices,
        stop=_stops(sent.get("stop")),
        sampling=sampling,
        top_logprobs=_integer(sent, "top_logprobs"),
    )


def read_messages(sent: Any) -> Conversation:
    """Raises BadField."""
    if not isinstance(sent, list):
        raise _bad("messages", "it must be a list of messages")
    return tuple(_message(one, f"messages[{number}]") for number, one in enumerate(sent))


def _message(sent: Any, at: str) -> Message:
    if not isinstance(sent, dict) or not isinstance(sent.get("role"), str):
        raise _bad(f"{at}.role", "a message is an object with 'role' and 'content'")
    if (unknown := sent.keys() - {"role", "content", "name"}) and any(sent[name] for name in unknown):
        raise _bad(f"{at}.{min(unknown)}", "a message has role, content and name")
    name = sent.get("name")
    if name is not None and not isinstance(name, str):
        raise _bad(f"{at}.name", "it must be a string")
    return Message(sent["role"], _content(sent.get("content"), f"{at}.content"), name or "")


def _content(sent: Any, at: str) -> str:
    """A string, or OpenAI's list of parts of type text."""
    if isinstance(sent, str):
        return sent
    if not isinstance(sent, list):
        raise _bad(at, "it must be a string, or a list of parts of type 'text'")
    for number, part in enumerate(sent):
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise _bad(f"{at}[{number}]", "only parts of type 'text' are taken")
    return "".join(part["text"] for part in sent)


def _prompts(sent: Any) -> list[Prompt]:
    prompts = [sent] if isinstance(sent, str) else sent
    if not isinstance(prompts, list) or not all(isinstance(prompt, str) for prompt in prompts):
        raise _bad("prompt", "it must be a string or a list of strings")
    return list(prompts)


def _number(sent: Mapping[str, Any], name: str) -> float | None:
    value = sent.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _bad(name, "it must be a number")
    return float(value)


def _integer(sent: Mapping[str, Any], name: str) -> int | None:
    value = sent.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(name, "it must be a whole number")
    if value < 0:
        raise _bad(name, "it must not be negative")
    return value


def _stops(sent: Any) -> list[str]:
    stops = [sent] if isinstance(sent, str) else sent or []
    if not isinstance(stops, list) or not all(isinstance(stop, str) for stop in stops):
        raise _bad("stop", "it must be a string or a list of strings")
    return list(stops)


def _biases(sent: Any) -> dict[int, float]:
    if sent is None:
        return {}
    problem = "it maps token ids to numbers"
    if not isinstance(sent, dict):
        raise _bad("logit_bias", problem)
    for token, bias in sent.items():
        if not str(token).isdecimal() or isinstance(bias, bool) or not isinstance(bias, int | float):
            raise _bad("logit_bias", problem)
    return {int(token): float(bias) for token, bias in sent.items()}


def _bad(name: str, problem: str) -> BadField:
    return BadField(name=name, problem=problem, field=name)
