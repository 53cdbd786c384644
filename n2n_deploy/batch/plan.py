"""What a batch would do, found out from headers alone before anything is computed."""

import functools
import hashlib
import os
import shutil
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from n2n_deploy.batch.lanes import Waiting, in_lane, run_lanes
from n2n_deploy.batch.options import DenoiseOptions, OnExists
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.core.errors import DataError, HostError, N2NError, UsageError, names_file
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.core.sizes import size_text
from n2n_deploy.core.version import __version__
from n2n_deploy.imaging.fourier import network_shape
from n2n_deploy.io.halves import half_files
from n2n_deploy.io.mrc import read_header
from n2n_deploy.io.mrc_header import HEADER_BYTES, MRCHeader
from n2n_deploy.io.records import Micrograph

_HEADER_THREADS = 16
"""Reading a header waits on the file system, not the processor; a network file system answers several at once."""


class Status(StrEnum):
    """Where a micrograph stands before the run."""

    PENDING = "to do"
    DONE = "done"
    KEPT = "kept"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Job:
    """One micrograph and what is to become of it.

    Attributes:
        micrograph: the record of the table.
        output: the file to write.
        label: provenance, the MRC label by which a later run recognises this work as finished.
        status: to do, done before, kept (an output of other work is there and stays) or refused.
        reason: why it was refused, or what is known of the output that was kept.
        shape: (ny, nx) of the micrograph; (0, 0) where it is refused.
    """

    micrograph: Micrograph
    output: Path
    label: str
    status: Status
    reason: str = ""
    shape: tuple[int, int] = (0, 0)

    def output_bytes(self, dtype: str) -> int:
        """Size of the output, but for an extended header."""
        return HEADER_BYTES + self.shape[0] * self.shape[1] * (2 if dtype == "float16" else 4)


@dataclass(frozen=True)
class Plan:
    """All jobs of a batch in the table's order.

    Attributes:
        jobs: one per row.
        bytes_needed: size of the outputs still to write.
        bytes_free: room on the file system they go to.
    """

    jobs: Sequence[Job]
    bytes_needed: int
    bytes_free: int

    def with_status(self, status: Status) -> list[Job]:
        """The jobs of one status."""
        return [job for job in self.jobs if job.status is status]

    def check(self, output: Path, on_exists: OnExists) -> None:
        """Refuse a plan that cannot end well, before any work is done.

        Raises:
            UsageError: outputs of other work are there, and nobody said what to do with them.
            HostError: the file system has no room for what is to be written.
        """
        kept = self.with_status(Status.KEPT)
        if kept and on_exists is OnExists.ERROR:
            raise UsageError(
                f"{len(kept)} outputs are already there and were not made by this model with these options "
                f"(the first: {kept[0].output}); choose another output folder, or --on-exists overwrite or skip"
            )
        if self.bytes_needed > self.bytes_free:
            raise HostError(
                f"{output}: the outputs need {size_text(self.bytes_needed)} and {size_text(self.bytes_free)} "
                "are free; make room or choose another output folder"
            )


def make_plan(
    micrographs: Sequence[Micrograph],
    problems: Mapping[int, str],
    mirror: OutputLayout,
    model_hash: str,
    recipe: Recipe,
    options: DenoiseOptions,
) -> Plan:
    """Look at every input's header and every output's label.

    Args:
        micrographs: the records of the table, or some of them.
        problems: reasons by row, found while reading the table, not to use that row.
        mirror: where outputs go.
        model_hash: the bundle's short hash.
        recipe: the bundle's recipe.
        options: of the run.

    Raises:
        UsageError: an output would fall on an input.
        HostError: the folders do not answer.
    """
    outputs = [mirror(micrograph.name) for micrograph in micrographs]

    def look_at_folders(waiting: Waiting) -> int:
        with waiting(f"looking at the folders of the micrographs and at {mirror.output}"):
            _check_apart([micrograph.path for micrograph in micrographs], outputs)
            return shutil.disk_usage(_existing(mirror.output)).free

    free = in_lane(look_at_folders, options.timeout)
    written = Counter(map(str, outputs))
    jobs: list[Job | None] = [None] * len(outputs)

    def look(index: int, waiting: Waiting) -> Job:
        micrograph, path = micrographs[index], outputs[index]
        if micrograph.row in problems:
            reason = problems[micrograph.row]
        elif (count := written[str(path)]) > 1:
            reason = f"{count} rows of the table would be written to {path}; names must differ"
        elif recipe.phase_flip and micrograph.ctf is None:
            reason = (
                f"{micrograph.name}: the table has no CTF for it, and the model needs one to flip phases; "
                "estimate the CTF, or train a model with --no-phase-flip"
            )
        else:
            with waiting(f"looking at {micrograph.path}"):
                return look_at(micrograph, path, model_hash, recipe, options)
        return Job(micrograph, path, "", Status.REFUSED, reason)

    for index, job in run_lanes(range(len(outputs)), look, _HEADER_THREADS, threading.Event(), options.timeout):
        if isinstance(job, Job):
            jobs[index] = job
        elif isinstance(job, HostError):
            micrograph = micrographs[index]
            jobs[index] = Job(micrograph, outputs[index], "", Status.REFUSED, f"{micrograph.name}: {job}")
        else:
            raise job
    planned = [job for job in jobs if job is not None]
    needed = sum(job.output_bytes(options.dtype) for job in planned if job.status is Status.PENDING)
    return Plan(planned, needed, free)


def look_at(micrograph: Micrograph, path: Path, model_hash: str, recipe: Recipe, options: DenoiseOptions) -> Job:
    """Find out from the headers of one input and its output what is to be done."""
    try:
        header = read_header(micrograph.path)
        _check_size(micrograph, header.shape, recipe)
        files = [micrograph.path, *(half_files(micrograph, header.shape) if options.average_halves else ())]
        stamps = [(stat.st_size, stat.st_mtime_ns) for stat in (file.stat() for file in files)]
    except (DataError, OSError) as error:
        return Job(micrograph, path, "", Status.REFUSED, str(error))
    label = provenance_label(model_hash, options, recipe, micrograph, stamps)
    status, reason = _standing(path, label)
    if status is Status.KEPT and options.on_exists is OnExists.OVERWRITE:
        status, reason = Status.PENDING, ""
    return Job(micrograph, path, label, status, reason, header.shape)


def look_at_headers(paths: Sequence[Path], timeout: float) -> Sequence[MRCHeader | N2NError]:
    """Read many headers side by side; where one cannot be read, or does not answer in time, say why in its place."""
    headers: list[MRCHeader | N2NError] = [HostError("not looked at")] * len(paths)

    def look(index: int, waiting: Waiting) -> MRCHeader:
        with waiting(f"looking at {paths[index]}"):
            return read_header(paths[index])

    lanes = min(_HEADER_THREADS, len(paths))
    for index, found in run_lanes(range(len(paths)), look, lanes, threading.Event(), timeout):
        if isinstance(found, BaseException) and not isinstance(found, N2NError):
            raise found
        headers[index] = found
    return headers


def is_finished(job: Job) -> bool:
    """Whether the output is there by now and is this job's work, whoever did it."""
    return bool(job.label) and _standing(job.output, job.label)[0] is Status.DONE


def _standing(path: Path, label: str) -> tuple[Status, str]:
    """What is at an output's place: nothing of value, this work finished, or other work and what is known of it."""
    # The work alone decides, not the version of the program that did it.
    work = label.partition(": ")[2]
    if not os.path.lexists(path):
        return Status.PENDING, ""
    try:
        labels = read_header(path).labels
    except (DataError, OSError):
        try:
            with path.open("rb") as file:
                block = file.read(HEADER_BYTES)
        except (FileNotFoundError, NotADirectoryError):
            return Status.PENDING, ""
        except OSError as error:
            return Status.KEPT, f"{path} was there: it cannot be read ({error.strerror})"
        # After a power failure a file may have its name without all of its bytes.
        if not block or work.encode() in block:
            return Status.PENDING, ""
        labels = ()
    if any(label.partition(": ")[2] == work for label in labels):
        return Status.DONE, ""
    own = [label for label in labels if label.startswith("n2n-deploy")]
    told = f"made by other work ({own[-1]})" if own else "not made by n2n-deploy"
    return Status.KEPT, f"{path} was there: {told}"


def _check_apart(inputs: Sequence[Path], outputs: Sequence[Path]) -> None:
    """Refuse outputs that would fall on inputs, by whatever links."""
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
            raise UsageError(f"{path} is one of the inputs; choose an output folder apart from them")


def provenance_label(
    model_hash: str,
    options: DenoiseOptions,
    recipe: Recipe,
    micrograph: Micrograph,
    stamps: Sequence[tuple[int, int]],
) -> str:
    """The MRC label (at most 80 characters) that names the work an output is the result of.

    Its last part is a hash of everything that changes the pixels: model, recipe, options, optics, CTF, and the
    size and time (`stamps`) of each input file. A run that computes the same label for a row need not do it again.
    """
    work = (_shared_work(model_hash, options, recipe), micrograph.optics, micrograph.ctf, *stamps)
    job_hash = hashlib.sha256(repr(work).encode()).hexdigest()[:16]
    return f"n2n-deploy {__version__} denoised: model {model_hash} work {job_hash}"


@functools.lru_cache(4)
def _shared_work(model_hash: str, options: DenoiseOptions, recipe: Recipe) -> tuple[str, ...]:
    """What the work of all micrographs of a run has in common."""
    return model_hash, options.output_hash, repr(recipe)


def _check_size(micrograph: Micrograph, shape: tuple[int, int], recipe: Recipe) -> None:
    """Raise DataError where a micrograph's shape or pixel size leaves the network nothing to see."""
    with names_file(micrograph.path):
        network_shape(shape, micrograph.optics.pixel_size, recipe.max_resolution)


def _existing(folder: Path) -> Path:
    """The nearest folder on the way up that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
