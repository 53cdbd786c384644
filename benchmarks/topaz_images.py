"""Topaz' pretrained models on images, run by `benchmarks.quality` in Topaz' own environment, without n2n_deploy.

    topaz/bin/python benchmarks/topaz_images.py MODEL < list

Each line of standard input names a `.npy` image and the `.npy` file to write, and is answered by one line of JSON.
Images are denoised whole, without tiles.
"""

import importlib.metadata
import json
import sys

import numpy as np
import torch

# PyPI's torchvision is built for CUDA builds of torch; with a CPU build its compiled operators do not load. Topaz uses
# torchvision only to augment training data: declaring the operators lets the import succeed and changes nothing else.
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from topaz.denoise import Denoise, denoise_image  # noqa: E402


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # Topaz prints to standard output
    model = Denoise(sys.argv[1], use_cuda=False)
    for line in sys.stdin:
        source, target = line.split()
        with torch.no_grad():
            denoised = denoise_image(np.load(source), [model], patch_size=0, use_cuda=False)
        np.save(target, np.asarray(denoised, np.float32))
        print(json.dumps({"written": target, "topaz-em": importlib.metadata.version("topaz-em")}), file=answers)
        answers.flush()


if __name__ == "__main__":
    main()
