"""Signals that end a run in an orderly way: the first one asks it to stop, a second one interrupts it at once."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopping:
    """Whether the run was asked to end.

    Attributes:
        event: set once it was.
        signal: number of the signal that asked; None if there was none.
    """

    def __init__(self) -> None:
        self.event = threading.Event()
        self.signal: int | None = None

    def __call__(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal."""
        if self.signal is not None:
            raise KeyboardInterrupt
        self.signal = number
        self.event.set()


@contextmanager
def stop_on_signal() -> Iterator[Stopping]:
    """Turn the first SIGINT or SIGTERM into a request to stop; a second one raises KeyboardInterrupt.

    Outside the main thread, where Python handles no signals, only the caller can set the event.
    """
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = {number: signal.signal(number, stopping) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
