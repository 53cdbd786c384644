"""The ledger of an output folder: what every run that wrote there did, as JSON lines, only ever appended to.

Each process writes one file of its own, `ledger/HOST-PID-TIME.jsonl`, because appends of several clients of a network
file system are not atomic. All files are read as one. Lines are JSON objects of these kinds:

* the first line, `{"ledger": 1, …}`: format, version, command, model, recipe, options, base folder, shard, host;
* `{"table": …}`: a source table, of which `ledger/tables` holds a copy, and which of its rows the run is about;
* `{"micrograph": …}`: name, output, status, work hash, reason, notes, seconds by stage, tiles, shape, images of that
  shape, host, and the pixel size of an output on another grid. With `"entry": N` the next line has N bytes and holds
  what the report shows, so that a reader may skip it;
* `{"network": …}`: what runs the network, and in which precision, for which model and options;
* `{"end": …}`: the process ended by itself: seconds, session, signal.

The last line of a micrograph counts, by time. Half a line, as a power failure leaves it, is passed over.
"""

import json
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from n2n_deploy.batch.status import Status
from n2n_deploy.core.errors import DataError
from n2n_deploy.report.entries import MicrographEntry

FOLDER = "ledger"
FORMAT = 1


@dataclass(frozen=True, slots=True)
class TableRows:
    """A source table in the ledger, and the rows of it that a run is about.

    Attributes:
        file: name of the copy in `ledger/tables`.
        project: folder that relative names start at.
        rows: as (first, past the last) of each unbroken range.
    """

    file: str
    project: str
    rows: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, file: str, project: str, rows: Iterable[int]) -> Self:
        """Make one of the numbers of rows, in order."""
        ranges: list[tuple[int, int]] = []
        for row in rows:
            if ranges and ranges[-1][1] == row:
                ranges[-1] = ranges[-1][0], row + 1
            else:
                ranges.append((row, row + 1))
        return cls(file, project, tuple(ranges))


@dataclass(eq=False, slots=True)
class Run:
    """One process: what its file says besides the micrographs.

    Attributes:
        path: the file.
        header: its first line.
        tables: the source tables, the latest last.
        network: what runs the network; None if it has not been opened.
        end: how it ended; None if it has not, or was killed.
        megapixels: raw pixels denoised, in millions.
        stage_seconds: time by stage, summed over the micrographs.
        read_to: bytes of the file that were read.
    """

    path: Path
    header: Mapping[str, Any]
    tables: list[TableRows] = field(default_factory=list)
    network: Mapping[str, Any] | None = None
    end: Mapping[str, Any] | None = None
    megapixels: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=dict)
    read_to: int = 0

    @property
    def shard(self) -> tuple[int, int] | None:
        """Index, from 1, and count of the shard; None for a run over a whole table."""
        shard = self.header["shard"]
        return (shard[0], shard[1]) if shard else None


@dataclass(eq=False, slots=True)
class Record:
    """The last word on one micrograph.

    Attributes:
        name: as the table writes it.
        status: where it stands.
        work: hash of the work; empty if it was refused before that was known.
        run: whose line it is.
        time: seconds since 1970.
        reason: why it was refused, failed or kept.
        notes: what the user should know of it.
        table: the source table that the run had then.
        pixel_size: Å, of the output where it is another than the micrograph's; None where it is not.
    """

    name: str
    status: Status
    work: str
    run: Run
    time: float
    reason: str = ""
    notes: tuple[str, ...] = ()
    table: TableRows | None = None
    pixel_size: float | None = None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where an entry of the report lies."""

    work: str
    path: Path
    offset: int
    size: int


class Ledger:
    """What the files of one output folder say.

    Args:
        output: the output folder; without a ledger there is nothing to read.

    Attributes:
        output: the output folder.
        runs: the processes that wrote there, the earliest first.
        records: the last line of each micrograph, by name.
        joined: other output folders whose results this one joins; see `merge_results`.
        latest: time of the latest line. A new process does not go back behind it, even if its clock does.
    """

    def __init__(self, output: Path) -> None:
        self.output = output
        self.runs: list[Run] = []
        self.records: dict[str, Record] = {}
        self.joined: list[Path] = []
        self.latest = 0.0
        self._entries: dict[str, _Place] = {}
        self._by_path: dict[Path, Run] = {}

    @classmethod
    def read(cls, output: Path) -> Self:
        """Read the ledger of an output folder.

        Raises:
            DataError: it was written by a newer version.
        """
        ledger = cls(output)
        ledger.refresh()
        return ledger

    @property
    def base(self) -> str | None:
        """Folder that absolute names of inputs lose (see `OutputLayout`); None if no run said so."""
        return self.runs[0].header["base"] if self.runs else None

    def int8(self, work: str) -> bool | None:
        """Return whether the micrographs of some work are denoised in int8; None if no run has begun that work.

        Args:
            work: names model and options, as in the lines on the network.
        """
        found = [run.network["precision"] for run in self.runs if run.network and run.network["work"] == work]
        return "int8" in found if found else None

    def begin(self, path: Path, header: Mapping[str, Any]) -> Run:
        """Add the run of this process, whose lines the caller adds; its file is not read."""
        run = Run(path, header, read_to=-1)
        self.runs.append(run)
        self._by_path[path] = run
        return run

    def take(self, run: Run, line: Mapping[str, Any]) -> Record:
        """Take a micrograph's line, one that was read or is about to be written; they may come in any order."""
        name, status, when = line["micrograph"], Status(line["status"]), seconds_since_1970(line["time"])
        reason, notes = line.get("reason", ""), tuple(line.get("notes", ()))
        table, pixel_size = run.tables[-1] if run.tables else None, line.get("pixel_size")
        record = Record(name, status, line["work"], run, when, reason, notes, table, pixel_size)
        _count(run, line)
        self.latest = max(self.latest, record.time)
        before = self.records.get(record.name)
        if before is None or before.time <= record.time:
            self.records[record.name] = record
        return record

    def add_entry(self, name: str, work: str, path: Path, offset: int, size: int) -> None:
        """Take note of where an entry of the report lies."""
        self._entries[name] = _Place(work, path, offset, size)

    def entry(self, record: Record) -> MicrographEntry | None:
        """Read what the report shows of a micrograph; None if nothing is kept of this work, or it is damaged."""
        place = self._entries.get(record.name)
        if place is None or place.work != record.work:
            return None
        with suppress(OSError, ValueError, KeyError, TypeError), place.path.open("rb") as stream:
            stream.seek(place.offset)
            return MicrographEntry.from_json(json.loads(stream.read(place.size))["report"])
        return None

    def refresh(self) -> None:
        """Read what other processes have written since.

        Raises:
            DataError: a newer version wrote it.
        """
        for path in sorted((self.output / FOLDER).glob("*.jsonl")):
            run = self._by_path.get(path)
            if run is not None and run.read_to < 0:
                continue
            with suppress(OSError):
                self._read(path, run)
        self.runs.sort(key=lambda run: str(run.header["time"]))

    def _read(self, path: Path, run: Run | None) -> None:
        with path.open("rb") as stream:
            offset = stream.seek(run.read_to if run else 0)
            while (line := stream.readline()).endswith(b"\n"):
                start, offset = offset, offset + len(line)
                try:
                    content = json.loads(line)
                    if "ledger" in content and start == 0:
                        run = self._header(path, content)
                    elif run is not None:
                        skip = self._line(run, content, offset)
                        offset += skip
                        if skip:
                            stream.seek(offset)
                except (ValueError, KeyError, TypeError):
                    continue  # half a line of a process that lost its power
                finally:
                    if run is not None:
                        run.read_to = offset

    def _header(self, path: Path, content: Mapping[str, Any]) -> Run | None:
        if content["ledger"] > FORMAT:
            raise DataError(
                f"{path}: has format {content['ledger']}, this version reads up to {FORMAT}; update n2n-deploy or "
                "choose another output folder"
            )
        if "joined" in content:
            self.joined = [Path(folder) for folder in content["joined"]]
            return None
        run = Run(path, content)
        self.latest = max(self.latest, seconds_since_1970(content["time"]))
        self.runs.append(run)
        self._by_path[path] = run
        return run

    def _line(self, run: Run, content: Mapping[str, Any], end: int) -> int:
        """Take one line; return the size of the line after it, if that is an entry to be skipped."""
        if "micrograph" in content:
            record = self.take(run, content)
            if size := content.get("entry", 0):
                self.add_entry(record.name, record.work, run.path, end, size)
            return int(size)
        if "table" in content:
            table = content["table"]
            rows = tuple((first, past) for first, past in table["rows"])
            run.tables.append(TableRows(table["file"], table["project"], rows))
        elif "network" in content:
            run.network = content["network"]
        elif "end" in content:
            run.end = content["end"]
        return 0


def _count(run: Run, line: Mapping[str, Any]) -> None:
    """Add the time and the pixels that a micrograph's line tells of to the sums of its run."""
    for stage, seconds in line.get("seconds", {}).items():
        run.stage_seconds[stage] = run.stage_seconds.get(stage, 0.0) + seconds
    if line["status"] == Status.DENOISED:
        ny, nx = line["shape"]
        run.megapixels += line.get("images", 1) * ny * nx / 1e6


def timestamp(seconds: float) -> str:
    """Write a time as ISO 8601 in UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds")


def seconds_since_1970(text: str) -> float:
    """Read a time that `timestamp` wrote."""
    return datetime.fromisoformat(text).timestamp()


def now(ledger: Ledger) -> float:
    """Return the time for a new line, which is never before the lines that are there."""
    ledger.latest = max(time.time(), ledger.latest)
    return ledger.latest
