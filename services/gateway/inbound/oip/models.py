"""Deployments as the models of the protocol: what they are, whether they can answer, and what was counted of them.

Everything is told as JSON has it; the gRPC service fills its messages from the same.
"""

from typing import Any, Final

from services import __version__
from services.contracts.events import DeploymentChanged, Role
from services.contracts.names import qualified_name
from services.contracts.tasks.texts import MAX_TEXTS
from services.gateway.domain.requests import check_name
from services.gateway.domain.statistics import Duration
from services.gateway.errors import RoutesNotRead, VersionNotServed
from services.gateway.inbound.oip.infer import INPUT, OUTPUTS, read_version
from services.gateway.inbound.oip.tensors import BYTES, FP32
from services.gateway.ports import Ports

SERVER: Final = "millrace"
PLATFORM: Final = "millrace_text_classification"
BACKEND: Final = "millrace"
EXTENSIONS: Final = ("binary_tensor_data", "model_configuration", "model_repository", "parameters", "statistics")
READY: Final = "READY"
UNAVAILABLE: Final = "UNAVAILABLE"
_CONFIG_TYPES: Final = {BYTES: "TYPE_STRING", FP32: "TYPE_FP32"}


class Models:
    """The routing table, read as a repository of models."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def desired(self, tenant: str, model: str) -> DeploymentChanged:
        """What is wanted of the model. Raises Malformed, UnknownDeployment or RoutesNotRead."""
        check_name(model, "model_name")
        if not self._ports.routes.knows(tenant, model) and not self._ports.routes_read():
            raise RoutesNotRead(retry_after_seconds=self._ports.policy.retry_after_seconds)
        return self._ports.routes.desired(tenant, model)

    def has_ready(self, tenant: str, desired: DeploymentChanged, version: int) -> bool:
        """Whether the version is to be served, and a replica that can be reached has it ready."""
        if version not in served(desired):
            return False
        now, load = self._ports.clock.monotonic(), self._ports.replicas.waiting
        name = qualified_name(tenant, desired.deployment)
        return self._ports.routes.pick(name, desired.model, version, at=now, load=load) is not None

    def answers(self, tenant: str, desired: DeploymentChanged) -> bool:
        """Whether a request that names no version would be answered."""
        receiving = [target.version for target in desired.targets if target.weight or target.role is Role.PRIMARY]
        return any(self.has_ready(tenant, desired, version) for version in receiving)

    def is_ready(self, tenant: str, model: str, version: str) -> bool:
        """Raises what `wish` raises, and BadField."""
        desired = self.desired(tenant, model)
        number = read_version(version, "model_version")
        return self.has_ready(tenant, desired, number) if number else self.answers(tenant, desired)

    # --- what is told of the server and of models

    def server(self) -> dict[str, Any]:
        return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}

    def metadata(self, tenant: str, model: str, version: str) -> dict[str, Any]:
        """Raises what `wish` raises, BadField and VersionNotServed."""
        desired = self.desired(tenant, model)
        return {
            "name": model,
            "versions": [str(number) for number in _versions(desired, version)],
            "platform": PLATFORM,
            "inputs": [{"name": INPUT, "datatype": BYTES, "shape": [-1]}],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": list(shape)}
                for name, (datatype, shape) in OUTPUTS.items()
            ],
        }

    def config(self, tenant: str, model: str, version: str) -> dict[str, Any]:
        """Raises what `metadata` raises."""
        desired = self.desired(tenant, model)
        facts = {
            "model": desired.model,
            "generation": str(desired.generation),
            "text_limit_chars": str(self._ports.policy.text_limit_chars),
        }
        return {
            "name": model,
            "platform": PLATFORM,
            "backend": BACKEND,
            "version_policy": {"specific": {"versions": _versions(desired, version)}},
            "max_batch_size": MAX_TEXTS,
            "input": [{"name": INPUT, "data_type": _CONFIG_TYPES[BYTES], "dims": []}],
            "output": [
                {"name": name, "data_type": _CONFIG_TYPES[datatype], "dims": list(shape[1:])}
                for name, (datatype, shape) in OUTPUTS.items()
            ],
            "dynamic_batching": {},
            "parameters": {name: {"string_value": value} for name, value in facts.items()},
            "model_transaction_policy": {"decoupled": False},
        }

    def statistics(self, tenant: str, model: str, version: str) -> dict[str, Any]:
        """Of one model, or of every one of the tenant's. Raises what `metadata` raises."""
        deployments = [self.desired(tenant, model)] if model else self._ports.routes.all_desired(tenant)
        return {
            "model_stats": [
                self._counted(tenant, desired.deployment, number)
                for desired in deployments
                for number in _versions(desired, version)
            ]
        }

    def index(self, tenant: str, *, only_ready: bool) -> list[dict[str, Any]]:
        """An entry for each version that is to be served, and one for each deployment that serves none."""
        entries = [
            entry for desired in self._ports.routes.all_desired(tenant) for entry in self._entries(tenant, desired)
        ]
        return [entry for entry in entries if entry["state"] == READY] if only_ready else entries

    def _entries(self, tenant: str, desired: DeploymentChanged) -> list[dict[str, Any]]:
        name = desired.deployment
        if not served(desired):
            reason = f"no version is to be served: {desired.reason}"
            return [{"name": name, "version": "", "state": UNAVAILABLE, "reason": reason}]
        entries = []
        for number in served(desired):
            ready = self.has_ready(tenant, desired, number)
            unready = self._ports.routes.why_unready(qualified_name(tenant, name), desired.model, number)
            state, reason = (READY, "") if ready else (UNAVAILABLE, unready or "no replica has it")
            entries.append({"name": name, "version": str(number), "state": state, "reason": reason})
        return entries

    def _counted(self, tenant: str, deployment: str, version: int) -> dict[str, Any]:
        counted = self._ports.statistics.of((tenant, deployment, version))
        nothing = Duration()
        return {
            "name": deployment,
            "version": str(version),
            "last_inference": int(counted.last.timestamp() * 1000) if counted.last else 0,
            "inference_count": counted.texts,
            "execution_count": counted.answered.count,
            "inference_stats": {
                "success": _duration(counted.answered),
                "fail": _duration(counted.failed),
                "queue": _duration(counted.waited),
                "compute_input": _duration(nothing),
                "compute_infer": _duration(counted.computed),
                "compute_output": _duration(nothing),
                "cache_hit": _duration(nothing),
                "cache_miss": _duration(nothing),
            },
            "batch_stats": [],
        }


def served(desired: DeploymentChanged) -> list[int]:
    """The versions that are to be served, without those that only drain."""
    return sorted({target.version for target in desired.targets if target.role is not Role.DRAINING})


def _versions(desired: DeploymentChanged, version: str) -> list[int]:
    """The versions that are served, or the one that is asked for. Raises BadField or VersionNotServed."""
    numbers = served(desired)
    number = read_version(version, "model_version")
    if not number:
        return numbers
    if number not in numbers:
        raise VersionNotServed(version=number, deployment=desired.deployment)
    return [number]


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
