"""One micrograph from file to file, and how that ended."""

import re
import shutil
import time
from dataclasses import dataclass, field, replace

from n2n_deploy.batch.lanes import Waiting, unwatched
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report import EntryKeeper
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError, N2NError
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.io.mrc import read_mrc, write_mrc

_PIXEL_SIZE_TOLERANCE = 0.01

# Python's words for a thread that gets no stack, and CUDA's own; allocators, CuPy's too, raise a MemoryError.
_NO_MEMORY = re.compile(r"can't start new thread|CUFFT_ALLOC_FAILED|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended.

    Attributes:
        job: what was to be done.
        error: one line that says why it failed; None where the output was written.
        notes: what the user should know of a micrograph that was done: repaired pixels, an odd header.
        seconds: wall time by stage: read, preprocess, network, restore, write.
        tiles: tiles the network saw.
        host: name of the machine that did it, where it was not the one that the run was started on.
        crowded: what failed and may have been the fault of others in hand beside it, so that it is worth another try
            alone: memory ran short, or its workers died.
    """

    job: Job
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    tiles: int = 0
    host: str = ""
    crowded: str = ""


def failed(job: Job, error: BaseException) -> Outcome:
    """The outcome of a job that raised something; the line names the file."""
    path = str(job.micrograph.path)
    text = " ".join(str(error).split()) or type(error).__name__
    short = _is_memory(error)
    if short:
        text = f"memory ran short with nothing else in hand: {text}"
    elif not isinstance(error, N2NError | OSError):
        text = f"{type(error).__name__}: {text}"
    return Outcome(job, text if path in text else f"{path}: {text}", crowded="memory ran short" if short else "")


def _is_memory(error: BaseException | None) -> bool:
    """Whether memory that ran short is behind an error."""
    while error is not None:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def open_denoiser(
    bundle: Bundle, options: DenoiseOptions, *, lanes: int | None = None, device: str | None = None
) -> Denoiser:
    """The denoiser that the options ask for.

    Args:
        bundle: the model.
        options: of the run.
        lanes: in place of the options' own.
        device: in place of the options' own; one of `options.devices`.

    Raises:
        BundleError, HostError: as for `Denoiser`.
    """
    return Denoiser(
        bundle,
        device=device or options.devices[0],
        memory=options.memory,
        threads=options.threads,
        merge=options.merge,
        flip_back=options.flip_back,
        lowpass=options.lowpass,
        augment=options.augment,
        lanes=lanes or options.lanes_here,
        engine=options.engine,
        precision=options.precision,
        trusted_keys=options.trusted_keys,
    )


def done_alone(outcome: Outcome, crowded: Outcome) -> Outcome:
    """The outcome of another try alone, with a note of why there was one."""
    return replace(outcome, notes=(*outcome.notes, f"{crowded.crowded} at first; it was done again alone"))


def attempt(
    job: Job, denoiser: Denoiser, options: DenoiseOptions, waiting: Waiting, keeper: EntryKeeper | None
) -> Outcome:
    """As `denoise_one`; that memory ran short is an outcome: the error itself would hold on to the arrays."""
    try:
        return denoise_one(job, denoiser, options, waiting, keeper)
    except Exception as error:
        if not _is_memory(error):
            raise
        return failed(job, error)


def denoise_one(
    job: Job,
    denoiser: Denoiser,
    options: DenoiseOptions,
    waiting: Waiting | None = None,
    keeper: EntryKeeper | None = None,
) -> Outcome:
    """Read, denoise and write one micrograph.

    Args:
        job: which, and where to.
        denoiser: the model.
        options: of the run.
        waiting: told when this waits for files.
        keeper: keeps what the report shows; None where there is none.

    Raises:
        N2NError: the input cannot be used or the output cannot be written; nothing is left under the output's name.
    """
    waiting = waiting or unwatched
    start = time.perf_counter()
    micrograph = job.micrograph
    with waiting(f"reading {micrograph.path}"):
        source = read_mrc(micrograph.path, empty=denoiser.empty)
        halves = None
        if options.average_halves and micrograph.even and micrograph.odd:
            even, odd = (read_mrc(half, empty=denoiser.empty).data for half in (micrograph.even, micrograph.odd))
            halves = even, odd
        job.output.parent.mkdir(parents=True, exist_ok=True)
        _check_room(job, options)
    read = time.perf_counter()
    result = denoiser.denoise(
        source.data, micrograph.optics, micrograph.ctf, halves=halves, network_images=keeper is not None
    )
    done = time.perf_counter()
    with waiting(f"writing {job.output}"):
        write_mrc(
            job.output,
            result.image,
            like=source,
            label=job.label,
            dtype=options.dtype,
            statistics=result.statistics,
        )
    seconds = {"read": read - start, **result.seconds, "write": time.perf_counter() - done}
    notes = [*source.warnings, *result.notes]
    stated, found = micrograph.optics.pixel_size, source.pixel_size
    if found and abs(found / stated - 1) > _PIXEL_SIZE_TOLERANCE:
        notes.append(
            f"the table's pixel size is {stated:g} Å, the file's header says {found:g} Å; the table's was used"
        )
    if keeper is not None:
        written = time.perf_counter()
        try:
            with waiting("keeping what the report shows"):
                keeper.keep(job, result, sum(seconds.values()), notes)
        except Exception as error:  # the output is there; that the report has no picture of it is all that is lost
            notes.append(f"no pictures for the report: {type(error).__name__}: {error}")
        seconds["report"] = time.perf_counter() - written
    return Outcome(job, None, tuple(notes), seconds, result.tiles)


def _check_room(job: Job, options: DenoiseOptions) -> None:
    """Once a disk is full, every further micrograph would be denoised for nothing."""
    needed, free = job.output_bytes(options.dtype), shutil.disk_usage(job.output.parent).free
    if needed > free:
        raise HostError(
            f"{job.output.parent}: no room for {job.output.name} ({needed} bytes needed, {free} free); "
            "free some space or choose another output folder"
        )
