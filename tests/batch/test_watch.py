"""A batch that follows a data collection: micrographs that arrive late, in pieces, or damaged at first."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy import DataError, DenoiseOptions, UsageError
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.watch import watch
from n2n_deploy.denoiser import denoiser

from .conftest import STAR, MakeBundle, MakeTable, band_limited, ledger

PLAIN = DenoiseOptions(report=False, lanes=1)


def names(path: Path) -> list[str]:
    return sorted(Path(name).name for name in starfile.read(path, always_dict=True)["micrographs"]["rlnMicrographName"])


def while_it_runs(collect: Callable[[], None], request: Request, **options: float) -> object:
    """Watch a request while another thread collects."""
    thread = threading.Thread(target=collect)
    thread.start()
    try:
        return watch(request, interval=0.1, **options)
    finally:
        thread.join()


def test_growing_table_is_followed(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = table(8), tmp_path / "out"
    rows = source.read_text().removeprefix(STAR).splitlines(keepends=True)
    mics = tmp_path / "job" / "mics"
    whole = {path.name: path.read_bytes() for path in mics.iterdir()}
    for path in mics.iterdir():
        path.unlink()
    source.unlink()
    opened = []
    choose = denoiser.choose_session
    monkeypatch.setattr(denoiser, "choose_session", lambda *args, **more: opened.append(1) or choose(*args, **more))
    listed_meanwhile: list[int] = []

    def collect() -> None:
        for number, _ in enumerate(rows):
            source.write_text((STAR + "".join(rows[: number + 1]))[: -15 if number == 3 else None])  # once, half a row
            content = whole[f"m{number}.mrc"]
            with (mics / f"m{number}.mrc").open("wb") as file:
                for start in range(0, len(content), 60_000):
                    file.write(content[start : start + 60_000])
                    file.flush()
                    time.sleep(0.03)
            if (out / "denoised.star").exists():
                listed_meanwhile.append(len(names(out / "denoised.star")))
        source.write_text(STAR + "".join(reversed(rows)))  # the same micrographs in another order are no news

    request = Request.open(source, identity_bundle(phase_flip=True), out, PLAIN)
    summary = while_it_runs(collect, request, idle=3.0)
    assert (summary.denoised, summary.failures, summary.not_begun) == (8, {}, 0)
    assert names(out / "denoised.star") == [f"m{number}.mrc" for number in range(8)]
    assert listed_meanwhile[-1] >= 1
    assert len(opened) == 1
    assert len([line for line in ledger(out) if line["status"] == "denoised"]) == 8
    assert len(list((out / "ledger" / "tables").iterdir())) == 1, "only the last table is kept, which has all rows"


def test_folder_is_followed_and_repaired_files_are_retried(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    table(4)
    mics, out = tmp_path / "job" / "mics", tmp_path / "out"
    whole = (mics / "m3.mrc").read_bytes()
    (mics / "m3.mrc").write_bytes(whole[:50_000])

    def collect() -> None:
        deadline = time.monotonic() + 30
        while not (out / "failed.star").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        (mics / "more").mkdir()
        with mrcfile.new(mics / "more" / "m9.mrc") as mrc:
            mrc.set_data(band_limited(9))
            mrc.voxel_size = 1.0
        (mics / "m3.mrc").write_bytes(whole)

    summary = while_it_runs(collect, Request.open(mics, identity_bundle(), out, PLAIN), idle=3.0)
    assert (summary.denoised, summary.failures, summary.listed) == (5, {}, 5)
    assert not (out / "failed.star").exists()
    written = starfile.read(out / "denoised.star")
    assert sorted(written["optics"]["rlnMicrographPixelSize"]) == [1.0, 2.0]
    np.testing.assert_allclose(mrcfile.read(next(out.rglob("m3.mrc"))), band_limited(3), atol=0.05)


def test_watch_refuses_impossible_sources(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    table(1)
    with pytest.raises(UsageError, match="watch a STAR table"):
        watch(Request.open(tmp_path / "job", identity_bundle(phase_flip=True), tmp_path / "out", PLAIN), idle=0.0)
    with pytest.raises(DataError, match="not found"):
        watch(Request.open(tmp_path / "no.star", identity_bundle(), tmp_path / "out", PLAIN), interval=0.1, idle=0.3)


def test_signal_ends_the_watch(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "n2n_deploy", "denoise", table(3), identity_bundle(), "-o", out, "--watch"]
    process = subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not (out / "summary.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads((out / "summary.json").read_text())["denoised"] == 3
    assert (out / "report.html").exists()
