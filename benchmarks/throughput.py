"""Micrographs per second on a GPU, end to end and by stage, against the limits that this machine shows when asked.

    python -m benchmarks.throughput --out throughput.json [--presets fast] [--precisions fp16] [--lanes 1,2,4,8]

K3 (5760×4092 at 0.83 Å/px) and Falcon (4096×4096 at 0.66 Å/px) micrographs of Poisson counts go through the batch's own
lanes with engines built for their size. The limits are copies through pinned memory, a large half-precision matrix
product, and the disk. Everything runs after a warm-up; files are read from the page cache. Writes JSON and, beside it,
a picture. Without a GPU it says so and ends with exit code 77, as skipped tests do.
"""

import argparse
import itertools
import json
import math
import platform
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SKIPPED = 77
CAMERAS = {"K3": ((4092, 5760), 0.83), "Falcon": ((4096, 4096), 0.66)}
STAGES = ("read", "H2D", "preprocess", "network", "restore", "D2H", "write")
REPEATS = 10


def main() -> None:
    """Measure every case, print a line each, and write JSON and a picture."""
    from n2n_deploy.engines.gpus import driver

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--presets", default="fast,paper")
    parser.add_argument("--cameras", default="K3,Falcon")
    parser.add_argument("--resolutions", default="3.4,4.5,8")
    parser.add_argument("--precisions", default="fp32,fp16,bf16")
    parser.add_argument("--lanes", default="1,2,4,8")
    parser.add_argument("--micrographs", type=int, default=48, help="per case, after the warm-up")
    parser.add_argument("--engine", default="tensorrt", help="as n2n-deploy denoise --engine names it")
    options = parser.parse_args()
    if (problem := driver().problem) is not None:
        print(f"SKIPPED: {problem}; this benchmark measures a GPU")
        sys.exit(SKIPPED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        report: dict[str, Any] = {"machine": machine(), "limits": limits(folder), "cases": []}
        print(json.dumps({"machine": report["machine"], "limits": report["limits"]}, indent=1))
        combinations = itertools.product(
            options.presets.split(","),
            options.cameras.split(","),
            map(float, options.resolutions.split(",")),
            options.precisions.split(","),
        )
        for preset, camera, resolution, precision in combinations:
            lanes = [int(count) for count in options.lanes.split(",")]
            case = measure(folder, preset, camera, resolution, precision, options.engine, lanes, options.micrographs)
            case["share_of_matrix_rate"] = case["network_tflops"] / report["limits"]["half_matrix_tflops"]
            report["cases"].append(case)
            print(json.dumps(case), flush=True)
            options.out.write_text(json.dumps(report, indent=1))
    picture(report, options.out.with_suffix(".png"))


def machine() -> dict[str, Any]:
    """Versions and hardware, which figures mean nothing without."""
    import cupy

    import n2n_deploy
    from n2n_deploy.engines.gpus import driver
    from n2n_deploy.engines.survey import libraries

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
    half = cupy.ones((side, side), cupy.float16)
    single = cupy.ones((side, side), cupy.float32)
    found = {
        "H2D_GB_s": size / 1e9 / gpu_seconds(lambda: there.set(pinned, stream)),
        "D2H_GB_s": size / 1e9 / gpu_seconds(lambda: there.get(stream, out=pinned, blocking=False)),
        "half_matrix_tflops": 2e-12 * side**3 / gpu_seconds(lambda: half @ half),
        "single_matrix_tflops": 2e-12 * side**3 / gpu_seconds(lambda: single @ single),
    }
    path = folder / "disk"
    start = time.perf_counter()
    path.write_bytes(memoryview(pinned))
    written = time.perf_counter()
    path.read_bytes()
    found["write_GB_s"] = size / 1e9 / (written - start)
    found["read_cached_GB_s"] = size / 1e9 / (time.perf_counter() - written)
    return found


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


def measure(
    folder: Path,
    preset: str,
    camera: str,
    resolution: float,
    precision: Any,
    engine: str,
    lanes: list[int],
    count: int,
) -> dict[str, Any]:
    """One network, camera, resolution and precision: stages alone, then whole micrographs with 1 to 8 lanes."""
    import cupy

    from n2n_deploy.bundle import Bundle
    from n2n_deploy.denoiser import Denoiser
    from n2n_deploy.engines.profiles import plan_profiles
    from n2n_deploy.engines.select import choose_session
    from n2n_deploy.export.tensorrt_engine import compile_bundle
    from n2n_deploy.imaging.fourier import network_shape

    shape, pixel_size = CAMERAS[camera]
    size = network_shape(shape, pixel_size, resolution)
    bundle = make_bundle(folder / "model.n2n", preset, resolution)
    if engine in ("tensorrt", "rtx"):
        golden = bundle.golden()[0].shape
        profiles = plan_profiles([size], must_take=(golden[2], golden[3]))
        compile_bundle(bundle, "rtx" if engine == "rtx" else "tensorrt", [precision], profiles)
        bundle = Bundle.open(bundle.path)
    source = make_micrograph(folder / f"{camera}.mrc", camera)
    with choose_session(bundle, "gpu", engine=engine, precision=precision).session as session:
        with Denoiser(bundle, session=session) as denoiser:
            seconds = stages(denoiser, source, folder)
        rates, host = {}, {}
        for number in lanes:
            with Denoiser(bundle, session=session, lanes=number) as denoiser:
                rates[number], host[number] = end_to_end(denoiser, source, folder, number, count)
    cupy.get_default_memory_pool().free_all_blocks()
    busy = sum(seconds[stage] for stage in ("H2D", "preprocess", "network", "restore", "D2H"))
    best = max(rates.values())
    return {
        "preset": preset,
        "camera": camera,
        "max_resolution": resolution,
        "precision": precision,
        "engine": engine,
        "network_input": size,
        "seconds": seconds,
        "network_tflops": network_flops(preset, size) / seconds["network"] / 1e12,
        "micrographs_per_second": rates,
        "host_memory_GB": host,
        "gpu_busy_estimate": min(1.0, busy * best),
    }


def stages(denoiser: Any, source: Path, folder: Path) -> dict[str, float]:
    """Seconds of each stage on its own, of one lane: CUDA events on the GPU, wall time on the host."""
    import cupy
    import cupyx

    from n2n_deploy.imaging.preprocess import preprocess
    from n2n_deploy.imaging.restore import restore
    from n2n_deploy.io.mrc import read_mrc, write_mrc

    image = read_mrc(source).data
    pinned = cupyx.empty_pinned(image.shape, image.dtype)
    pinned[...] = image
    optics, ctf = optics_of(source)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        there = cupy.asarray(image)
        prepared = preprocess(there, optics, ctf, denoiser.recipe)
        tile = denoiser.tile(image.shape, optics.pixel_size)
        result = restore(denoiser.network(prepared.image, tile), prepared)
        back = cupyx.empty_pinned(result.shape, result.dtype)
        found = {
            "read": host_seconds(lambda: read_mrc(source)),
            "H2D": gpu_seconds(lambda: there.set(pinned, stream)),
            "preprocess": gpu_seconds(lambda: preprocess(there, optics, ctf, denoiser.recipe)),
            "network": gpu_seconds(lambda: denoiser.network(prepared.image, tile)),
            "restore": gpu_seconds(lambda: restore(prepared.image, prepared)),
            "D2H": gpu_seconds(lambda: result.get(stream, out=back, blocking=False)),
        }
    found["write"] = host_seconds(lambda: write_mrc(folder / "out.mrc", back, label="benchmark"))
    return found


def end_to_end(denoiser: Any, source: Path, folder: Path, lanes: int, count: int) -> tuple[float, list[float]]:
    """Micrographs per second from file to file, `lanes` threads at once; GB of host memory held, ten times on the way.

    Memory that grows shows with `--micrographs 10000`.
    """
    from n2n_deploy.io.mrc import read_mrc, write_mrc
    from n2n_deploy.memory import process_memory

    optics, ctf = optics_of(source)
    waiting = iter(range(count + lanes))
    taking, ready = threading.Lock(), threading.Barrier(lanes + 1)
    held: list[float] = []

    def one(number: int) -> None:
        read = read_mrc(source)
        write_mrc(folder / f"out-{number % 64}.mrc", denoiser(read.data, optics, ctf), like=read, label="benchmark")

    def lane(number: int) -> None:
        one(number)
        ready.wait()
        while True:
            with taking:
                index = next(waiting, None)
            if index is None:
                return
            if index % max(1, count // 10) == 0:
                held.append(process_memory() / 1e9)
            one(index)

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    ready.wait()
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    return (count + lanes) / (time.perf_counter() - start), held


def host_seconds(work: Callable[[], Any], repeats: int = REPEATS) -> float:
    """Median wall time, after a warm-up."""
    work()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def network_flops(preset: str, size: tuple[int, int], side: int = 256) -> float:
    """Floating-point operations of a network for one image as PyTorch counts them, without padded channels."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from n2n_deploy.train.model import build

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(preset)(torch.zeros(1, 1, side, side))
    return counter.get_total_flops() * math.prod(size) / side**2


def make_bundle(path: Path, preset: str, resolution: float) -> Any:
    """Export a network of this preset with random weights: speed does not depend on them."""
    from n2n_deploy.bundle import Bundle
    from n2n_deploy.export import export_bundle
    from n2n_deploy.recipe import Recipe
    from n2n_deploy.train.checkpoint import save_model
    from n2n_deploy.train.config import TrainConfig
    from n2n_deploy.train.model import build

    checkpoint = path.with_suffix(".pt")
    config = TrainConfig(preset=preset, recipe=Recipe(max_resolution=resolution))
    save_model(checkpoint, build(preset), config, 0, {})
    return Bundle.open(export_bundle(checkpoint, path))


def make_micrograph(path: Path, camera: str) -> Path:
    """Poisson counts of 30 electrons a pixel over a slow gradient; made once."""
    from n2n_deploy.io.mrc import write_mrc

    (ny, nx), pixel_size = CAMERAS[camera]
    if not path.is_file():
        y, x = np.mgrid[0:ny, 0:nx]
        counts = np.random.default_rng(0).poisson(30 + 3 * x / nx + 2 * y / ny)
        write_mrc(path, counts.astype(np.float32), pixel_size=pixel_size, label="benchmark")
    return path


def optics_of(source: Path) -> tuple[Any, Any]:
    """Optics and defocus of the micrographs made here."""
    from n2n_deploy.imaging.ctf import CTFParameters, Optics

    return Optics(CAMERAS[source.stem][1], 300.0, 2.7, 0.1), CTFParameters(12000.0, 11500.0, 30.0)


def picture(report: dict[str, Any], path: Path) -> None:
    """Micrographs per second over lanes, and the stages of each case."""
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(14, 6))
    for case in report["cases"]:
        name = f"{case['preset']} {case['camera']} {case['max_resolution']:g} Å {case['precision']}"
        rates = case["micrographs_per_second"]
        left.plot([int(count) for count in rates], list(rates.values()), marker="o", label=name)
    left.set(xlabel="lanes", ylabel="micrographs per second, file to file")
    left.legend(fontsize=6)
    bottom = np.zeros(len(report["cases"]))
    for stage in STAGES:
        heights = np.array([1e3 * case["seconds"][stage] for case in report["cases"]])
        right.bar(np.arange(len(heights)), heights, bottom=bottom, label=stage)
        bottom += heights
    right.set(xlabel="case", ylabel="ms per micrograph, each stage alone")
    right.legend()
    figure.suptitle(", ".join(report["machine"]["gpus"]))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
