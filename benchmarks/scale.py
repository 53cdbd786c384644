"""What a batch costs per micrograph beside the work itself: planning, dispatch, tables, memory, and Dask.

    python -m benchmarks.scale [--rows 1000,10000,100000] [--cluster] [--soak 20000] [--out scale.json]

Tiny micrographs (64×64, one file under many names), an identity network in a null session: what is left is the cost of
the batch runner. The soak denoises `--soak` micrographs in one process and samples memory, file handles and threads.
"""

import argparse
import gc
import io
import json
import os
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import psutil
from onnx import TensorProto, helper

from benchmarks.common import describe, warn_if_busy, write_json
from n2n_deploy.batch import run as batch_run
from n2n_deploy.batch.cluster import ClusterWorkers
from n2n_deploy.batch.lanes import run_lanes
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job, Status
from n2n_deploy.batch.run import Progress, run_task
from n2n_deploy.batch.task import Task
from n2n_deploy.batch.work import Outcome
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.bundle.manifest import Deviation, Manifest
from n2n_deploy.bundle.write import write_bundle
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.io.mrc import write_mrc

SIDE, PIXEL_SIZE = 64, 4.0
PER_FOLDER = 1000
OPTIONS = DenoiseOptions(report=False, lanes=2)


def main() -> None:
    """Measure and print; `--out` writes JSON too."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", default="1000,10000,100000")
    parser.add_argument("--cluster", action="store_true", help="Dask's cost per task, two processes")
    parser.add_argument("--soak", type=int, default=0, help="micrographs to denoise in one process")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    warn_if_busy()
    report: dict[str, Any] = describe() | {"rows": [], "cluster": None, "soak": None}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = null_bundle(folder / "null.n2n")
        for rows in map(int, filter(None, options.rows.split(","))):
            report["rows"].append(in_child(lambda rows=rows: measure(folder, bundle, rows)))
            print_costs(report["rows"][-1])
        if options.cluster:
            report["cluster"] = in_child(lambda: measure_cluster(folder, bundle, 2000))
            print(f"Dask: {report['cluster']['ms_per_task']:.2f} ms per task, {report['cluster']['tasks']} tasks")
        if options.soak:
            report["soak"] = in_child(lambda: soak(folder, bundle, options.soak))
            print_soak(report["soak"])
    if options.out:
        write_json(options.out, report)


class NullWorkers:
    """Lanes whose jobs take no time: what is left is handing them out and taking their outcomes."""

    session = "null"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """As lanes do it."""
        seconds = dict.fromkeys(("read", "preprocess", "network", "restore", "write"), 0.0)
        for _, result in run_lanes(jobs, lambda job, _: Outcome(job, seconds=seconds), 2, stop, 600.0):
            assert isinstance(result, Outcome)
            yield result


def null_bundle(path: Path) -> Path:
    """A bundle with a network that returns its input."""
    axes = ["n", 1, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["image"], ["denoised"])],
        "identity",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, axes)],
        [helper.make_tensor_value_info("denoised", TensorProto.FLOAT, axes)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"bytes_per_pixel": "8"})
    network = model.SerializeToString()
    patch = np.random.default_rng(0).normal(size=(1, 1, 32, 32)).astype(np.float32)
    golden = io.BytesIO()
    np.savez(golden, inputs=patch, outputs=patch)
    tight = Deviation(max=1e-4, rms=1e-5)
    manifest = Manifest(preset="small", halo=0, tolerance={"fp32": tight, "fp16": tight})
    models = {"model.fp32.onnx": network, "model.fp16.onnx": network, "golden.npz": golden.getvalue()}
    write_bundle(path, manifest, Recipe(max_resolution=16.0, phase_flip=False), models)
    return path


def make_table(folder: Path, rows: int) -> Path:
    """A RELION table of `rows` micrographs: hard links to one file, a thousand in a folder."""
    folder.mkdir()
    original = folder / "original.mrc"
    image = np.random.default_rng(0).normal(size=(SIDE, SIDE)).astype(np.float32)
    write_mrc(original, image, pixel_size=PIXEL_SIZE, label="benchmark")
    lines = []
    for row in range(rows):
        name = f"Mics/job{row // PER_FOLDER:03d}/FoilHole_{row:06d}_Data_DW.mrc"
        path = folder / name
        if row % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        if row % 20_000 == 0:  # file systems limit the links of one file
            shutil.copy(original, path)
            source = path
        else:
            os.link(source, path)
        lines.append(f"{name} 1 {15000 + row % 977}.{row % 100:02d} 14900.0 30.0 3.450 0.1234 0\n")
    star = folder / "micrographs.star"
    star.write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroupName\n_rlnOpticsGroup\n_rlnVoltage\n_rlnSphericalAberration\n"
        f"_rlnAmplitudeContrast\n_rlnMicrographPixelSize\ngroup1 1 300 2.7 0.1 {PIXEL_SIZE}\n\n"
        "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\n_rlnDefocusU\n_rlnDefocusV\n"
        "_rlnDefocusAngle\n_rlnCtfMaxResolution\n_rlnCtfFigureOfMerit\n_rlnPhaseShift\n" + "".join(lines)
    )
    return star


def in_child(function: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run in a process of its own, so that memory is its own."""
    reader, writer = os.pipe()
    if (child := os.fork()) == 0:
        os.close(reader)
        with os.fdopen(writer, "w") as stream:
            try:
                json.dump(function(), stream)
            except BaseException:
                traceback.print_exc()
                stream.flush()
                os._exit(1)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        text = stream.read()
    os.waitpid(child, 0)
    if not text:
        sys.exit("the measurement failed")
    found = json.loads(text)
    return dict(found)


def measure(folder: Path, bundle: Path, rows: int) -> dict[str, Any]:
    """Milliseconds per micrograph of each part of a batch, and memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    task = Task.open(make_table(folder / f"rows{rows}", rows), bundle, folder / f"out{rows}", OPTIONS)
    costs: dict[str, float] = {}

    def timed(name: str, function: Callable[[], Any]) -> Any:
        start = time.perf_counter(), time.process_time()
        result = function()
        costs[name] = (time.perf_counter() - start[0]) / rows * 1e3
        costs[f"{name} (CPU)"] = (time.process_time() - start[1]) / rows * 1e3
        return result

    table = timed("reading the table", task.read)
    mirror = task.mirror(table)
    plan = timed("planning", lambda: task.plan(table.micrographs, table, mirror))
    assert len(plan.with_status(Status.PENDING)) == rows
    outputs: list[float] = []

    def progress(_: Progress) -> None:
        outputs.append(time.perf_counter())

    batch_run.open_workers = lambda *_, **__: NullWorkers()
    timed("the whole batch", lambda: run_task(task, progress=progress))
    ended = time.perf_counter()
    costs["dispatch and log"] = (outputs[-1] - outputs[0]) / rows * 1e3
    costs["tables and summary"] = (ended - outputs[-1]) / rows * 1e3
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    shutil.rmtree(folder / f"rows{rows}")
    shutil.rmtree(folder / f"out{rows}")
    return {"rows": rows, "ms_per_row": costs, "peak_mb": peak / 1e3, "kb_per_row": (peak - before) / rows}


def measure_cluster(folder: Path, bundle: Path, tasks: int) -> dict[str, Any]:
    """Milliseconds per task that Dask adds, in two processes, for jobs that fail at once."""
    opened = Bundle.open(bundle)
    star = make_table(folder / "cluster", 1)
    task = Task.open(star, bundle, folder / "out-cluster", OPTIONS)
    table = task.read()
    (job,) = task.plan(table.micrographs, table, task.mirror(table)).jobs
    with ClusterWorkers("local:2", opened, OPTIONS, logs=folder) as workers:
        client = workers._client
        client.submit(os.getpid, pure=False).result()
        job.micrograph.path.unlink()
        seen = 0
        start = time.perf_counter()
        for _ in workers.run((job for _ in range(tasks)), threading.Event()):
            seen += 1
        seconds = time.perf_counter() - start
    return {"tasks": seen, "ms_per_task": seconds / seen * 1e3}


def soak(folder: Path, bundle: Path, count: int) -> dict[str, Any]:
    """Memory, file handles and threads of one process while it denoises many micrographs."""
    task = Task.open(make_table(folder / "soak", count), bundle, folder / "out-soak", OPTIONS)
    process = psutil.Process()
    samples: list[dict[str, float]] = []

    def progress(event: Progress) -> None:
        if event.outcome is not None and event.finished % max(count // 50, 1) == 0:
            gc.collect()
            samples.append(
                {
                    "done": event.finished,
                    "rss_mb": process.memory_info().rss / 1e6,
                    "files": process.num_fds(),
                    "threads": process.num_threads(),
                }
            )

    start = time.perf_counter()
    summary = run_task(task, progress=progress)
    seconds = time.perf_counter() - start
    assert (summary.denoised, summary.exit_code) == (count, 0)
    late = samples[len(samples) // 5 :]
    growth = np.polyfit([sample["done"] for sample in late], [sample["rss_mb"] for sample in late], 1)[0] * 1e3
    return {"count": count, "seconds": seconds, "rss_kb_per_micrograph": float(growth), "samples": samples}


def print_costs(found: dict[str, Any]) -> None:
    """One table of `measure`."""
    print(f"{found['rows']} rows: peak {found['peak_mb']:.0f} MB, {found['kb_per_row']:.1f} kB a row")
    for name, cost in found["ms_per_row"].items():
        print(f"  {name:26s} {cost:8.4f} ms a row")


def print_soak(found: dict[str, Any]) -> None:
    """First, middle and last sample of `soak`."""
    print(
        f"soak: {found['count']} micrographs in {found['seconds']:.0f} s, {found['rss_kb_per_micrograph']:.3f} kB each"
    )
    samples = found["samples"]
    for sample in (samples[0], samples[len(samples) // 2], samples[-1]):
        print("  " + ", ".join(f"{key} {value:g}" for key, value in sample.items()))


if __name__ == "__main__":
    main()
