"""What a run trains on, and in which arithmetic: bfloat16 on CUDA, and on a CPU that multiplies in it."""

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Final, Literal

import torch

from services.trainer.errors import DeviceMissing

_WORKSPACE: Final = "CUBLAS_WORKSPACE_CONFIG"


def device_for(choice: Literal["auto", "cpu", "cuda"]) -> torch.device:
    """`auto` takes CUDA where it is. Raises DeviceMissing."""
    there = torch.cuda.is_available()
    if choice == "cuda" and not there:
        raise DeviceMissing
    return torch.device("cuda" if there and choice != "cpu" else "cpu")


def arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """Autocast where it is faster; the weights stay float32."""
    return torch.autocast(device.type, torch.bfloat16) if bfloat16_is_fast(device) else nullcontext()


def bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; without that, autocast only slows."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def repeatable(device: torch.device) -> None:
    """From now on the same seed gives the same weights there; to be called before the device is first used."""
    if device.type == "cuda":
        os.environ.setdefault(_WORKSPACE, ":4096:8")  # without it cuBLAS may add up in any order
        torch.use_deterministic_algorithms(True, warn_only=True)
