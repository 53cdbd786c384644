"""The log of a batch: whole lines, whatever happened before, and no waiting for a file system that hangs."""

import json
import os
import time
from pathlib import Path

import pytest

from n2n_deploy import HostError
from n2n_deploy.batch.ledger_writer import Log


def test_half_a_line_of_a_run_that_lost_its_power_spoils_none(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"micrograph": "a"}\n{"micro')
    with Log(tmp_path) as log:
        log.line({"micrograph": "b"})
    first, half, last = (tmp_path / "log.jsonl").read_text().splitlines()
    assert (json.loads(first)["micrograph"], half, json.loads(last)["micrograph"]) == ("a", '{"micro', "b")


def test_a_log_that_hangs_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody empties takes 64 kB, and then no more."""
    taken, given = os.pipe()
    monkeypatch.setattr(os, "pread", lambda *_: b"\n")
    (tmp_path / "log.jsonl").symlink_to(f"/proc/self/fd/{given}")
    log = Log(tmp_path, timeout=0.5)
    try:
        with pytest.raises(HostError, match=r"no answer from the file system for 0.5 s while writing .*log.jsonl"):
            for _ in range(200):
                log.add(b"x" * 10_000)
                time.sleep(0.02)
    finally:
        os.close(taken)  # whoever writes to it gets an error, and goes on
        log.close()
        os.close(given)
