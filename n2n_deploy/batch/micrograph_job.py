"""One micrograph from file to file, and how that ended."""

import json
import re
import shutil
import time
from dataclasses import dataclass, field, replace

from n2n_deploy.batch.denoise_file import FileResult, denoise_file, file_tasks
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report_entry import DrawEntry
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import HostError, N2NError
from n2n_deploy.denoiser.denoiser import Denoiser

# Python's words for a thread that gets no stack, and CUDA's own; allocators, CuPy's too, raise a MemoryError.
_NO_MEMORY = re.compile(r"can't start new thread|CUFFT_ALLOC_FAILED|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended.

    Attributes:
        job: what was to be done.
        error: why it failed, one line; None if the output was written.
        notes: what the user should know of a denoised micrograph: repaired pixels, an odd header.
        seconds: wall time by stage: read, preprocess, network, restore, write, png, report.
        tiles: tiles the network saw.
        host: name of the machine that did it, if it is another than the one that the run was started on.
        retry_alone: why it may succeed if it is tried again with no other micrograph in progress: memory ran short, or
            its workers died. Empty if a retry is pointless.
        entry: what the report shows of it, the JSON of a `MicrographEntry`; empty if there is no report.
    """

    job: Job
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    tiles: int = 0
    host: str = ""
    retry_alone: str = ""
    entry: str = ""


def failed(job: Job, error: BaseException) -> Outcome:
    """Return the outcome of a job that raised an exception; its line names the file."""
    path = str(job.micrograph.path)
    text = " ".join(str(error).split()) or type(error).__name__
    reason = ""
    if _is_memory(error):
        reason = "out of memory"
        text = f"out of memory with no other micrograph in progress: {text}"
    elif not isinstance(error, N2NError | OSError):
        text = f"{type(error).__name__}: {text}"
    return Outcome(job, text if path in text else f"{path}: {text}", retry_alone=reason)


def _is_memory(error: BaseException | None) -> bool:
    """Return whether an error goes back to a failed allocation."""
    while error is not None:
        if isinstance(error, MemoryError) or _NO_MEMORY.search(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def open_denoiser(
    bundle: Bundle,
    options: DenoiseOptions,
    *,
    lanes: int | None = None,
    device: str | None = None,
    choose_int8: bool = True,
) -> Denoiser:
    """Open the denoiser that the options ask for.

    Args:
        bundle: the model.
        options: of the run.
        lanes: overrides that of the options.
        device: one of `options.devices`; by default the first.
        choose_int8: whether int8 may be chosen if the options name no precision.

    Raises:
        BundleError, HostError: as for `Denoiser`.
    """
    here = {"device": device or options.devices[0], "gpus": None, "lanes": lanes or options.lanes_here}
    return Denoiser(
        bundle,
        compute=options.model_copy(update=here),
        invert=options.invert,
        merge=options.merge,
        flip_back=options.flip_back,
        lowpass=options.lowpass,
        output_pixel_size=options.output_pixel_size,
        tta=options.tta,
        choose_int8=choose_int8,
    )


def retried_alone(outcome: Outcome, first: Outcome) -> Outcome:
    """Return the outcome of a retry, with a note that says why there was one."""
    return replace(outcome, notes=(*outcome.notes, f"{first.retry_alone} at first; done again alone"))


def attempt(job: Job, denoiser: Denoiser, options: DenoiseOptions, draw: DrawEntry | None) -> Outcome:
    """Call `denoise_one`, and turn a failed allocation into an outcome: the exception would keep the arrays alive."""
    try:
        return denoise_one(job, denoiser, options, draw)
    except Exception as error:
        if not _is_memory(error):
            raise
        return failed(job, error)


def denoise_one(job: Job, denoiser: Denoiser, options: DenoiseOptions, draw: DrawEntry | None = None) -> Outcome:
    """Read, denoise and write one micrograph or stack, and its halves where the options say so.

    Args:
        job: which, and where to.
        denoiser: the model.
        options: of the run.
        draw: draws what the report shows; None if there is no report.

    Raises:
        N2NError: the input cannot be used or the output cannot be written; no incomplete output is left behind.
    """
    with waiting_for(f"making {job.output.parent}"):
        job.output.parent.mkdir(parents=True, exist_ok=True)
        _check_room(job, options)
    whole = FileResult()
    for task in file_tasks(job, options):
        found = denoise_file(job, task, denoiser, options, show=draw is not None and not task.name)
        whole.spent(found.seconds)
        whole.notes += found.notes
        whole.tiles, whole.shown = whole.tiles + found.tiles, found.shown
    seconds, notes = whole.seconds, whole.notes
    entry = ""
    if draw is not None and whole.shown is not None:
        written = time.perf_counter()
        try:
            entry = json.dumps(draw(job, whole.shown, sum(seconds.values()), notes).as_json())
        except Exception as error:  # the output is written; only its pictures are missing in the report
            notes.append(f"no pictures for the report: {type(error).__name__}: {error}")
        seconds["report"] = time.perf_counter() - written
    return Outcome(job, None, tuple(notes), seconds, whole.tiles, entry=entry)


def _check_room(job: Job, options: DenoiseOptions) -> None:
    """Raise HostError on a full disk, before a micrograph is denoised for nothing."""
    needed, free = job.output_bytes(options), shutil.disk_usage(job.output.parent).free
    if needed > free:
        raise HostError(
            f"{job.output.parent}: no room for {job.output.name} ({needed} bytes needed, {free} bytes free); "
            "free some space or choose another output folder"
        )
