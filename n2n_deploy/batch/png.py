"""PNG pictures beside the outputs, for people who look through a folder; nothing of a run depends on them."""

import importlib.util
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from n2n_deploy.batch.lanes import run_lanes
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.status import Status
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.errors import HostError
from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.io.mrc import read_mrc
from n2n_deploy.report.thumbnails import png

_LANES = 2


def require_pillow() -> None:
    """Refuse to begin a run with pictures that could not be drawn.

    Raises:
        HostError: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise HostError("--png needs the Python library Pillow; run: pip install 'n2n-deploy[report]', or leave it out")


def png_path(output: Path) -> Path:
    """Return the picture of an output: beside it, with its name."""
    return output.with_suffix(".png")


def write_png(output: Path, image: NDArray[Any]) -> None:
    """Write the picture of an output.

    Raises:
        HostError: it cannot be written.
    """
    with atomic_write(png_path(output)) as stream:
        stream.write(png(image))


def draw_missing(jobs: Sequence[Job], options: DenoiseOptions, stop: threading.Event) -> Iterator[str]:
    """Draw the pictures that finished outputs lack, as after a run without `--png`; yields why one is missing still.

    Args:
        jobs: of a plan; those that an earlier run finished count.
        options: of the run; without `png` there is nothing to do.
        stop: set when the run is told to end.
    """
    if not options.png:
        return
    todo = [job for job in jobs if job.status is Status.DONE and not png_path(job.output).exists()]

    def draw(job: Job) -> None:
        with waiting_for(f"drawing {png_path(job.output)}"):
            write_png(job.output, read_mrc(job.output).data)

    for job, result in run_lanes(todo, draw, _LANES, stop, options.timeout):
        if isinstance(result, BaseException):
            yield f"{png_path(job.output)}: not drawn: {result}"
