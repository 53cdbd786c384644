"""What may go wrong during a run, and what it costs: the file concerned, and nothing else."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import starfile

from n2n_deploy import DenoiseOptions, Denoiser, Optics, denoise
from n2n_deploy.batch import work
from n2n_deploy.batch.lanes import Waiting, run_lanes
from n2n_deploy.batch.run import Progress
from n2n_deploy.errors import HostError

from .conftest import MakeBundle, MakeTable, band_limited

ONE_LANE = DenoiseOptions(report=False, lanes=1)


def listed(path: Path) -> list[str]:
    names = starfile.read(path, always_dict=True)["micrographs"]["rlnMicrographName"]
    return sorted(Path(name).name for name in names)


def log(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def after(finished: int, act: Callable[[], object]) -> Callable[[Progress], None]:
    """Act once that many micrographs are done."""

    def progress(event: Progress) -> None:
        if event.finished == finished and event.outcome is not None:
            act()

    return progress


@pytest.fixture
def pipe() -> Iterator[Callable[[Path], None]]:
    """Make files that never answer whoever opens them; they are answered after the test, so that no thread stays."""
    made: list[Path] = []

    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
        made.append(path)

    yield make
    for path in made:
        if path.is_fifo():
            answer(path)


def answer(path: Path) -> None:
    """Let whoever waits for such a file find it empty."""
    os.close(os.open(path, os.O_RDWR | os.O_NONBLOCK))


def test_files_that_never_answer_hold_nothing_up(
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


def test_one_of_many_plain_files_never_answers(
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


def test_pixel_sizes_of_files_that_never_answer(
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


def test_a_table_that_never_answers_ends_the_run(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source = table(3)
    pipe(source)
    process = start(source, identity_bundle(), tmp_path / "out", "--timeout", 1)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert f"no answer from the file system for 1 s while reading {source}" in " ".join(said.decode().split())


@pytest.mark.parametrize("name", ["denoised.star", "failed.star", "report.html"])
def test_an_account_that_cannot_be_written_is_not_waited_for_for_ever(
    name: str, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source, bundle, out = table(3), identity_bundle(), tmp_path / "out"
    options = DenoiseOptions(lanes=1, timeout=1.0)
    stall = after(2, lambda: pipe(out / name))
    with pytest.raises(HostError, match=f"no answer from the file system for 1 s while (reading|writing) .*{name}"):
        denoise(source, bundle, out, options=options, progress=stall)
    # The micrographs are there; once the folder answers again, the next run has only the account to write.
    answer(out / name)
    (out / name).unlink()
    summary = denoise(source, bundle, out, options=options.model_copy(update={"timeout": 60.0}))
    assert (summary.already_done, summary.listed, summary.exit_code) == (3, 3, 0)


def test_a_lane_that_comes_back_late_changes_nothing() -> None:
    gate, computed = threading.Event(), []

    def late(item: int, waiting: Waiting) -> int:
        with waiting("reading"):
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


@pytest.mark.parametrize("death", [SystemExit(3), KeyboardInterrupt(), MemoryError(), ValueError("odd\nlines")])
def test_a_lane_that_dies_costs_its_file(
    death: BaseException, table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = work.read_mrc

    def deadly(path: Path) -> object:
        if path.name == "m1.mrc":
            raise death
        return read(path)

    monkeypatch.setattr(work, "read_mrc", deadly)
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


def test_a_disk_that_fills_up(table: MakeTable, identity_bundle: MakeBundle, small_disk: Path) -> None:
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


def test_a_log_without_room_stops_no_work(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "log.jsonl").symlink_to("/dev/full")
    summary = denoise(table(3), identity_bundle(), out, options=ONE_LANE)
    assert (summary.denoised, summary.exit_code) == (3, 0)
    assert json.loads((out / "summary.json").read_text())["denoised"] == 3


def test_a_disk_that_turns_read_only(table: MakeTable, identity_bundle: MakeBundle, small_disk: Path) -> None:
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


def test_a_bundle_replaced_during_the_run_is_not_mixed_in(
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

    name, array_module = "stingy", "numpy"

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


def test_a_network_that_runs_out_of_memory_goes_on_in_smaller_tiles(identity_bundle: MakeBundle) -> None:
    session = Stingy(24 * 64)
    image = band_limited(0)
    with Denoiser(identity_bundle(), session=session) as denoiser:  # type: ignore[arg-type]
        first = denoiser.denoise(image, Optics(2.0))
        tried = len(session.seen)
        second = denoiser.denoise(image, Optics(2.0))
    np.testing.assert_allclose(first.image, image, atol=0.05)
    assert "memory ran short" in first.notes[-1]
    # What was learnt is kept: no image after the first is tried in one piece again.
    assert max(np.prod(shape) for shape in session.seen[tried:]) <= session.pixels
    assert not second.notes
    with Denoiser(identity_bundle(), session=Stingy(0)) as denoiser, pytest.raises(HostError, match="needs at least"):  # type: ignore[arg-type]
        denoiser.denoise(image, Optics(2.0))


def start(source: Path, bundle: Path, out: Path, *more: object) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "n2n_deploy", "denoise", source, bundle, "-o", out, "--no-report", *more]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=source.parent)


def wait_for(out: Path, count: int) -> None:
    deadline = time.monotonic() + 120
    while len(list(out.glob("job/mics/*.mrc"))) < count and time.monotonic() < deadline:
        time.sleep(0.002)


def test_killed_at_any_moment_a_run_goes_on(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
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
    # A kill may come between an output and its line in the log.
    assert len({line["micrograph"] for line in log(out)}) >= 200 - 2 * 4


def test_killed_while_it_writes_a_run_goes_on(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
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
        if (out / "log.jsonl").exists() and len({line["run"] for line in log(out)}) == 2:
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
    lines = log(out)  # every line whole
    assert {line["micrograph"] for line in lines if line["status"] == "denoised"} == {
        f"job/mics/m{number}.mrc" for number in range(150)
    }


def test_a_second_signal_does_not_wait(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, pipe: Callable[[Path], None]
) -> None:
    source, bundle, out = table(4), identity_bundle(), tmp_path / "out"
    process = start(source, bundle, out, "--lanes", 1)
    # The last file stalls, so that the first signal alone would wait for it.
    deadline = time.monotonic() + 120
    while not (out / "log.jsonl").exists() and time.monotonic() < deadline:
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


def test_what_failed_is_tried_again_by_itself(table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path) -> None:
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


def test_the_environment_of_a_failed_batch_is_told_by_its_exit_code(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path
) -> None:
    source, bundle = table(2), identity_bundle()
    process = start(source, bundle, tmp_path / "out", "--device", "cuda:99")
    _, err = process.communicate(timeout=120)
    assert process.returncode == 3
    assert b"cuda:99" in err
