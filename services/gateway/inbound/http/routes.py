"""The REST paths: one table over the gRPC methods, from which doors, checks and openapi.json are made."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from services.contracts.errors import Malformed
from services.contracts.rpc import (
    batches_pb2,
    dead_letters_pb2,
    gateway_pb2,
    inference_pb2,
    keys_pb2,
    monitor_pb2,
    registry_pb2,
    trainer_pb2,
)
from services.gateway.domain.requests import check_identifier, check_name
from services.gateway.domain.uploads import check_content_hash

BASE: Final = "/api/v1"

REGISTRY: Final = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]
TRAINER: Final = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"]
MONITOR: Final = monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"]
GATEWAY: Final = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"]
BATCHES: Final = batches_pb2.DESCRIPTOR.services_by_name["BatchService"]
INFERENCE: Final = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
DEAD_LETTERS: Final = dead_letters_pb2.DESCRIPTOR.services_by_name["DeadLetterService"]
KEYS: Final = keys_pb2.DESCRIPTOR.services_by_name["KeyService"]


@dataclass(frozen=True)
class Route:
    """One method of one path, and the gRPC method it stands for.

    Path parameters fill the request's fields of the same name; the rest comes from the query of a GET and
    from the JSON body of anything else. `required` must be sent, `hidden` fields are not for clients.
    """

    verb: str
    path: str
    rpc: MethodDescriptor
    summary: str
    required: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    status: int = 200
    idempotent_by_key: bool = False
    pattern: re.Pattern[str] = field(init=False)
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        names = re.findall(r"{(\w+)}", self.path)
        expression = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(self.path))
        object.__setattr__(self, "pattern", re.compile(expression))
        object.__setattr__(self, "parameters", tuple(names))

    @property
    def request(self) -> Descriptor:
        return self._of_stream(self.rpc.input_type, "header")

    @property
    def answer(self) -> Descriptor:
        return self._of_stream(self.rpc.output_type, "uploaded")

    @property
    def uploads(self) -> bool:
        """Its body is a content, not JSON: path and query are the header, the last message is the answer."""
        return bool(self.rpc.client_streaming)

    def _of_stream(self, message: Descriptor, part: str) -> Descriptor:
        inner = message.fields_by_name[part].message_type if self.uploads else None
        return inner or message

    @property
    def service(self) -> ServiceDescriptor:
        return self.rpc.containing_service

    @property
    def method(self) -> str:
        """The gRPC method's path, which also says the role that is needed."""
        return f"/{self.service.full_name}/{self.rpc.name}"

    @property
    def has_body(self) -> bool:
        return self.verb != "GET"


def _route(
    verb: str,
    path: str,
    service: ServiceDescriptor,
    method: str,
    summary: str,
    *,
    required: tuple[str, ...] = (),
    hidden: tuple[str, ...] = (),
    status: int = 200,
    idempotent_by_key: bool = False,
) -> Route:
    rpc = service.methods_by_name[method]
    by_key = idempotent_by_key or (verb != "GET" and service is not INFERENCE)
    return Route(verb, BASE + path, rpc, summary, required, hidden, status, by_key)


_DEPLOYMENT: Final = "/deployments/{deployment}"

ROUTES: Final[tuple[Route, ...]] = (
    _route("GET", "/models", REGISTRY, "ListModels", "Every model, its versions and aliases."),
    _route("GET", "/models/{model}", REGISTRY, "GetModel", "One model."),
    _route(
        "GET", "/models/{model}/versions/{version}", REGISTRY, "GetVersion", "One version, by number or by '@alias'."
    ),
    _route("GET", "/models/{model}/versions", REGISTRY, "ListVersions", "A model's versions, the newest first."),
    _route(
        "GET",
        "/models/{model}/versions/{version}/lineage",
        REGISTRY,
        "GetLineage",
        "Where a version comes from and what became of it, as a graph.",
    ),
    _route(
        "PUT",
        "/models/{model}/aliases/{alias}",
        REGISTRY,
        "SetAlias",
        "Points an alias at a version.",
        required=("version",),
    ),
    _route("GET", "/deployments", REGISTRY, "ListDeployments", "Every deployment."),
    _route("GET", _DEPLOYMENT, REGISTRY, "GetDeployment", "One deployment, what it serves and its latest rollout."),
    _route(
        "POST",
        "/deployments",
        REGISTRY,
        "CreateDeployment",
        "Makes a deployment, which serves nothing until a rollout is started.",
        required=("deployment", "model"),
        status=201,
    ),
    _route("PATCH", _DEPLOYMENT, REGISTRY, "UpdateDeployment", "Changes what is given of a deployment."),
    _route("DELETE", _DEPLOYMENT, REGISTRY, "DeleteDeployment", "Takes a stopped deployment away."),
    _route(
        "POST",
        f"{_DEPLOYMENT}/rollouts",
        REGISTRY,
        "StartRollout",
        "Starts to roll a version out.",
        required=("version",),
    ),
    _route(
        "POST", f"{_DEPLOYMENT}/rollouts:approve", REGISTRY, "ApproveRollout", "Lets a rollout begin that waits for it."
    ),
    _route("POST", f"{_DEPLOYMENT}/rollouts:pause", REGISTRY, "PauseRollout", "Holds the rollout at its present step."),
    _route("POST", f"{_DEPLOYMENT}/rollouts:resume", REGISTRY, "ResumeRollout", "Goes on with a paused rollout."),
    _route(
        "POST", f"{_DEPLOYMENT}/rollouts:promote", REGISTRY, "PromoteRollout", "Ends the canary: all traffic moves."
    ),
    _route(
        "POST", f"{_DEPLOYMENT}:rollback", REGISTRY, "RollBack", "Ends the rollout, or returns to the version before."
    ),
    _route("POST", f"{_DEPLOYMENT}:stop", REGISTRY, "StopDeployment", "Stops serving until a rollout is started."),
    _route("GET", "/history", REGISTRY, "ListHistory", "The registry's facts, in order."),
    _route("GET", "/history/head", REGISTRY, "GetHistoryHead", "Number and hash of the fact that was written last."),
    _route("GET", "/runs", TRAINER, "ListRuns", "Training runs, the newest first."),
    _route(
        "POST",
        "/runs",
        TRAINER,
        "StartRun",
        "Starts a run on a data set, or on an earlier version of it.",
        required=("dataset",),
        status=201,
        idempotent_by_key=True,
    ),
    _route("GET", "/runs/{run}", TRAINER, "GetRun", "One run."),
    _route("GET", "/runs/{run}/logs", TRAINER, "GetRunLogs", "The run's log: one JSON object a line."),
    _route("POST", "/runs/{run}:cancel", TRAINER, "CancelRun", "Stops a run."),
    _route("GET", "/datasets", TRAINER, "ListDatasets", "The data sets that were announced."),
    _route(
        "POST",
        "/datasets",
        GATEWAY,
        "AnnounceDataset",
        "Announces a data set: it will be trained on.",
        required=("dataset", "uri", "model"),
        status=202,
        idempotent_by_key=True,
    ),
    _route("GET", "/datasets/{dataset}", TRAINER, "GetDataset", "One data set."),
    _route(
        "POST",
        "/datasets/{dataset}/content",
        GATEWAY,
        "UploadDataset",
        "Takes a data set's content, to be announced by the address in the answer.",
        status=201,
        idempotent_by_key=True,
    ),
    _route(
        "GET", "/datasets/{dataset}/versions", TRAINER, "ListDatasetVersions", "The contents it has had, newest first."
    ),
    _route(
        "GET",
        "/datasets/{dataset}/versions/{content_hash}",
        TRAINER,
        "GetDatasetVersion",
        "One content, by its SHA-256 or at least the first 8 digits of it.",
    ),
    _route(
        "POST",
        f"{_DEPLOYMENT}/classify",
        INFERENCE,
        "Classify",
        "Classifies 1 to 64 texts.",
        required=("texts",),
        hidden=("mirrored", "tenant"),
    ),
    _route(
        "POST", f"{_DEPLOYMENT}/embed", INFERENCE, "Embed", "Embeds 1 to 64 texts as unit vectors.", required=("texts",)
    ),
    _route(
        "POST",
        f"{_DEPLOYMENT}/feedback",
        GATEWAY,
        "SendFeedback",
        "Says what the right label of an answered request was.",
        required=("request_id",),
        status=202,
        idempotent_by_key=True,
    ),
    _route("GET", "/batches", BATCHES, "ListBatches", "Files that are or were classified, the newest first."),
    _route(
        "POST",
        "/batches",
        BATCHES,
        "CreateBatch",
        "Classifies every row of a file, while nobody waits.",
        required=("deployment", "uri"),
        status=202,
        idempotent_by_key=True,
    ),
    _route("GET", "/batches/{batch}", BATCHES, "GetBatch", "One batch: how far it is, and where its output lies."),
    _route("POST", "/batches/{batch}:cancel", BATCHES, "CancelBatch", "Ends a batch.", idempotent_by_key=True),
    _route(
        "GET", "/batches/{batch}/output", BATCHES, "GetBatchOutput", "The output: one JSON object a row of the input."
    ),
    _route("GET", f"{_DEPLOYMENT}/health", MONITOR, "GetHealth", "Errors, latency and accuracy of each version."),
    _route("GET", f"{_DEPLOYMENT}/windows", MONITOR, "ListWindows", "The drift windows, the newest first."),
    _route(
        "GET", f"{_DEPLOYMENT}/windows/{{number}}", MONITOR, "GetWindow", "One drift window, with its test's numbers."
    ),
    _route("GET", f"{_DEPLOYMENT}/verdicts", MONITOR, "ListVerdicts", "The canary verdicts, the newest first."),
    _route("GET", "/dead-letters", DEAD_LETTERS, "ListDeadLetters", "Events that services gave up, the newest first."),
    _route(
        "GET",
        "/dead-letters/{topic}/{partition}/{offset}",
        DEAD_LETTERS,
        "GetDeadLetter",
        "One dead letter, with its headers and its body.",
    ),
    _route(
        "POST",
        "/dead-letters:redeliver",
        DEAD_LETTERS,
        "RedeliverDeadLetters",
        "Sends dead letters again; a consumer that handled an event ignores it.",
        idempotent_by_key=True,
    ),
    _route("GET", "/keys", KEYS, "ListKeys", "The keys of the caller's tenant, the oldest first; never a secret."),
    _route(
        "POST",
        "/keys",
        KEYS,
        "CreateKey",
        "Makes a key; its secret is told this once.",
        required=("role",),
        status=201,
    ),
    _route("POST", "/keys/{key}:revoke", KEYS, "RevokeKey", "Takes a key away, on every door within two seconds."),
)


def _check_version(reference: str, at: str) -> None:
    check_name(reference.removeprefix("@"), at)


def _check_number(text: str, at: str) -> None:
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise Malformed(problem="it is not a number", field=at)


_CHECKS: Final[Mapping[str, Callable[[str, str], None]]] = {
    "run": check_identifier,
    "batch": check_identifier,
    "version": _check_version,
    "content_hash": check_content_hash,
    "partition": _check_number,
    "offset": _check_number,
}


def check_parameter(name: str, value: str) -> None:
    """Raises Malformed unless the path parameter has the shape of what it names."""
    _CHECKS.get(name, check_name)(value, name)
