"""A drifting movie of a simulated micrograph, and RELION's motion correction of it."""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from movie_builder import FRAMES, PIXEL_SIZE, SIDE, Image, Simulated, moved, save_movie
from star_builder import star_loop

from n2n_deploy.simulate import simulate


@pytest.fixture(scope="session")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """Expected electrons per pixel of a whole exposure."""
    folder = tmp_path_factory.mktemp("simulated")
    exposure = {"dose": 8.0, "ice_gradient": 0.0, "defocus": (20000.0, 20000.0), "contrast": 1.0}
    simulate(folder, 1, (SIDE, SIDE), PIXEL_SIZE, seed=5, **exposure)
    found: Image = mrcfile.read(folder / "truth" / "mic_0001.mrc").astype(np.float64)
    return found


@pytest.fixture
def drifting(tmp_path: Path, truth: Image) -> Simulated:
    """A movie of the truth that drifts by fractions of pixels."""
    drift = np.array([(-1.37 * i + 0.05 * i**2, 0.71 * i) for i in range(FRAMES)])
    rng = np.random.default_rng(11)
    frames = [rng.poisson(moved(truth / FRAMES, x, y).clip(0)) for x, y in drift]
    return Simulated(save_movie(tmp_path / "Movies" / "a.mrcs", np.array(frames).astype(np.int8)), truth, drift)


@pytest.fixture
def motioncorr(relion: Callable[..., str], tmp_path: Path) -> Callable[..., Path]:
    """Run RELION's own motion correction on movies below `tmp_path`; returns its output folder."""

    def run(name: str, movies: list[str], *options: object, patches: int = 1) -> Path:
        optics = {
            "rlnOpticsGroupName": ["one"],
            "rlnOpticsGroup": [1],
            "rlnMicrographOriginalPixelSize": PIXEL_SIZE,
            "rlnVoltage": 300.0,
            "rlnSphericalAberration": 2.7,
            "rlnAmplitudeContrast": 0.1,
        }
        table = star_loop("optics", optics) + star_loop(
            "movies", {"rlnMicrographMovieName": movies, "rlnOpticsGroup": 1}
        )
        (tmp_path / "movies.star").write_text(table)
        patching = ("--patch_x", patches, "--patch_y", patches)
        command = ("relion_run_motioncorr", "--i", "movies.star", "--o", f"{name}/", "--use_own", "--bfactor", 150)
        relion(*command, *patching, *options, cwd=tmp_path)
        return tmp_path / name

    return run


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path
