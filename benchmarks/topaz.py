"""Speed relative to Topaz' default `unet` per raw megapixel, both on the CPU, in turns.

    python -m benchmarks.topaz --python TOPAZ_ENVIRONMENT/bin/python [--repeats 2] [--side 4096] [--out report.json]

A micrograph of Poisson counts at 0.66 Å/px, max_resolution 3.4 Å. For n2n-deploy preprocessing, network and restoring
are timed, with default memory; for Topaz the function that `topaz denoise` calls for one image, without reading and
writing. Topaz stays loaded in its own process, which sleeps while n2n-deploy runs. Topaz' patches overlap, so its time
per megapixel grows with the side and is too favourable at 2048; at 4096 each repetition takes minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.common import Timing, describe, warn_if_busy, write_json
from benchmarks.pipeline import MAX_RESOLUTION, PIXEL_SIZE, make_bundle

HOW_TO = """To compare with Topaz, create an environment for it and give its Python with --python:
    python3 -m venv topaz
    topaz/bin/pip install torch==2.13.0 topaz-em==0.3.20 "setuptools<81"
    python -m benchmarks.topaz --python topaz/bin/python
(Topaz' pretrained models do not load with setuptools 81 or later.)"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=Path, help="Python of an environment with topaz-em")
    parser.add_argument("--preset", default="fast")
    parser.add_argument("--side", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.python is None or not options.python.is_file():
        sys.exit(HOW_TO)
    report = describe()
    print(report["hardware"], report["versions"], sep="\n")
    warn_if_busy()
    with tempfile.TemporaryDirectory() as name:
        report |= compare(Path(name), options)
    megapixels = options.side**2 / 1e6
    for who, timing in (("n2n-deploy", report["ours"]), ("Topaz", report["topaz"])):
        print(
            f"{who}: {timing['wall_p50'] / megapixels:.3f} s/Mpx of wall time, "
            f"{timing['best_cpu'] / megapixels:.3f} CPU-s/Mpx, for {options.side}×{options.side}"
        )
    print(f"ratio: {report['ratio']['clock']:.1f} in wall time, {report['ratio']['cpu']:.1f} in CPU time")
    if options.out:
        write_json(options.out, report)


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run both programs in turns: n2n-deploy once as a warm-up, then each `repeats` times."""
    from n2n_deploy.denoiser.denoiser import Denoiser
    from n2n_deploy.imaging.ctf import CTFParameters, Optics

    y, x = np.mgrid[0 : options.side, 0 : options.side] / options.side
    image = np.random.default_rng(0).poisson(30 + 3 * x + 2 * y).astype(np.float32)
    np.save(folder / "image.npy", image)
    optics, ctf = Optics(PIXEL_SIZE, 300.0, 2.7, 0.1), CTFParameters(12000.0, 11500.0, 30.0)
    ours, topaz = Timing(), Timing()
    # -P: the topaz.py of this folder must not hide the package
    command = [str(options.python), "-P", str(Path(__file__).with_name("topaz_worker.py"))]
    with (
        Denoiser(make_bundle(folder / "model.n2n", options.preset)) as denoiser,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker,
    ):
        facts = answer(worker.stdout)
        assert worker.stdin is not None
        denoiser(image, optics, ctf)
        for _ in range(options.repeats):
            ours.add(lambda: denoiser(image, optics, ctf))
            print(f"n2n-deploy: {ours.wall[-1]:.1f} s; now Topaz", flush=True)
            print(f"{folder / 'image.npy'}", file=worker.stdin, flush=True)
            measured = answer(worker.stdout)
            topaz.wall.append(measured["wall"])
            topaz.cpu.append(measured["cpu"])
            print(f"Topaz: {topaz.wall[-1]:.1f} s", flush=True)
        worker.stdin.close()
    return {
        "preset": options.preset,
        "side": options.side,
        "pixel_size": PIXEL_SIZE,
        "max_resolution": MAX_RESOLUTION,
        "engine": denoiser.session.name,
        "ours": ours.summary(),
        "topaz": topaz.summary() | facts | {"peak_bytes": measured["peak_bytes"]},
        "ratio": {
            "clock": float(np.median(topaz.wall) / np.median(ours.wall)),
            "cpu": min(topaz.cpu) / min(ours.cpu),
        },
    }


def answer(stream: IO[str] | None) -> dict[str, Any]:
    """Read the worker's next line."""
    line = stream.readline() if stream else ""
    if not line:
        sys.exit(f"Topaz did not start, see above.\n{HOW_TO}")
    found: dict[str, Any] = json.loads(line)
    return found


if __name__ == "__main__":
    main()
