"""Training steps per second, and the time of the paper's 50 000 steps on this machine.

    python -m benchmarks.training [--presets paper,fast] [--precisions bf16,fp32] [--compile off,on] [--out F.json]

By default a step has the paper's 10 patches of 192². The real training loop runs on patches of noise in a store on
disk; the time per step is that between two reports of progress, after a warm-up (in which torch.compile compiles).
torch.compile is measured on GPUs only, bf16 on GPUs and on processors with AMX. The host's work for a batch (reading,
and pinning for a GPU) is timed separately: a thread does it ahead, so it costs nothing below 100 % of a step.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import Timing, describe, warn_if_busy, write_json
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.train import TrainConfig
from n2n_deploy.train.fit import Progress, find_device, fit
from n2n_deploy.train.loader import make_batch
from n2n_deploy.train.patches import cut_pairs, write_patches
from n2n_deploy.train.store import PatchStore

PAPER_STEPS = 50_000
BATCHES_ALONE = 100
PATCHES_ALONG = 4


class _EnoughError(Exception):
    """Ends a training once its steps have been timed."""


def main() -> None:
    """Measure every case, print a line each, and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="paper,fast,small")
    parser.add_argument("--precisions", default="bf16,fp32")
    parser.add_argument("--compile", default="off,on")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each case")
    parser.add_argument("--warmup", type=int, default=5, help="untimed steps before them")
    parser.add_argument("--batch-size", type=int, default=10)
    parser.add_argument("--patch-size", type=int, default=192)
    parser.add_argument("--micrographs", type=int, default=8, help="files of the patch store")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = find_device(options.device)
    on_gpu = device.type == "cuda"
    report: dict[str, Any] = describe() | {"device": str(device), "threads": torch.get_num_threads()}
    report |= {"batch_size": options.batch_size, "patch_size": options.patch_size, "cases": []}
    if on_gpu:
        report["gpu"] = torch.cuda.get_device_name(device)
    print(report["hardware"], report["versions"], report.get("gpu", "no GPU is used"), sep="\n")
    warn_if_busy()
    cases = itertools.product(
        options.presets.split(","),
        options.precisions.split(",") if on_gpu or multiplies_bfloat16() else ["fp32"],
        options.compile.split(",") if on_gpu else ["off"],
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        recipe = Recipe(patch_size=options.patch_size)
        store = make_store(folder, recipe, options.micrographs)
        for preset, precision, compiled in cases:
            config = TrainConfig(
                preset=preset,
                recipe=recipe,
                batch_size=options.batch_size,
                device=str(device),
                bf16=precision == "bf16",
                compile=compiled == "on",
            )
            case = measure(store, folder / f"{preset}-{precision}-{compiled}", config, options.warmup, options.steps)
            report["cases"].append({"preset": preset, "precision": precision, "compile": compiled, **case})
            print(line(report["cases"][-1]), flush=True)
            if options.out:
                write_json(options.out, report)


def make_store(folder: Path, recipe: Recipe, micrographs: int) -> PatchStore:
    """Cut noise into patches and store them."""
    rng = np.random.default_rng(0)
    side = PATCHES_ALONG * recipe.patch_size
    files = [folder / f"{number}.h5" for number in range(micrographs)]
    for path in files:
        even, odd = (rng.standard_normal((side, side), np.float32) for _ in range(2))
        write_patches(path, *cut_pairs(even, odd, recipe.patch_size), path.stem, recipe)
    return PatchStore(files)


def measure(store: PatchStore, out: Path, config: TrainConfig, warmup: int, steps: int) -> dict[str, Any]:
    """Train for some steps of the full schedule and time them."""
    ends: list[float] = []

    def note(progress: Progress) -> None:
        # Each step waits for its loss, so on a GPU only the update of the weights may still be running.
        ends.append(time.perf_counter())
        if progress.step == warmup + steps:
            raise _EnoughError

    with suppress(_EnoughError):
        fit(store, out, config, progress=note)
    step = statistics.median(np.diff(ends[warmup - 1 :]))
    numbers = np.arange(len(store))
    timing = Timing()
    for number in range(BATCHES_ALONE):
        timing.add(lambda: prepare(store, numbers, config, number))  # noqa: B023
    batch = statistics.median(timing.wall)
    return {
        "steps_per_second": 1 / step,
        "seconds_per_step": [float(seconds) for seconds in np.diff(ends[warmup - 1 :])],
        "host_ms_per_batch": 1e3 * batch,
        "host_cpu_ms_per_batch": 1e3 * statistics.median(timing.cpu),
        "loading_share_of_step": batch / step,
        "hours_for_50000_steps": PAPER_STEPS * step / 3600,
    }


def prepare(store: PatchStore, numbers: Any, config: TrainConfig, step: int) -> None:
    """Prepare a batch as the loader's thread does."""
    batch = make_batch(store, numbers, config, step)
    if torch.device(config.device).type == "cuda":
        for tensor in batch:
            tensor.pin_memory()


def line(case: dict[str, Any]) -> str:
    """Describe one case in a line."""
    return (
        f"{case['preset']:6} {case['precision']} compile {case['compile']:3} "
        f"{case['steps_per_second']:8.2f} steps/s, host {case['host_ms_per_batch']:.1f} ms per batch, "
        f"{100 * case['loading_share_of_step']:.1f} % of a step; {PAPER_STEPS} steps in "
        f"{case['hours_for_50000_steps']:.2f} h"
    )


if __name__ == "__main__":
    main()
