"""`log.jsonl`: a line for each file, written when it is done with; several runs may append to one log."""

import json
import os
import platform
import queue
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from n2n_deploy.batch.lanes import Waiting, in_lane, no_answer
from n2n_deploy.core.errors import HostError

NAME = "log.jsonl"

_TIME = "%Y-%m-%dT%H:%M:%S%z"


class Log:
    """An open log. Each line is one call of the operating system, so that lines of several runs do not mix.

    A thread of its own writes, so that nobody waits for a file system that hangs.

    Args:
        folder: where `log.jsonl` is; lines are added to what it holds.
        timeout: seconds to wait for the file system at a time; None for ever.

    Raises:
        HostError: it cannot be opened, or does not answer.
    """

    def __init__(self, folder: Path, timeout: float | None = None) -> None:
        self._path = folder / NAME
        self._timeout = timeout
        self._run = f"{platform.node()}-{os.getpid()}-{int(time.time())}"
        self._since: float | None = None
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._file, unwritten = in_lane(self._open, timeout)
        self._writer = threading.Thread(target=self._write, args=(unwritten,), name="log", daemon=True)
        self._writer.start()

    def line(self, record: Mapping[str, Any]) -> None:
        """Add one record, with the time and the run.

        Raises:
            HostError: the file system does not answer.
        """
        self.add(json.dumps({"time": time.strftime(_TIME), "run": self._run, **record}).encode())

    def add(self, line: bytes) -> None:
        """Add a line, or several, as they are; what the disk has no room for waits for the next.

        Raises:
            HostError: the file system does not answer.
        """
        since = self._since
        if since is not None and self._timeout is not None and time.monotonic() - since > self._timeout:
            raise no_answer(self._timeout, f"writing {self._path}")
        self._lines.put(line + b"\n")

    def close(self) -> None:
        """Write what there is and close the file, if the file system answers."""
        self._lines.put(None)
        self._writer.join(self._timeout)

    def _open(self, waiting: Waiting) -> tuple[int, bytes]:
        """The open file, and what it needs before the first line."""
        with waiting(f"opening {self._path}"):
            try:
                file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
                size = os.fstat(file).st_size
                # A run that lost its power may have left half a line.
                return file, b"\n" if size and os.pread(file, 1, size - 1) != b"\n" else b""
            except OSError as error:
                raise HostError(
                    f"{self._path}: cannot be written ({error.strerror}); choose another output folder"
                ) from error

    def _write(self, unwritten: bytes) -> None:
        while (line := self._lines.get()) is not None:
            unwritten += line
            self._since = time.monotonic()
            with suppress(OSError):
                unwritten = unwritten[os.write(self._file, unwritten) :]
            self._since = None
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def merge_logs(folders: Sequence[Path], target: Path) -> None:
    """Add to a folder's log the lines of the logs of other folders that it does not have, in the order of their times.

    Raises:
        HostError: it cannot be written.
    """
    known = set(_lines(target))
    added = {line: None for folder in folders for line in _lines(folder) if line not in known}
    if added:
        with Log(target) as log:
            log.add(b"\n".join(sorted(added, key=_time)))


def _lines(folder: Path) -> list[bytes]:
    """The whole lines of a folder's log; none where it has none."""
    try:
        content = (folder / NAME).read_bytes()
    except OSError:
        return []
    return [line for line in content.splitlines() if line.startswith(b"{") and line.endswith(b"}")]


def _time(line: Any) -> float:
    try:
        return datetime.strptime(json.loads(line)["time"], _TIME).timestamp()
    except (ValueError, KeyError, TypeError):
        return 0.0
