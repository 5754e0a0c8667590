"""The gRPC services that the gateway offers, its own and those that it forwards."""

from typing import Final

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

REGISTRY: Final = registry_pb2.DESCRIPTOR.services_by_name["RegistryService"]
TRAINER: Final = trainer_pb2.DESCRIPTOR.services_by_name["TrainerService"]
MONITOR: Final = monitor_pb2.DESCRIPTOR.services_by_name["MonitorService"]
GATEWAY: Final = gateway_pb2.DESCRIPTOR.services_by_name["GatewayService"]
BATCHES: Final = batches_pb2.DESCRIPTOR.services_by_name["BatchService"]
INFERENCE: Final = inference_pb2.DESCRIPTOR.services_by_name["InferenceService"]
DEAD_LETTERS: Final = dead_letters_pb2.DESCRIPTOR.services_by_name["DeadLetterService"]
KEYS: Final = keys_pb2.DESCRIPTOR.services_by_name["KeyService"]
