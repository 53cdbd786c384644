"""What the reports say of a run: the model, its recipe, the options, versions and hardware."""

import importlib.util
import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy
import scipy

import n2n_deploy
from n2n_deploy.bundle import Bundle
from n2n_deploy.quality.entries import RunInfo

_LIBRARIES = ("jinja2", "PIL")


def missing_libraries() -> list[str]:
    """Name the libraries that reports need and that are not installed here; a node can do without them."""
    return [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]


def run_info(
    title: str,
    bundle: Bundle,
    session: str,
    options: Mapping[str, Any],
    *,
    throughput: Mapping[str, Any],
    results: Mapping[str, Any] | None = None,
    figures: Mapping[str, bytes] | None = None,
) -> RunInfo:
    """Gather the facts of a run in this process.

    Args:
        title: heading of the page.
        bundle: the model.
        session: what ran the network.
        options: the effective options; those without a value are left out.
        throughput: counts and times.
        results: what was found for the whole set.
        figures: PNG files by caption.
    """
    return RunInfo(
        title,
        model={"file": bundle.path.name, "hash": bundle.short_hash, "preset": bundle.manifest.preset},
        recipe=bundle.recipe.model_dump(),
        options={name: value for name, value in options.items() if value is not None},
        versions={
            "n2n-deploy": n2n_deploy.__version__,
            "Python": platform.python_version(),
            "NumPy": numpy.__version__,
            "SciPy": scipy.__version__,
        },
        hardware={
            "host": platform.node(),
            "machine": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
            "network runs on": session,
        },
        throughput=throughput,
        results=results or {},
        figures=figures or {},
    )
