"""The watchdog: code marks where it waits for files, and the lane that it runs in is given up after too long a wait.

A file system that does not answer cannot be interrupted, but it need not hold up the run. Code that waits says so with
`waiting_for`; which lane it belongs to is known by a context variable, so that nothing is passed along. Outside a lane
nobody watches, and a wait takes as long as it takes.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from n2n_deploy.core.errors import HostError


class AbandonedError(Exception):
    """Raised in a lane that returns from a wait after it was given up: its item is already recorded as failed."""


class Watch:
    """What one thread waits for. The thread itself writes it, another one reads it.

    Attributes:
        reason: what it waits for now, such as "reading /data/m1.mrc"; None while it computes.
        abandoned: whether it was given up.
    """

    def __init__(self) -> None:
        self.reason: str | None = None
        self.abandoned = False
        self._since: float | None = None

    def begin(self) -> None:
        """Let `waiting_for` in the calling thread report to this watch."""
        _current.set(self)

    def wait(self, reason: str | None) -> None:
        """Note what the thread waits for from now on."""
        self._since = None
        self.reason = reason
        if reason is not None:
            self._since = time.monotonic()

    def seconds(self) -> float:
        """Return how long the present wait has taken; 0 while the thread computes."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since


_current: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def waiting_for(reason: str | None) -> Iterator[None]:
    """Mark a block, or a function as a decorator, that waits for files.

    A wait within another one has the time-out for itself. None marks work that is watched elsewhere or not at all.

    Raises:
        AbandonedError: at the end of the block, if the lane was given up meanwhile.
    """
    watch = _current.get()
    if watch is None:
        yield
        return
    outer = watch.reason
    watch.wait(reason)
    try:
        yield
    finally:
        watch.wait(outer)
        if watch.abandoned:
            raise AbandonedError


def no_answer(timeout: float, reason: str) -> HostError:
    """Return the error of a file system that did not answer in time."""
    return HostError(
        f"no answer from the file system for {timeout:g} s while {reason}; "
        "check the disk or the network file system and run again, or raise --timeout"
    )
