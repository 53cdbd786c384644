"""The facts of a run that the report shows: model, recipe, options, versions and hardware."""

import importlib.util
import platform
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from n2n_deploy.bundle.adaptation import Adaptation
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.sizes import size_text
from n2n_deploy.core.version import __version__
from n2n_deploy.device.gpus import driver
from n2n_deploy.device.processor import usable_cores
from n2n_deploy.report.entries import RunInfo

_LIBRARIES = ("jinja2", "PIL")

_VERSIONS = {
    "NumPy": ("numpy",),
    "SciPy": ("scipy",),
    "ONNX Runtime": ("onnxruntime", "onnxruntime-gpu"),
    "TensorRT": ("tensorrt-cu13", "tensorrt-cu12", "tensorrt"),
    "TensorRT for RTX": ("tensorrt-rtx",),
    "CuPy": ("cupy-cuda13x", "cupy-cuda12x"),
}
"""Libraries that results may depend on, and the distributions that provide them."""

_UNITS = {
    "max_resolution": "Å",
    "highpass": "Å",
    "patch_size": "px",
    "merge_resolution": "Å",
    "merge_width": "Å",
    "lowpass": "Å",
    "output_pixel_size": "Å",
    "timeout": "s",
}


def missing_libraries() -> list[str]:
    """Return the libraries that reports need and that are not installed; denoising does not need them."""
    return [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]


def run_info(
    title: str,
    bundle: Bundle,
    session: str,
    options: Mapping[str, Any],
    *,
    throughput: Mapping[str, Any],
    results: Mapping[str, Mapping[str, str]] | None = None,
    figures: Mapping[str, bytes] | None = None,
) -> RunInfo:
    """Collect the facts of a run in this process.

    Args:
        title: heading of the page.
        bundle: the model.
        session: name of the session that ran the network.
        options: the effective options; options that are None are left out.
        throughput: counts and times.
        results: results for the whole set: texts by quantity and column.
        figures: PNG files by caption.
    """
    model = {"file": bundle.path.name, "hash": bundle.short_hash, "preset": bundle.manifest.preset}
    if (adaptation := Adaptation.of(bundle)) is not None:
        model["adapted"] = adaptation.text
    return RunInfo(
        title,
        command_line(),
        model=model,
        recipe=bundle.recipe.model_dump(),
        options={name: value for name, value in options.items() if value is not None},
        versions=_versions(),
        hardware=_hardware() | {"network runs on": session},
        throughput=throughput,
        results=results or {},
        figures=figures or {},
    )


def command_line() -> str:
    """The command that started this process, quoted for a shell; empty if another program uses this package."""
    program = Path(sys.argv[0] if sys.argv else "")
    if program.name == "n2n-deploy":
        return shlex.join([program.name, *sys.argv[1:]])
    if program == Path(__file__).parents[1] / "__main__.py":
        return shlex.join(["python", "-m", "n2n_deploy", *sys.argv[1:]])
    return ""


def facts(run: RunInfo) -> dict[str, dict[str, str]]:
    """Convert the facts of a run to texts with units, by card and label; empty cards are left out.

    Options that are off, or that have no effect without another one, are left out.
    """
    off = {"merge_width"} if run.options.get("merge_resolution") is None else set()
    off |= {"report"} | {name for name, value in run.options.items() if value is False}
    cards = {
        "Throughput": run.throughput,
        "Model": run.model,
        "Recipe": run.recipe,
        "Options": {name: value for name, value in run.options.items() if name not in off},
        "Versions": run.versions,
        "Hardware": run.hardware,
    }
    texts = {
        title: {name.replace("_", " "): _text(name, value) for name, value in values.items() if value is not None}
        for title, values in cards.items()
    }
    return {title: card for title, card in texts.items() if card}


def _text(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if name == "memory":
        return size_text(value)
    return f"{value:g} {_UNITS[name]}" if name in _UNITS else str(value)


def _versions() -> dict[str, str]:
    found = {"n2n-deploy": __version__, "Python": platform.python_version()}
    for name, distributions in _VERSIONS.items():
        for distribution in distributions:
            try:
                found[name] = metadata.version(distribution)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def _hardware() -> dict[str, Any]:
    found: dict[str, Any] = {
        "host": platform.node(),
        "processor": _processor(),
        "cores": usable_cores(),
    }
    if gpus := driver().gpus:
        found["GPU"] = ", ".join(gpu.name for gpu in gpus)
        found["NVIDIA driver"] = driver().version or "unknown"
    return found


def _processor() -> str:
    """The processor's model name from Linux, or else its architecture."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match[1] if match else platform.machine()
