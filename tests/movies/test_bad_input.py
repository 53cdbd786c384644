"""Bad input: one clear line for each movie, and the rest is done."""

import re
from pathlib import Path

import numpy as np
import pytest
from eer_encoder import random_events, write_eer
from movie_builder import SMALL, full_log, mtimes, run_halves, save_movie, small_movie
from star_builder import star_table

from n2n_deploy.core.errors import DataError, UsageError
from n2n_deploy.io.movie_table import read_movies
from n2n_deploy.io.star import read_micrographs
from n2n_deploy.movies.options import HalvesOptions


def test_one_failure_costs_one_movie(here: Path) -> None:
    del here
    for name in "abcd":
        small_movie(Path(f"{name}.mrcs"))
    content = Path("b.mrcs").read_bytes()
    Path("b.mrcs").write_bytes(content[:-100])
    small_movie(Path("c.mrcs"), frames=1)
    account = run_halves([f"{name}.mrcs" for name in "abcd"] + ["e.mrcs"], Path("Halves"), jobs=2)
    assert account.summed == 2
    reasons = {record.name: reason for record, reason in account.failures}
    assert list(reasons) == ["b.mrcs", "c.mrcs", "e.mrcs"]
    assert "cut short" in reasons["b.mrcs"]
    assert "1 frame to sum; an even and an odd sum take two or more" in reasons["c.mrcs"]
    assert "is not there" in reasons["e.mrcs"]
    assert all("\n" not in reason for reason in reasons.values())
    assert len(read_micrographs("Halves/halves.star", need_ctf=False).micrographs) == 2
    # The list of failures is a list of movies.
    Path("b.mrcs").write_bytes(content)
    small_movie(Path("c.mrcs"), frames=2)
    small_movie(Path("e.mrcs"))
    again = run_halves([Path("Halves/failed.txt")], Path("Halves"))
    assert (again.summed, again.exit_code) == (3, 0)
    assert not Path("Halves/failed.txt").exists()


def test_motion_that_does_not_fit_is_refused(here: Path) -> None:
    del here
    small_movie(Path("a.mrcs"))
    full_log(Path("a-Full.log"), frames=5)
    account = run_halves(["a.mrcs"], Path("Halves"), "{stem}-Full.log")
    assert "lists 5 frames and" in account.failures[0][1]
    # MotionCor's log lists the frames that it did not throw away.
    full_log(Path("a-Full.log"), frames=3)
    assert run_halves(["a.mrcs"], Path("Halves"), "{stem}-Full.log").exit_code == 1
    assert run_halves(["a.mrcs"], Path("Halves"), "{stem}-Full.log", first=2).exit_code == 0
    account = run_halves(["a.mrcs"], Path("Other"), "{stem}.star")
    assert "not found" in account.failures[0][1]
    assert run_halves(["a.mrcs"], Path("Third"), "*{stem}-Full.log", first=2).exit_code == 0


def test_what_is_missing_is_named(here: Path) -> None:
    del here
    save_movie(Path("a.mrcs"), np.random.default_rng(1).poisson(5, (4, *SMALL)).astype(np.int8), 0.0)
    for options, match in (
        ({}, "nothing says its pixel size; give --pixel-size"),
        ({"dose_weighting": True, "pixel_size": 1.0}, "need the dose; give --dose-per-frame"),
        ({"dose_weighting": True, "pixel_size": 1.0, "dose_per_frame": 1.0}, "need the voltage; give --voltage"),
        ({"pixel_size": 1.0, "gain": Path("gain.mrc")}, "gain.mrc is not there; give --gain FILE, or --gain none"),
        ({"pixel_size": 1.0, "last": 9}, "has 4 frames, --last 9 asks for more"),
        ({"pixel_size": 1.0, "memory": 10_000}, "needs about .* of memory, and .* may be used; give a larger --memory"),
    ):
        account = run_halves(["a.mrcs"], Path("Halves"), **options)
        (failure,) = account.failures
        assert re.search(match, failure[1]), failure[1]


def test_sources_that_make_no_sense(here: Path) -> None:
    small_movie(Path("one", "a.mrcs"))
    small_movie(Path("two", "a.mrcs"))
    Path("movies.star").write_text(star_table({"rlnMicrographName": ["a.mrc"]}))
    for sources, error, match in (
        (["*.tif"], DataError, "no movie matches"),
        (["one"], DataError, "is a folder; give movies"),
        ([], DataError, "no movies given"),
        (["movies.star"], DataError, "lists no rlnMicrographMovieName and no rlnMicrographMetadata"),
        (["movies.star", "one/a.mrcs"], UsageError, "give one STAR table alone"),
    ):
        with pytest.raises(error, match=match):
            read_movies(sources)
    with pytest.raises(UsageError, match="its fields are"):
        read_movies(["one/a.mrcs"], motion="{movie}.log")
    account = run_halves([here.parent / "x" / "one" / "a.mrcs", here.parent / "y" / "one" / "a.mrcs"], Path("Halves"))
    assert "2 movies would be written to Halves/one/a.mrc" in account.failures[0][1]


def test_options_out_of_range() -> None:
    for options in (
        {"gain_rotation": 4},
        {"gain_flip": -1},
        {"first": 0},
        {"first": 3, "last": 3},
        {"dose_per_frame": 0.0},
        {"pre_exposure": -1.0},
        {"binning": 0.5},
        {"pixel_size": 0.0},
        {"eer_grouping": 0},
        {"eer_upsampling": 3},
        {"dtype": "int8"},
    ):
        with pytest.raises(UsageError, match="expected"):
            HalvesOptions(**options)  # type: ignore[arg-type]


def test_the_movie_itself_is_never_overwritten(here: Path) -> None:
    small_movie(Path("a.mrc"))
    content = Path("a.mrc").read_bytes()
    account = run_halves([here / "a.mrc"], here, overwrite=True)
    assert "is the movie itself" in account.failures[0][1]
    assert Path("a.mrc").read_bytes() == content


def test_other_sums_are_not_overwritten_unasked(here: Path) -> None:
    del here
    small_movie(Path("a.mrcs"))
    run_halves(["a.mrcs"], Path("Halves"))
    before = mtimes(Path("Halves"))
    account = run_halves(["a.mrcs"], Path("Halves"), first=2)
    assert account.exit_code == 1
    assert "was not made of these files with these options" in account.failures[0][1]
    assert mtimes(Path("Halves")) == before
    assert run_halves(["a.mrcs"], Path("Halves"), first=2, overwrite=True).summed == 1
    # A changed movie is other work too.
    small_movie(Path("a.mrcs"), frames=5)
    assert run_halves(["a.mrcs"], Path("Halves"), first=2, overwrite=True).summed == 1


def test_eer_options_that_contradict_the_motion_are_refused(here: Path) -> None:
    """Shifts were found for fractions of 2 frames; fractions of 3 would get those of others."""
    rng = np.random.default_rng(2)
    write_eer(here / "a.eer", [random_events(rng, SMALL, 50) for _ in range(6)], SMALL)
    labels = "_rlnMicrographFrameNumber #1\n_rlnMicrographShiftX #2\n_rlnMicrographShiftY #3\n"
    Path("a.star").write_text(
        f"\ndata_general\n\n_rlnImageSizeX {SMALL[1]}\n_rlnImageSizeY {SMALL[0]}\n_rlnImageSizeZ 3\n"
        "_rlnMicrographOriginalPixelSize 0.7\n_rlnEERGrouping 2\n_rlnEERUpsampling 1\n"
        f"\ndata_global_shift\n\nloop_\n{labels}1 0 0\n2 1 0\n3 2 0\n"
    )
    account = run_halves(["a.eer"], Path("Halves"), "{stem}.star", eer_grouping=3)
    assert "the motion is for --eer-grouping 2, 3 was given" in account.failures[0][1]
    account = run_halves(["a.eer"], Path("Halves"), "{stem}.star", eer_upsampling=2)
    assert "the motion is for --eer-upsampling 1, 2 was given" in account.failures[0][1]
    assert run_halves(["a.eer"], Path("Halves"), "{stem}.star").exit_code == 0
