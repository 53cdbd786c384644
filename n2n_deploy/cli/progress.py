"""Progress of the command line: bars on a terminal, and a line a minute in a log file."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from n2n_deploy.cli.common import err

INTERVAL = 60.0
"""Seconds between two lines in a log file."""

Clock = Callable[[], float]


class LateProgress(Progress):
    """Bars that start with the first news, so that an error before it is a line by itself."""

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them; without interruption, since Rich could not stop what is half started."""
        with uninterrupted():
            super().start()

    def stop(self) -> None:
        """Stop them if they were started; bars that never started leave no empty line."""
        with uninterrupted():
            if self.live.is_started:
                super().stop()


class Lines:
    """Lines that say how far a run is, one a minute at most.

    Args:
        console: where they go.
        interval: seconds between two lines, and from the first `update` to the first line; None for `INTERVAL`.
        clock: tells the time in seconds.
    """

    def __init__(self, console: Console, interval: float | None = None, clock: Clock = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._interval = INTERVAL if interval is None else interval
        self._first: float | None = None
        self._began = self._last = 0.0

    def update(self, done: float, text: str) -> None:
        """Tell how far the run is; prints if it is time.

        Args:
            done: fraction of the run that is over. What was over at the first call, in a resumed run, is left out of
                the speed that the time left is estimated by.
            text: the line, to which the time left is added.
        """
        now = self._clock()
        if self._first is None:
            self._first, self._began, self._last = done, now, now
        if now - self._last < self._interval:
            return
        self._last = now
        if done > self._first:
            text += f"; {_duration((now - self._began) * (1 - done) / (done - self._first))} left"
        self._console.print(escape(text), soft_wrap=True)


class MicrographProgress:
    """How many of the micrographs are done: a bar with the time left on a terminal, otherwise `Lines`.

    Args:
        doing: the work as the bar names it, such as "denoising".
        did: as the lines name it, such as "denoised".
        quiet: show neither.
        console: where to.
        interval: see `Lines`.
        clock: see `Lines`.

    Attributes:
        total: micrographs to do in all.
    """

    def __init__(
        self,
        doing: str,
        did: str,
        *,
        quiet: bool = False,
        console: Console = err,
        interval: float | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        bars = quiet or not console.is_terminal
        self._bars = LateProgress(TextColumn(doing), *columns, console=console, disable=bars)
        self._task = self._bars.add_task("", total=None)
        self._lines = Lines(console, interval, clock)
        self._quiet, self._did = quiet, did
        self._done = self._failed = self.total = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def expect(self, total: int) -> None:
        """Say how many micrographs there are to do in all."""
        self.total = total
        self._bars.update(self._task, total=total)
        self._bars.start()
        self._tell()

    def advance(self, *, failed: bool = False) -> None:
        """Count one micrograph that is done or has failed."""
        self._done += 1
        self._failed += failed
        self._bars.advance(self._task)
        self._tell()

    def say(self, text: str, kind: str = "", colour: str = "red") -> None:
        """Print a line above the bar, with its kind in colour in front."""
        prefix = f"[{colour}]{kind}:[/] " if kind else ""
        self._bars.console.print(prefix + escape(text), soft_wrap=True)

    def _tell(self) -> None:
        if not self._quiet and not self._bars.console.is_terminal and self.total:
            done = self._done / self.total
            failed = f", {self._failed} failed" if self._failed else ""
            text = f"{self._did} {self._done - self._failed} of {self.total} ({100 * done:.0f} %){failed}"
            self._lines.update(done, text)


@contextmanager
def training_progress(
    *, quiet: bool = False, console: Console = err, interval: float | None = None, clock: Clock = time.monotonic
) -> Iterator[Callable[[Any], None]]:
    """Show bars with the time left, or `Lines`; yields the `progress` for `n2n_deploy.train.train`."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    more = (TimeRemainingColumn(), TextColumn("{task.fields[note]}"))
    bars = LateProgress(*columns, *more, console=console, disable=quiet or not console.is_terminal)
    patches = bars.add_task("patches", note="", visible=False, total=1)
    steps = bars.add_task("training", note="", visible=False, total=1)
    lines = {task: Lines(console, interval, clock) for task in (patches, steps)}

    def tell(task: Any, done: float, text: str) -> None:
        if not quiet and not console.is_terminal:
            lines[task].update(done, text)

    def update(event: Any) -> None:
        if hasattr(event, "finished"):
            bars.update(patches, completed=event.finished, total=event.total, visible=True)
            bars.start()
            tell(
                patches, event.finished / event.total, f"cut {event.finished} of {event.total} micrographs into patches"
            )
            return
        if not bars.tasks[steps].visible:
            bars.reset(steps, visible=True)
            bars.start()
        note = f"step {event.step}  loss {event.loss:.4f}"
        if event.validation_loss == event.validation_loss:  # NaN before the first
            note += f"  held out {event.validation_loss:.4f}"
        bars.update(steps, completed=event.done, note=note)
        tell(steps, event.done, f"trained {100 * event.done:.0f} %, " + note.replace("  ", ", "))

    with bars:
        yield update


def _duration(seconds: float) -> str:
    """Minutes, and hours where there are any."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Delay Ctrl-C until the block has ended; only the main thread receives it at all."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        for number, frame in heard:
            if callable(before):
                before(number, frame)
