"""Lanes: threads that each take one item from start to end, in plain sequential code.

Throughput comes from several of them: while one waits for the file system, another computes. A lane that waits for
longer than the time-out (see `watchdog`) is given up together with its item, and a new lane takes its place.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Generic, TypeVar

from n2n_deploy.batch.watchdog import Watch, no_answer, waiting_for
from n2n_deploy.core.errors import HostError, N2NError

Item = TypeVar("Item")
Result = TypeVar("Result")

LANE = "lane"
"""Name of the threads."""

_DONE = object()

_BLOCK = 64
_BLOCKS = 4
"""`map_lanes` hands out blocks of at most `_BLOCK` calls, and at least so many to each lane, as far as there are."""


def run_lanes(
    items: Iterable[Item],
    work: Callable[[Item], Result],
    lanes: int,
    stop: threading.Event,
    timeout: float | None = None,
) -> Iterator[tuple[Item, Result | BaseException]]:
    """Process all items in `lanes` threads and yield each result as soon as it is there.

    Args:
        items: taken one by one, as lanes become free.
        work: processes one item; it marks its waits for files with `waiting_for`. Whatever it raises is yielded in
            place of its result and affects no other item.
        lanes: how many threads.
        stop: once it is set no further item is begun; those in progress are finished and yielded. A lane begins its
            next item when the caller has dealt with its last, so no item is begun after the caller decides to stop.
        timeout: seconds that one wait for files may take; None for ever.

    Yields:
        Each item with its result, or with the exception: HostError for one that waited too long.
    """
    crew = _Crew(items, work, stop)
    try:
        for seat in range(lanes):
            try:
                crew.begin(seat)
            except RuntimeError:  # no memory for another thread, or no more threads allowed
                if not crew.lanes:
                    raise
                break
        while crew.lanes:
            yield from crew.collect(timeout)
    finally:
        # An interrupt or an error of the caller ends the loop early and does not wait for the lanes.
        for lane in crew.lanes:
            lane.abandon()


def map_lanes(
    work: Callable[[int], Result], count: int, lanes: int, timeout: float | None = None
) -> list[Result | N2NError]:
    """Call a function with 0 to count - 1, and return the results in this order.

    For calls much shorter than the handing over of an item: each lane takes a block of numbers at a time.

    Args:
        work: as for `run_lanes`. An `N2NError` that it raises takes the place of its result; others end the whole.
        count: how many calls.
        lanes: how many threads.
        timeout: as for `run_lanes`; HostError takes the place of the result of a call that waited too long.
    """
    results: list[Result | N2NError | None] = [None] * count

    def work_on(block: Sequence[int]) -> None:
        for number in block:
            try:
                results[number] = work(number)
            except N2NError as error:
                results[number] = error

    size = max(1, min(_BLOCK, count // (_BLOCKS * lanes)))
    blocks: list[Sequence[int]] = [range(start, min(start + size, count)) for start in range(0, count, size)]
    while blocks:
        rest = []
        for block, error in run_lanes(blocks, work_on, min(lanes, len(blocks)), threading.Event(), timeout):
            if error is not None and not isinstance(error, HostError):
                raise error
            left = [number for number in block if results[number] is None]
            if left and error is not None:
                results[left[0]] = error
                rest.append(left[1:])
        blocks = [block for block in rest if block]
    return results  # type: ignore[return-value]  # none is None by now


def with_time_limit(work: Callable[[], Result], timeout: float | None, reason: str | None = None) -> Result:
    """Call a function in a lane of its own, so that the caller goes on if the file system hangs.

    Args:
        work: what to call.
        timeout: seconds that one wait may take; None for ever.
        reason: what the whole call waits for, as for `waiting_for`; None if the function says so itself.

    Raises:
        HostError: one wait for files took longer than the time-out.
    """
    watched = waiting_for(reason)(work)
    ((_, result),) = run_lanes([None], lambda _: watched(), 1, threading.Event(), timeout)
    if isinstance(result, BaseException):
        raise result
    return result


def seat() -> int:
    """Return the number of the calling lane, from 0; a lane that replaces a stalled one takes over its number."""
    lane = threading.current_thread()
    return lane.seat if isinstance(lane, _Lane) else 0


class _Crew(Generic[Item, Result]):
    """The lanes at work, and the thread that collects from them."""

    def __init__(self, items: Iterable[Item], work: Callable[[Item], Result], stop: threading.Event) -> None:
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
        """Return the next item; `_DONE` if there is none or the run is to stop."""
        with self._taking:
            return _DONE if self.stop.is_set() else next(self._items, _DONE)

    def collect(self, timeout: float | None) -> Iterator[tuple[Item, Result | BaseException]]:
        """Wait for one outcome, and from time to time look for stalled lanes."""
        pause = None if timeout is None else max(0.05, min(timeout / 4, 5.0))
        try:
            lane, item, result = self.outcomes.get(timeout=pause)
        except queue.Empty:
            pass
        else:
            if item is _DONE:
                self.lanes.discard(lane)
                if isinstance(result, BaseException):  # raised by the iterable of items itself
                    raise result
            elif not lane.watch.abandoned:
                yield item, result  # type: ignore[misc]
                lane.collected.put(None)
        if timeout is not None and pause is not None and time.monotonic() - self._looked > pause:
            self._looked = time.monotonic()
            for lane in [lane for lane in self.lanes if lane.watch.seconds() > timeout]:
                lane.abandon()
                self.lanes.discard(lane)
                self.begin(lane.seat)
                yield lane.item, no_answer(timeout, f"{lane.watch.reason}")  # type: ignore[misc]


class _Lane(threading.Thread, Generic[Item, Result]):
    """One thread. It is a daemon: the process must be able to end while a file system hangs."""

    def __init__(self, crew: _Crew[Item, Result], seat: int) -> None:
        super().__init__(name=LANE, daemon=True)
        self.seat = seat
        self.item: object = _DONE
        self.watch = Watch()
        self.collected: queue.SimpleQueue[None] = queue.SimpleQueue()  # a semaphore that costs a tenth of threading's
        self._crew = crew

    def run(self) -> None:
        self.watch.begin()
        result: Result | BaseException | None = None
        try:
            while not self.watch.abandoned and (item := self._crew.take()) is not _DONE:
                self.item = item
                try:
                    result = self._crew.work(item)  # type: ignore[arg-type]
                except BaseException as error:  # also a library's SystemExit, which must not end the lane
                    result = error
                self._crew.outcomes.put((self, item, result))
                result = None
                self.collected.get()
        except BaseException as error:
            result = error
        finally:
            self._crew.outcomes.put((self, _DONE, result))

    def abandon(self) -> None:
        """Give the lane up: it ends when it returns from its wait, and its result is discarded."""
        self.watch.abandoned = True
        self.collected.put(None)
