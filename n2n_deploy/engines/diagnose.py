"""Which libraries this machine has, what each engine would do with them, and a remedy for what is missing."""

import importlib
import importlib.metadata
from dataclasses import dataclass

from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError
from n2n_deploy.device.gpus import driver
from n2n_deploy.engines.select import ENGINES

LIBRARIES = {
    "numpy": ("numpy", ""),
    "scipy": ("scipy", ""),
    "onnxruntime": ("onnxruntime", "cpu"),
    "onnxruntime-gpu": ("onnxruntime", "gpu"),
    "onnxruntime-ep-openvino": ("", "openvino"),
    "cupy-cuda13x": ("cupy", "gpu"),
    "tensorrt": ("tensorrt", "tensorrt"),
    "tensorrt-lean-cu13": ("tensorrt_lean", ""),
    "tensorrt_rtx": ("tensorrt_rtx", "rtx"),
    "cryptography": ("cryptography", "sign"),
    "torch": ("", "train"),
    "onnx": ("", "export"),
}
"""Distribution → the module to import (empty: importing takes too long) and the extra that installs it."""

DRIVER_REMEDY = (
    "install NVIDIA's driver, 580 or later for CUDA 13, or run on a node or in a container that has it; "
    "without a GPU use --device cpu"
)


@dataclass(frozen=True, slots=True)
class Library:
    """One library: the installed version, and where something is wrong, what and the remedy."""

    name: str
    version: str | None
    problem: str | None
    remedy: str | None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What one engine would do on this machine.

    Attributes:
        engine: its name.
        works: whether everything that it needs is there.
        message: what it would do, or what is missing and the remedy.
    """

    engine: str
    works: bool
    message: str


def libraries() -> list[Library]:
    """Check every library that an engine or a command needs."""
    found = []
    for name, (module, extra) in LIBRARIES.items():
        remedy = f"pip install 'n2n-deploy[{extra}]'" if extra else f"pip install {name}"
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found.append(Library(name, None, "not installed", remedy))
            continue
        problem = None
        try:
            if module:
                importlib.import_module(module)
        except (ImportError, OSError) as error:
            problem = f"does not load: {error}"
        found.append(Library(name, version, problem, f"{remedy} --force-reinstall" if problem else None))
    return found


def diagnose_engines(bundle: Bundle | None = None) -> list[Diagnosis]:
    """Ask each engine, the fastest first, what it would do on this machine, with a bundle or with any."""
    found = []
    for engine in ENGINES:
        try:
            if engine.gpu and driver().problem is not None:
                raise HostError("needs a GPU with its driver (see there); without one use --device cpu")
            found.append(Diagnosis(engine.name, True, engine.diagnose(bundle)))
        except HostError as error:
            found.append(Diagnosis(engine.name, False, str(error)))
    return found
