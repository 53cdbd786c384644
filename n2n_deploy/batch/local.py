"""`LocalWorkers`: jobs done in this process, by lanes that share an engine, or one engine for each GPU."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Protocol, Self

from n2n_deploy.batch.lanes import Waiting, run_lanes, seat
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report import EntryKeeper
from n2n_deploy.batch.work import Outcome, attempt, done_alone, failed, open_denoiser
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.gpus import gpus
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.engines.openvino.run import OpenVinoSession
from n2n_deploy.engines.session import Closing


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


class LocalWorkers(Closing):
    """Lanes in this process, a set of them for each GPU; a context manager that keeps the engines open.

    Args:
        bundle: the model.
        options: of the run.
        keeper: keeps what the report shows; None where there is none.
        say: told how the memory is planned, and why a GPU or OpenVINO is not used where the hardware is made for it.
    """

    session = "none"

    def __init__(
        self,
        bundle: Bundle,
        options: DenoiseOptions,
        keeper: EntryKeeper | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._bundle = bundle
        self._options = options
        self._keeper = keeper
        self._say = say or (lambda _: None)
        self._denoisers: list[Denoiser] = []
        self._said: list[str] = []
        self._most_lanes = sys.maxsize

    def __enter__(self) -> Self:
        try:
            for device in self._options.devices:
                self._denoisers.append(open_denoiser(self._bundle, self._options, device=device))
        except BaseException:
            self.close()
            raise
        first = self._denoisers[0]
        self.session = first.session.name
        for engine, reason in first.rejected_engines.items():
            if self._could_run(engine) and not first.session.device.is_gpu:
                self._say(f"{self.session} is used, and not {engine}: {reason}")
        return self

    def _could_run(self, engine: str) -> bool:
        """Whether this machine's hardware is made for an engine that was passed over, and nobody asked for another."""
        if engine == OpenVinoSession.name:
            return multiplies_bfloat16() and self._options.precision is None
        return bool(gpus()) and self._options.device != "cpu"

    def close(self) -> None:
        """Close the engines."""
        for denoiser in self._denoisers:
            denoiser.close()

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """Do the jobs in this process; see `Workers`.

        Where memory runs short although it was planned, since others take it, lanes finish what they have, the
        micrograph is done again alone, and the work goes on with a lane less.
        """
        options, jobs = self._options, list(jobs)
        seats = self._plan(jobs)

        def work(job: Job, waiting: Waiting) -> Outcome:
            return attempt(job, seats[seat()], options, waiting, self._keeper)

        def do(jobs: Iterable[Job], lanes: int) -> Iterator[Outcome]:
            for job, result in run_lanes(jobs, work, lanes, stop, options.timeout):
                yield result if isinstance(result, Outcome) else failed(job, result)

        rest = iter(jobs)
        crowded: list[Outcome] = []
        while True:
            until_crowded = iter(lambda: None if crowded else next(rest, None), None)
            for outcome in do(until_crowded, min(len(seats), self._most_lanes)):
                if outcome.crowded:
                    crowded.append(outcome)
                else:
                    yield outcome
            if not crowded:
                return
            before = iter(crowded)
            for outcome in do((each.job for each in crowded), 1):
                yield done_alone(outcome, next(before))
            crowded.clear()
            lanes = min(len(seats), self._most_lanes)
            if lanes > len(self._denoisers):
                self._most_lanes = lanes - 1
                self._say(f"memory ran short; micrographs in hand at once from now on: {self._most_lanes}")

    def _plan(self, jobs: list[Job]) -> list[Denoiser]:
        """Plan the memory, say how, and return the denoiser of each lane: GPU by GPU, so that none waits for another.

        Raises:
            HostError: no micrograph's smallest tile fits.
        """
        sizes = Counter((job.shape, job.micrograph.optics.pixel_size) for job in jobs)
        halves, count = self._options.average_halves, len(self._denoisers)
        plans = [denoiser.fit_to_memory(sizes, halves=halves, gpus=count) for denoiser in self._denoisers]
        # GPUs of one kind have about the same memory free: one of them speaks for all with as many lanes.
        lines = [line for plan in {plan.lanes: plan for plan in plans}.values() for line in plan.lines()]
        if lines != self._said:
            self._said = lines
            for line in lines:
                self._say(line)
        rounds = range(max(plan.lanes for plan in plans))
        return [
            denoiser
            for turn in rounds
            for denoiser, plan in zip(self._denoisers, plans, strict=True)
            if turn < plan.lanes
        ]
