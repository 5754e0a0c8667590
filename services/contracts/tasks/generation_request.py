"""A request of the task generation, and the one check of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from services.contracts.errors import BadField, Malformed
from services.contracts.tasks.errors import ContextLengthExceeded
from services.contracts.tasks.task import RequestLimits

ROLES: Final = ("system", "developer", "user", "assistant", "tool")
MAX_MESSAGES: Final = 1_000
MAX_CHARACTERS: Final = 1_000_000
"""Of one input, where the model's context is not known yet."""
MAX_TOKENS: Final = 1_000_000
MAX_CHOICES: Final = 16
MAX_ANSWERS: Final = 64
"""To all inputs of one request."""
MAX_STOPS: Final = 16
MAX_STOP_CHARACTERS: Final = 200
MAX_BIASES: Final = 1_024
MAX_TOP_LOGPROBS: Final = 20
_SHORTEN: Final = "shorten the prompt, or leave out the oldest messages"


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str
    name: str = ""


Conversation: TypeAlias = tuple[Message, ...]
Prompt: TypeAlias = str | Conversation
"""A text that is continued as it stands, or a conversation that the model's template renders."""


@dataclass(frozen=True, slots=True)
class SamplingOptions:
    """How the next token is drawn; the defaults leave the distribution as the model gives it."""

    temperature: float = 1.0
    """0 takes the likeliest token."""
    top_p: float = 1.0
    top_k: int = 0
    """0: all."""
    min_p: float = 0.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    seed: int | None = None
    """The same seed gives the same answer, whatever else the replica computes; None: one is drawn."""


BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "frequency_penalty": (-2.0, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "repetition_penalty": (0.1, 10.0),
}
"""Smallest and largest value of each number of `SamplingOptions`."""
MAX_TOP_K: Final = 1_000_000
MAX_BIAS: Final = 100.0
MAX_SEED: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """Each input is answered on its own, `choices` times."""

    inputs: Sequence[Prompt]
    max_tokens: int = 0
    """Of one answer; 0: as many as the context and the replica allow."""
    choices: int = 1
    stop: Sequence[str] = ()
    """An answer ends before the first of these texts."""
    sampling: SamplingOptions = SamplingOptions()
    top_logprobs: int | None = None
    """Give each token's log probability, and so many alternatives; None: no log probabilities."""


def check_request(request: GenerationRequest, limits: RequestLimits) -> None:
    """Raises BadField, Malformed or ContextLengthExceeded, which name the field.

    The model's context counts in tokens, which only a replica knows; what is so long that it cannot fit is refused
    by its characters.
    """
    if not 1 <= len(request.inputs) <= limits.texts:
        raise _bad("inputs", f"send 1 to {limits.texts} inputs")
    for number, prompt in enumerate(request.inputs):
        _check_prompt(prompt, f"inputs[{number}]", limits)
    _check_integer("max_tokens", request.max_tokens, 0, MAX_TOKENS)
    _check_integer("choices", request.choices, 1, MAX_CHOICES)
    if request.choices * len(request.inputs) > MAX_ANSWERS:
        raise _bad("choices", f"{MAX_ANSWERS} answers are given to one request, and this asks for more")
    if len(request.stop) > MAX_STOPS:
        raise _bad("stop", f"at most {MAX_STOPS} texts are taken")
    for number, text in enumerate(request.stop):
        if not 1 <= len(text) <= MAX_STOP_CHARACTERS:
            raise _bad(f"stop[{number}]", f"it must have 1 to {MAX_STOP_CHARACTERS} characters")
    if request.top_logprobs is not None:
        _check_integer("top_logprobs", request.top_logprobs, 0, MAX_TOP_LOGPROBS)
    _check_sampling(request.sampling)


def _check_prompt(prompt: Prompt, at: str, limits: RequestLimits) -> None:
    if isinstance(prompt, str):
        _check_text(prompt, at, may_be_empty=False)
        characters = len(prompt)
    else:
        _check_conversation(prompt, at)
        characters = sum(len(message.content) for message in prompt)
    if limits.tokens is not None and characters > limits.characters:
        raise ContextLengthExceeded(limit=limits.tokens, unit="tokens", field=at, hint=_SHORTEN)
    if characters > MAX_CHARACTERS:
        raise ContextLengthExceeded(limit=MAX_CHARACTERS, unit="characters", field=at, hint=_SHORTEN)


def _check_conversation(messages: Conversation, at: str) -> None:
    if not 1 <= len(messages) <= MAX_MESSAGES:
        raise _bad(at, f"a conversation has 1 to {MAX_MESSAGES} messages")
    for number, message in enumerate(messages):
        field_name = f"{at}.messages[{number}]"
        if message.role not in ROLES:
            raise _bad(f"{field_name}.role", f"it is one of {', '.join(ROLES)}")
        _check_text(message.content, f"{field_name}.content", may_be_empty=True)
        _check_text(message.name, f"{field_name}.name", may_be_empty=True)
    if all(message.role in ("system", "developer") for message in messages):
        raise _bad(at, "a conversation holds a message of the user, the assistant or a tool")


def _check_text(text: str, at: str, *, may_be_empty: bool) -> None:
    if not text and not may_be_empty:
        raise _bad(at, "it is empty")
    if "\x00" in text:
        raise Malformed(problem="a text holds a NUL character", field=at)


def _check_sampling(sampling: SamplingOptions) -> None:
    for name, (least, most) in BOUNDS.items():
        value = getattr(sampling, name)
        if not least <= value <= most:  # refuses what is no number too
            raise _bad(name, f"it must be {least:g} to {most:g}")
    if sampling.top_p <= 0:
        raise _bad("top_p", "it must be more than 0")
    _check_integer("top_k", sampling.top_k, 0, MAX_TOP_K)
    if sampling.seed is not None:
        _check_integer("seed", sampling.seed, 0, MAX_SEED)
    if len(sampling.logit_bias) > MAX_BIASES:
        raise _bad("logit_bias", f"at most {MAX_BIASES} tokens are taken")
    for token, bias in sampling.logit_bias.items():
        if not (0 <= token < MAX_TOP_K and -MAX_BIAS <= bias <= MAX_BIAS):
            raise _bad("logit_bias", f"it maps token ids to numbers from -{MAX_BIAS:g} to {MAX_BIAS:g}")


def _check_integer(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _bad(name, f"it must be {least} to {most}")


def _bad(name: str, problem: str) -> BadField:
    return BadField(name=name, problem=problem, field=name)
