"""The ledger: files read as one, the last line counts, damage is passed over, trouble with it stops nothing."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from n2n_deploy import DataError
from n2n_deploy.batch.ledger import Ledger, now
from n2n_deploy.batch.ledger_writer import LedgerWriter
from n2n_deploy.batch.outputs import OutputLayout
from n2n_deploy.batch.standing import Standing
from n2n_deploy.report.entries import MicrographEntry


def at(second: int) -> str:
    return f"2026-01-01T00:00:{second:02d}.000000+00:00"


def header(second: int = 0, **more: object) -> dict[str, Any]:
    return {"ledger": 1, "time": at(second), "base": "/", "phase_flipped": False, "shard": None, **more}


def line(name: str, status: str, second: int, work: str = "w", **more: object) -> dict[str, Any]:
    return {"micrograph": name, "status": status, "work": work, "time": at(second), "shape": [10, 20], **more}


def write(output: Path, file: str, *lines: dict[str, Any], end: str = "") -> Path:
    path = output / "ledger" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(each) + "\n" for each in lines) + end)
    return path


def statuses(ledger: Ledger) -> dict[str, str]:
    return {name: str(record.status) for name, record in ledger.records.items()}


def test_last_line_of_a_micrograph_counts_whichever_file_it_is_in(tmp_path: Path) -> None:
    write(tmp_path, "b-1-1.jsonl", header(1), line("m0", "failed", 5, reason="bad"), line("m1", "denoised", 4))
    write(tmp_path, "a-1-1.jsonl", header(0), line("m0", "denoised", 3), line("m1", "failed", 9, reason="worse"))
    ledger = Ledger.read(tmp_path)
    assert statuses(ledger) == {"m0": "failed", "m1": "failed"}
    assert (ledger.records["m0"].reason, ledger.records["m1"].reason) == ("bad", "worse")
    assert [run.path.name for run in ledger.runs] == ["a-1-1.jsonl", "b-1-1.jsonl"]
    assert [run.megapixels for run in ledger.runs] == pytest.approx([200e-6, 200e-6])


def test_half_a_line_is_passed_over_and_read_when_it_is_whole(tmp_path: Path) -> None:
    whole = json.dumps(line("m1", "denoised", 2)) + "\n"
    path = write(tmp_path, "a-1-1.jsonl", header(), line("m0", "denoised", 1), end=whole[:20])
    ledger = Ledger.read(tmp_path)
    assert statuses(ledger) == {"m0": "denoised"}
    with path.open("a") as stream:
        stream.write(whole[20:])
    ledger.refresh()
    assert statuses(ledger) == {"m0": "denoised", "m1": "denoised"}
    # After a power failure: bytes that were never written, then lines of a file system that kept them.
    with path.open("ab") as stream:
        stream.write(bytes(100) + b"\n" + json.dumps(line("m2", "denoised", 3)).encode() + b"\n")
    assert statuses(Ledger.read(tmp_path)) == dict.fromkeys(("m0", "m1", "m2"), "denoised")
    write(tmp_path, "b-1-1.jsonl", end='{"ledger": 1, "ti')
    assert len(Ledger.read(tmp_path).runs) == 1


def test_newer_format_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a-1-1.jsonl", header() | {"ledger": 2})
    with pytest.raises(DataError, match=r"a-1-1.jsonl: has format 2, this version reads up to 1; update n2n-deploy"):
        Ledger.read(tmp_path)


def test_entries_are_read_for_their_work_only_and_damage_gives_none(tmp_path: Path) -> None:
    with LedgerWriter(tmp_path) as writer:
        writer.add(header())
        for number in range(3):
            entry = MicrographEntry(f"m{number}", "denoised", seconds=float(number))
            writer.add(line(f"m{number}", "denoised", number, f"w{number}"), json.dumps(entry.as_json()))
    ledger = Ledger.read(tmp_path)
    assert statuses(ledger) == dict.fromkeys(("m0", "m1", "m2"), "denoised")
    found = [ledger.entry(ledger.records[f"m{number}"]) for number in range(3)]
    assert [entry.seconds for entry in found if entry] == [0.0, 1.0, 2.0]
    # Other work was done since, of which nothing is kept.
    write(tmp_path, "z-1-1.jsonl", header(8), line("m1", "denoised", 9, "other"))
    ledger.refresh()
    assert ledger.entry(ledger.records["m1"]) is None
    content = writer.path.read_bytes()
    writer.path.write_bytes(content[:-40])
    assert ledger.entry(ledger.records["m2"]) is None
    writer.path.write_bytes(content.replace(b'"seconds"', b'"sec\xff\xff\xff\xff"'))
    assert ledger.entry(ledger.records["m0"]) is None
    assert statuses(Ledger.read(tmp_path)).keys() == {"m0", "m1", "m2"}


WRITER = """
import sys
from pathlib import Path
from n2n_deploy.batch.ledger_writer import LedgerWriter

output, letter = Path(sys.argv[1]), sys.argv[2]
when = "2026-01-01T00:00:00.000000+00:00"
with LedgerWriter(output) as writer:
    writer.add({"ledger": 1, "time": when, "base": "/"})
    for number in range(3000):
        line = {"micrograph": f"{letter}{number}", "status": "denoised", "work": "w", "time": when, "shape": [10, 20]}
        writer.add(line, '"' + "x" * (number % 50) + '"')
"""


def test_two_processes_write_at_once_and_another_reads(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), letter]) for letter in "ab"]
    ledger = Ledger(tmp_path)
    while any(writer.poll() is None for writer in writers):
        ledger.refresh()
        time.sleep(0.01)
    assert [writer.returncode for writer in writers] == [0, 0]
    ledger.refresh()
    assert ledger.records.keys() == {f"{letter}{number}" for letter in "ab" for number in range(3000)}
    assert len(ledger.runs) == 2


def test_new_lines_are_later_than_those_of_a_node_with_a_fast_clock(tmp_path: Path) -> None:
    ahead = time.time() + 3600
    write(tmp_path, "a-1-1.jsonl", header(), line("m0", "denoised", 1) | {"time": "2999-01-01T00:00:00.000000+00:00"})
    assert now(Ledger.read(tmp_path)) > ahead
    assert now(Ledger(tmp_path)) < ahead


def test_output_that_was_taken_away_is_not_finished(tmp_path: Path) -> None:
    write(tmp_path, "a-1-1.jsonl", header(), line("a/m0.mrc", "denoised", 1), line("a/m1.mrc", "denoised", 2))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "m1.mrc").touch()
    standing = Standing(Ledger.read(tmp_path), OutputLayout(tmp_path, "/"))
    assert standing.record("a/m0.mrc") is None
    assert standing.record("a/m1.mrc") is not None


def test_hanging_ledger_is_reported_and_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody empties takes 64 kB, and then no more."""
    taken, given = os.pipe()
    monkeypatch.setattr(LedgerWriter, "_open", lambda _: given)
    writer = LedgerWriter(tmp_path, timeout=0.5)
    start = time.monotonic()
    try:
        while not writer.problem and time.monotonic() - start < 30:
            writer.add(line("m" * 10_000, "denoised", 0))
            time.sleep(0.02)
        assert "no answer from the file system for 0.5 s" in writer.problem
        begun = time.monotonic()
        writer.flush()
        assert time.monotonic() - begun < 0.4
    finally:
        os.close(taken)  # the writer gets an error, and goes on
        writer.close()


def test_lines_wait_for_space_and_entries_are_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes, full = os.write, True

    def on_full_disk(file: int, content: bytes) -> int:
        if full and file > 2:
            raise OSError(28, "No space left on device")
        return write_bytes(file, content)

    monkeypatch.setattr(os, "write", on_full_disk)
    with LedgerWriter(tmp_path) as writer:
        writer.add(header())
        writer.add(line("m0", "denoised", 1), '"a picture"')
        writer.flush()
        assert "No space left on device" in writer.problem
        full = False
        writer.add(line("m1", "denoised", 2), '"a picture"')
        writer.add(line("m2", "denoised", 3), '"a picture"')
        writer.flush()
        assert not writer.problem
    lines = writer.path.read_text().splitlines()
    assert len(lines) == 5
    assert statuses(Ledger.read(tmp_path)) == dict.fromkeys(("m0", "m1", "m2"), "denoised")
