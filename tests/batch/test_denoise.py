"""A whole batch: its outputs, bad files, resuming, signals."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy import DenoiseOptions, HostError, UsageError, denoise
from n2n_deploy.batch.dry_run import forecast
from n2n_deploy.batch.request import Request
from n2n_deploy.batch.status import Status

from .conftest import PIXEL_SIZE, SHAPE, MakeBundle, MakeTable, band_limited, ledger


def test_identity_network_returns_the_input(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    summary = denoise(table(), identity_bundle(), tmp_path / "out")
    assert (summary.denoised, summary.failures, summary.exit_code) == (3, {}, 0)
    for number in range(3):
        path = tmp_path / "out" / "job" / "mics" / f"m{number}.mrc"
        assert mrcfile.validate(path)
        with mrcfile.open(path) as mrc:
            assert mrc.voxel_size.x == pytest.approx(PIXEL_SIZE)
            np.testing.assert_allclose(mrc.data, band_limited(number), atol=0.05)


def test_too_small_micrograph_is_refused_alone(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = table(2)
    small = tmp_path / "job" / "mics" / "m1.mrc"
    with mrcfile.new(small, overwrite=True) as mrc:
        mrc.set_data(np.eye(8, dtype=np.float32))
        mrc.voxel_size = PIXEL_SIZE
    planned = forecast(Request.open(source, identity_bundle(), tmp_path / "out", DenoiseOptions()))
    assert [job.status for job in planned.plan.jobs] == [Status.PENDING, Status.REFUSED]
    summary = denoise(source, identity_bundle(), tmp_path / "out")
    assert (summary.denoised, summary.exit_code) == (1, 1)
    (reason,) = summary.failures.values()
    assert reason.startswith(f"{small}: 8×8 pixels of 2 Å")
    assert "too small" in reason


def test_table_keeps_every_column(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = table()
    summary = denoise(source, identity_bundle(phase_flip=True), tmp_path / "out")
    before, after = starfile.read(source), starfile.read(summary.table)
    assert list(after["micrographs"]["rlnDefocusU"]) == list(before["micrographs"]["rlnDefocusU"])
    assert list(after["micrographs"]["rlnCtfMaxResolution"]) == list(before["micrographs"]["rlnCtfMaxResolution"])
    assert int(after["optics"]["rlnCtfDataArePhaseFlipped"].iloc[0]) == 1
    for name in after["micrographs"]["rlnMicrographName"]:
        assert (Path(name) if Path(name).is_absolute() else tmp_path / name).is_file()


def test_flipping_back_undoes_the_flip(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    options = DenoiseOptions(flip_back=True)
    summary = denoise(table(1), identity_bundle(phase_flip=True), tmp_path / "out", options=options)
    with mrcfile.open(tmp_path / "out" / "job" / "mics" / "m0.mrc") as mrc:
        np.testing.assert_allclose(mrc.data, band_limited(0), atol=0.05)
    assert int(starfile.read(summary.table)["optics"]["rlnCtfDataArePhaseFlipped"].iloc[0]) == 0


def test_relion_reads_the_table(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, relion: "object"
) -> None:
    summary = denoise(table(), identity_bundle(), tmp_path / "out")
    assert callable(relion)
    relion("relion_star_handler", "--i", summary.table, "--select", "rlnDefocusU", "--minval", 15001,
           "--o", "kept.star", cwd=tmp_path)  # fmt: skip
    assert len(starfile.read(tmp_path / "kept.star")["micrographs"]) == 2


SPOILERS = {
    "truncated": (lambda path: os.truncate(path, 3000), "bytes"),
    "empty": (lambda path: path.write_bytes(b""), "m1.mrc"),
    "missing": (lambda path: path.unlink(), "m1.mrc"),
    "a link to itself": (lambda path: (path.unlink(), path.symlink_to(path)), "m1.mrc"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "m1.mrc"),
    "not an MRC file": (lambda path: path.write_bytes(b"<html>" * 1000), "m1.mrc"),
    "constant": (lambda path: _rewrite(path, np.full(SHAPE, 7.0)), "no signal"),
    "black half": (lambda path: _rewrite(path, _black_half()), "no signal"),
    "NaN": (lambda path: _rewrite(path, np.full(SHAPE, np.nan)), "NaN"),
    "complex": (lambda path: _rewrite(path, np.ones(SHAPE, np.complex64)), "complex"),
    "a stack": (lambda path: _rewrite(path, np.zeros((3, *SHAPE))), "m1.mrc"),
}


def _rewrite(path: Path, image: np.ndarray) -> None:
    with mrcfile.new(path, overwrite=True) as mrc:
        mrc.set_data(image if image.dtype.kind == "c" else image.astype(np.float32))
        mrc.voxel_size = PIXEL_SIZE


def _black_half() -> np.ndarray:
    image = band_limited(1)
    image[: SHAPE[0] // 2] = 0
    return image


@pytest.mark.parametrize("kind", SPOILERS)
def test_bad_file_does_not_stop_the_batch(
    kind: str, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table()
    spoil, word = SPOILERS[kind]
    spoil(tmp_path / "job" / "mics" / "m1.mrc")
    summary = denoise(source, identity_bundle(), tmp_path / "out")
    assert summary.exit_code == 1
    assert summary.denoised == 2
    assert list(summary.failures) == ["job/mics/m1.mrc"]
    reason = summary.failures["job/mics/m1.mrc"]
    assert word in reason
    assert "\n" not in reason
    assert sorted(path.name for path in (tmp_path / "out" / "job" / "mics").iterdir()) == ["m0.mrc", "m2.mrc"]
    failed = starfile.read(tmp_path / "out" / "failed.star", always_dict=True)["micrographs"]
    assert list(failed["rlnMicrographName"]) == ["job/mics/m1.mrc"]
    assert sorted(line["status"] for line in ledger(tmp_path / "out")) in (
        ["denoised", "denoised", "failed"],
        ["denoised", "denoised", "refused"],
    )


def test_few_bad_pixels_are_repaired_and_reported(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source = table()
    image = band_limited(1)
    image[50, 60], image[100, 101], image[20, 20] = np.nan, np.inf, 1e6
    _rewrite(tmp_path / "job" / "mics" / "m1.mrc", image)
    summary = denoise(source, identity_bundle(), tmp_path / "out")
    assert summary.exit_code == 0
    assert "2 NaN or infinite" in " ".join(summary.notes["job/mics/m1.mrc"])
    with mrcfile.open(tmp_path / "out" / "job" / "mics" / "m1.mrc") as mrc:
        assert np.abs(mrc.data - band_limited(1)).max() < 2.0
        assert np.abs(mrc.data - band_limited(1)).std() < 0.1


def test_every_micrograph_has_its_own_shape(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = table()
    _rewrite(tmp_path / "job" / "mics" / "m1.mrc", band_limited(1, (201, 171)))
    summary = denoise(source, identity_bundle(), tmp_path / "out")
    assert summary.exit_code == 0
    with mrcfile.open(tmp_path / "out" / "job" / "mics" / "m1.mrc") as mrc:
        assert mrc.data.shape == (201, 171)
        np.testing.assert_allclose(mrc.data, band_limited(1, (201, 171)), atol=0.05)


def test_finished_work_is_not_done_again(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle = table(4), identity_bundle()
    denoise(source, bundle, tmp_path / "out")
    mics = tmp_path / "out" / "job" / "mics"
    # Missing, cut short, and with its name only, as a power failure may leave it.
    (mics / "m1.mrc").unlink()
    os.truncate(mics / "m2.mrc", 5000)
    os.truncate(mics / "m3.mrc", 0)
    before = (mics / "m0.mrc").stat().st_mtime_ns
    summary = denoise(source, bundle, tmp_path / "out")
    assert (summary.denoised, summary.already_done, summary.exit_code) == (3, 1, 0)
    assert (mics / "m0.mrc").stat().st_mtime_ns == before
    assert all(mrcfile.validate(path) for path in mics.iterdir())
    assert len(starfile.read(summary.table)["micrographs"]) == 4


def test_foreign_files_are_not_overwritten(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle = table(), identity_bundle()
    theirs = tmp_path / "out" / "job" / "mics" / "m1.mrc"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("somebody's notes")
    with pytest.raises(UsageError, match=r"m1\.mrc"):
        denoise(source, bundle, tmp_path / "out")
    summary = denoise(source, bundle, tmp_path / "out", options=DenoiseOptions(on_exists="skip"))
    assert (summary.denoised, summary.kept) == (2, 1)
    assert theirs.read_text() == "somebody's notes"
    summary = denoise(source, bundle, tmp_path / "out", options=DenoiseOptions(on_exists="overwrite"))
    assert (summary.denoised, summary.already_done) == (1, 2)
    assert mrcfile.validate(theirs)


def test_outputs_of_other_work_are_not_accepted_as_finished(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = table(), identity_bundle()
    denoise(source, bundle, tmp_path / "out")
    with pytest.raises(UsageError, match="3 outputs already exist"):
        denoise(source, bundle, tmp_path / "out", options=DenoiseOptions(lowpass=20.0))
    summary = denoise(source, bundle, tmp_path / "out", options=DenoiseOptions(lowpass=20.0, on_exists="overwrite"))
    assert summary.denoised == 3
    # A changed input is new work, too.
    os.utime(tmp_path / "job" / "mics" / "m0.mrc", ns=(1, 1))
    summary = denoise(source, bundle, tmp_path / "out", options=DenoiseOptions(lowpass=20.0, on_exists="overwrite"))
    assert (summary.denoised, summary.already_done) == (1, 2)


def test_inputs_are_never_overwritten(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one of the inputs"):
        denoise(table(), identity_bundle(), tmp_path)


def test_output_folder_without_rights(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("a file where the folder should be")
    with pytest.raises(HostError, match="out"):
        denoise(table(), identity_bundle(), tmp_path / "out")


def test_output_folder_without_space(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(HostError, match="make room"):
        denoise(table(), identity_bundle(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_plain_files_need_a_model_without_phase_flip(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    table()
    pattern = str(tmp_path / "job" / "mics" / "*.mrc")
    assert denoise(pattern, identity_bundle(), tmp_path / "out").denoised == 3
    with pytest.raises(UsageError, match="CTF"):
        denoise(pattern, identity_bundle("flip.n2n", phase_flip=True), tmp_path / "flipped")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_ends_the_run_cleanly(
    number: int, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = table(200), identity_bundle()
    command = [
        sys.executable,
        "-m",
        "n2n_deploy",
        "denoise",
        source,
        bundle,
        "-o",
        tmp_path / "out",
        "--lanes",
        "1",
    ]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    mics = tmp_path / "out" / "job" / "mics"
    deadline = time.monotonic() + 60
    while not (mics.is_dir() and any(mics.glob("*.mrc"))) and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    written = sorted(mics.iterdir())
    assert 0 < len(written) < 200
    assert all(mrcfile.validate(path) for path in written)
    assert len(starfile.read(tmp_path / "out" / "denoised.star")["micrographs"]) == len(written)
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["not_begun"] == 200 - len(written)
