"""File systems that hang: waits have a time-out, the rest of the batch goes on, or the run ends with an error."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from n2n_deploy import DenoiseOptions, denoise
from n2n_deploy.batch.lanes import map_lanes, run_lanes
from n2n_deploy.batch.watchdog import waiting_for
from n2n_deploy.core.errors import DataError, HostError

from .conftest import MakeBundle, MakeTable, after, answer, listed, start

ONE_LANE = DenoiseOptions(report=False, lanes=1)


def test_stalled_files_do_not_stop_the_batch(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source = table(6)
    pipe(tmp_path / "job" / "mics" / "m1.mrc")  # from the beginning
    stall = after(1, lambda: pipe(tmp_path / "job" / "mics" / "m5.mrc"))  # during the run
    options = DenoiseOptions(report=False, lanes=1, timeout=0.5)
    start = time.monotonic()
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=options, progress=stall)
    assert time.monotonic() - start < 60
    assert summary.denoised == 4
    assert sorted(summary.failures) == ["job/mics/m1.mrc", "job/mics/m5.mrc"]
    assert all("no answer from the file system for 0.5 s" in reason for reason in summary.failures.values())
    assert listed(tmp_path / "out" / "failed.star") == ["m1.mrc", "m5.mrc"]


def test_stalled_mrc_file_without_a_table_fails_alone(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    table(4)
    pipe(tmp_path / "job" / "mics" / "m1.mrc")
    options = DenoiseOptions(report=False, lanes=1, timeout=1.0)
    summary = denoise(str(tmp_path / "job" / "mics" / "*.mrc"), identity_bundle(), tmp_path / "out", options=options)
    assert summary.denoised == 3
    ((name, reason),) = summary.failures.items()
    assert name.endswith("m1.mrc")
    assert "no answer from the file system for 1 s while looking at" in reason


def test_stalled_header_fails_alone(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    """A table that leaves the pixel size to the files' headers."""
    source = table(3)
    source.write_text("data_\nloop_\n_rlnMicrographName\n" + "".join(f"job/mics/m{n}.mrc\n" for n in range(3)))
    pipe(tmp_path / "job" / "mics" / "m2.mrc")
    options = DenoiseOptions(report=False, lanes=1, timeout=1.0)
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=options)
    assert (summary.denoised, list(summary.failures)) == (2, ["job/mics/m2.mrc"])
    assert "no answer from the file system" in summary.failures["job/mics/m2.mrc"]


def test_stalled_table_ends_the_run(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source = table(3)
    pipe(source)
    process = start(source, identity_bundle(), tmp_path / "out", "--timeout", 1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"no answer from the file system for 1 s while reading {source}" in " ".join(said.decode().split())


@pytest.mark.parametrize("name", ["denoised.star", "failed.star", "report.html", "summary.json"])
def test_output_tables_and_report_are_not_read(
    name: str, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    """Whoever opens them for reading would never return."""
    source, bundle, out = table(3), identity_bundle(), tmp_path / "out"
    options = DenoiseOptions(lanes=1, timeout=1.0)
    summary = denoise(source, bundle, out, options=options, progress=after(2, lambda: pipe(out / name)))
    assert (summary.denoised, summary.listed, summary.exit_code) == (3, 3, 0)
    again = denoise(source, bundle, out, options=options)
    assert (again.already_done, again.listed) == (3, 3)


def test_stalled_ledger_ends_the_run(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source, bundle, out = table(3), identity_bundle(), tmp_path / "out"
    options, stalled = DenoiseOptions(lanes=1, timeout=1.0), out / "ledger" / "other-1-1.jsonl"
    with pytest.raises(HostError, match="no answer from the file system for 1 s while reading the ledger of"):
        denoise(source, bundle, out, options=options, progress=after(2, lambda: pipe(stalled)))
    # The micrographs are done; when the folder answers again, the next run only writes the account.
    answer(stalled)
    stalled.unlink()
    summary = denoise(source, bundle, out, options=options.model_copy(update={"timeout": 60.0}))
    assert (summary.already_done, summary.listed, summary.exit_code) == (3, 3, 0)


def test_late_result_of_an_abandoned_lane_is_discarded() -> None:
    gate, computed = threading.Event(), []

    def late(item: int) -> int:
        with waiting_for("reading"):
            if item == 0:
                gate.wait(30)
        computed.append(item)
        return item

    answers = {}
    for item, result in run_lanes(range(4), late, 2, threading.Event(), timeout=0.2):
        answers[item] = result
        if isinstance(result, HostError):
            gate.set()
    assert sorted(answers) == [0, 1, 2, 3]
    assert isinstance(answers[0], HostError)
    time.sleep(0.1)
    assert sorted(computed) == [1, 2, 3]


def test_stalled_call_takes_no_other_of_its_block_with_it() -> None:
    """`map_lanes` hands out blocks: 600 calls in 2 lanes are blocks of 64, and two calls of one block stall."""
    gate, calls = threading.Event(), []

    def work(number: int) -> int:
        calls.append(number)
        with waiting_for("reading"):
            if number in (70, 100):
                gate.wait(30)
        if number % 50 == 1:
            raise DataError(f"file {number}")
        return number * number

    results = map_lanes(work, 600, 2, timeout=0.2)
    gate.set()
    stalled = [number for number, result in enumerate(results) if isinstance(result, HostError)]
    unusable = [number for number, result in enumerate(results) if isinstance(result, DataError)]
    assert stalled == [70, 100]
    assert unusable == list(range(1, 600, 50))
    assert all(result == n * n for n, result in enumerate(results) if n not in {*stalled, *unusable})
    time.sleep(0.1)
    assert sorted(calls) == list(range(600)), "each call is made once"


def test_unforeseen_error_ends_the_calls() -> None:
    with pytest.raises(ZeroDivisionError):
        map_lanes(lambda number: 1 // (number - 5), 10, 3)
