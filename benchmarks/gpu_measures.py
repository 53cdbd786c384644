"""What a GPU and its machine can do at best, and how long work on them takes."""

import os
import platform
import statistics
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

REPEATS = 10


def machine() -> dict[str, Any]:
    """Versions and hardware, which figures mean nothing without."""
    import cupy

    import n2n_deploy
    from n2n_deploy.device.gpus import driver
    from n2n_deploy.engines.diagnose import libraries

    return {
        "gpus": [f"{gpu.name}, {gpu.memory / 1e9:.0f} GB" for gpu in driver().gpus],
        "driver": driver().version,
        "cuda": cupy.cuda.runtime.runtimeGetVersion(),
        "python": platform.python_version(),
        "n2n_deploy": n2n_deploy.__version__,
        "libraries": {library.name: library.version for library in libraries() if library.version},
    }


def limits(folder: Path, size: int = 1 << 28, side: int = 8192) -> dict[str, float]:
    """What the parts can do at best: GB/s of copies and disk, TFLOP/s of matrix products."""
    import cupy
    import cupyx

    pinned, there = cupyx.empty_pinned((size,), np.uint8), cupy.empty(size, cupy.uint8)
    stream = cupy.cuda.get_current_stream()
    found = {
        "H2D_GB_s": size / 1e9 / gpu_seconds(lambda: there.set(pinned, stream)),
        "D2H_GB_s": size / 1e9 / gpu_seconds(lambda: there.get(stream, out=pinned, blocking=False)),
    }
    for precision in ("fp32", "fp16", "bf16"):
        found[f"{precision}_matrix_tflops"] = 2e-12 * side**3 / matrix_seconds(precision, side)
    path = folder / "disk"
    start = time.perf_counter()
    with path.open("wb") as file:
        file.write(memoryview(pinned))
        file.flush()
        os.fsync(file.fileno())  # as every output is written
    written = time.perf_counter()
    path.read_bytes()
    found["write_GB_s"] = size / 1e9 / (written - start)
    found["read_cached_GB_s"] = size / 1e9 / (time.perf_counter() - written)
    return found


def matrix_seconds(precision: str, side: int, repeats: int = REPEATS) -> float:
    """Median seconds of a product of two square matrices by PyTorch; fp32 without TF32, as engines are built.

    The numbers are random: multiplying ones draws less power, and a GPU is faster then than it can be with images.
    """
    import torch

    kind = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[precision]
    matrix = torch.randn((side, side), device="cuda").to(kind)
    times = []
    for _ in range(repeats + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        matrix @ matrix
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3)
    del matrix
    torch.cuda.empty_cache()
    return statistics.median(times[1:])


def gpu_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median seconds of some work between two CUDA events on the current stream, after a warm-up."""
    import cupy

    work()
    times = []
    for _ in range(repeats):
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
    return statistics.median(times)


def host_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


@contextmanager
def gpu_use() -> Iterator[list[int]]:
    """Per cent of the time, five times a second, in which the GPU had work, as nvidia-smi tells; clear it to begin."""
    import cupy

    samples: list[int] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200", "-i"]
    try:
        asked = subprocess.Popen([*command, cupy.cuda.Device().pci_bus_id], stdout=subprocess.PIPE, text=True)
    except OSError:
        yield samples
        return

    def listen() -> None:
        assert asked.stdout is not None
        samples.extend(int(line) for line in asked.stdout if line.strip().isdigit())

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        yield samples
    finally:
        asked.terminate()
        asked.wait()
        listener.join()
