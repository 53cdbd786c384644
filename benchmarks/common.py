"""Shared by the benchmarks: hardware and versions to print beside the numbers, timing, and JSON."""

import json
import os
import platform
import re
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from n2n_deploy import __version__
from n2n_deploy.device.memory import available_memory

PACKAGES = ("numpy", "scipy", "mrcfile", "onnxruntime", "onnx", "torch", "cupy-cuda13x", "tensorrt", "tensorrt-rtx")

IDEAL: dict[str, Any] = {"contrast": 1.0, "thickness": 0.0, "detector": "perfect"}
"""Options of `simulate` for micrographs of free atoms in ice without grain: those of the published figures."""


def describe() -> dict[str, Any]:
    """Hardware and versions, for the start of a report."""
    return {"hardware": hardware(), "versions": versions()}


def hardware() -> dict[str, Any]:
    """Processor, cores available to this process, memory, and the load of the machine before the benchmark."""
    cores = sorted(os.sched_getaffinity(0))
    return {
        "processor": _processor(),
        "cores": len(cores),
        "memory_available_bytes": available_memory(),
        "load_average": os.getloadavg()[0],
        "system": platform.platform(),
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Versions of Python, this package and those of `packages` that are installed."""
    found = {"python": platform.python_version(), "n2n-deploy": __version__}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


@dataclass
class Timing:
    """Repeated measurements in seconds: wall time, and CPU time of all threads of the process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def add(self, function: Callable[[], Any]) -> None:
        """Run `function` once and record how long it took."""
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        self.wall.append(time.perf_counter() - wall)
        self.cpu.append(time.process_time() - cpu)

    def summary(self) -> dict[str, Any]:
        """Median, best and percentiles, and every measurement."""
        quantiles = {f"wall_p{percent}": float(np.percentile(self.wall, percent)) for percent in (10, 50, 90)}
        return {"best_wall": min(self.wall), "best_cpu": min(self.cpu), **quantiles, **asdict(self)}


def interleave(functions: dict[str, Callable[[], Any]], repeats: int, warmup: int = 1) -> dict[str, Timing]:
    """Measure several functions in turn, so that a busy minute of the machine affects all of them.

    Args:
        functions: by name.
        repeats: measured runs of each.
        warmup: unmeasured runs of each before them.
    """
    for _ in range(warmup):
        for function in functions.values():
            function()
    timings = {name: Timing() for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            timings[name].add(function)
    return timings


def warn_if_busy() -> None:
    """Warn on standard error if other programs are running, which affects every number."""
    load = os.getloadavg()[0]
    if load > 0.3:
        print(f"warning: load average {load:.1f}: other programs are running; wall times suffer", file=sys.stderr)


def write_json(path: Path, report: dict[str, Any]) -> None:
    """Write a report."""
    path.write_text(json.dumps(report, indent=1) + "\n")


def _processor() -> str:
    """The processor's name from /proc/cpuinfo."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1) if match else platform.processor() or platform.machine()
