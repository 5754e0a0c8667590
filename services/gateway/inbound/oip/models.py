"""Deployments as the models of the protocol: what they are, whether they can answer, and what was counted of them.

Everything is told as JSON has it; the gRPC service fills its messages from the same.
"""

from typing import Any, Final

from services import __version__
from services.contracts.events import DeploymentChanged, Role
from services.contracts.names import place_of
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

    def wish(self, tenant: str, model: str) -> DeploymentChanged:
        """What is wanted of the model. Raises Malformed, UnknownDeployment or RoutesNotRead."""
        check_name(model, "model_name")
        if not self._ports.routes.knows(tenant, model) and not self._ports.routes_read():
            raise RoutesNotRead(retry_after_seconds=self._ports.policy.retry_after_seconds)
        return self._ports.routes.wish(tenant, model)

    def has_ready(self, tenant: str, wish: DeploymentChanged, version: int) -> bool:
        """Whether the version is to be served, and a replica that can be reached has it ready."""
        if version not in served(wish):
            return False
        now, load = self._ports.clock.monotonic(), self._ports.replicas.waiting
        place = place_of(tenant, wish.deployment)
        return self._ports.routes.pick(place, wish.model, version, at=now, load=load) is not None

    def answers(self, tenant: str, wish: DeploymentChanged) -> bool:
        """Whether a request that names no version would be answered."""
        taking = [target.version for target in wish.targets if target.weight or target.role is Role.PRIMARY]
        return any(self.has_ready(tenant, wish, version) for version in taking)

    def is_ready(self, tenant: str, model: str, version: str) -> bool:
        """Raises what `wish` raises, and BadField."""
        wish = self.wish(tenant, model)
        number = read_version(version, "model_version")
        return self.has_ready(tenant, wish, number) if number else self.answers(tenant, wish)

    # --- what is told of the server and of models

    def server(self) -> dict[str, Any]:
        return {"name": SERVER, "version": __version__, "extensions": list(EXTENSIONS)}

    def metadata(self, tenant: str, model: str, version: str) -> dict[str, Any]:
        """Raises what `wish` raises, BadField and VersionNotServed."""
        wish = self.wish(tenant, model)
        return {
            "name": model,
            "versions": [str(number) for number in _versions(wish, version)],
            "platform": PLATFORM,
            "inputs": [{"name": INPUT, "datatype": BYTES, "shape": [-1]}],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": list(shape)}
                for name, (datatype, shape) in OUTPUTS.items()
            ],
        }

    def config(self, tenant: str, model: str, version: str) -> dict[str, Any]:
        """Raises what `metadata` raises."""
        wish = self.wish(tenant, model)
        facts = {
            "model": wish.model,
            "generation": str(wish.generation),
            "text_limit_chars": str(self._ports.policy.text_limit_chars),
        }
        return {
            "name": model,
            "platform": PLATFORM,
            "backend": BACKEND,
            "version_policy": {"specific": {"versions": _versions(wish, version)}},
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
        wishes = [self.wish(tenant, model)] if model else self._ports.routes.wishes(tenant)
        return {
            "model_stats": [
                self._counted(tenant, wish.deployment, number) for wish in wishes for number in _versions(wish, version)
            ]
        }

    def index(self, tenant: str, *, only_ready: bool) -> list[dict[str, Any]]:
        """An entry for each version that is to be served, and one for each deployment that serves none."""
        entries = [entry for wish in self._ports.routes.wishes(tenant) for entry in self._entries(tenant, wish)]
        return [entry for entry in entries if entry["state"] == READY] if only_ready else entries

    def _entries(self, tenant: str, wish: DeploymentChanged) -> list[dict[str, Any]]:
        name = wish.deployment
        if not served(wish):
            reason = f"no version is to be served: {wish.reason}"
            return [{"name": name, "version": "", "state": UNAVAILABLE, "reason": reason}]
        entries = []
        for number in served(wish):
            ready = self.has_ready(tenant, wish, number)
            said = self._ports.routes.why_unready(place_of(tenant, name), wish.model, number) or "no replica has it"
            state, reason = (READY, "") if ready else (UNAVAILABLE, said)
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


def served(wish: DeploymentChanged) -> list[int]:
    """The versions that are to be served, without those that only drain."""
    return sorted({target.version for target in wish.targets if target.role is not Role.DRAINING})


def _versions(wish: DeploymentChanged, version: str) -> list[int]:
    """The versions that are served, or the one that is asked for. Raises BadField or VersionNotServed."""
    wanted = served(wish)
    number = read_version(version, "model_version")
    if not number:
        return wanted
    if number not in wanted:
        raise VersionNotServed(version=number, deployment=wish.deployment)
    return [number]


def _duration(duration: Duration) -> dict[str, int]:
    return {"count": duration.count, "ns": duration.ns}
