"""Progress bars of the command line."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from rich.progress import Progress


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
