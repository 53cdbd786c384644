"""`DenoiseOptions`: what a run was asked to do, and the part of it that changes the output's pixels."""

import hashlib
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from n2n_deploy.core.options import ComputeOptions
from n2n_deploy.device.gpus import gpus
from n2n_deploy.device.processor import usable_cores
from n2n_deploy.imaging.restore import Merge

_OUTPUT = {"merge_resolution", "merge_width", "flip_back", "lowpass", "output_pixel_size"}
_OUTPUT |= {"invert", "tta", "average_halves", "halves", "dtype", "precision"}


class OnExists(StrEnum):
    """What to do where an output is already there and is not this run's finished work."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    ERROR = "error"


class DenoiseOptions(ComputeOptions):
    """What a batch does with each micrograph, and when it gives up; where it computes, see `ComputeOptions`.

    Attributes:
        max_resolution: Å; the finest resolution that the network sees, for a model that takes a range. None: its own.
        invert: protein is white in the input: the network sees the contrast inverted. The output has the input's.
        merge_resolution: Å; keep the noisy spectrum above this frequency (S2.4). None: the output is denoised only.
        merge_width: Å; width of the merge band, as `Merge` defines it.
        flip_back: undo the phase flip in the output.
        lowpass: Å; a further soft low-pass of the output.
        tta: test-time augmentation: average the network over the eight flips and quarter turns of its input.
        average_halves: denoise the even and the odd half and average, in place of denoising the whole sum.
        output_pixel_size: Å; Fourier-crop the output to coarser pixels; see `output_grid`.
        halves: also denoise the even and the odd half and write them beside the output, as `x_EVN.mrc` and
            `x_ODD.mrc`, for half tomograms and for resolution estimates from independent halves.
        allow_denoised: take inputs that this program denoised before.
        dtype: of the files written.
        png: write a picture of each output beside it, also of those that an earlier run finished.
        on_exists: what to do with outputs that are there; finished work of the same model and options is always kept.
        timeout: seconds that reading or writing one file may take before the micrograph is recorded as failed.
        max_failures: end the run once more micrographs than this have failed; None for no limit.
        report: write `report.html`, where the libraries for it are installed.
    """

    max_resolution: Annotated[float, Field(gt=0)] | None = None
    invert: bool = False
    merge_resolution: Annotated[float, Field(gt=0)] | None = None
    merge_width: Annotated[float, Field(gt=0)] = 1.0
    flip_back: bool = False
    lowpass: Annotated[float, Field(gt=0)] | None = None
    tta: bool = False
    average_halves: bool = False
    output_pixel_size: Annotated[float, Field(gt=0)] | None = None
    halves: bool = False
    allow_denoised: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    png: bool = False
    on_exists: OnExists = OnExists.ERROR
    timeout: Annotated[float, Field(gt=0)] = 600.0
    max_failures: Annotated[int, Field(ge=0)] | None = None
    report: bool = True

    @property
    def lanes_here(self) -> int:
        """The lanes that were asked for, or what suits this machine.

        On the CPU a second lane hides reading and writing behind the network of the first. A GPU is done with a
        micrograph long before a core has read, measured and written it: one lane for two cores, up to eight.
        """
        if self.lanes is not None:
            return self.lanes
        if self.device == "cpu" or not gpus():
            return 2
        return max(2, min(8, usable_cores() // (2 * len(self.devices))))

    @property
    def need_halves(self) -> bool:
        """Whether every micrograph must have its even and odd half."""
        return self.average_halves or self.halves

    @property
    def merge(self) -> Merge | None:
        """The merge band, None where nothing is merged."""
        if self.merge_resolution is None:
            return None
        return Merge(resolution=self.merge_resolution, width=self.merge_width)

    @property
    def output_hash(self) -> str:
        """Eight hexadecimal digits of the options that change the output; a resumed run may change the others.

        The resolution counts as part of the recipe: naming the model's own is the same as naming none.
        """
        return hashlib.sha256(self.model_dump_json(include=_OUTPUT).encode()).hexdigest()[:8]
