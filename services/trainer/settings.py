"""The trainer's knobs: `MILLRACE_TRAINER_...`."""

import os
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field
from pydantic_settings import SettingsConfigDict

from services.contracts.addresses import PORTS, grpc_address
from services.kit.core.settings import ServiceSettings, port


class TrainerSettings(ServiceSettings):
    """What may be read, what a run may cost, and when a drift is answered."""

    model_config = SettingsConfigDict(env_prefix="MILLRACE_TRAINER_", frozen=True, extra="ignore")
    service: ClassVar[str] = "trainer"

    http_port: int = port(PORTS["trainer"].http, "health and metrics")
    grpc_port: int = port(PORTS["trainer"].grpc, "gRPC")
    registry_address: str = Field(default=grpc_address("registry"), description="host:port of the registry's gRPC door")
    registry_seconds: float = Field(default=10.0, gt=0, description="the longest the registry is waited for")
    data_roots: str = Field(
        default="",
        description="folders that data sets may lie in, separated as in PATH; datasets/ and demo/ of home. "
        "A tenant's own uploads may be read always",
    )
    base_model: str = Field(
        default="",
        description="a packaged name, a Hugging Face folder, or an id of a model hub "
        "(organisation/model@revision); the usual one when empty",
    )
    threads: int = Field(default=0, ge=0, le=256, description="of a run; 0: half the machine's cores, 4 at most")
    frozen_layers: int = Field(default=2, ge=0, le=48, description="lowest encoder layers that keep their weights")
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="that is trained on; auto takes CUDA where there is a device"
    )
    fp16: bool = Field(default=True, description="make the variant that CUDA serves, beside int8 for CPUs")
    checkpoint_steps: int = Field(default=40, ge=1, le=100_000)
    memory_mib: int = Field(default=0, ge=0, description="resident memory of a run; 0 for no limit")
    dataset_bytes: int = Field(default=256 * 1024 * 1024, ge=1_024, description="the largest data set")
    dataset_rows: int = Field(default=500_000, ge=100)

    lease_seconds: float = Field(default=10.0, gt=0, description="after which another process follows a worker's run")
    child_command: str = Field(
        default="",
        description="starts a run's process in place of this Python: one worker, with the attempt's folder as its last "
        "argument, as by torchrun --nproc-per-node 1 --module services.trainer.stages",
    )
    on_shutdown: Literal["detach", "cancel"] = Field(
        default="detach",
        description="what becomes of a run when the service stops: detach lets it go on, and the next service attaches "
        "to it; cancel ends it with a checkpoint, as is right where its process would end with the container",
    )
    stop_seconds: float = Field(
        default=5.0, gt=0, description="a run may take to write its checkpoint when it is asked to stop"
    )
    stall_seconds: float = Field(default=3_600.0, gt=0, description="a run without any progress for so long is ended")
    run_seconds: float = Field(default=86_400.0, gt=0, description="the longest that one attempt at a run may take")
    poll_seconds: float = Field(default=0.2, gt=0, description="between two looks at a run that goes on")
    orphan_seconds: float = Field(default=30.0, gt=0, description="between two looks for runs that nobody follows")
    attempts: int = Field(default=3, ge=1, le=100, description="failed attempts a run is given")
    retry_seconds: float = Field(
        default=2.0, ge=0, description="before the second attempt; twice that before the third"
    )
    run_folder_limit: int = Field(default=20, ge=1, description="folders of ended runs")

    minimum_feedback: int = Field(default=300, ge=20, description="labelled texts of the new kind that answer a drift")
    most_feedback: int = Field(default=5_000, ge=20, description="the latest ones that a run learns from")
    feedback_poll_seconds: float = Field(default=1.0, gt=0)
    feedback_wait_hours: float = Field(default=24.0 * 7, gt=0, description="a drift is left unanswered after it")
    examples_limit: int = Field(default=20_000, ge=100, description="texts kept of a deployment's traffic")

    def roots(self) -> tuple[Path, ...]:
        """Resolved, so that a link cannot lead out of them."""
        named = [Path(name) for name in self.data_roots.split(os.pathsep) if name]
        return tuple(root.resolve() for root in named or (self.home / "datasets", self.home / "demo"))

    def run_threads(self) -> int:
        """Half the cores: the others serve, and two threads on shared cores were slower than one."""
        return self.threads or min(4, max(1, (os.cpu_count() or 1) // 2))
