"""The plan of a batch: one job for each micrograph, made from headers alone before anything is computed."""

import functools
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from n2n_deploy.batch.lanes import map_lanes, with_time_limit
from n2n_deploy.batch.options import DenoiseOptions, OnExists
from n2n_deploy.batch.outputs import OutputLayout, half_outputs
from n2n_deploy.batch.provenance import outputs_status, provenance_label, work_of
from n2n_deploy.batch.status import Status
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.errors import DataError, HostError, N2NError, UsageError, names_file
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.core.sizes import size_text
from n2n_deploy.imaging.fourier import network_shape
from n2n_deploy.imaging.output_grid import OutputGrid, output_grid
from n2n_deploy.io.denoised_images import refuse_denoised
from n2n_deploy.io.halves import half_files
from n2n_deploy.io.mrc import read_image_header
from n2n_deploy.io.mrc_header import HEADER_BYTES, MRCHeader
from n2n_deploy.io.records import Micrograph

_HEADER_THREADS = 16
"""Reading a header waits for the file system, not the processor; a network file system answers several at once."""


@dataclass(frozen=True, slots=True)
class Job:
    """One micrograph and what to do with it.

    Attributes:
        micrograph: the record of the table.
        output: the file to write.
        label: provenance, the MRC label by which a later run recognises this work as finished; empty if refused.
        status: to do, done by an earlier run, kept (an output of other work exists and stays) or refused.
        reason: why it was refused, or what is known of the output that was kept.
        shape: (ny, nx) of the micrograph or of each image of a stack; (0, 0) if refused.
        sections: images of a stack, such as a tilt series; 1 for a micrograph.
        grid: size and pixel size of the output; None if refused.
    """

    micrograph: Micrograph
    output: Path
    label: str
    status: Status
    reason: str = ""
    shape: tuple[int, int] = (0, 0)
    sections: int = 1
    grid: OutputGrid | None = None

    @property
    def work(self) -> str:
        """Hash of the work that the output is to be the result of; empty if refused."""
        return work_of(self.label)

    def outputs(self, options: DenoiseOptions) -> tuple[Path, ...]:
        """Return all files to write, the denoised halves first if there are any."""
        return output_files(self.output, options)

    def images(self, options: DenoiseOptions) -> int:
        """Return how many images the outputs hold."""
        return self.sections * len(self.outputs(options))

    def output_bytes(self, options: DenoiseOptions) -> int:
        """Return the size of the outputs without extended headers."""
        height, width = self.grid.shape if self.grid else self.shape
        pixels = self.images(options) * height * width
        return HEADER_BYTES * len(self.outputs(options)) + pixels * (2 if options.dtype == "float16" else 4)


@dataclass(frozen=True)
class Plan:
    """All jobs of a batch in the table's order.

    Attributes:
        jobs: one for each micrograph.
        bytes_needed: size of the outputs still to be written.
        bytes_free: space on the file system they go to.
        notes: what the user should know of the input as a whole, one line each.
    """

    jobs: Sequence[Job]
    bytes_needed: int
    bytes_free: int
    notes: Sequence[str] = ()

    def with_status(self, status: Status) -> list[Job]:
        """Return the jobs of one status."""
        return [job for job in self.jobs if job.status is status]

    def check(self, output: Path, on_exists: OnExists) -> None:
        """Refuse a plan that cannot succeed, before any work is done.

        Raises:
            UsageError: outputs of other work exist, and the options do not say what to do with them.
            HostError: the file system has too little space for the outputs.
        """
        kept = self.with_status(Status.KEPT)
        if kept and on_exists is OnExists.ERROR:
            raise UsageError(
                f"{len(kept)} outputs already exist and were not made by this model with these options "
                f"(the first: {kept[0].output}); choose another output folder, or --on-exists overwrite or skip"
            )
        if self.bytes_needed > self.bytes_free:
            raise HostError(
                f"{output}: the outputs need {size_text(self.bytes_needed)}, but only {size_text(self.bytes_free)} "
                "are free; make room or choose another output folder"
            )


def output_files(output: Path, options: DenoiseOptions) -> tuple[Path, ...]:
    """Return all files of a micrograph: its output, and before it the denoised halves if there are any."""
    return (*half_outputs(output), output) if options.halves else (output,)


def make_plan(
    micrographs: Sequence[Micrograph],
    problems: Mapping[int, str],
    layout: OutputLayout,
    model_hash: str,
    recipe: Recipe,
    options: DenoiseOptions,
    notes: Sequence[str] = (),
) -> Plan:
    """Look at every input's header and every output's label.

    Args:
        micrographs: the records of the table, or some of them.
        problems: why a row cannot be used, by row.
        layout: where outputs go.
        model_hash: the bundle's short hash.
        recipe: the bundle's recipe.
        options: of the run.
        notes: of the plan.

    Raises:
        UsageError: an output would overwrite an input.
        HostError: the file system does not answer.
    """
    outputs = [layout(micrograph.name) for micrograph in micrographs]

    def look_at_folders() -> int:
        inputs = [micrograph.path for micrograph in micrographs]
        if options.need_halves:
            inputs += [half for micrograph in micrographs for half in (micrograph.even, micrograph.odd) if half]
        _check_apart(inputs, [path for output in outputs for path in output_files(output, options)])
        return shutil.disk_usage(_existing(layout.output)).free

    reason = f"looking at the folders of the micrographs and at {layout.output}"
    free = with_time_limit(look_at_folders, options.timeout, reason)

    def look(index: int) -> Job:
        micrograph, path = micrographs[index], outputs[index]
        if micrograph.row in problems:
            reason = problems[micrograph.row]
        elif recipe.phase_flip and micrograph.ctf is None:
            reason = (
                f"{micrograph.name}: the table has no CTF for it, which the model needs to flip phases; "
                "estimate the CTF, or train a model with --no-phase-flip"
            )
        else:
            with waiting_for(f"looking at {micrograph.path}"):
                return look_at(micrograph, path, model_hash, recipe, options)
        return Job(micrograph, path, "", Status.REFUSED, reason)

    planned = []
    found = map_lanes(look, len(outputs), _HEADER_THREADS, options.timeout)
    for micrograph, path, job in zip(micrographs, outputs, found, strict=True):
        if isinstance(job, N2NError):
            job = Job(micrograph, path, "", Status.REFUSED, f"{micrograph.name}: {job}")
        planned.append(job)
    needed = sum(job.output_bytes(options) for job in planned if job.status is Status.PENDING)
    return Plan(planned, needed, free, notes)


def look_at(micrograph: Micrograph, path: Path, model_hash: str, recipe: Recipe, options: DenoiseOptions) -> Job:
    """Plan one micrograph from the headers of its input and its output."""
    try:
        header = read_image_header(micrograph.path)
        _check_usable(micrograph, header, recipe, options)
        with names_file(micrograph.path):
            grid = output_grid(header.shape, micrograph.optics.pixel_size, options.output_pixel_size)
        files = [micrograph.path]
        if options.need_halves:
            shape = header.shape if header.sections == 1 else (header.sections, *header.shape)
            files += half_files(micrograph, shape, allow_denoised=options.allow_denoised)
        stamps = [(stat.st_size, stat.st_mtime_ns) for stat in (file.stat() for file in files)]
    except (DataError, OSError) as error:
        return Job(micrograph, path, "", Status.REFUSED, str(error))
    label = provenance_label(model_hash, options, recipe, micrograph, stamps)
    status, reason = outputs_status(output_files(path, options), work_of(label))
    if status is Status.KEPT and options.on_exists is OnExists.OVERWRITE:
        status, reason = Status.PENDING, ""
    return Job(micrograph, path, label, status, reason, header.shape, header.sections, grid)


def look_at_headers(paths: Sequence[Path], timeout: float) -> Sequence[MRCHeader | N2NError]:
    """Read many headers in parallel; one that cannot be read, or not in time, is replaced by the error."""

    def look(index: int) -> MRCHeader:
        with waiting_for(f"looking at {paths[index]}"):
            return read_image_header(paths[index])

    return map_lanes(look, len(paths), _HEADER_THREADS, timeout)


def _check_apart(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse outputs that would overwrite inputs, also through links."""
    folder = functools.cache(os.path.realpath)

    def real(path: Path) -> str:
        head, _, name = str(path).rpartition("/")
        return f"{folder(head or '.')}/{name}"

    taken = {real(path) for path in inputs}
    for path in inputs:
        with suppress(OSError):
            if os.path.islink(path):  # noqa: PTH114
                taken.add(os.path.realpath(path))
    for path in outputs:
        if real(path) in taken:
            raise UsageError(f"{path} is one of the inputs; choose another output folder")


def _check_usable(micrograph: Micrograph, header: MRCHeader, recipe: Recipe, options: DenoiseOptions) -> None:
    """Raise DataError if an image was denoised already, is too small, or has one CTF for the images of a stack."""
    if not options.allow_denoised:
        refuse_denoised(header)
    if header.sections > 1 and recipe.phase_flip:
        raise DataError(
            f"{micrograph.path}: holds {header.sections} images, and the model needs the CTF of each to flip phases; "
            "give RELION 5's table of tilt series with the CTF of each image, or a model trained with --no-phase-flip"
        )
    with names_file(micrograph.path):
        network_shape(header.shape, micrograph.optics.pixel_size, recipe.max_resolution)


def _existing(folder: Path) -> Path:
    """The nearest folder on the way up that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
