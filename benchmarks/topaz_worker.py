"""Topaz' `unet` on the CPU, run by `benchmarks.topaz` in Topaz' own environment, without n2n_deploy.

Reads paths of `.npy` images from standard input, denoises each as `topaz denoise --device -1` does by default (patches
of 1024, padded by 500), and prints one line of JSON for each: wall time and CPU time in seconds, peak memory in bytes.
"""

import importlib.metadata
import json
import resource
import sys
import time

import numpy as np
import torch

# PyPI's torchvision is built for CUDA builds of torch; with a CPU build its compiled operators do not load. Topaz uses
# torchvision only to augment training data: declaring the operators lets the import succeed and changes nothing else.
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from topaz.denoise import Denoise, denoise_image  # noqa: E402

PATCH_SIZE, PADDING = 1024, 500


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # Topaz prints to standard output
    model = Denoise("unet", use_cuda=False)
    packages = {name: importlib.metadata.version(name) for name in ("topaz-em", "torch", "numpy")}
    print(json.dumps({"versions": packages, "threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        image = np.load(line.strip())
        wall, cpu = time.perf_counter(), time.process_time()
        with torch.no_grad():
            denoise_image(image, [model], patch_size=PATCH_SIZE, padding=PADDING, use_cuda=False)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"wall": wall, "cpu": cpu, "peak_bytes": peak}), file=answers, flush=True)


if __name__ == "__main__":
    main()
