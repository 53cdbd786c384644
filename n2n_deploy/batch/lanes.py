"""Lanes: threads that each take one micrograph from start to end, in plain sequential code.

Throughput comes from several of them: while one waits for the file system, another computes.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report import EntryKeeper
from n2n_deploy.denoiser import Denoiser
from n2n_deploy.errors import N2NError
from n2n_deploy.io.mrc import read_mrc, write_mrc

_PIXEL_SIZE_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one job ended.

    Attributes:
        job: what was to be done.
        error: one line that says why it failed; None where the output was written.
        notes: what the user should know of a micrograph that was done: repaired pixels, an odd header.
        seconds: wall time by stage: read, preprocess, network, restore, write, report.
        tiles: tiles the network saw.
    """

    job: Job
    error: str | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    tiles: int = 0


def denoise_one(job: Job, denoiser: Denoiser, options: DenoiseOptions, keeper: EntryKeeper | None = None) -> Outcome:
    """Read, denoise and write one micrograph, and keep what the report shows of it.

    Raises:
        N2NError: the input cannot be used or the output cannot be written; nothing is left under the output's name.
    """
    start = time.perf_counter()
    micrograph = job.micrograph
    source = read_mrc(micrograph.path)
    halves = None
    if options.average_halves and micrograph.even and micrograph.odd:
        halves = read_mrc(micrograph.even).data, read_mrc(micrograph.odd).data
    read = time.perf_counter()
    result = denoiser.denoise(source.data, micrograph.optics, micrograph.ctf, halves=halves)
    done = time.perf_counter()
    job.output.parent.mkdir(parents=True, exist_ok=True)
    write_mrc(job.output, result.image, like=source, label=job.label, dtype=options.dtype)
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
            keeper.keep(job, result, sum(seconds.values()), notes)
        except Exception as error:  # the output is there; that the report has no picture of it is all that is lost
            notes.append(f"no pictures for the report: {type(error).__name__}: {error}")
        seconds["report"] = time.perf_counter() - written
    return Outcome(job, None, tuple(notes), seconds, result.tiles)


def run_lanes(
    jobs: Sequence[Job], work: Callable[[Job], Outcome], lanes: int, stop: threading.Event
) -> Iterator[Outcome]:
    """Do all jobs in `lanes` threads and yield what came of each, as it comes.

    One job's failure is its own outcome and costs no other. Once `stop` is set no further job is begun; those in
    hand are finished and yielded.
    """
    waiting = iter(jobs)
    taking = threading.Lock()
    outcomes: queue.SimpleQueue[Outcome | None] = queue.SimpleQueue()

    def lane() -> None:
        try:
            while not stop.is_set():
                with taking:
                    job = next(waiting, None)
                if job is None:
                    return
                outcomes.put(_isolated(work, job))
        finally:
            outcomes.put(None)

    threads = [threading.Thread(target=lane, name=f"lane-{number}", daemon=True) for number in range(lanes)]
    for thread in threads:
        thread.start()
    running = lanes
    while running:
        outcome = outcomes.get()
        if outcome is None:
            running -= 1
        else:
            yield outcome
    for thread in threads:
        thread.join()


def _isolated(work: Callable[[Job], Outcome], job: Job) -> Outcome:
    try:
        return work(job)
    except N2NError as error:
        return Outcome(job, str(error))
    except (OSError, MemoryError) as error:
        return Outcome(job, f"{job.micrograph.path}: {error or type(error).__name__}")
    except Exception as error:  # whatever a strange file provokes in a library costs that file alone
        return Outcome(job, f"{job.micrograph.path}: {type(error).__name__}: {error}")
