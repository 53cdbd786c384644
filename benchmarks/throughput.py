"""Micrographs per second on a GPU, end to end and by stage, against the limits that this machine shows when asked.

    python -m benchmarks.throughput --out throughput.json [--presets fast] [--precisions fp16] [--lanes 1,2,4,8]

K3 (5760×4092 at 0.83 Å/px) and Falcon (4096×4096 at 0.66 Å/px) micrographs of Poisson counts go from file to file, as
many at once as there are lanes, with engines built for their size. The limits are copies through pinned memory, large
matrix products in the network's precision, and the disk. Everything runs after a warm-up; files are read from the page
cache. How busy the GPU is, nvidia-smi says. Writes JSON and, beside it, a picture; a case that cannot be run is written
down with its reason. Without a GPU it says so and ends with exit code 77, as skipped tests do.
"""

import argparse
import itertools
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu_measures import gpu_seconds, gpu_use, host_seconds, limits, machine

SKIPPED = 77
CAMERAS = {"K3": ((4092, 5760), 0.83), "Falcon": ((4096, 4096), 0.66)}
STAGES = ("read", "H2D", "preprocess", "network", "restore", "D2H", "write")


def main() -> None:
    """Measure every case, print a line each, and write JSON and a picture."""
    from n2n_deploy.core.errors import N2NError
    from n2n_deploy.device.gpus import driver

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--presets", default="fast,paper")
    parser.add_argument("--cameras", default="K3,Falcon")
    parser.add_argument("--resolutions", default="3.4,4.5,8")
    parser.add_argument("--precisions", default="fp32,fp16,bf16")
    parser.add_argument("--lanes", default="1,2,4,8")
    parser.add_argument("--micrographs", type=int, default=48, help="per case, after the warm-up")
    parser.add_argument("--engine", default="tensorrt", help="as n2n-deploy denoise --engine names it")
    parser.add_argument("--folder", type=Path, help="where files are written, such as /dev/shm; by default /tmp")
    options = parser.parse_args()
    if (problem := driver().problem) is not None:
        print(f"SKIPPED: {problem}; this benchmark measures a GPU")
        sys.exit(SKIPPED)
    import torch

    if not torch.cuda.is_available():
        sys.exit(
            f"torch {torch.__version__} cannot use the GPU, and measures the matrix products; make gpu-test sets up one"
        )
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
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
            case: dict[str, Any] = {"preset": preset, "camera": camera, "max_resolution": resolution}
            case |= {"precision": precision, "engine": options.engine}
            try:
                case |= measure(
                    folder, preset, camera, resolution, precision, options.engine, lanes, options.micrographs
                )
                matrix_rate = report["limits"][f"{precision}_matrix_tflops"]
                case["share_of_matrix_rate"] = case["network_tflops"] / matrix_rate
            except (N2NError, MemoryError, RuntimeError) as error:  # CUDA's own errors are of the last kind
                case["error"] = str(error)
            report["cases"].append(case)
            print(json.dumps(case), flush=True)
            options.out.write_text(json.dumps(report, indent=1))
    picture(report, options.out.with_suffix(".png"))


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

    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.core.options import ComputeOptions
    from n2n_deploy.denoiser.denoiser import Denoiser
    from n2n_deploy.engines.tensorrt.profiles import make_profiles
    from n2n_deploy.export.tensorrt_engine import compile_bundle
    from n2n_deploy.imaging.fourier import network_shape

    shape, pixel_size = CAMERAS[camera]
    size = network_shape(shape, pixel_size, resolution)
    bundle = make_bundle(folder / f"{preset}-{resolution:g}.n2n", preset, resolution)
    if engine in ("tensorrt", "rtx"):
        golden = bundle.golden()[0].shape
        profiles = make_profiles([size], must_take=(golden[2], golden[3]))
        compile_bundle(bundle, engine, [precision], profiles, timing_cache=folder / "timings")  # type: ignore[arg-type]
        bundle = Bundle.open(bundle.path)
    source = make_micrograph(folder / f"{camera}.mrc", camera)
    compute = ComputeOptions(device="gpu", engine=engine, precision=precision)  # type: ignore[arg-type]
    with Denoiser(bundle, compute=compute) as denoiser:
        seconds = stages(denoiser, source, folder)
    rates, host, busy, tiles = {}, {}, {}, {}
    for number in lanes:
        # A session of its own: networks keep memory for each lane that ever used them.
        cupy.get_default_memory_pool().free_all_blocks()
        laned = compute.model_copy(update={"lanes": number})
        with Denoiser(bundle, compute=laned) as denoiser, gpu_use() as used:
            tiles[number] = denoiser.tile(shape, pixel_size)
            rates[number], host[number] = end_to_end(denoiser, source, folder, number, count, used)
            busy[number] = statistics.median(used) if used else None
    cupy.get_default_memory_pool().free_all_blocks()
    return {
        "network_input": size,
        "seconds": seconds,
        "network_tflops": network_flops(preset, size) / seconds["network"] / 1e12,
        "micrographs_per_second": rates,
        "tile": tiles,
        "host_memory_GB": host,
        "gpu_busy_percent": busy,
    }


def stages(denoiser: Any, source: Path, folder: Path) -> dict[str, float]:
    """Seconds of each stage on its own, of one lane: CUDA events on the GPU, wall time on the host."""
    import cupy
    import cupyx

    from n2n_deploy.imaging.preprocess import preprocess
    from n2n_deploy.imaging.restore import restore
    from n2n_deploy.io.mrc import read_mrc, write_mrc
    from n2n_deploy.io.mrc_output import statistics

    image = read_mrc(source, empty=denoiser.empty).data
    optics, ctf = optics_of(source)
    with cupy.cuda.Stream(non_blocking=True) as stream:
        there = cupy.asarray(image)
        prepared = preprocess(there, optics, ctf, denoiser.recipe)
        tile = denoiser.tile(image.shape, optics.pixel_size)
        result = restore(denoiser.network(prepared.image, tile), prepared)
        back = cupyx.empty_pinned(result.shape, result.dtype)
        found = {
            "read": host_seconds(lambda: read_mrc(source, empty=denoiser.empty)),
            "H2D": gpu_seconds(lambda: there.set(image, stream)),
            "preprocess": gpu_seconds(lambda: preprocess(there, optics, ctf, denoiser.recipe)),
            "network": gpu_seconds(lambda: denoiser.network(prepared.image, tile)),
            "restore": gpu_seconds(lambda: restore(prepared.image, prepared)),
            "D2H": gpu_seconds(lambda: result.get(stream, out=back, blocking=False)),
        }
    known = statistics(back)
    found["write"] = host_seconds(lambda: write_mrc(folder / "out.mrc", back, label="benchmark", statistics=known))
    return found


def end_to_end(
    denoiser: Any, source: Path, folder: Path, lanes: int, count: int, used: list[int]
) -> tuple[float, list[float]]:
    """Micrographs per second from file to file, `lanes` threads at once; GB of host memory held, ten times on the way.

    Memory that grows shows with `--micrographs 10000`. `used`, samples of how busy the GPU is, is left with those of
    the time that counts.
    """
    from n2n_deploy.device.memory import process_memory
    from n2n_deploy.io.mrc import read_mrc, write_mrc

    optics, ctf = optics_of(source)
    waiting = iter(range(count + lanes))
    taking, ready = threading.Lock(), threading.Barrier(lanes + 1)
    held: list[float] = []
    errors: list[BaseException] = []

    def one(number: int) -> None:
        read = read_mrc(source, empty=denoiser.empty)
        result = denoiser.denoise(read.data, optics, ctf, network_images=False)
        path = folder / f"out-{number % 64}.mrc"
        write_mrc(path, result.image, like=read, label="benchmark", statistics=result.statistics)

    def lane(number: int) -> None:
        try:
            one(number)
            ready.wait()
            while not errors:
                with taking:
                    index = next(waiting, None)
                if index is None:
                    return
                if index % max(1, count // 10) == 0:
                    held.append(process_memory() / 1e9)
                one(index)
        except BaseException as error:  # raised below: a rate of lanes that died would be none
            errors.append(error)
            ready.abort()

    threads = [threading.Thread(target=lane, args=(number,)) for number in range(lanes)]
    for thread in threads:
        thread.start()
    with suppress(threading.BrokenBarrierError):
        ready.wait()
    first = len(used)
    start = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - start
    if errors:
        raise errors[0]
    del used[:first]
    return (count + lanes) / seconds, held


def network_flops(preset: str, size: tuple[int, int], side: int = 256) -> float:
    """Floating-point operations of a network for one image as PyTorch counts them, without padded channels."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from n2n_deploy.train.model import build

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        build(preset)(torch.zeros(1, 1, side, side))
    return counter.get_total_flops() * math.prod(size) / side**2


def make_bundle(path: Path, preset: str, resolution: float) -> Any:
    """Export a network of this preset with random weights, once: speed does not depend on them."""
    from n2n_deploy.bundle.archive import Bundle
    from n2n_deploy.core.recipe import Recipe
    from n2n_deploy.export import export_bundle
    from n2n_deploy.train.checkpoint import save_model
    from n2n_deploy.train.config import TrainConfig
    from n2n_deploy.train.model import build

    if path.is_file():
        return Bundle.open(path)
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
    cases = [case for case in report["cases"] if "error" not in case]
    for case in cases:
        name = f"{case['preset']} {case['camera']} {case['max_resolution']:g} Å {case['precision']}"
        rates = case["micrographs_per_second"]
        left.plot([int(count) for count in rates], list(rates.values()), marker="o", label=name)
    left.set(xlabel="lanes", ylabel="micrographs per second, file to file")
    left.legend(fontsize=6)
    bottom = np.zeros(len(cases))
    for stage in STAGES:
        heights = np.array([1e3 * case["seconds"][stage] for case in cases])
        right.bar(np.arange(len(heights)), heights, bottom=bottom, label=stage)
        bottom += heights
    right.set(xlabel="case", ylabel="ms per micrograph, each stage alone")
    right.legend()
    figure.suptitle(", ".join(report["machine"]["gpus"]))
    figure.tight_layout()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
