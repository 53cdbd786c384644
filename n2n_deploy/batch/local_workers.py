"""`LocalWorkers`: jobs processed in this process, by lanes that share an engine, or one engine for each GPU."""

import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, Self

from n2n_deploy.batch.lanes import run_lanes, seat
from n2n_deploy.batch.micrograph_job import Outcome, attempt, failed, open_denoiser, retried_alone
from n2n_deploy.batch.options import DenoiseOptions
from n2n_deploy.batch.plan import Job
from n2n_deploy.batch.report_entry import DrawEntry
from n2n_deploy.bundle.archive import Bundle
from n2n_deploy.core.closing import Closing
from n2n_deploy.core.errors import HostError, N2NError
from n2n_deploy.core.options import Precision
from n2n_deploy.denoiser.denoiser import Denoiser
from n2n_deploy.device.gpus import gpus
from n2n_deploy.device.processor import multiplies_bfloat16
from n2n_deploy.engines.openvino.run import OpenVinoSession

Agree = Callable[[str, Precision | None], bool]
"""See `Account.agree`."""


class Workers(Protocol):
    """What turns jobs into outcomes, here or on other machines.

    Attributes:
        session: what runs the network, for people and the summary.
    """

    session: str

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """Process the jobs and yield each outcome as soon as it is there; begin no job once `stop` is set."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class LocalWorkers(Closing):
    """Lanes in this process, a set of them for each GPU; a context manager that keeps the engines open.

    Args:
        bundle: the model.
        options: of the run.
        draw: draws what the report shows; None if there is no report.
        agree: told what would run the network, and in which precision; says whether the micrographs of the output
            folder are in int8. None if there are no others.
        say: told the memory budget, and why a GPU or OpenVINO is not used although the hardware supports it.
    """

    session = "none"

    def __init__(
        self,
        bundle: Bundle,
        options: DenoiseOptions,
        draw: DrawEntry | None = None,
        agree: Agree | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self._agree = agree or (lambda _, precision: precision == "int8")
        self._bundle = bundle
        self._options = options
        self._draw = draw
        self._say = say or (lambda _: None)
        self._denoisers: list[Denoiser] = []
        self._said: list[str] = []
        self._most_lanes = sys.maxsize

    def __enter__(self) -> Self:
        try:
            self._open(self._options, choose_int8=True)
            proposed = self._denoisers[0].precision
            int8 = self._agree(self._denoisers[0].session.name, proposed)
            if int8 != (proposed == "int8"):
                self._open_again(int8=int8)
        except BaseException:
            self.close()
            raise
        first = self._denoisers[0]
        self.session = first.session.name
        for engine, reason in first.rejected_engines.items():
            if self._could_run(engine) and not first.session.device.is_gpu:
                self._say(f"using {self.session} instead of {engine}: {reason}")
        return self

    def _open(self, options: DenoiseOptions, *, choose_int8: bool) -> None:
        for device in options.devices:
            self._denoisers.append(open_denoiser(self._bundle, options, device=device, choose_int8=choose_int8))

    def _open_again(self, *, int8: bool) -> None:
        """Open the engines in int8 or in floating point, as the other micrographs of the output folder are denoised.

        Raises:
            HostError: int8 does not work here.
        """
        self.close()
        self._denoisers.clear()
        try:
            options = self._options.model_copy(update={"precision": "int8"}) if int8 else self._options
            self._open(options, choose_int8=False)
        except N2NError as error:
            if not int8:
                raise
            raise HostError(
                f"the output folder holds micrographs denoised in int8, which does not work here ({error}); run on a "
                "processor with VNNI, or into another folder with --precision fp32"
            ) from error
        self._agree(self._denoisers[0].session.name, self._denoisers[0].precision)

    def _could_run(self, engine: str) -> bool:
        """Return whether the hardware supports an engine that was rejected, and the options do not exclude it."""
        if engine.startswith(OpenVinoSession.name):
            return multiplies_bfloat16() and self._options.precision is None
        return bool(gpus()) and self._options.device != "cpu"

    def close(self) -> None:
        """Close the engines."""
        for denoiser in self._denoisers:
            denoiser.close()

    def run(self, jobs: Iterable[Job], stop: threading.Event) -> Iterator[Outcome]:
        """Process the jobs in this process; see `Workers`.

        If memory runs out in spite of the budget, because other programs take it, the lanes finish what they have, the
        micrograph is tried again alone, and the work goes on with one lane less.
        """
        options, jobs = self._options, list(jobs)
        seats = self._plan(jobs)

        def work(job: Job) -> Outcome:
            return attempt(job, seats[seat()], options, self._draw)

        def process(jobs: Iterable[Job], lanes: int) -> Iterator[Outcome]:
            for job, result in run_lanes(jobs, work, lanes, stop, options.timeout):
                yield result if isinstance(result, Outcome) else failed(job, result)

        rest = iter(jobs)
        retries: list[Outcome] = []
        while True:
            until_retry = iter(lambda: None if retries else next(rest, None), None)
            for outcome in process(until_retry, min(len(seats), self._most_lanes)):
                if outcome.retry_alone:
                    retries.append(outcome)
                else:
                    yield outcome
            if not retries:
                return
            first = iter(retries)
            for outcome in process((each.job for each in retries), 1):
                yield retried_alone(outcome, next(first))
            retries.clear()
            lanes = min(len(seats), self._most_lanes)
            if lanes > len(self._denoisers):
                self._most_lanes = lanes - 1
                self._say(f"out of memory; continuing with {self._most_lanes} lane{'s' * (lanes > 2)}")

    def _plan(self, jobs: list[Job]) -> list[Denoiser]:
        """Budget the memory, tell how, and return the denoiser of each lane, one GPU after the other in turn.

        Raises:
            HostError: not even the smallest tile of a micrograph fits.
        """
        sizes = Counter((job.shape, job.micrograph.optics.pixel_size) for job in jobs)
        halves, count = self._options.average_halves, len(self._denoisers)
        plans = [denoiser.fit_to_memory(sizes, halves=halves, gpus=count) for denoiser in self._denoisers]
        # GPUs of one kind have about the same memory free: one line stands for all with as many lanes.
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
