"""Seconds per megapixel by stage, and peak memory, of denoising one large micrograph on the CPU.

    python -m benchmarks.pipeline [--presets fast,paper] [--memory 3GB,default] [--engines ENGINE,…]
        [--precisions default,fp32,int8] [--checkpoint RUN/model.pt]

A 4096×4096 micrograph of Poisson counts at 0.66 Å/px, max_resolution 3.4 Å, is denoised by `n2n_deploy.batch` as in a
run: read, preprocess, network, restore, write. Each case runs in its own process, for its own peak memory. The networks
have random weights; time and memory do not depend on them. int8 needs a trained network: `--checkpoint`.
"""

import argparse
import itertools
import json
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import describe, write_json

SIDE, PIXEL_SIZE, MAX_RESOLUTION = 4096, 0.66, 3.4
STAGES = ("read", "preprocess", "network", "restore", "write")


def main() -> None:
    """Measure every case and print a line each; `--out` also writes JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--presets", default="fast,paper")
    parser.add_argument("--memory", default="default,3GB", help="limits; default: as on the command line")
    parser.add_argument("--engines", default="onnxruntime-cpu", help="onnxruntime-cpu, openvino")
    parser.add_argument("--precisions", default="default", help="default, fp32, bf16, int8")
    parser.add_argument("--checkpoint", type=Path, help="trained network, in place of those of --presets")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--case", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        bundle, scratch, memory, engine, precision = options.case
        run_case(Path(bundle), Path(scratch), memory, engine, precision, options.repeats)
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_micrograph(folder / "mic.mrc")
        for preset in ["trained"] if options.checkpoint else options.presets.split(","):
            bundle = make_bundle(folder / f"{preset}.n2n", preset, options.checkpoint)
            lists = (options.memory, options.engines, options.precisions)
            for memory, engine, precision in itertools.product(*(each.split(",") for each in lists)):
                command = [sys.executable, "-m", "benchmarks.pipeline", "--repeats", str(options.repeats)]
                command += ["--case", str(bundle), name, memory, engine, precision]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                case = {"preset": preset, "memory": memory, "engine": engine, "precision": precision}
                rows.append(case | json.loads(done.stdout.splitlines()[-1]))
                print_row(rows[-1])
    report = {"machine": describe(), "side": SIDE, "pixel_size": PIXEL_SIZE, "max_resolution": MAX_RESOLUTION}
    print(json.dumps(report["machine"]))
    if options.out:
        write_json(options.out, report | {"rows": rows})


def make_micrograph(path: Path) -> None:
    """Write Poisson counts of 30 electrons per pixel with a slow gradient."""
    from n2n_deploy.io.mrc import write_mrc

    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE
    counts = np.random.default_rng(0).poisson(30 + 3 * x + 2 * y)
    write_mrc(path, counts.astype(np.float32), pixel_size=PIXEL_SIZE, label="benchmark")


def make_bundle(path: Path, preset: str, trained: Path | None = None) -> Path:
    """Export a network of this preset with random weights, or a trained one with the benchmark's max_resolution."""
    from n2n_deploy.core.recipe import Recipe
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train.checkpoint import load_model, save_model
    from n2n_deploy.train.config import TrainConfig
    from n2n_deploy.train.model import build

    if trained is not None:
        model = load_model(trained)
        config = TrainConfig(preset=model.preset, recipe=Recipe(max_resolution=MAX_RESOLUTION))  # type: ignore[arg-type]
        save_model(path.with_suffix(".pt"), model.network(), config, model.step, {}, model.pairs)
        return export_bundle(path.with_suffix(".pt"), path)
    config = TrainConfig(preset=preset, recipe=Recipe(max_resolution=MAX_RESOLUTION))
    checkpoint = path.with_suffix(".pt")
    save_model(checkpoint, build(preset), config, 0, {})
    return export_bundle(checkpoint, path)


def run_case(bundle: Path, folder: Path, memory: str, engine: str, precision: str, repeats: int) -> None:
    """Run one case in this process: a warm-up and `repeats` micrographs; prints one line of JSON."""
    from n2n_deploy.batch.micrograph_job import denoise_one
    from n2n_deploy.batch.options import DenoiseOptions
    from n2n_deploy.batch.plan import Job
    from n2n_deploy.batch.status import Status
    from n2n_deploy.core.options import ComputeOptions
    from n2n_deploy.denoiser.denoiser import Denoiser
    from n2n_deploy.imaging.ctf import CTFParameters, Optics
    from n2n_deploy.io.records import Micrograph

    optics = Optics(PIXEL_SIZE, 300.0, 2.7, 0.1)
    micrograph = Micrograph("mic.mrc", folder / "mic.mrc", optics, CTFParameters(12000.0, 11500.0, 30.0))
    job = Job(micrograph, folder / "out" / "mic.mrc", "benchmark", Status.PENDING)
    limit = None if memory == "default" else memory
    named = {"engine": engine, "precision": None if precision == "default" else precision}
    compute = ComputeOptions.model_validate({"memory": limit, **named})
    with Denoiser(bundle, compute=compute) as denoiser:
        outcomes = [denoise_one(job, denoiser, DenoiseOptions()) for _ in range(1 + repeats)][1:]
    seconds: dict[str, Any] = {
        stage: statistics.median(outcome.seconds[stage] for outcome in outcomes) for stage in STAGES
    }
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"seconds": seconds, "tiles": outcomes[0].tiles, "peak_bytes": peak, "limit_bytes": limit}))


def print_row(row: dict[str, Any]) -> None:
    """Print one case."""
    seconds, megapixels = row["seconds"], SIDE * SIDE / 1e6
    total = sum(seconds.values())
    stages = ", ".join(f"{stage} {1e3 * value / megapixels:.1f}" for stage, value in seconds.items())
    print(
        f"{row['preset']}, {row['engine']}, {row['precision']}, memory {row['memory']}: "
        f"{total:.2f} s, {total / megapixels:.3f} s/Mpx "
        f"(ms/Mpx: {stages}), share without the network {1 - seconds['network'] / total:.1%}, "
        f"{row['tiles']} tiles, peak {row['peak_bytes'] / 1e9:.2f} GB",
        flush=True,
    )


if __name__ == "__main__":
    main()
