"""Runs that are killed, interrupted or run twice at once: nothing is lost and nothing done twice."""

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np

from n2n_deploy import DenoiseOptions, denoise

from .conftest import MakeBundle, MakeTable, band_limited, ledger, listed, start

ONE_LANE = DenoiseOptions(report=False, lanes=1)


def wait_for(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("job/mics/*.mrc"))) < count and time.monotonic() < deadline:
        time.sleep(0.002)


def test_run_resumes_after_kills(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(200), identity_bundle(), tmp_path / "out"
    for count in (0, 1, 40, 90):
        process = start(source, bundle, out, "--lanes", 2)
        wait_for(out, count)
        process.kill()
        process.communicate()
        for path in out.glob("job/mics/*.mrc"):
            assert mrcfile.validate(path)
    before = {path: path.stat().st_mtime_ns for path in out.glob("job/mics/*.mrc")}
    assert before
    summary = denoise(source, bundle, out, options=DenoiseOptions(report=False))
    assert (summary.already_done, summary.exit_code) == (len(before), 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(listed(out / "denoised.star")) == 200
    # A kill may come between an output and its line in the ledger.
    assert len({line["micrograph"] for line in ledger(out)}) >= 200 - 2 * 4


def test_run_resumes_after_kills_while_writing(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    """What a killed run was writing is cut short, as a power failure may leave it: it is never taken for an output."""
    rng = np.random.default_rng(0)
    count = 16
    source, bundle, out = table(count), identity_bundle(), tmp_path / "out"
    for number in range(count):
        with mrcfile.new(tmp_path / "job" / "mics" / f"m{number}.mrc", overwrite=True) as mrc:
            mrc.set_data(band_limited(number, (1200, 1160)))
            mrc.voxel_size = 2.0
    denoise(source, bundle, calm := tmp_path / "calm", options=ONE_LANE)
    half_written: list[Path] = []
    for kill in range(4):
        process = start(source, bundle, out, "--lanes", 2)
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not list(out.glob("job/mics/.*.n2n-tmp")):
            time.sleep(0.001)
        time.sleep(float(rng.uniform(0, 0.03 * kill)))  # the first is killed at once, the others at any moment
        process.kill()
        process.communicate()
        left = list(out.glob("job/mics/.*.n2n-tmp"))
        for path in left:
            os.truncate(path, int(rng.integers(0, path.stat().st_size + 1)))
        half_written += left
    assert half_written
    finished = {path: path.stat().st_mtime_ns for path in out.glob("job/mics/*.mrc")}
    assert len(finished) < count
    assert all(mrcfile.validate(path) for path in finished)
    summary = denoise(source, bundle, out, options=DenoiseOptions(report=False))
    assert (summary.already_done, summary.denoised, summary.exit_code) == (len(finished), count - len(finished), 0)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not list(out.rglob("*.n2n-tmp"))
    for number in range(count):
        written = out / "job" / "mics" / f"m{number}.mrc"
        assert mrcfile.validate(written)
        np.testing.assert_array_equal(mrcfile.read(written), mrcfile.read(calm / "job" / "mics" / f"m{number}.mrc"))


def test_two_runs_on_one_folder_lose_nothing(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle, out = table(150), identity_bundle(), tmp_path / "out"
    runs = [start(source, bundle, out, "--lanes", 2) for _ in range(2)]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and runs[0].poll() is None:
        if len(list((out / "ledger").glob("*.jsonl"))) == 2:
            break
    runs[1].send_signal(signal.SIGTERM)  # one is told to stop: its account must not hide the other's work
    codes = [run.wait(timeout=120) for run in runs]
    for run in runs:
        run.communicate()
    assert codes[0] == 0
    assert codes[1] in (0, 128 + signal.SIGTERM, -signal.SIGTERM)  # the last where it had not begun
    assert len(listed(out / "denoised.star")) == 150
    assert all(mrcfile.validate(path) for path in out.glob("job/mics/*.mrc"))
    assert not list(out.rglob("*.n2n-tmp"))
    lines = ledger(out)  # every line whole
    assert {line["micrograph"] for line in lines if line["status"] == "denoised"} == {
        f"job/mics/m{number}.mrc" for number in range(150)
    }


def test_second_signal_does_not_wait(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source, bundle, out = table(4), identity_bundle(), tmp_path / "out"
    process = start(source, bundle, out, "--lanes", 1)
    # The last file stalls, so that the first signal alone would wait for it.
    deadline = time.monotonic() + 120
    while not list((out / "ledger").glob("*.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.001)
    for number in range(4):
        pipe(tmp_path / "job" / "mics" / f"m{number}.mrc")
    time.sleep(4)
    process.send_signal(signal.SIGTERM)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert json.loads((out / "summary.json").read_text())["not_begun"] > 0
