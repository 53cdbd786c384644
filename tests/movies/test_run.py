"""Runs over many movies: tables that are read back, finished work, shards, notes and interrupts."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from eer_encoder import counts, random_events, write_eer
from movie_builder import PIXEL_SIZE, SMALL, Simulated, full_log, mtimes, run_halves, small_movie
from star_builder import star_table
from typer.testing import CliRunner

from n2n_deploy.cli.app import build
from n2n_deploy.core.errors import UsageError
from n2n_deploy.imaging.ctf import Optics
from n2n_deploy.io.movie_files import MRCMovie
from n2n_deploy.io.movie_table import read_movies
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.movies.options import HalvesOptions
from n2n_deploy.movies.run import sum_movies


def test_the_table_is_one_that_train_takes(here: Path) -> None:
    del here
    for name in "ab":
        small_movie(Path("Movies", f"{name}.mrcs"))
        full_log(Path("Movies", f"{name}-Full.log"))
    account = run_halves(
        ["Movies/*.mrcs"],
        Path("Halves"),
        "{folder}/{stem}-Full.log",
        voltage=200.0,
        spherical_aberration=2.7,
        amplitude_contrast=0.1,
        dose_per_frame=1.25,
        binning=2.0,
    )
    assert (account.summed, account.exit_code, account.notes) == (2, 0, [])
    assert account.table == Path("Halves/halves.star")
    table = read_micrographs(account.table, need_ctf=False, need_halves=True)
    assert not table.problems
    assert [found.name for found in table.micrographs] == ["Halves/Movies/a.mrc", "Halves/Movies/b.mrc"]
    assert {found.optics for found in table.micrographs} == {Optics(3.0, 200.0, 2.7, 0.1)}
    assert "rlnMicrographDoseRate" in account.table.read_text()
    for found in table.micrographs:
        assert found.even is not None
        assert found.odd is not None
        mrcfile.validate(found.path)
        with mrcfile.open(found.path) as whole, mrcfile.open(found.even) as even, mrcfile.open(found.odd) as odd:
            assert whole.voxel_size.x == pytest.approx(3.0)
            assert whole.data.shape == (24, 32)
            np.testing.assert_allclose(even.data + odd.data, whole.data, atol=1e-5)


def test_a_table_of_micrographs_keeps_its_ctf(here: Path) -> None:
    small_movie(Path("Movies", "a.mrcs"))
    small_movie(Path("Movies", "b.mrcs"))
    names = ["MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.mrc"]
    columns = {"rlnMicrographName": names, "rlnMicrographMovieName": ["Movies/a.mrcs", "Movies/b.mrcs"]}
    columns |= {"rlnDefocusU": [15000.0, 16000.0], "rlnDefocusV": 14800.0, "rlnDefocusAngle": 20.0}
    Path("micrographs_ctf.star").write_text(star_table(columns, pixel_size=1.5))
    account = run_halves(["micrographs_ctf.star"], Path("Halves"), binning=2.0)
    assert account.table is not None
    first, second = read_micrographs(account.table, need_halves=True).micrographs
    assert first.ctf is not None
    assert second.ctf is not None
    assert (first.ctf.defocus_u, second.ctf.defocus_u) == (15000.0, 16000.0)
    assert first.optics.pixel_size == 3.0
    assert first.even == here / "Halves/MotionCorr/job002/Movies/a_EVN.mrc"


def test_finished_sums_are_recognised(here: Path) -> None:
    del here
    small_movie(Path("a.mrcs"))
    small_movie(Path("b.mrcs"))
    run_halves(["a.mrcs", "b.mrcs"], Path("Halves"))
    before = mtimes(Path("Halves"))
    Path("Halves/b_ODD.mrc").unlink()
    Path("Halves/halves.star").unlink()
    account = run_halves(["a.mrcs", "b.mrcs"], Path("Halves"), overwrite=True)
    assert (account.summed, account.finished_before) == (1, 1)
    after = mtimes(Path("Halves"))
    assert {path.name for path in after if after[path] != before.get(path)} == {"b.mrc", "b_EVN.mrc", "b_ODD.mrc"}
    assert len(read_micrographs("Halves/halves.star", need_ctf=False, need_halves=True).micrographs) == 2


def test_an_interrupt_ends_the_run_between_frames(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Movies in hand stop before their next frame, others never begin, and no file is left half written."""
    del here
    names: list[Path | str] = [f"{index}.mrcs" for index in range(4)]
    for name in names:
        small_movie(Path(name))
    begun = threading.Event()
    read = MRCMovie.read

    def slowly(self: MRCMovie, frame: int) -> npt.NDArray[np.generic]:
        if self.path.name == "1.mrcs" and frame == 1:
            begun.set()
            time.sleep(0.5)
        return read(self, frame)

    def interrupt(*_: object) -> None:
        begun.wait(5)
        raise KeyboardInterrupt

    monkeypatch.setattr(MRCMovie, "read", slowly)
    with pytest.raises(KeyboardInterrupt):
        sum_movies(read_movies(names), Path("Halves"), HalvesOptions(), jobs=1, progress=interrupt)
    assert {path.name for path in Path("Halves").iterdir()} == {"0.mrc", "0_EVN.mrc", "0_ODD.mrc"}


def test_shards_together_are_the_whole(here: Path) -> None:
    del here
    names: list[Path | str] = [f"{index}.mrcs" for index in range(5)]
    for name in names:
        small_movie(Path(name))
    accounts = [run_halves(names, Path("Halves"), shard=(index, 3)) for index in (1, 2, 3)]
    assert sum(account.summed for account in accounts) == 5
    assert accounts[1].table == Path("Halves/halves_2-of-3.star")
    whole = run_halves(names, Path("Halves"))
    assert (whole.summed, whole.finished_before) == (0, 5)
    assert len(read_micrographs("Halves/halves.star", need_ctf=False).micrographs) == 5


def test_cryosparc_motion_of_a_tiff_movie(here: Path, drifting: Simulated) -> None:
    """A trajectory in the file's rows, of a TIFF movie that the simulated drift moves."""
    frames = mrcfile.read(drifting.path).astype(np.uint8)
    tifffile.imwrite(here / "a.tif", frames[:, ::-1], compression="lzw")
    np.save(here / "17_a_traj.npy", (drifting.drift * (1, -1))[None])
    account = run_halves(["a.tif"], Path("Halves"), "*_{stem}_traj.npy", pixel_size=PIXEL_SIZE)
    assert account.exit_code == 0
    residual = mrcfile.read("Halves/a.mrc") - drifting.truth
    assert residual.var() == pytest.approx(drifting.truth.mean(), rel=0.02)


def test_notes_count_the_movies_they_concern(here: Path) -> None:
    del here
    for name in "ab":
        small_movie(Path(f"{name}.mrcs"), frames=5)
    notes = run_halves(["a.mrcs", "b.mrcs"], Path("Halves")).notes
    assert any(
        note.startswith("2 movies have no motion table: the sums are not aligned. Drift blurs") for note in notes
    )
    assert any(note.startswith("2 movies have an odd number of frames") for note in notes)


def test_eer_movies_gain_and_float16(here: Path) -> None:
    events = [random_events(np.random.default_rng(1), SMALL, 200) for _ in range(13)]
    write_eer(here / "a.eer", events, SMALL)
    tifffile.imwrite(here / "camera.gain", np.full(SMALL, 2.0, np.float32))
    account = run_halves(
        ["a.eer"], Path("Halves"), eer_grouping=3, pixel_size=0.7, gain=Path("camera.gain"), dtype="float16"
    )
    assert (account.exit_code, len(account.notes)) == (0, 2)
    assert "13 EER frames make 4 fractions of 3; the last 1 are left out" in account.notes[1]
    even, odd = (mrcfile.read(f"Halves/a_{half}.mrc") for half in ("EVN", "ODD"))
    assert even.dtype == np.float16
    np.testing.assert_array_equal(even, 2 * counts(events[0:3] + events[6:9], SMALL))
    np.testing.assert_array_equal(odd, 2 * counts(events[3:6] + events[9:12], SMALL))
    assert "lower --eer-grouping" in run_halves(["a.eer"], Path("Other"), pixel_size=0.7).failures[0][1]


def test_the_command(here: Path, motioncorr: Callable[..., Path], drifting: Simulated) -> None:
    """From RELION's table to halves, as JSON, with the exit code of a movie that failed."""
    del drifting
    job = motioncorr("MotionCorr", ["Movies/a.mrcs"])
    app, runner = build(), CliRunner()
    command = ["halves", str(job / "corrected_micrographs.star"), "-o", "Halves", "--json"]
    done = runner.invoke(app, [*command, "--dose-weighting", "--dose-per-frame", "1.2", "--memory", "200MB", "-j", "1"])
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert (answer["summed"], answer["failures"], answer["table"]) == (1, {}, "Halves/halves.star")
    assert Path("Halves/config.toml").is_file()
    found = read_micrographs("Halves/halves.star", need_ctf=False, need_halves=True).micrographs[0]
    assert found.path == here / "Halves/MotionCorr/Movies/a.mrc"
    done = runner.invoke(app, ["halves", "Movies/a.mrcs", "Movies/b.mrcs", "-o", "Other", "--shard", "2/2"])
    assert done.exit_code == 1
    assert "1 failed" in done.output
    for wrong in (["--shard", "3/2"], ["--dtype", "int8"]):
        assert isinstance(runner.invoke(app, ["halves", "Movies/a.mrcs", "-o", "X", *wrong]).exception, UsageError)
