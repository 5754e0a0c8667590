"""What the gateway refuses.

MillraceError
├── Invalid      NoCondition, TokensNotText, TooManyDimensions, EmptyUpload, WrongContent, NotText,
│                UnknownTopic, NothingSelected, TooManyDeadLetters
├── Forbidden    ForeignHost, ForeignOrigin, OtherTenant
├── NotFound     UnknownRoute, UnknownDeployment, VersionNotServed, NothingServed, ModelNotFound, UnknownBatch,
│                UnknownDeadLetter
├── Conflict     NothingToLoad, LoadFailed, BatchHasEnded, BatchHasNoOutput, RedeliveredAlready
├── Stale        UnknownETag
├── Unsupported  MethodNotAllowed, UnsupportedMedia, ExtensionNotOffered
├── TooLarge     BodyTooLarge, AnswerTooLarge
├── Overloaded   ReplicaFull, ReplicasBusy, SlowReader, TooManyBatches,
│                RateLimitExceeded, ConcurrencyLimitExceeded, TokenLimitExceeded
├── Unavailable  OutboxFull, DeploymentNotReady, RoutesNotRead, ReplicaLost, ReplicaSilent, ServiceSilent,
│                ResultsDown, DeadLettersNotRead
├── TimedOut     DeadlinePassed, SlowBody, StalledUpload, RequestExpired
└── ServiceBroken, ResultsDamaged
"""

from services.contracts.errors import (
    Conflict,
    Forbidden,
    Invalid,
    MillraceError,
    NotFound,
    Overloaded,
    Stale,
    TimedOut,
    TooLarge,
    Unavailable,
    Unsupported,
)


class NoCondition(Invalid):
    """A change on this path takes no condition."""

    field = "if-match"
    hint = "rollouts and stops of a deployment take its ETag; leave the header out elsewhere"


class TokensNotText(Invalid):
    """Send texts, not token ids: each model has a tokenizer of its own."""

    field = "input"
    hint = "LangChain sends texts with OpenAIEmbeddings(check_embedding_ctx_length=False)"


class UnsupportedParameter(Invalid):
    """The parameter '{name}' asks for what is not built here."""

    hint = "leave it out"


class FirstTokenTooLate(TimedOut):
    """No token of the answer came within {seconds} seconds."""

    hint = "send a shorter prompt, or add a replica"


class TooManyDimensions(Invalid):
    """This model's embeddings have {most} dimensions; {asked} were asked for."""

    field = "dimensions"


class ForeignHost(Forbidden):
    """The host '{host}' is not one of this gateway's names."""

    field = "host"
    hint = "add the name to MILLRACE_GATEWAY_ALLOWED_HOSTS if it is yours"


class ForeignOrigin(Forbidden):
    """Pages of the origin '{origin}' may not call this gateway."""

    field = "origin"
    hint = "add its host to MILLRACE_GATEWAY_ALLOWED_HOSTS if it is yours"


class OtherTenant(Forbidden):
    """Keys of the tenant '{tenant}' are for its own admins."""

    field = "tenant"
    hint = "leave it out to have a key of your own tenant made"


class UnknownRoute(NotFound):
    """There is no such path."""

    hint = "GET /openapi.json lists every path"


class UnknownDeployment(NotFound):
    """No deployment is named '{deployment}'."""

    field = "deployment"
    hint = "GET /api/v1/deployments lists them"


class NothingServed(NotFound):
    """Nothing is served under '{deployment}' at present."""

    field = "deployment"
    hint = "GET /api/v1/deployments/{deployment} says why; a rollout of a version serves again"


class VersionNotServed(NotFound):
    """Version {version} of '{deployment}' is not being served."""

    field = "version"
    hint = "GET /api/v1/deployments/{deployment} shows what is; leave the version out to have one chosen"


class ModelNotFound(NotFound):
    """The model '{model}' does not exist."""

    field = "model"
    hint = "GET /v1/models lists the models that this key may use"


class NothingToLoad(Conflict):
    """The model '{model}' has no version that passed its gate."""

    field = "model_name"
    hint = "train a better one, or start a rollout with skip_gate"


class LoadFailed(Conflict):
    """Version {version} of '{deployment}' could not be loaded: {reason}."""

    field = "model_name"
    hint = "GET /api/v1/deployments/{deployment} shows its rollout"


class ExtensionNotOffered(Unsupported):
    """The protocol's extension for {name} is not offered here."""

    hint = "the server's metadata lists the extensions that are"


class UnknownETag(Stale):
    """The entity tag {tag} is none that the deployment has."""

    field = "if-match"
    hint = "GET the deployment, and send its ETag as it is"


class UnknownBatch(NotFound):
    """There is no batch '{batch}'."""

    field = "batch"
    hint = "GET /api/v1/batches lists them"


class BatchHasEnded(Conflict):
    """Batch {batch} has {status} already."""

    field = "batch"


class BatchHasNoOutput(Conflict):
    """Batch {batch} is {status}; only one that has succeeded has an output."""

    field = "batch"
    hint = "GET /api/v1/batches/{batch} tells how far it is, or what it failed at"


class UnknownDeadLetter(NotFound):
    """There is no dead letter '{address}'."""

    field = "address"
    hint = "an address is TOPIC/PARTITION/OFFSET; GET /api/v1/dead-letters lists them"


class UnknownTopic(Invalid):
    """There is no topic '{topic}' of events."""

    field = "topic"
    hint = "one of {topics}"


class NothingSelected(Invalid):
    """Give addresses of dead letters, or select them with topic, code, since or all; not both."""

    field = "addresses"
    hint = "GET /api/v1/dead-letters lists them"


class TooManyDeadLetters(Invalid):
    """{count} dead letters are selected; one call redelivers at most {limit}."""

    field = "since"
    hint = "narrow by topic, code or time"


class RedeliveredAlready(Conflict):
    """{address} was redelivered already, as the event {event}."""

    field = "addresses"
    hint = "'again' sends this correction too; two events have two effects"


class DeadLettersNotRead(Unavailable):
    """The dead letters could not be read within {seconds} s."""

    hint = "retry; where the broker answers, narrow by topic or time"


class TooManyBatches(Overloaded):
    """{queued} batches are already waiting or running, which is the limit."""

    hint = "retry when one of them has ended, or cancel one"


class ResultsDown(Unavailable):
    """The store of the results does not answer."""


class ResultsDamaged(MillraceError):
    """A part of the batch's output is not what was written."""

    hint = "create the batch again"


class MethodNotAllowed(Unsupported):
    """The method {method} is not supported on this path."""

    hint = "supported here: {allowed}"


class UnsupportedMedia(Unsupported):
    """The {header} '{value}' is not supported."""

    hint = "send application/json, as it is or with gzip or deflate"


class BodyTooLarge(TooLarge):
    """The body is larger than the limit of {limit} bytes."""


class ReplicaFull(Overloaded):
    """{queued} requests are already waiting on each replica, which is the limit."""


class SlowReader(Overloaded):
    """The answer was read more slowly than it was made."""

    hint = "read the answer as it comes"


class ReplicasBusy(Overloaded):
    """{queued} requests wait on each replica; work that can wait gives way."""


class RateLimitExceeded(Overloaded):
    """This key may send {limit} requests a second, and {burst} at once."""

    hint = "retry after the time given; an admin can make a key with other limits"


class ConcurrencyLimitExceeded(Overloaded):
    """This key has {limit} requests under way already, which is its limit."""

    hint = "wait for an answer before the next request; an admin can make a key with other limits"


class TokenLimitExceeded(Overloaded):
    """This key has used up its {limit} tokens a minute."""

    hint = "retry after the time given; an admin can make a key with other limits"


class OutboxFull(Unavailable):
    """{waiting} events wait for the broker already, which is the limit."""

    hint = "retry after the time given; see the runbook 'OutboxStuck' when this lasts"


class DeploymentNotReady(Unavailable):
    """No replica is ready to serve '{deployment}'."""

    field = "deployment"
    hint = "retry after the time given; GET /api/v1/deployments/{deployment} shows its rollout"


class RoutesNotRead(Unavailable):
    """The gateway has not read its routing table yet."""

    hint = "retry after the time given"


class ReplicaLost(Unavailable):
    """The replica went away before it answered."""


class ReplicaSilent(Unavailable):
    """The replica did not answer within {seconds} seconds."""


class ServiceSilent(Unavailable):
    """The {service} does not answer."""

    hint = "retry after the time given; 'millrace status' shows each service's health"


class ServiceBroken(MillraceError):
    """The {service} failed inside."""

    hint = "its log has the trace"


class RequestExpired(TimedOut):
    """The request expired at {expires_at}, before it was answered."""

    field = "expires_at"
    hint = "allow more time, or add a replica"
    retryable = False


class AnswerTooLarge(TooLarge):
    """{what} is larger than the limit of {limit}."""

    field = "texts"
    hint = "send the texts in several requests, or leave with_embeddings out"


class DeadlinePassed(TimedOut):
    """The time that the client gave was over before there was an answer."""

    hint = "give it more (header 'request-timeout-ms', or gRPC's own deadline)"


class SlowBody(TimedOut):
    """The body did not arrive within {seconds} seconds."""


class StalledUpload(TimedOut):
    """Nothing of the upload came for {seconds} seconds."""

    hint = "send it again; what had come is gone"


class EmptyUpload(Invalid):
    """The upload has no content."""

    field = "body"


class WrongContent(Invalid):
    """What came is not what was announced: {what}."""

    hint = "nothing was kept; send the file again as it is"


class NotText(Invalid):
    """A data set is text in UTF-8; at byte {index}, counted from 0, there is {problem}."""

    field = "body"
    hint = "save the file as UTF-8; a compressed one is sent with 'content-encoding: gzip'"
