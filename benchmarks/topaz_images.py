"""Topaz' pretrained models on images, run by `benchmarks.quality` in Topaz' own environment; imports nothing of ours.

    topaz/bin/python benchmarks/topaz_images.py MODEL < list

Each line of standard input names a `.npy` image and the `.npy` file to write; the answer to each is one line of JSON.
Images are denoised whole: no seams, and nothing computed twice.
"""

import importlib.metadata
import json
import sys

import numpy as np
import torch

# PyPI's torchvision is built for CUDA's torch; beside torch for the CPU its compiled operators do not load. Topaz needs
# it for an augmentation in training only: naming the operators lets the import pass and touches nothing else.
_library = torch.library.Library("torchvision", "DEF")
for _name in ("nms", "qnms"):
    _library.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from topaz.denoise import Denoise, denoise_image  # noqa: E402


def main() -> None:
    answers, sys.stdout = sys.stdout, sys.stderr  # Topaz prints too
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
