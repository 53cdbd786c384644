"""What a batch would do, found out from headers alone before anything is computed."""

import hashlib
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePosixPath

import n2n_deploy
from n2n_deploy.batch.options import DenoiseOptions, OnExists
from n2n_deploy.errors import DataError, HostError, UsageError
from n2n_deploy.io.mrc import read_header
from n2n_deploy.io.records import Micrograph
from n2n_deploy.recipe import Recipe

_HEADER_THREADS = 16
"""Reading a header waits on the file system, not the processor; a network file system answers several at once."""


class Status(StrEnum):
    """Where a micrograph stands before the run."""

    TODO = "to do"
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
                f"{output}: the outputs need {self.bytes_needed / 1e9:.2f} GB and {self.bytes_free / 1e9:.2f} GB "
                "are free; make room or choose another output folder"
            )


def make_plan(
    micrographs: Sequence[Micrograph],
    problems: Mapping[int, str],
    output: Path,
    model_hash: str,
    recipe: Recipe,
    options: DenoiseOptions,
) -> Plan:
    """Look at every input's header and every output's label.

    Args:
        micrographs: the records of the table.
        problems: reasons by row, found while reading the table, not to use that row.
        output: folder that the inputs' folders are mirrored under.
        model_hash: the bundle's short hash.
        recipe: the bundle's recipe.
        options: of the run.

    Raises:
        UsageError: an output would fall on an input.
    """
    outputs = output_paths([micrograph.name for micrograph in micrographs], output)
    inputs = {os.path.realpath(micrograph.path) for micrograph in micrographs}
    for path in outputs:
        if os.path.realpath(path) in inputs:
            raise UsageError(f"{path} is one of the inputs; choose an output folder apart from them")
    written = Counter(outputs)

    def job(micrograph: Micrograph, path: Path) -> Job:
        def refused(reason: str) -> Job:
            return Job(micrograph, path, "", Status.REFUSED, reason)

        if micrograph.row in problems:
            return refused(problems[micrograph.row])
        if written[path] > 1:
            return refused(f"{written[path]} rows of the table would be written to {path}; names must differ")
        if recipe.phase_flip and micrograph.ctf is None:
            return refused(
                f"{micrograph.name}: the table has no CTF for it, and the model needs one to flip phases; "
                "estimate the CTF, or train a model with --no-phase-flip"
            )
        try:
            header = read_header(micrograph.path)
            files = [micrograph.path, *(_halves(micrograph, header.shape) if options.average_halves else ())]
            stamps = [(stat.st_size, stat.st_mtime_ns) for stat in (file.stat() for file in files)]
        except (DataError, OSError) as error:
            return refused(str(error))
        label = provenance_label(model_hash, options, recipe, micrograph, stamps)
        found = _labels(path)
        # The work alone decides, not the version of the program that did it.
        finished = any(other.partition(": ")[2] == label.partition(": ")[2] for other in found or ())
        if found is None or (not finished and options.on_exists is OnExists.OVERWRITE):
            return Job(micrograph, path, label, Status.TODO, shape=header.shape)
        if finished:
            return Job(micrograph, path, label, Status.DONE, shape=header.shape)
        return Job(micrograph, path, label, Status.KEPT, f"{path} was there: {_told(found)}", header.shape)

    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        jobs = list(pool.map(job, micrographs, outputs))
    itemsize = 2 if options.dtype == "float16" else 4
    needed = sum(1024 + job.shape[0] * job.shape[1] * itemsize for job in jobs if job.status is Status.TODO)
    return Plan(jobs, needed, shutil.disk_usage(_existing(output)).free)


def output_paths(names: Sequence[str], output: Path) -> list[Path]:
    """Where each micrograph's output goes: the folders of its name under `output`, the extension always .mrc.

    Absolute names lose the folder that they all share; steps upward ("..") are left out.
    """
    paths = [PurePosixPath(name) for name in names]
    absolute = [path.parent for path in paths if path.is_absolute()]
    shared = PurePosixPath(os.path.commonpath(absolute)) if absolute else PurePosixPath("/")
    results = []
    for path in paths:
        relative = path.relative_to(shared) if path.is_absolute() else path
        parts = [part for part in relative.parts if part not in ("..", ".")]
        name = parts[-1]
        for ending in (".gz", ".bz2"):
            name = name.removesuffix(ending)
        if not name.endswith(".mrc"):
            name = name.removesuffix(".mrcs") + ".mrc"
        results.append(output.joinpath(*parts[:-1], name))
    return results


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
    work = (model_hash, options.output_hash, recipe, micrograph.optics, micrograph.ctf, *stamps)
    job_hash = hashlib.sha256(repr(work).encode()).hexdigest()[:16]
    return f"n2n-deploy {n2n_deploy.__version__} denoised: model {model_hash} work {job_hash}"


def _halves(micrograph: Micrograph, shape: tuple[int, int]) -> tuple[Path, Path]:
    """The micrograph's halves, once their headers show that they can be used.

    Raises:
        DataError: a half is not named, not there, or of another shape.
    """
    if micrograph.even is None or micrograph.odd is None:
        raise DataError(f"{micrograph.name}: the table names no even and odd half, which --average-halves needs")
    for half in (micrograph.even, micrograph.odd):
        found = read_header(half).shape
        if found != shape:
            raise DataError(
                f"{half}: has {found[0]}×{found[1]} pixels, the whole sum {micrograph.path.name} "
                f"{shape[0]}×{shape[1]}; halves of one micrograph have its shape"
            )
    return micrograph.even, micrograph.odd


def _labels(path: Path) -> Sequence[str] | None:
    """The labels of the file at `path`; none of them where it is no whole MRC file; None where nothing is there."""
    try:
        return read_header(path).labels
    except FileNotFoundError:
        return None
    except (DataError, OSError):
        return None if not path.exists() else ()


def _told(labels: Sequence[str]) -> str:
    own = [label for label in labels if label.startswith("n2n-deploy")]
    return f"made by other work ({own[-1]})" if own else "not made by n2n-deploy"


def _existing(folder: Path) -> Path:
    """The nearest folder on the way up that exists."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
