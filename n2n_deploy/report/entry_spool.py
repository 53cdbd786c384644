"""Entries of a report set aside on disk while a run goes on, so that memory does not grow with the micrographs."""

import json
import tempfile
import threading
from pathlib import Path

from n2n_deploy.report.entries import MicrographEntry


class EntrySpool:
    """One temporary file without a name, gone with the process; several threads may write.

    Args:
        folder: an existing folder on the file system to use.
    """

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._places: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()

    def put(self, entry: MicrographEntry) -> None:
        """Set an entry aside, in place of an earlier one of the same micrograph."""
        content = json.dumps(entry.as_json()).encode()
        with self._lock:
            self._places[entry.name] = self._file.seek(0, 2), len(content)
            self._file.write(content)

    def get(self, name: str) -> MicrographEntry | None:
        """Return the entry of a micrograph; None if there is none."""
        if name not in self._places:
            return None
        offset, size = self._places[name]
        with self._lock:
            self._file.seek(offset)
            content = self._file.read(size)
        return MicrographEntry.from_json(json.loads(content))
