"""`log.jsonl`: a line for each file, written when it is done with; several runs may append to one log."""

import json
import os
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from n2n_deploy.errors import HostError


class Log:
    """An open log. Each line is one call of the operating system, so that lines of several runs do not mix.

    Args:
        path: of the file; lines are added to what it holds.

    Raises:
        HostError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._run = f"{platform.node()}-{os.getpid()}-{int(time.time())}"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
            size = os.fstat(self._file).st_size
            # A run that lost its power may have left half a line.
            self._start = b"\n" if size and os.pread(self._file, 1, size - 1) != b"\n" else b""
        except OSError as error:
            raise HostError(f"{path}: cannot be written ({error.strerror}); choose another output folder") from error

    def line(self, record: Mapping[str, Any]) -> None:
        """Add one record, with the time and the run."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        text = json.dumps({"time": stamp, "run": self._run, **record})
        os.write(self._file, self._start + text.encode() + b"\n")
        self._start = b""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
