"""`trainer.ports.Champions` over the registry's gRPC door."""

import grpc

from services.contracts.artifact import ArtifactRef, Precision
from services.contracts.errors import Kind
from services.contracts.rpc import registry_pb2, registry_pb2_grpc
from services.kit.transport import rpc
from services.trainer.domain.spec import ChampionRef

KIB = 1024


class RegistryChampions:
    """Asks for the alias `champion`; a model or an alias that is not there means that nobody serves yet."""

    def __init__(self, address: str, key: str, seconds: float) -> None:
        self._address = address
        self._key = key
        self._seconds = seconds
        self._channel: grpc.aio.Channel | None = None

    async def champion(self, tenant: str, model: str) -> ChampionRef | None:
        if self._channel is None:
            self._channel = rpc.channel(self._address)
        stub = registry_pb2_grpc.RegistryServiceStub(self._channel)
        request = registry_pb2.GetVersionRequest(model=model, version="@champion")
        try:
            version = await stub.GetVersion(request, metadata=rpc.metadata(self._key, tenant), timeout=self._seconds)
        except grpc.aio.AioRpcError as failed:
            error = rpc.refusal_from(failed)
            if error.kind is Kind.NOT_FOUND:
                return None
            raise error from failed
        artifact = version.artifact
        ref = ArtifactRef(
            uri=artifact.uri, digest=artifact.digest, signer=artifact.signer, size_bytes=artifact.size_kib * KIB
        )
        return ChampionRef(version=version.number, artifact=ref, precision=Precision(version.precision))

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()
