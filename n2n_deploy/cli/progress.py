"""Progress bars of the command line."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from n2n_deploy.cli.common import err


class LateProgress(Progress):
    """Bars that whoever has news starts, so that an error before the first is a line by itself."""

    def __enter__(self) -> Self:
        return self

    def start(self) -> None:
        """Start them; not by halves, which Rich could not stop."""
        with uninterrupted():
            super().start()

    def stop(self) -> None:
        """Stop them where they began; what never began leaves no empty line."""
        with uninterrupted():
            if self.live.is_started:
                super().stop()


@contextmanager
def training_progress(*, quiet: bool = False) -> Iterator[Callable[[Any], None]]:
    """Show a bar with the time left; what is yielded takes `n2n_deploy.train.train`'s `progress` calls."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TextColumn("left"))
    bars = LateProgress(*columns, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=err, disable=quiet)
    patches = bars.add_task("patches", note="", visible=False, total=1)
    steps = bars.add_task("training", note="", visible=False, total=1)

    def update(event: Any) -> None:
        if hasattr(event, "finished"):
            bars.update(patches, completed=event.finished, total=event.total, visible=True)
            bars.start()
            return
        if not bars.tasks[steps].visible:
            bars.reset(steps, visible=True)
            bars.start()
        note = f"step {event.step}  loss {event.loss:.4f}"
        if event.validation_loss == event.validation_loss:  # NaN before the first
            note += f"  held out {event.validation_loss:.4f}"
        bars.update(steps, completed=event.done, note=note)

    with bars:
        yield update


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C take effect when the block has ended; only the main thread hears of it at all."""
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
