"""Lanes: threads that each take one item from start to end, in plain sequential code.

Throughput comes from several of them: while one waits for the file system, another computes. A lane that waits for
longer than the time-out is given up, with its item, and another takes its place: a file system that does not answer
cannot be interrupted, but it need not hold up the run.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Generic, TypeVar

from n2n_deploy.core.errors import HostError

Item = TypeVar("Item")
Result = TypeVar("Result")

Waiting = Callable[[str | None], AbstractContextManager[None]]
"""`with waiting("reading"):` tells the watcher that the lane now waits for files, and for what.

Within another one it has the time-out for itself; `waiting(None)` is work that is watched otherwise or not at all."""

LANE = "lane"
"""Name of their threads."""

_DONE = object()


class _AbandonedError(Exception):
    """Raised in a lane that was given up and then found its way back: its item has been accounted for."""


def run_lanes(
    items: Iterable[Item],
    work: Callable[[Item, Waiting], Result],
    lanes: int,
    stop: threading.Event,
    timeout: float | None = None,
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Do all items in `lanes` threads and yield what came of each, as it comes.

    Args:
        items: taken one by one, as lanes get free.
        work: does one item; it marks its waiting for files. Whatever it raises is yielded in place of its result and
            costs no other item.
        lanes: how many threads.
        stop: once it is set no further item is begun; those in hand are finished and yielded. A lane begins its next
            item when the caller has dealt with its last, so what the caller stops for is not run past.
        timeout: seconds that a lane may wait for files at a time; None for ever.

    Yields:
        Each item with its result, or with the exception: HostError for one that waited too long.
    """
    crew = _Crew(items, work, stop)
    try:
        for seat in range(lanes):
            try:
                crew.begin(seat)
            except RuntimeError:  # no memory, or no more threads allowed, for another one
                if not crew.lanes:
                    raise
                break
        while crew.lanes:
            yield from crew.collect(timeout)
    finally:
        # What ends the loop early (an interrupt, an error of the caller) does not wait for the lanes.
        for lane in crew.lanes:
            lane.abandon()


def in_lane(work: Callable[[Waiting], Result], timeout: float | None) -> Result:
    """Do one thing in a lane of its own: where the file system hangs, whoever asked for it does not.

    Raises:
        HostError: it waited for files for longer than the time-out.
    """

    def do(_: None, waiting: Waiting) -> Result:
        return work(waiting)

    ((_, result),) = run_lanes([None], do, 1, threading.Event(), timeout)
    if isinstance(result, BaseException):
        raise result
    return result


def no_answer(timeout: float, reason: str) -> HostError:
    """What is said of a file system that did not answer in time."""
    return HostError(
        f"no answer from the file system for {timeout:g} s while {reason}; "
        "check the disk or the network file system and run again, or raise --timeout"
    )


def unwatched(_reason: str | None) -> AbstractContextManager[None]:
    """Wait for files for as long as it takes."""
    return nullcontext()


def seat() -> int:
    """Number of the calling lane, from 0 to the number of lanes; what takes a stalled lane's place takes its number."""
    lane = threading.current_thread()
    return lane.seat if isinstance(lane, _Lane) else 0


class _Crew(Generic[Item, Result]):
    """The lanes at work, and the thread that collects from them."""

    def __init__(self, items: Iterable[Item], work: Callable[[Item, Waiting], Result], stop: threading.Event) -> None:
        self.lanes: set[_Lane[Item, Result]] = set()
        self.outcomes: queue.SimpleQueue[tuple[_Lane[Item, Result], object, Result | BaseException | None]] = (
            queue.SimpleQueue()
        )
        self.work = work
        self.stop = stop
        self._items = iter(items)
        self._taking = threading.Lock()
        self._looked = time.monotonic()

    def begin(self, seat: int) -> None:
        """Start one more lane."""
        lane = _Lane(self, seat)
        lane.start()
        self.lanes.add(lane)

    def take(self) -> object:
        """The next item, `_DONE` where there is none or the run is to stop."""
        with self._taking:
            return _DONE if self.stop.is_set() else next(self._items, _DONE)

    def collect(self, timeout: float | None) -> Iterator[tuple[Item, Result | BaseException]]:
        """Wait for one outcome, and now and then look for lanes that stall."""
        pause = None if timeout is None else max(0.05, min(timeout / 4, 5.0))
        try:
            lane, item, result = self.outcomes.get(timeout=pause)
        except queue.Empty:
            pass
        else:
            if item is _DONE:
                self.lanes.discard(lane)
                if isinstance(result, BaseException):  # of the list of items itself
                    raise result
            elif not lane.abandoned:
                yield item, result  # type: ignore[misc]
                lane.collected.release()
        if timeout is not None and pause is not None and time.monotonic() - self._looked > pause:
            self._looked = time.monotonic()
            for lane in [lane for lane in self.lanes if lane.waited() > timeout]:
                lane.abandon()
                self.lanes.discard(lane)
                self.begin(lane.seat)
                yield (
                    lane.item,  # type: ignore[misc]
                    no_answer(timeout, f"{lane.reason}"),
                )


class _Lane(threading.Thread, Generic[Item, Result]):
    """One thread. It is a daemon: a process must be able to end although a file system hangs."""

    def __init__(self, crew: _Crew[Item, Result], seat: int) -> None:
        super().__init__(name=LANE, daemon=True)
        self.seat = seat
        self.item: object = _DONE
        self.reason: str | None = None
        self.abandoned = False
        self.collected = threading.Semaphore(0)
        self._crew = crew
        self._since: float | None = None

    def run(self) -> None:
        result: Result | BaseException | None = None
        try:
            while not self.abandoned and (item := self._crew.take()) is not _DONE:
                self.item = item
                try:
                    result = self._crew.work(item, self._waiting)  # type: ignore[arg-type]
                except BaseException as error:  # SystemExit of a library, too: a lane must not die with its item
                    result = error
                self._crew.outcomes.put((self, item, result))
                result = None
                self.collected.acquire()
        except BaseException as error:
            result = error
        finally:
            self._crew.outcomes.put((self, _DONE, result))

    @contextmanager
    def _waiting(self, reason: str | None) -> Iterator[None]:
        outer = self.reason
        self._wait(reason)
        try:
            yield
        finally:
            self._wait(outer)
            if self.abandoned:
                raise _AbandonedError

    def _wait(self, reason: str | None) -> None:
        self._since = None
        self.reason = reason
        if reason is not None:
            self._since = time.monotonic()

    def abandon(self) -> None:
        """Give it up: it ends when it comes back, and what it brings is not asked for."""
        self.abandoned = True
        self.collected.release()

    def waited(self) -> float:
        """Seconds that it has been waiting for files now."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since
