"""The GPUs that this process may use, asked of NVIDIA's driver itself, so that no other library is needed."""

import ctypes
import functools
import re
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.core.errors import HostError, UsageError

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_NAME_BYTES = 128


@dataclass(frozen=True, slots=True)
class GPU:
    """One GPU.

    Attributes:
        index: as CUDA counts, after `CUDA_VISIBLE_DEVICES`.
        name: what NVIDIA calls it.
        capability: compute capability, "major.minor".
        memory: bytes in all.
    """

    index: int
    name: str
    capability: str
    memory: int


@dataclass(frozen=True, slots=True)
class Driver:
    """What the driver reports.

    Attributes:
        version: of the driver, such as "580.65.06"; None where it is unknown.
        cuda: the newest CUDA version it runs, such as "13.0"; None without a driver.
        gpus: those this process may use.
        problem: why there is no GPU; None where there is one.
    """

    version: str | None
    cuda: str | None
    gpus: tuple[GPU, ...]
    problem: str | None


@functools.cache
def driver() -> Driver:
    """Ask the driver, once in the life of the process."""
    version = _driver_version()
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(version, None, (), "no NVIDIA driver is installed (libcuda.so.1 is not found)")
    number = ctypes.c_int()
    if (status := cuda.cuInit(0)) != 0:
        return Driver(version, None, (), f"the NVIDIA driver does not start (cuInit gives {_error(cuda, status)})")
    cuda.cuDriverGetVersion(ctypes.byref(number))
    newest = f"{number.value // 1000}.{number.value % 1000 // 10}"
    cuda.cuDeviceGetCount(ctypes.byref(number))
    found = tuple(_gpu(cuda, index) for index in range(number.value))
    return Driver(version, newest, found, None if found else "the NVIDIA driver shows no GPU to this process")


def gpus() -> tuple[GPU, ...]:
    """Return the GPUs that this process may use; none without a driver."""
    return driver().gpus


def find_gpu(index: int) -> GPU:
    """Return a GPU of this machine.

    Raises:
        HostError: it does not exist.
    """
    found = driver()
    if found.problem is not None:
        raise HostError(found.problem)
    if index >= len(found.gpus):
        raise HostError(f"there is no GPU {index}: this process may use {len(found.gpus)}, counted from 0")
    return found.gpus[index]


def parse_gpus(text: str) -> tuple[int, ...]:
    """Return the indices of the GPUs that a text such as "0,1" names, or of all GPUs for "all".

    Raises:
        UsageError: the text is neither numbers nor "all".
        HostError: all are asked for, and there is none.
    """
    if text.strip() == "all":
        if (problem := driver().problem) is not None:
            raise HostError(problem)
        return tuple(gpu.index for gpu in gpus())
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"invalid --gpus {text!r}; give GPU numbers such as 0,1, or all") from error


def _gpu(cuda: ctypes.CDLL, index: int) -> GPU:
    device, name, memory = ctypes.c_int(), ctypes.create_string_buffer(_NAME_BYTES), ctypes.c_size_t()
    major, minor = ctypes.c_int(), ctypes.c_int()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, _NAME_BYTES, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    return GPU(index, name.value.decode(), f"{major.value}.{minor.value}", memory.value)


def _error(cuda: ctypes.CDLL, status: int) -> str:
    text = ctypes.c_char_p()
    cuda.cuGetErrorName(status, ctypes.byref(text))
    return (text.value or b"").decode() or str(status)


def _driver_version() -> str | None:
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", Path("/proc/driver/nvidia/version").read_text())
    except OSError:
        return None
    return found[1] if found else None
