"""The estimate of memory against what NumPy really allocates, and the gate that holds movies back."""

import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from movie_builder import save_movie

from n2n_deploy.core.errors import HostError
from n2n_deploy.device.host import HOST
from n2n_deploy.io.movie_table import read_movies
from n2n_deploy.movies.memory import MemoryGate, memory_needed
from n2n_deploy.movies.options import HalvesOptions
from n2n_deploy.movies.run import sum_movies

SHAPE = (1024, 1536)


def motion_table(path: Path, frames: int, *, is_local: bool) -> None:
    coefficients = "".join(f"{i} 0.01\n" for i in range(36))
    local = f"\ndata_local_motion_model\n\nloop_\n_rlnMotionModelCoeffsIdx #1\n_rlnMotionModelCoeff #2\n{coefficients}"
    shifts = "".join(f"{i + 1} {0.3 * i} {0.2 * i}\n" for i in range(frames))
    labels = "_rlnMicrographFrameNumber #1\n_rlnMicrographShiftX #2\n_rlnMicrographShiftY #3\n"
    path.write_text(
        f"\ndata_general\n\n_rlnImageSizeX {SHAPE[1]}\n_rlnImageSizeY {SHAPE[0]}\n_rlnImageSizeZ {frames}\n"
        f"_rlnMotionModelVersion {int(is_local)}\n\ndata_global_shift\n\nloop_\n{labels}{shifts}{local * is_local}"
    )


@pytest.mark.parametrize("case", ["plain", "moved", "binned", "weighted", "local", "everything"])
def test_estimate_covers_the_allocations(tmp_path: Path, case: str) -> None:
    """The estimate is not below the peak, and not above half as much again and the buffers of one block of rows."""
    frames = 4
    save_movie(tmp_path / "a.mrcs", np.ones((frames, *SHAPE), np.int16), 1.0)
    is_all = case == "everything"
    options = HalvesOptions(
        gain=None,
        binning=2.0 if case == "binned" or is_all else None,
        dose_weighting=case == "weighted" or is_all,
        dose_per_frame=1.0,
        voltage=300.0,
    )
    is_local = case == "local" or is_all
    motion = None
    if case != "plain":
        motion_table(tmp_path / "a.star", frames, is_local=is_local)
        motion = str(tmp_path / "{stem}.star")
    out = (SHAPE[0] // 2, SHAPE[1] // 2) if options.binning else SHAPE
    estimate = memory_needed(
        SHAPE,
        out,
        2,
        has_gain=False,
        is_moved=motion is not None,
        is_weighted=options.dose_weighting,
        is_local=is_local,
    )
    table = read_movies([tmp_path / "a.mrcs"], motion=motion)
    HOST.grids.clear()
    tracemalloc.start()
    try:
        account = sum_movies(table, tmp_path / "out", options, jobs=1, memory=estimate)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert account.exit_code == 0, account.failures
    blocks = 16 << 20
    assert peak <= estimate + blocks, f"{peak / 1e6:.1f} MB of {estimate / 1e6:.1f} MB"
    assert estimate <= 1.6 * peak, f"{peak / 1e6:.1f} MB of {estimate / 1e6:.1f} MB"


def test_a_thousand_frames_take_no_more_than_four() -> None:
    """The largest movies: super-resolution K3 frames with everything applied fit in 5 GB, however many they are."""
    shape = (8184, 11520)
    needed = memory_needed(shape, shape, 1, has_gain=True, is_moved=True, is_weighted=True, is_local=True)
    assert needed < 5e9


def test_the_gate_admits_what_fits() -> None:
    gate = MemoryGate(100)
    with pytest.raises(HostError, match=r"movie: needs about .* of memory"), gate.room_for(101, "movie"):
        pass
    entered = threading.Event()

    def second() -> None:
        with gate.room_for(60, "second"):
            entered.set()

    with gate.room_for(60, "first"):
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
    thread.join(5)
    assert entered.is_set()
