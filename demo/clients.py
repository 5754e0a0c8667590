"""The demo as a client: REST over httpx, gRPC over grpc.aio, and Kafka as an outside producer."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import httpx

from demo.errors import DemoFailed
from demo.traffic import IN_FLIGHT, Reply
from services.cli.rest import BASE, refused

TIMEOUT_SECONDS: Final = 30.0
SEND_SECONDS: Final = 15.0
SOURCE: Final = "demo"


class RestClient:
    """One deployment, and the control plane around it."""

    def __init__(self, url: str, key: str, deployment: str) -> None:
        self._deployment = deployment
        self._http = httpx.AsyncClient(
            base_url=url + BASE,
            headers={"authorization": f"Bearer {key}"},
            timeout=TIMEOUT_SECONDS,
            limits=httpx.Limits(max_connections=IN_FLIGHT + 4, max_keepalive_connections=IN_FLIGHT + 4),
            trust_env=False,
        )

    async def classify(self, text: str) -> Reply:
        """Raises CliError or httpx's own errors."""
        event = await self._send("POST", f"/deployments/{self._deployment}/classify", {"texts": [text]})
        return Reply(event["request_id"], event["version"], event["predictions"][0]["label"])

    async def feedback(self, request: str, label: str) -> None:
        path = f"/deployments/{self._deployment}/feedback"
        await self._send("POST", path, {"request_id": request, "label": label})

    async def get(self, path: str, **query: object) -> Any:
        return await self._send("GET", path, None, {name: str(value) for name, value in query.items() if value})

    async def post(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._send("POST", path, body)

    async def close(self) -> None:
        await self._http.aclose()

    async def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None, query: Mapping[str, str] | None = None
    ) -> Any:
        answer = await self._http.request(method, path, json=body, params=dict(query or {}))
        if answer.status_code >= 400:
            raise refused(answer)
        return answer.json()


async def classify_over_grpc(address: str, key: str, deployment: str, texts: list[str]) -> tuple[int, list[str]]:
    """The version that answered, and a label for each text. Raises DemoFailed with the status."""
    import grpc

    from services.contracts.rpc import inference_pb2, inference_pb2_grpc

    async with grpc.aio.insecure_channel(address) as channel:
        stub = inference_pb2_grpc.InferenceServiceStub(channel)
        request = inference_pb2.ClassifyRequest(deployment=deployment, texts=texts)
        try:
            answer = await stub.Classify(
                request, timeout=TIMEOUT_SECONDS, metadata=(("authorization", f"Bearer {key}"),)
            )
        except grpc.aio.AioRpcError as error:
            raise DemoFailed(f"gRPC answered {error.code().name}: {error.details()}") from error
    return answer.version, [prediction.label for prediction in answer.predictions]


class OutsideProducer:
    """Any program with a Kafka client: CloudEvents headers, and a trace context so that the trace begins here."""

    def __init__(self, bootstrap: str) -> None:
        from confluent_kafka import Producer

        settings = {"enable.idempotence": True, "partitioner": "murmur2_random"}  # as the services and Java choose
        self._producer = Producer({"bootstrap.servers": bootstrap, "log_level": 0, **settings})

    def publish(
        self,
        topic: str,
        key: str,
        body: Mapping[str, Any],
        *,
        event_id: str,
        time: datetime,
        trace: Mapping[str, str],
    ) -> None:
        """Returns once the broker has it. Raises DemoFailed."""
        headers = {
            "ce_specversion": "1.0",
            "ce_id": event_id,
            "ce_source": SOURCE,
            "ce_type": f"millrace.{topic}.v1",
            "ce_subject": key,
            "ce_time": time.isoformat(),
            "content-type": "application/json",
            **trace,
        }
        problems: list[str] = []
        self._producer.produce(
            topic,
            json.dumps(body).encode(),
            key=key.encode(),
            headers=list(headers.items()),
            on_delivery=lambda error, _: problems.append(str(error)) if error is not None else None,
        )
        if self._producer.flush(SEND_SECONDS) or problems:
            raise DemoFailed(f"the broker did not take {topic}: {'; '.join(problems) or 'no answer'}")
