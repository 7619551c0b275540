"""Devices and precision."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Annotated

import torch

from partitioning.settings import Rule, at_least, checked, one_of


class DeviceError(ValueError):
    """A device was asked for that this machine does not have."""


DEVICE = Rule(
    words="auto, cpu, cuda, cuda:N or mps",
    holds=lambda device, own: device.partition(":")[0] in ("auto", "cpu", "cuda", "mps"),
)


#: What torch calls CPUs on which convolutions in bf16 are emulated.
WITHOUT_BF16 = ("NO AVX", "AVX2")


@dataclass(frozen=True, kw_only=True)
@checked("compute.{field}")
class ComputeConfig:
    """Where tensors live and how they are multiplied.

    Attributes:
        device: auto (a GPU where there is one), cpu, cuda, cuda:N or mps.
        precision: fp32, or bf16 for mixed precision in convolutions.
        threads: CPU threads of each process that trains; 0 leaves torch's own choice.
    """

    device: Annotated[str, DEVICE] = "auto"
    precision: Annotated[str, one_of(("fp32", "bf16"))] = "fp32"
    threads: Annotated[int, at_least(0)] = 1


def resolve_device(name: str) -> torch.device:
    """The device that a config's name means on this machine.

    Args:
        name: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        DeviceError: The device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise DeviceError(
                f"compute.device {name!r} was asked for, but torch sees {count} CUDA devices here; "
                "use --set compute.device=cpu, or install a CUDA build of torch and a driver"
            )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise DeviceError(
            f"compute.device {name!r} was asked for, but torch has no Metal device here; "
            "use --set compute.device=cpu"
        )
    return device


def slow_precision(precision: str, capability: str) -> str | None:
    """Why a precision is not for a CPU, in words; None where it is.

    Args:
        precision: "fp32" or "bf16".
        capability: Of the CPU, as `torch.backends.cpu.get_cpu_capability` says.
    """
    if precision == "bf16" and capability in WITHOUT_BF16:
        return (
            f"compute.precision bf16 is emulated on this processor ({capability}), which may take "
            "twenty times as long as fp32: use --set compute.precision=fp32"
        )
    return None


def compute_type(precision: str) -> torch.dtype:
    """The type that convolutions compute in, of `precision` "fp32" or "bf16"."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def autocast(device: torch.device, precision: str) -> AbstractContextManager[object]:
    """The context that runs convolutions in `precision` ("fp32" or "bf16") on `device`."""
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()
