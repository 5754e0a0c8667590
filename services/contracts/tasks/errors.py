"""What a task refuses of a request, at whichever service reads it.

MillraceError
├── Invalid
│   └── UnknownTask
├── TooLarge
│   ├── TextTooLong
│   ├── ContextLengthExceeded
│   └── PromptTooLong
└── Unsupported
    └── TaskNotServed
"""

from services.contracts.errors import Invalid, TooLarge, Unsupported


class UnknownTask(Invalid):
    """There is no task '{task}'."""

    field = "task"
    hint = "it is one of: {known}"


class TextTooLong(TooLarge):
    """The text has {characters} characters, and this model takes at most {limit}."""

    field = "texts"
    hint = "the model reads only the first {tokens} tokens; send the part that decides"


class ContextLengthExceeded(TooLarge):
    """This model's maximum context length is {limit} {unit}; the text is longer."""

    field = "texts"
    hint = "split the text, or ask without 'whole_texts' to have its beginning read"


class PromptTooLong(TooLarge):
    """This model's maximum context length is {limit} tokens, not {prompt} of the prompt and {answer} of the answer."""

    field = "inputs"
    hint = "shorten the prompt, or set a smaller 'max_tokens'"


class TaskNotServed(Unsupported):
    """The model of '{deployment}' does not do the task '{task}'."""

    field = "task"
    hint = "it does: {served}"
