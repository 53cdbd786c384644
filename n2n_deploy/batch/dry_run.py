"""`forecast`: what a run would do, and the disk, memory and time it would need; nothing is written."""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from n2n_deploy.batch.micrograph_job import open_denoiser
from n2n_deploy.batch.plan import Job, Plan
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.status import PLANNED, Status
from n2n_deploy.core.errors import N2NError
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.denoiser.memory_fit import MemoryFit
from n2n_deploy.device.memory import available_memory
from n2n_deploy.engines.tiling import count_tiles
from n2n_deploy.imaging.fourier import network_shape
from n2n_deploy.io.mrc import read_mrc

_CALIBRATION_PIXELS = 512
"""Side of the calibration image at the network's resolution."""


@dataclass(frozen=True)
class Kind:
    """Micrographs of one shape and pixel size, which cost the same.

    Attributes:
        shape: (ny, nx).
        pixel_size: Å.
        count: how many are to be denoised.
        images: how many images they hold, with those of halves that are denoised too.
        tile: height and width of the network's tiles, in network pixels.
        tiles: number of tiles of a micrograph.
        seconds: expected for one image; None if it was not measured.
    """

    shape: tuple[int, int]
    pixel_size: float
    count: int
    images: int
    tile: tuple[int, int]
    tiles: int
    seconds: float | None


@dataclass(frozen=True)
class Forecast:
    """What a run would do.

    Attributes:
        plan: every micrograph and where it stands.
        obstacle: why the run would end before it begins; None if it would not.
        exit_code: of the run, if nothing fails that is not known now.
        session: what would run the network.
        lanes: micrographs processed concurrently.
        memory: its budget; None if there is nothing to do.
        memory_free: bytes that are free on this machine.
        kinds: what is to be denoised.
        seconds: expected wall time; None if nothing was measured.
    """

    plan: Plan
    obstacle: str | None
    exit_code: int
    session: str = "none"
    lanes: int = 1
    memory: MemoryFit | None = None
    memory_free: int = 0
    kinds: Sequence[Kind] = field(default_factory=tuple)
    seconds: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        counts = Counter(job.status for job in self.plan.jobs)
        return {
            **{status.value.replace(" ", "_"): counts[status] for status in PLANNED},
            "notes": list(self.plan.notes),
            "reasons": {job.micrograph.name: job.reason for job in self.plan.with_status(Status.REFUSED)},
            "obstacle": self.obstacle,
            "disk_needed": self.plan.bytes_needed,
            "disk_free": self.plan.bytes_free,
            "memory_needed": self.memory.host - self.memory.budget.process if self.memory else 0,
            "memory_plan": self.memory.lines() if self.memory else [],
            "memory_free": self.memory_free,
            "session": self.session,
            "lanes": self.lanes,
            "seconds_expected": None if self.seconds is None else round(self.seconds, 1),
            "kinds": [
                {
                    "shape": list(kind.shape),
                    "pixel_size": kind.pixel_size,
                    "count": kind.count,
                    "images": kind.images,
                    "tile": list(kind.tile),
                    "tiles": kind.tiles,
                    "seconds_each": None if kind.seconds is None else round(kind.seconds, 3),
                }
                for kind in self.kinds
            ],
        }


def forecast(request: Request) -> Forecast:
    """Plan a run, open its engine and time one small image.

    The expected time covers reading and computing, with lanes working concurrently; writing is not measured.

    Raises:
        DataError: the table cannot be read.
        BundleError, HostError: the model does not work here.
        UsageError: an output would overwrite an input.
    """
    table = request.read()
    ledger = request.ledger()
    plan = request.plan(request.part(table), table, request.layout(table, ledger))
    obstacle, exit_code = None, 1 if plan.with_status(Status.REFUSED) else 0
    try:
        plan.check(request.output, request.options.on_exists)
    except N2NError as error:
        obstacle, exit_code = str(error), error.exit_code
    todo = plan.with_status(Status.PENDING)
    if not todo:
        lanes, free = request.options.lanes_here, available_memory()
        return Forecast(plan, obstacle, exit_code, lanes=lanes, memory_free=free)
    free = available_memory()
    with open_denoiser(request.bundle, request.options, choose_int8=ledger.int8(request.work) is not False) as denoiser:
        gpus = len(request.options.devices)
        sizes = Counter((job.shape, job.micrograph.optics.pixel_size) for job in todo)
        memory = denoiser.fit_to_memory(sizes, halves=request.options.average_halves, gpus=gpus)
        kinds = _kinds(todo, denoiser, request)
        seconds = None
        if all(kind.seconds is not None for kind in kinds):
            seconds = sum(kind.images * kind.seconds for kind in kinds if kind.seconds is not None) / gpus
        lanes, session = memory.lanes * gpus, denoiser.session.name
        return Forecast(plan, obstacle, exit_code, session, lanes, memory, free, kinds, seconds)


def _kinds(todo: Sequence[Job], denoiser: Denoiser, request: Request) -> list[Kind]:
    """Return the kinds of micrographs to be denoised, the most frequent first, each timed."""
    groups: dict[tuple[tuple[int, int], float], list[Job]] = {}
    for job in todo:
        groups.setdefault((job.shape, job.micrograph.optics.pixel_size), []).append(job)
    kinds = []
    for (shape, pixel_size), jobs in sorted(groups.items(), key=lambda group: -len(group[1])):
        tile = denoiser.tile(shape, pixel_size, halves=request.options.average_halves)
        size = network_shape(shape, pixel_size, denoiser.recipe.max_resolution)
        tiles = count_tiles(size, denoiser.bundle.manifest.halo, tile)
        seconds = _time(jobs, denoiser, tiles * tile[0] * tile[1], request)
        images = sum(job.images(request.options) for job in jobs)
        kinds.append(Kind(shape, pixel_size, len(jobs), images, tile, tiles, seconds))
    return kinds


def _time(jobs: Sequence[Job], denoiser: Denoiser, computed: int, request: Request) -> float | None:
    """Return the seconds for one of these micrographs: one is read, and a small image of noise is denoised.

    Args:
        jobs: micrographs of one kind.
        denoiser: the model.
        computed: pixels that the network computes for one, halos included.
        request: what the run is asked.
    """
    job = jobs[0]
    micrograph, shape = job.micrograph, job.shape
    start = time.perf_counter()
    try:
        read_mrc(micrograph.path, section=0 if job.sections > 1 else None)
    except N2NError:
        return None
    read = time.perf_counter() - start
    pixel_size, resolution = micrograph.optics.pixel_size, denoiser.recipe.max_resolution
    side = max(int(_CALIBRATION_PIXELS * resolution / 2 / pixel_size), 64)
    small = min(shape[0], side), min(shape[1], side)
    image = np.random.default_rng(0).normal(size=small).astype(np.float32)
    halves = (image, image) if request.options.average_halves else None
    for _ in range(2):  # the first run of a shape pays for caches and for memory
        seconds = denoiser.denoise(image, micrograph.optics, micrograph.ctf, halves=halves).seconds
    raw = shape[0] * shape[1] / (small[0] * small[1])
    height, width = network_shape(small, pixel_size, resolution)
    network = seconds["network"] * computed / (height * width)
    total = read + raw * (seconds["preprocess"] + seconds["restore"]) + network
    # Lanes work concurrently except in the network, which takes one image at a time.
    return max(network, total / denoiser.lanes)
