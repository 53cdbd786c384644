"""One file through a denoiser into another: a micrograph, or a stack of images section by section."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.outputs import half_outputs
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.png import write_png
from n2n_deploy.batch.provenance import with_precision
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.errors import DataError, names_file
from n2n_deploy.denoiser.denoised import Denoised
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.io.mrc import MRCImage, read_mrc, write_mrc, write_stack

_PIXEL_SIZE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class FileTask:
    """A file to read and the one to write.

    Attributes:
        source: the input.
        output: the output.
        name: what it is of its micrograph, such as "even half"; empty for the micrograph itself.
        halves: files of the even and odd half, to be denoised and averaged in place of the input.
    """

    source: Path
    output: Path
    name: str = ""
    halves: tuple[Path, Path] | None = None


@dataclass
class FileResult:
    """What is known of a file that was denoised.

    Attributes:
        seconds: wall time by stage: read, preprocess, network, restore, write, png.
        notes: what the user should know of it.
        tiles: tiles the network saw.
        shown: the image for the report, of a stack the middle one; None if none was asked for.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tiles: int = 0
    shown: Denoised | None = None

    def spent(self, seconds: Mapping[str, float]) -> None:
        """Add to the wall time by stage."""
        for stage, value in seconds.items():
            self.seconds[stage] = self.seconds.get(stage, 0.0) + value

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the wall time of a block, unless it fails."""
        start = time.perf_counter()
        yield
        self.spent({stage: time.perf_counter() - start})


def file_tasks(job: Job, options: DenoiseOptions) -> list[FileTask]:
    """Return what a job reads and writes; the micrograph itself comes last, as its output proves that all is done."""
    micrograph = job.micrograph
    halves = (micrograph.even, micrograph.odd) if micrograph.even and micrograph.odd else None
    tasks = []
    if options.halves and halves is not None:
        outputs = half_outputs(job.output)
        tasks = [
            FileTask(halves[index], outputs[index], f"{which} half") for index, which in enumerate(("even", "odd"))
        ]
    return [*tasks, FileTask(micrograph.path, job.output, halves=halves if options.average_halves else None)]


def denoise_file(job: Job, task: FileTask, denoiser: Denoiser, options: DenoiseOptions, *, show: bool) -> FileResult:
    """Read, denoise and write one file.

    Args:
        job: with the optics and the CTF of its images.
        task: which file.
        denoiser: the model.
        options: of the run.
        show: keep what the report shows.

    Raises:
        N2NError: the input cannot be used or the output cannot be written; no incomplete output is left behind.
    """
    work = _Work(job, task, denoiser)
    label = with_precision(job.label, denoiser.precision)
    size = job.grid.pixel_size if job.grid else job.micrograph.optics.pixel_size
    start = time.perf_counter()
    if job.sections == 1:
        source = work.read(task.source)
        with names_file(task.source):
            result = work.denoise(source, show=show)
        work.found.shown = result if show else None
        with work.found.timed("write"), waiting_for(f"writing {task.output}"):
            write_mrc(
                task.output,
                result.image,
                like=source,
                label=label,
                pixel_size=result.pixel_size,
                dtype=options.dtype,
                statistics=result.statistics,
            )
        if options.png and not task.name:
            work.draw(result)
    else:
        source = work.read(task.source, 0)
        source = replace(source, data=np.empty(0))  # the header's; not to hold an image while others are denoised
        with waiting_for(f"writing {task.output}"):
            images = work.sections(show=show)
            write_stack(task.output, images, like=source, label=label, pixel_size=size, dtype=options.dtype)
        computed = sum(work.found.seconds.values())
        work.found.spent({"write": time.perf_counter() - start - computed})
    work.note(source)
    return work.found


class _Work:
    """The reading and denoising of one file, and what is noted on the way."""

    def __init__(self, job: Job, task: FileTask, denoiser: Denoiser) -> None:
        self.found = FileResult()
        self._job = job
        self._task = task
        self._denoiser = denoiser
        self._notes: dict[str, list[int]] = defaultdict(list)

    def read(self, path: Path, section: int | None = None) -> MRCImage:
        """Read an image."""
        with self.found.timed("read"), waiting_for(f"reading {path}"):
            return read_mrc(path, section=section, empty=self._denoiser.empty)

    def sections(self, *, show: bool) -> Iterator[NDArray[Any]]:
        """Denoise one image of a stack after the other."""
        for number in range(self._job.sections):
            with waiting_for(None):  # whoever takes the image is writing, which has a time-out of its own
                shown = show and number == self._job.sections // 2
                try:
                    result = self.denoise(self.read(self._task.source, number), number, show=shown)
                except DataError as error:
                    raise DataError(
                        f"{self._task.source}: image {number + 1} of {self._job.sections}: {error}"
                    ) from error
                if shown:
                    self.found.shown = result
                image = result.image
                del result
            yield image
            del image

    def denoise(self, source: MRCImage, section: int | None = None, *, show: bool) -> Denoised:
        """Denoise an image, or average its denoised halves."""
        halves = None
        if self._task.halves is not None:
            even, odd = (self.read(half, section).data for half in self._task.halves)
            halves = even, odd
        micrograph = self._job.micrograph
        result = self._denoiser.denoise(
            source.data, micrograph.optics, micrograph.ctf, halves=halves, network_images=show
        )
        self.found.spent(result.seconds)
        self.found.tiles += result.tiles
        for note in result.notes:
            self._notes[note].append((section or 0) + 1)
        return result

    def draw(self, result: Denoised) -> None:
        """Draw the picture of an output that is written; if that fails, only the picture is missing."""
        with self.found.timed("png"):
            try:
                write_png(self._task.output, result.image)
            except Exception as error:
                self._notes[f"no PNG: {type(error).__name__}: {error}"].append(1)

    def note(self, source: MRCImage) -> None:
        """Collect the notes on the images and their file; the same note on several images of a stack is one."""
        notes = list(source.warnings)
        for note, numbers in self._notes.items():
            which = f"image{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}: "
            notes.append(f"{which if self._job.sections > 1 else ''}{note}")
        stated, found = self._job.micrograph.optics.pixel_size, source.pixel_size
        if found and abs(found / stated - 1) > _PIXEL_SIZE_TOLERANCE:
            notes.append(
                f"the pixel size is {stated:g} Å in the table and {found:g} Å in the header; the table's is used, and "
                "written to the output"
            )
        prefix = f"{self._task.name}: " if self._task.name else ""
        self.found.notes = [f"{prefix}{note}" for note in notes]
