"""Entries of a report kept on disk, so that a run that goes on, or the parts of a divided one, report on all of it."""

import gzip
import hashlib
import json
import zlib
from pathlib import Path

from n2n_deploy.files.atomic import atomic_write
from n2n_deploy.report.entries import MicrographEntry


class EntryStore:
    """One small packed file for each micrograph; several processes may write to one store.

    Args:
        folder: made with the first entry.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, name: str, work: str, entry: MicrographEntry) -> None:
        """Keep an entry in place of what was kept of the same name.

        Args:
            name: of the micrograph or its output, the same in every run.
            work: what was done; the entry is given out for this work only.
            entry: what the report shows.

        Raises:
            HostError: the folder cannot be written to or has no room.
        """
        text = json.dumps({"name": name, "work": work, "entry": entry.as_json()})
        with atomic_write(self._path(name)) as stream:
            stream.write(gzip.compress(text.encode(), 1))

    def get(self, name: str, work: str) -> MicrographEntry | None:
        """Give what was kept of a name, if it came from this work and can be read."""
        try:
            kept = json.loads(gzip.decompress(self._path(name).read_bytes()))
            if (kept["name"], kept["work"]) != (name, work):
                return None
            return MicrographEntry.from_json(kept["entry"])
        except (OSError, EOFError, ValueError, KeyError, TypeError, zlib.error):
            return None  # pictures lost are no reason to do without a report

    def _path(self, name: str) -> Path:
        digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()  # a file's name need not be text
        return self.folder / f"{digest[:24]}.json.gz"
