"""What training must remember to go on as if it had never stopped. Safetensors, never a pickle."""

import json
import os
from dataclasses import dataclass
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from services.trainer.stages.folder import RunFolder

CHECKPOINT_FILE: Final = "checkpoint.safetensors"
_RANDOM: Final = "random"
_RANDOM_CUDA: Final = "random.cuda"


@dataclass(frozen=True)
class Position:
    """Where training stands: after `step` steps, with the loss so far."""

    step: int
    loss_sum: float


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def save(folder: RunFolder, name: str, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Writes a safetensors file under its name in one step."""
    partial = folder / f"{name}.partial"
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, partial, metadata=about)
    with partial.open("rb+") as file:
        os.fsync(file.fileno())
    folder.commit(partial, name)


def load(folder: RunFolder, name: str, inputs: str) -> tuple[dict[str, Tensor], dict[str, str]] | None:
    """The tensors and the notes of a file made from the same inputs; None when there is none, or it is broken."""
    try:
        with safe_open(folder / name, framework="pt") as file:
            about = dict(file.metadata() or {})
            if about.get("inputs") != inputs:
                return None
            return {key: file.get_tensor(key) for key in file.keys()}, about  # noqa: SIM118 - not a mapping
    except (FileNotFoundError, SafetensorError):
        return None


def save_position(
    folder: RunFolder, inputs: str, position: Position, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    tensors: dict[str, Tensor] = {_RANDOM: torch.get_rng_state()}
    if _on_cuda(model):
        tensors[_RANDOM_CUDA] = torch.cuda.get_rng_state()
    for name, parameter in trainable(model).items():
        tensors[f"weight.{name}"] = parameter
        for key, value in optimizer.state[parameter].items():
            tensors[f"{key}.{name}"] = value
    about = {"inputs": inputs, "position": json.dumps([position.step, position.loss_sum])}
    save(folder, CHECKPOINT_FILE, tensors, about)


def restore_position(
    folder: RunFolder, inputs: str, model: nn.Module, optimizer: torch.optim.Optimizer
) -> Position | None:
    """Sets weights, optimizer and random state as they were; None when there is nothing to go on from."""
    matches = load(folder, CHECKPOINT_FILE, inputs)
    if matches is None:
        return None
    tensors, about = matches
    with torch.no_grad():
        for name, parameter in trainable(model).items():
            parameter.copy_(tensors[f"weight.{name}"])
            optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"{key}.{name}" in tensors
            }
    torch.set_rng_state(tensors[_RANDOM])
    if _on_cuda(model):
        torch.cuda.set_rng_state(tensors[_RANDOM_CUDA])
    step, loss_sum = json.loads(about["position"])
    return Position(int(step), float(loss_sum))


def _on_cuda(model: nn.Module) -> bool:
    return bool(next(model.parameters()).device.type == "cuda")
