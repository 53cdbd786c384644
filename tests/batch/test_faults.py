"""Faults during a run: each fails the micrograph concerned and nothing else."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy import DenoiseOptions, Denoiser, Optics, denoise
from n2n_deploy.batch import denoise_file
from n2n_deploy.batch.ledger_writer import LedgerWriter
from n2n_deploy.core.errors import HostError
from n2n_deploy.device.host import HOST

from .conftest import MakeBundle, MakeTable, after, band_limited, listed, start

ONE_LANE = DenoiseOptions(report=False, lanes=1)


@pytest.mark.parametrize("death", [SystemExit(3), KeyboardInterrupt(), MemoryError(), ValueError("odd\nlines")])
def test_exception_in_a_lane_fails_one_micrograph(
    death: BaseException, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = denoise_file.read_mrc

    def deadly(path: Path, **options: object) -> object:
        if path.name == "m1.mrc":
            raise death
        return read(path, **options)

    monkeypatch.setattr(denoise_file, "read_mrc", deadly)
    summary = denoise(table(5), identity_bundle(), tmp_path / "out", options=DenoiseOptions(report=False, lanes=2))
    assert (summary.denoised, list(summary.failures)) == (4, ["job/mics/m1.mrc"])
    assert "\n" not in summary.failures["job/mics/m1.mrc"]


def test_files_that_vanish_or_lose_their_rights_during_the_run(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, mics = table(6), tmp_path / "job" / "mics"

    def spoil() -> None:
        (mics / "m4.mrc").unlink()
        (mics / "m5.mrc").chmod(0)
        os.truncate(mics / "m3.mrc", 5000)

    summary = denoise(source, identity_bundle(), tmp_path / "out", options=ONE_LANE, progress=after(1, spoil))
    lost = ["m3.mrc", "m4.mrc"] if os.geteuid() == 0 else ["m3.mrc", "m4.mrc", "m5.mrc"]  # root reads everything
    assert listed(tmp_path / "out" / "failed.star") == lost
    assert summary.denoised == 6 - len(lost)
    assert not list((tmp_path / "out").rglob("*.n2n-tmp"))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no file system can be mounted here ({done.stderr.strip() or 'not root'})")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_disk_fills_up(table: MakeTable, identity_bundle: MakeBundle, small_disk: Path) -> None:
    source, bundle = table(3), identity_bundle()
    # Each output takes 179 kB: there is room for all of them when the run begins, and not when it goes on.
    fill = after(1, lambda: (small_disk / "others.bin").write_bytes(bytes(600_000)))
    summary = denoise(source, bundle, small_disk / "out", options=ONE_LANE, progress=fill)
    assert 1 <= summary.denoised < 3
    assert all("no room" in reason for reason in summary.failures.values())
    assert not list(small_disk.rglob("*.n2n-tmp"))
    assert summary.table is not None
    (small_disk / "others.bin").unlink()
    again = denoise(source, bundle, small_disk / "out", options=ONE_LANE)
    assert (again.denoised + again.already_done, again.exit_code) == (3, 0)


@pytest.mark.parametrize("trouble", ["a file where the folder should be", "no space"])
def test_run_goes_on_without_a_ledger_that_cannot_be_written(
    trouble: str, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, bundle, out, said = table(3), identity_bundle(), tmp_path / "out", []
    out.mkdir()
    if trouble == "no space":
        monkeypatch.setattr(LedgerWriter, "_open", lambda _: os.open("/dev/full", os.O_WRONLY))
    else:
        (out / "ledger").write_text(trouble)
    summary = denoise(source, bundle, out, options=ONE_LANE, say=said.append)
    assert (summary.denoised, summary.listed, summary.exit_code) == (3, 3, 0)
    assert listed(out / "denoised.star") == ["m0.mrc", "m1.mrc", "m2.mrc"]
    told = json.loads((out / "summary.json").read_text())
    assert told["denoised"] == 3
    (note,) = told["notes"]["ledger"]
    assert str(out / "ledger") in note
    assert "the run goes on without the ledger" in note
    assert len([line for line in said if "the run goes on without the ledger" in line]) == 1
    # The labels in the outputs say what is done.
    again = denoise(source, bundle, out, options=ONE_LANE)
    assert (again.denoised, again.already_done, again.listed, again.exit_code) == (0, 3, 3, 0)


def test_disk_turns_read_only(table: MakeTable, identity_bundle: MakeBundle, small_disk: Path) -> None:
    source, bundle, out = table(3), identity_bundle(), small_disk / "out"

    def lost() -> None:
        # A whole file system with the log open in it cannot be made read-only.
        subprocess.run(["mount", "--bind", out / "job", out / "job"], check=True)
        subprocess.run(["mount", "-o", "remount,ro,bind", out / "job"], check=True)

    try:
        summary = denoise(source, bundle, out, options=ONE_LANE, progress=after(1, lost))
    finally:
        subprocess.run(["umount", out / "job"], check=False)
    assert 1 <= summary.denoised < 3
    assert all("cannot be written there (Read-only file system)" in reason for reason in summary.failures.values())
    assert len(listed(out / "failed.star")) == 3 - summary.denoised
    again = denoise(out / "failed.star", bundle, out, options=ONE_LANE)
    assert (again.listed, again.exit_code) == (3, 0)


def test_bundle_replaced_during_the_run_is_not_used(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    bundle, other = identity_bundle(), identity_bundle("other.n2n", max_resolution=20.0)
    replace = after(1, lambda: shutil.copy(other, bundle))
    summary = denoise(table(5), bundle, tmp_path / "out", options=ONE_LANE, progress=replace)
    assert summary.denoised == 5
    labels = set()
    for number in range(5):
        with mrcfile.open(tmp_path / "out" / "job" / "mics" / f"m{number}.mrc") as mrc:
            np.testing.assert_allclose(mrc.data, band_limited(number), atol=0.05)
            labels.add(mrc.get_labels()[-1].split(" work ")[0])
    assert len(labels) == 1


def test_too_many_failures_end_the_run(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source = table(30)
    for number in range(1, 30):
        with mrcfile.mmap(tmp_path / "job" / "mics" / f"m{number}.mrc", mode="r+") as mrc:
            mrc.data[:] = 7
    options = DenoiseOptions(report=False, lanes=1, max_failures=3)
    summary = denoise(source, identity_bundle(), tmp_path / "out", options=options)
    assert len(summary.failures) == 4
    assert summary.not_begun == 30 - summary.denoised - len(summary.failures)
    assert "more than 3" in str(summary.gave_up)
    assert (summary.exit_code, summary.stopped_by) == (1, None)


class Stingy:
    """A network that returns its input and has memory for so many pixels."""

    name, device = "stingy", HOST

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        self.seen: list[tuple[int, ...]] = []

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.seen.append(batch.shape[2:])
        if batch.size > self.pixels:
            raise MemoryError
        return batch.copy()

    def memory(self, shape: tuple[int, int]) -> int:
        return 1000 * shape[0] * shape[1]

    def close(self) -> None:
        pass


def test_network_out_of_memory_continues_with_smaller_tiles(identity_bundle: MakeBundle) -> None:
    session = Stingy(24 * 64)
    image = band_limited(0)
    with Denoiser(identity_bundle(), session=session) as denoiser:  # type: ignore[arg-type]
        first = denoiser.denoise(image, Optics(2.0))
        tried = len(session.seen)
        second = denoiser.denoise(image, Optics(2.0))
    np.testing.assert_allclose(first.image, image, atol=0.05)
    assert "out of memory" in first.notes[-1]
    # What was learnt is kept: no image after the first is tried in one piece again.
    assert max(np.prod(shape) for shape in session.seen[tried:]) <= session.pixels
    assert not second.notes
    with Denoiser(identity_bundle(), session=Stingy(0)) as denoiser, pytest.raises(HostError, match="needs at least"):  # type: ignore[arg-type]
        denoiser.denoise(image, Optics(2.0))


def test_failed_star_as_input_retries_the_failed(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    """The output folder lies outside the project, and names are absolute: outputs keep their places."""
    source, bundle, out = table(4), identity_bundle(), tmp_path / "elsewhere" / "out"
    text = source.read_text().replace("job/mics/", f"{tmp_path}/job/mics/")
    source.write_text(text.replace("/mics/m3", "/other/m3"))
    (tmp_path / "job" / "other").mkdir()
    content = (tmp_path / "job" / "mics" / "m3.mrc").read_bytes()
    first = denoise(source, bundle, out, options=ONE_LANE)
    assert (first.denoised, first.listed, first.exit_code) == (3, 3, 1)
    (tmp_path / "job" / "other" / "m3.mrc").write_bytes(content)
    second = denoise(out / "failed.star", bundle, out, options=ONE_LANE)
    assert (second.denoised, second.listed, second.exit_code) == (1, 4, 0)
    assert (out / "other" / "m3.mrc").is_file()
    assert not (out / "failed.star").exists()
    assert listed(out / "denoised.star") == [f"m{number}.mrc" for number in range(4)]
    third = denoise(source, bundle, out, options=ONE_LANE)
    assert (third.denoised, third.already_done, third.listed) == (0, 4, 4)


def test_missing_gpu_has_exit_code_3(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    source, bundle = table(2), identity_bundle()
    process = start(source, bundle, tmp_path / "out", "--device", "cuda:99")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert b"cuda:99" in err
