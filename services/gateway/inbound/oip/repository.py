"""Loading and unloading models: rollouts and stops at the registry, in the caller's own name, waited for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from services.contracts.errors import BadField, MillraceError, TimedOut
from services.contracts.events import DeploymentChanged
from services.contracts.rpc import registry_pb2
from services.gateway.domain.requests import check_name
from services.gateway.errors import LoadFailed, NothingToLoad
from services.gateway.inbound.grpc_services import REGISTRY
from services.gateway.inbound.oip.models import Models, served
from services.gateway.ports import Ports, Upstreams
from services.kit.core import telemetry

POLL_SECONDS: Final = 0.05
REASON: Final = "asked by the Open Inference Protocol"
BY_THEMSELVES: Final = ("champion", "previous")
"""The aliases that a load without a version looks for, in this order."""
PASSED: Final = "passed"


@dataclass(frozen=True)
class Order:
    """A model to load or to unload. `deadline` is a moment of the monotonic clock."""

    tenant: str
    model: str
    parameters: Mapping[str, object]
    authorization: str
    deadline: float


class Repository:
    """The registry decides; this asks it, and waits until the routing table says that it is so."""

    def __init__(self, ports: Ports, upstreams: Upstreams, models: Models) -> None:
        self._ports = ports
        self._upstreams = upstreams
        self._models = models

    async def load(self, order: Order) -> None:
        """Returns once the version that is asked for, or else any, can answer.

        A deployment that serves already is only waited for. One that does not gets a rollout of the version, or of
        the champion, of who served before it was stopped, of the latest version that passed. Raises BadField,
        NothingToLoad, LoadFailed, TimedOut, and what the registry refuses.
        """
        check_name(order.model, "model_name")
        reference = read_reference(order.parameters)
        desired = self._desired(order)
        if not reference and desired is not None and served(desired):
            await self._until(order, lambda: self._models.answers(order.tenant, self._now(order)))
            return
        number = await self._number(order, desired, reference)
        generation = 0
        if desired is None or number not in served(desired):
            request = registry_pb2.StartRolloutRequest(deployment=order.model, version=str(number), reason=REASON)
            generation = await self._move(order, "StartRollout", request)
        await self._until(order, lambda: self._is_loaded(order, number, generation))

    async def unload(self, order: Order) -> None:
        """Returns once the model answers no more. Raises UnknownDeployment, TimedOut, and what the registry refuses."""
        check_name(order.model, "model_name")
        for name in order.parameters:
            if name != "unload_dependents":
                raise _unknown_parameter(name)
        if not served(self._models.desired(order.tenant, order.model)):
            return
        request = registry_pb2.MoveRolloutRequest(deployment=order.model, reason=REASON)
        generation = await self._move(order, "StopDeployment", request)
        await self._until(order, lambda: self._is_unloaded(order, generation))

    def _now(self, order: Order) -> DeploymentChanged:
        return self._models.desired(order.tenant, order.model)

    def _desired(self, order: Order) -> DeploymentChanged | None:
        """None for a deployment that has wanted nothing yet."""
        known = self._ports.routes.knows(order.tenant, order.model)
        return self._now(order) if known or not self._ports.routes_read() else None

    def _is_loaded(self, order: Order, version: int, generation: int) -> bool:
        desired = self._desired(order)
        if desired is None or desired.generation < generation:
            return False
        if version not in served(desired):
            raise LoadFailed(version=version, deployment=order.model, reason=desired.reason)
        return self._models.has_ready(order.tenant, desired, version) and self._models.answers(order.tenant, desired)

    def _is_unloaded(self, order: Order, generation: int) -> bool:
        desired = self._now(order)
        return desired.generation >= generation and not self._models.answers(order.tenant, desired)

    async def _number(self, order: Order, desired: DeploymentChanged | None, reference: str) -> int:
        """Of the version to load."""
        if reference.isdigit():
            return int(reference)
        model = desired.model if desired is not None else await self._model_of(order)
        if reference:
            request = registry_pb2.GetVersionRequest(model=model, version=reference)
            return int((await self._call(order, "GetVersion", request, registry_pb2.Version())).number)
        query = registry_pb2.GetModelRequest(model=model)
        described = await self._call(order, "GetModel", query, registry_pb2.Model())
        passed = [version.number for version in described.versions if version.status == PASSED]
        aliased = [described.aliases[alias] for alias in BY_THEMSELVES if alias in described.aliases]
        if not aliased and not passed:
            raise NothingToLoad(model=model)
        return int(aliased[0] if aliased else max(passed))

    async def _model_of(self, order: Order) -> str:
        request = registry_pb2.GetDeploymentRequest(deployment=order.model)
        return str((await self._call(order, "GetDeployment", request, registry_pb2.Deployment())).model)

    async def _move(self, order: Order, method: str, request: Any) -> int:
        """The generation that the deployment's wish has from then on."""
        return int((await self._call(order, method, request, registry_pb2.Deployment())).generation)

    async def _call(self, order: Order, method: str, request: Any, answer: Any) -> Any:
        left = order.deadline - self._ports.clock.monotonic()
        response = await self._upstreams.call(
            f"/{REGISTRY.full_name}/{method}",
            request.SerializeToString(),
            [("authorization", order.authorization), *telemetry.current_carrier().items()],
            tenant=order.tenant,
            seconds=max(0.0, left),
        )
        answer.ParseFromString(response)
        return answer

    async def _until(self, order: Order, is_so: Callable[[], bool]) -> None:
        began = self._ports.clock.monotonic()
        while not is_so():
            left = order.deadline - self._ports.clock.monotonic()
            if left <= 0:
                raise TimedOut(seconds=round(order.deadline - began, 3))
            await self._ports.clock.sleep(min(POLL_SECONDS, left))


def read_reference(parameters: Mapping[str, object]) -> str:
    """The number or '@alias' of the version to load, or nothing. Raises BadField or Malformed.

    It stands in `version`, or in `config` as a model configuration whose version policy names one version: this is
    how clients can say it whose `load_model` has no version.
    """
    for name in parameters:
        if name not in ("version", "config"):
            raise _unknown_parameter(name)
    version = parameters.get("version", "")
    if isinstance(version, int) and not isinstance(version, bool):
        version = str(version)
    if not isinstance(version, str):
        raise BadField(name="parameters.version", problem="it must be a string", field="parameters.version")
    if "config" in parameters:
        if version:
            raise BadField(name="parameters.config", problem="the version is given twice", field="parameters.config")
        return str(_configured(parameters["config"]))
    if version:
        check_name(version.removeprefix("@"), "parameters.version")
        if not version.startswith("@"):
            _check_number(version)
    return version


def _check_number(version: str) -> None:
    if not version.isdigit() or len(version) > 9 or int(version) < 1:
        problem = "it must be a number or an alias, such as 2 or @champion"
        raise BadField(name="parameters.version", problem=problem, field="parameters.version")


def _configured(config: object) -> int:
    """The one version that a model configuration's policy names."""
    try:
        decoded = orjson.loads(config) if isinstance(config, str) else None
    except orjson.JSONDecodeError:
        decoded = None
    match decoded:
        case {"version_policy": {"specific": {"versions": [int(number)]}}, **rest} if (
            0 < number < 10**9 and not isinstance(number, bool) and rest.keys() <= {"name"}
        ):
            return number
    problem = (
        "a model's configuration follows from its version: only which version it is can be chosen, as "
        '{"version_policy": {"specific": {"versions": [2]}}}'
    )
    raise BadField(name="parameters.config", problem=problem, field="parameters.config")


def _unknown_parameter(name: str) -> MillraceError:
    at = f"parameters.{name[:100]}"
    problem = "a model's files follow from its version" if name.startswith("file:") else "there is no such parameter"
    return BadField(name=at, problem=problem, field=at)
