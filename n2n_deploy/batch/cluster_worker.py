"""What runs in a worker process of a Dask cluster: its lanes, whose engine stays open from job to job."""

import platform
import queue
import threading
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

from n2n_deploy.batch.lanes import run_lanes
from n2n_deploy.batch.micrograph_job import Outcome, attempt, failed, open_denoiser
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report_entry import DrawEntry
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.errors import BundleError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.device.gpus import gpus

_lanes: dict[str, "_Lanes"] = {}
_opening = threading.Lock()


class _Lanes:
    """The lanes of a worker process. Dask's threads wait for them, so a stalled file costs a job and no thread."""

    def __init__(self, bundle: Bundle, options: DenoiseOptions, draw: DrawEntry | None, count: int) -> None:
        self._jobs: queue.SimpleQueue[tuple[Job, Future[Outcome]]] = queue.SimpleQueue()
        self._count = count
        self._options = options
        self._draw = draw
        self._denoiser = open_denoiser(bundle, options, lanes=count, choose_int8=False)
        threading.Thread(target=self._collect, name="lanes", daemon=True).start()

    def do(self, job: Job) -> Outcome:
        """Wait for a job's outcome."""
        answer: Future[Outcome] = Future()
        self._jobs.put((job, answer))
        return answer.result()

    def _collect(self) -> None:
        def work(item: tuple[Job, Future[Outcome]]) -> Outcome:
            return attempt(item[0], self._denoiser, self._options, self._draw)

        endless = iter(self._jobs.get, None)
        for (job, answer), result in run_lanes(endless, work, self._count, threading.Event(), self._options.timeout):
            answer.set_result(result if isinstance(result, Outcome) else failed(job, result))


def denoise_on_worker(
    job: Job, *, bundle: Path, model: str, recipe: Recipe, options: DenoiseOptions, draw: DrawEntry | None
) -> Outcome:
    """Process one job in a worker process, with the engine that this process keeps open.

    Raises:
        N2NError: the engine cannot be opened here, so no job can run.
    """
    from distributed import get_worker

    worker = get_worker()
    with _opening:
        key = f"{model} {recipe} {options.model_dump_json()}"
        if key not in _lanes:
            opened = Bundle.open(bundle)
            if opened.short_hash != model:
                raise BundleError(f"{bundle}: is model {opened.short_hash} on {platform.node()}, expected {model}")
            here = options.model_copy(update={"device": device_of_worker(options, worker.name), "gpus": None})
            chosen = opened.with_recipe(recipe.max_resolution, phase_flip=recipe.phase_flip)
            _lanes[key] = _Lanes(chosen, here, draw, worker.state.nthreads)
        lanes = _lanes[key]
    outcome = lanes.do(job)
    return replace(outcome, host=platform.node())


def device_of_worker(options: DenoiseOptions, worker: object) -> str:
    """Return the device of one of several workers on a machine, which Dask numbers: each gets its own GPU."""
    chosen = options.gpus or tuple(gpu.index for gpu in gpus() if options.device in ("auto", "gpu"))
    if chosen and isinstance(worker, int):
        return f"cuda:{chosen[worker % len(chosen)]}"
    return options.devices[0]
