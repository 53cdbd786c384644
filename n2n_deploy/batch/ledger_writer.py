"""`LedgerWriter`: the file of this process in the ledger, written by a thread of its own."""

import json
import os
import platform
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from n2n_deploy.batch.ledger import FOLDER, FORMAT
from n2n_deploy.core.closing import Closing
from n2n_deploy.files.atomic import atomic_write

_as_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would make an encoder for each line


class LedgerWriter(Closing):
    """Appends lines to a new file. Trouble with the file is reported and stops nothing: the labels prove what is done.

    The thread keeps a file system that hangs from holding up whoever adds a line. On a full disk lines wait for space;
    entries of the report, which are large, are dropped.

    Args:
        output: the output folder.
        timeout: seconds that one write may take before it counts as trouble.
        entry_written: told the micrograph's name and work, and the offset and size of its entry in the file.

    Attributes:
        path: the file.
    """

    def __init__(
        self,
        output: Path,
        timeout: float | None = None,
        entry_written: Callable[[str, str, int, int], None] = lambda *_: None,
    ) -> None:
        name = f"{platform.node()}-{os.getpid()}-{time.time_ns() // 1000}.jsonl"
        self.path = output / FOLDER / name
        self._timeout = timeout
        self._entry_written = entry_written
        self._problem = ""
        self._since: float | None = None
        self._lines: queue.SimpleQueue[tuple[Mapping[str, Any], str] | threading.Event | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="ledger", daemon=True)
        self._thread.start()

    @property
    def problem(self) -> str:
        """What is wrong with the file; empty if nothing is."""
        return f"{self.path}: no answer from the file system for {self._timeout:g} s" if self._hangs else self._problem

    @property
    def _hangs(self) -> bool:
        since = self._since
        return since is not None and self._timeout is not None and time.monotonic() - since > self._timeout

    def add(self, line: Mapping[str, Any], entry: str = "") -> None:
        """Add a line, and after that of a micrograph the JSON of its entry in the report."""
        self._lines.put((line, entry))

    def flush(self) -> None:
        """Wait until what was added is written, unless the file system hangs."""
        written = threading.Event()
        self._lines.put(written)
        written.wait(0 if self._hangs else self._timeout)

    def close(self) -> None:
        """Write what was added and close the file, unless the file system hangs."""
        self._lines.put(None)
        self._thread.join(self._timeout)

    def _write(self) -> None:
        file: int | None = None
        written, pending = 0, b""
        while (item := self._lines.get()) is not None:
            if isinstance(item, threading.Event):
                item.set()
                continue
            line, entry = item
            content = f'{{"report": {entry}}}\n'.encode() if entry and not pending and file is not None else b""
            if content:
                line = {**line, "entry": len(content)}
            pending += _as_json(line).encode("utf-8", "surrogatepass") + b"\n" + content
            end = written + len(pending)
            self._since = time.monotonic()
            try:
                if file is None:
                    file = self._open()
                while pending:
                    count = os.write(file, pending)
                    written, pending = written + count, pending[count:]
                self._problem = ""
            except OSError as error:
                self._problem = f"{self.path}: cannot be written ({error.strerror})"
            self._since = None
            if content and not pending:
                self._entry_written(line["micrograph"], line["work"], end - len(content), len(content))
        if file is not None:
            os.close(file)

    def _open(self) -> int:
        self.path.parent.mkdir(exist_ok=True)
        return os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def write_joined(output: Path, folders: Sequence[Path]) -> None:
    """Let the ledger of a folder refer to those of other output folders, whose results it joins.

    Raises:
        HostError: it cannot be written.
    """
    line = {"ledger": FORMAT, "joined": [str(folder) for folder in dict.fromkeys(folders)]}
    with atomic_write(output / FOLDER / "joined.jsonl") as stream:
        stream.write(json.dumps(line).encode() + b"\n")
