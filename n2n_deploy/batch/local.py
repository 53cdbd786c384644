"""`LocalWorkers`: jobs done in this process, by lanes that share one engine."""

import threading
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from n2n_deploy.batch.lanes import run_lanes
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report import EntryKeeper
from n2n_deploy.batch.work import Outcome, denoise_one, failed, open_denoiser
from n2n_deploy.bundle import Bundle


class Workers(Protocol):
    """What turns jobs into outcomes, here or on other machines.

    Attributes:
        session: what runs the network, for people and the summary.
    """

    session: str

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """Do the jobs and yield what came of each, as it comes; begin none once `stop` is set."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class LocalWorkers:
    """Lanes in this process; a context manager that keeps the engine open.

    Args:
        bundle: the model.
        options: of the run.
        keeper: keeps what the report shows; None where there is none.
    """

    session = "none"

    def __init__(self, bundle: Bundle, options: DenoiseOptions, keeper: EntryKeeper | None = None) -> None:
        self._bundle = bundle
        self._options = options
        self._keeper = keeper

    def __enter__(self) -> Self:
        self._denoiser = open_denoiser(self._bundle, self._options)
        self.session = self._denoiser.session.name
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._denoiser.close()

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """Do the jobs in this process; see `Workers`."""
        options = self._options
        outcomes = run_lanes(
            jobs,
            lambda job, waiting: denoise_one(job, self._denoiser, options, waiting, self._keeper),
            options.lanes,
            stop,
            options.timeout,
        )
        for job, result in outcomes:
            yield result if isinstance(result, Outcome) else failed(job, result)
