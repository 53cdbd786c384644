"""CUDA's order of work without a GPU: devices, streams that work late, events, graphs.

Work is queued on its stream, and done when somebody has to wait for it, not before, or at once where a stream is made
`early`. So whoever forgets to wait, or to order two streams, finds what was in memory before: 0xFF everywhere, which is
NaN.
"""

import itertools
import threading
import weakref
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

Work = Callable[[], Any]

STREAMS: "weakref.WeakValueDictionary[int, Stream]" = weakref.WeakValueDictionary()
"""By the number that C libraries know them by."""

_all: "weakref.WeakSet[Stream]" = weakref.WeakSet()
_defaults: dict[int, "Stream"] = {}  # by GPU
_numbers = itertools.count(1000)
_queueing, _working = threading.RLock(), threading.RLock()
_thread = threading.local()


class CUDARuntimeError(RuntimeError):
    """An error of CUDA's runtime, as CuPy raises it."""


class Device:
    """A GPU: the one of this number, or the current one."""

    def __init__(self, device: int | None = None) -> None:
        self.id = int(_devices()[-1] if device is None else device)

    def __enter__(self) -> "Device":
        _devices().append(self.id)
        return self

    def __exit__(self, *_: object) -> None:
        _devices().pop()

    def synchronize(self) -> None:
        """Finish the work of all its streams; CUDA refuses that while one of them is captured."""
        with _queueing:
            mine = [stream for stream in _all if stream.device == self.id]
        for stream in mine:
            stream.refuse_capture()
        for stream in mine:
            stream.run()


class Stream:
    """A queue of work; `Stream()` blocks and is blocked by the default stream, one that is `non_blocking` is not."""

    def __init__(self, *, non_blocking: bool = False, default: bool = False) -> None:
        self.ptr = 0 if default else next(_numbers)
        self.device = Device().id
        self.early = False
        self.launches = 0
        self.queued = self._done = 0
        self.blocking = not non_blocking
        self._work: deque[tuple[list[tuple[Stream, int]], Work]] = deque()
        self._captured: list[Work] | None = None
        with _queueing:
            _all.add(self)
        if self.ptr:
            STREAMS[self.ptr] = self

    def __enter__(self) -> "Stream":
        _entered().append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert _entered().pop() is self

    def add(self, work: Work) -> None:
        """Queue work, or note it for the graph that is being captured."""
        if self._captured is not None:
            self._captured.append(work)
            return
        with _queueing:
            before = [(other, other.queued) for other in _all if self._waits_for(other)]
            self._work.append((before, work))
            self.queued += 1
        if self.early:
            self.run()

    def run(self, upto: int | None = None) -> None:
        """Do what was queued, or its beginning."""
        with _working:
            while self._work and (upto is None or self._done < upto):
                before, work = self._work.popleft()
                for other, position in before:
                    other.run(position)
                work()
                self._done += 1

    def synchronize(self) -> None:
        """Wait until its work is done."""
        self.refuse_capture()
        if self.ptr == 0:
            self.add(lambda: None)  # which waits for the streams that block it
        self.run()

    def record(self) -> "Event":
        """An event at the present end of its queue."""
        event = Event()
        event.record(self)
        return event

    def wait_event(self, event: "Event") -> None:
        """Let what is queued from now on wait for an event."""
        self.add(event.synchronize)

    def begin_capture(self) -> None:
        """Note work from now on in place of queueing it."""
        assert self.ptr != 0, "the legacy default stream cannot be captured"
        assert self._captured is None
        self._captured = []

    def end_capture(self) -> Any:
        """The graph of the work that was noted."""
        work, self._captured = self._captured or [], None

        def launch(stream: Stream) -> None:
            stream.launches += 1
            for step in work:
                stream.add(step)

        return SimpleNamespace(launch=launch)

    def refuse_capture(self) -> None:
        """Raise what CUDA answers to whoever waits for a stream that is being captured."""
        if self._captured is not None:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported")

    def _waits_for(self, other: "Stream") -> bool:
        """Whether one of them is the GPU's default stream, and the other one that it blocks."""
        one_is_default = (self.ptr == 0) != (other.ptr == 0)
        return one_is_default and self.blocking and other.blocking and self.device == other.device


class Event:
    """A place in a stream's queue."""

    def __init__(self) -> None:
        self.record()

    def record(self, stream: Stream | None = None) -> None:
        """Mark the present end of a stream's queue."""
        self._stream = stream or get_current_stream()
        self._position = self._stream.queued

    def synchronize(self) -> None:
        """Wait until the work before it is done."""
        self._stream.run(self._position)


def get_current_stream() -> Stream:
    """The stream of the current GPU that this thread is in, or the default one."""
    device = Device().id
    for stream in reversed(_entered()):
        if stream.device == device:
            return stream
    with _queueing:
        if device not in _defaults:
            _defaults[device] = Stream(default=True)
        return _defaults[device]


def _devices() -> list[int]:
    if not hasattr(_thread, "devices"):
        _thread.devices = [0]
    return _thread.devices  # type: ignore[no-any-return]


def _entered() -> list[Stream]:
    if not hasattr(_thread, "streams"):
        _thread.streams = []
    return _thread.streams  # type: ignore[no-any-return]
