"""`DenoiseOptions`: what a run was asked to do, and the part of it that changes the output's pixels."""

import hashlib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from n2n_deploy.bundle.manifest import Precision
from n2n_deploy.core.errors import UsageError
from n2n_deploy.device.gpus import gpus
from n2n_deploy.imaging.restore import Merge

_OUTPUT = {"merge_resolution", "merge_width", "flip_back", "lowpass", "augment", "average_halves", "dtype", "precision"}


class OnExists(StrEnum):
    """What to do where an output is already there and is not this run's finished work."""

    SKIP = "skip"
    OVERWRITE = "overwrite"
    ERROR = "error"


class DenoiseOptions(BaseModel):
    """Options of a batch.

    Attributes:
        merge_resolution: Å; keep the noisy spectrum above this frequency (S2.4). None: the output is denoised only.
        merge_width: Å-derived width of the soft edge of the merge band, as `Merge` defines it.
        flip_back: undo the phase flip in the output.
        lowpass: Å; a further soft low-pass of the output.
        augment: average the network over the eight flips and quarter turns of its input.
        average_halves: denoise the even and the odd half and average, in place of denoising the whole sum.
        dtype: of the files written.
        on_exists: what to do with outputs that are there; finished work of the same model and options is always kept.
        device: where the network runs.
        gpus: indices of the GPUs to use, with as many lanes each; None for the one that `device` means.
        engine: the one engine to use; None for the best that works.
        precision: of the network; None for the engine's own.
        trusted_keys: file or folder of public keys, one of which must have signed the bundle.
        memory: bytes the process may use; None for a share of what is free.
        threads: CPU threads of the network; None for all.
        lanes: micrographs in hand at once, in each process, on each of its GPUs; fewer where memory is short. None for
            what `lanes_here` says.
        timeout: seconds that reading or writing one file may take before it is given up.
        max_failures: end the run once more micrographs than this have failed; None to go on whatever fails.
        report: write `report.html`, where the libraries for it are installed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    merge_resolution: Annotated[float, Field(gt=0)] | None = None
    merge_width: Annotated[float, Field(gt=0)] = 1.0
    flip_back: bool = False
    lowpass: Annotated[float, Field(gt=0)] | None = None
    augment: bool = False
    average_halves: bool = False
    dtype: Literal["float32", "float16"] = "float32"
    on_exists: OnExists = OnExists.ERROR
    device: str = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    engine: str | None = None
    precision: Precision | None = None
    trusted_keys: Path | None = None
    memory: Annotated[int, Field(gt=0)] | None = None
    threads: Annotated[int, Field(gt=0)] | None = None
    lanes: Annotated[int, Field(gt=0)] | None = None
    timeout: Annotated[float, Field(gt=0)] = 600.0
    max_failures: Annotated[int, Field(ge=0)] | None = None
    report: bool = True

    @model_validator(mode="after")
    def _one_way_to_name_gpus(self) -> Self:
        if self.gpus is not None:
            if self.device not in ("auto", "gpu"):
                raise ValueError(f"GPUs {self.gpus} and device {self.device} do not go together; give one of them")
            if len(set(self.gpus)) < len(self.gpus):
                raise ValueError("a GPU is named twice")
        return self

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices to open the model on, one for each GPU."""
        return (self.device,) if self.gpus is None else tuple(f"cuda:{index}" for index in self.gpus)

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
        return max(2, min(8, len(os.sched_getaffinity(0)) // (2 * len(self.devices))))

    @property
    def merge(self) -> Merge | None:
        """The merge band, None where nothing is merged."""
        if self.merge_resolution is None:
            return None
        return Merge(resolution=self.merge_resolution, width=self.merge_width)

    @property
    def output_hash(self) -> str:
        """Eight hexadecimal digits of the options that change what is written; the others may differ on resuming."""
        return hashlib.sha256(self.model_dump_json(include=_OUTPUT).encode()).hexdigest()[:8]


def parse_options(**values: Any) -> DenoiseOptions:
    """The options made of values a user gave.

    Raises:
        UsageError: a value makes no sense; the line names it, what was given and what is accepted.
    """
    try:
        return DenoiseOptions(**values)
    except ValidationError as error:
        first = error.errors()[0]
        named = f"{'.'.join(map(str, first['loc']))} = {first['input']!r}: " if first["loc"] else ""
        raise UsageError(named + first["msg"].removeprefix("Value error, ")) from error
