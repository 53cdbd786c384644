"""Memory that runs out outside the network in spite of the budget: the micrograph is tried again alone."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from n2n_deploy import DenoiseOptions, Denoiser, denoise
from n2n_deploy.batch import denoise_file, micrograph_job

from .conftest import MakeBundle, MakeTable


class Crowd:
    """Memory for one micrograph at a time: a stage fails where another micrograph is in hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: object, stage: str, error: Exception) -> None:
        self.in_hand = 0
        self.together = 0
        self.refused = 0
        self._lock = threading.Lock()
        self._error = error
        one, whole = getattr(place, stage), micrograph_job.denoise_one

        def counted(*args: object) -> object:
            with self._lock:
                self.in_hand += 1
            try:
                time.sleep(0.02)  # others have the time to begin
                return whole(*args)  # type: ignore[arg-type]
            finally:
                with self._lock:
                    self.in_hand -= 1

        def crowded(*args: object, **options: object) -> object:
            with self._lock:
                if self.in_hand > 1:
                    self.refused += 1
                    raise self._error
            return one(*args, **options)

        monkeypatch.setattr(micrograph_job, "denoise_one", counted)
        monkeypatch.setattr(place, stage, crowded)


CUFFT = RuntimeError("CUFFT_ALLOC_FAILED")


@pytest.mark.parametrize(
    ("place", "stage", "error"),
    [
        (denoise_file, "read_mrc", MemoryError()),
        (Denoiser, "denoise", CUFFT),
        (denoise_file, "write_mrc", MemoryError("2 GB")),
    ],
)
def test_batch_completes_with_memory_for_one_micrograph(
    place: object,
    stage: str,
    error: Exception,
    table: MakeTable,
    identity_bundle: MakeBundle,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, bundle = table(9), identity_bundle()
    said: list[str] = []
    options = DenoiseOptions(report=False, lanes=3)
    denoise(source, bundle, tmp_path / "calm", options=options)
    crowd = Crowd(monkeypatch, place, stage, error)
    summary = denoise(source, bundle, tmp_path / "out", options=options, say=said.append)
    assert (summary.denoised, summary.exit_code) == (9, 0)
    # Each time a lane fewer goes on, so that at most three and then two are refused.
    assert 1 <= crowd.refused <= 5
    again = [notes for notes in summary.notes.values() if "out of memory at first; done again alone" in notes[-1]]
    assert len(again) == crowd.refused
    assert said[-1] == "out of memory; continuing with 1 lane"
    for number in range(9):
        name = f"job/mics/m{number}.mrc"
        np.testing.assert_array_equal(mrcfile.read(tmp_path / "out" / name), mrcfile.read(tmp_path / "calm" / name))


def test_micrograph_that_does_not_fit_alone_fails(
    table: MakeTable, identity_bundle: MakeBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tried = denoise_file.read_mrc, []

    def short(path: Path, **options: object) -> object:
        if path.name == "m1.mrc":
            tried.append(path)
            raise MemoryError("Unable to allocate 9 GiB")
        return read(path, **options)

    monkeypatch.setattr(denoise_file, "read_mrc", short)
    summary = denoise(table(5), identity_bundle(), tmp_path / "out", options=DenoiseOptions(report=False, lanes=2))
    assert (summary.denoised, list(summary.failures), len(tried)) == (4, ["job/mics/m1.mrc"], 2)
    assert "out of memory with no other micrograph in progress: Unable" in summary.failures["job/mics/m1.mrc"]


LIMITED = """
import resource, sys, threading
from pathlib import Path
from n2n_deploy import DenoiseOptions, denoise

bundle, out, share, *micrographs = sys.argv[1:]
options = dict(report=False, memory=10**12, threads=1)
denoise(micrographs[0], bundle, out + "-warm", options=DenoiseOptions(lanes=1, **options))
threading.stack_size(1 << 20)
pages = int(Path("/proc/self/statm").read_text().split()[0])
room = pages * resource.getpagesize() + int(float(share) * 1e6)
resource.setrlimit(resource.RLIMIT_AS, (room, room))
summary = denoise(micrographs, bundle, out, options=DenoiseOptions(lanes=4, **options))
print(sum("done again alone" in notes[-1] for notes in summary.notes.values()), summary.failures)
sys.exit(summary.exit_code)
"""


def test_batch_completes_in_an_address_space_for_one_micrograph(identity_bundle: MakeBundle, tmp_path: Path) -> None:
    """For real: the process is not given the memory that four lanes would take."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("this system does not say how much memory a process has")
    images, rng = {}, np.random.default_rng(0)
    for number in range(5):
        images[f"m{number}.mrc"] = rng.normal(size=(2000, 2000)).astype(np.float32)
        with mrcfile.new(tmp_path / f"m{number}.mrc") as mrc:
            mrc.set_data(images[f"m{number}.mrc"])
            mrc.voxel_size = 4.0
    # One micrograph takes about four times its 16 MB.
    arguments = [identity_bundle(max_resolution=16.0), tmp_path / "out", 75, *(tmp_path / name for name in images)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "MALLOC_ARENA_MAX": "1"},  # the C library would take address space for each thread
    )
    assert done.returncode == 0, done.stdout + done.stderr
    again, failures = done.stdout.split(maxsplit=1)
    assert int(again) >= 1
    assert failures.strip() == "{}"
    assert len([path for path in (tmp_path / "out").rglob("*.mrc") if mrcfile.validate(path)]) == 5
