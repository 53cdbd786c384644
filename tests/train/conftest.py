"""Small data sets with known signal and noise, and their micrograph tables.

A module's tests are in the file of its name. `test_fit` also tests run, checkpoint and curves, `test_patches` also
tests pairs, `test_model` also receptive_field.
"""

from collections.abc import Callable
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from star_builder import star_table

from n2n_deploy.core.recipe import Recipe
from n2n_deploy.train.patches import cut_pairs, write_patches
from n2n_deploy.train.store import PatchStore

CTF = {"rlnDefocusU": 12000.0, "rlnDefocusV": 11500.0, "rlnDefocusAngle": 30.0}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def blobs(rng: np.random.Generator, shape: tuple[int, int], width: float = 4.0) -> NDArray[np.float64]:
    """White noise filtered with a Gaussian of this width in pixels, scaled to a standard deviation of 1."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape), width, mode="wrap")
    return np.asarray(field / field.std())


@pytest.fixture
def small_recipe() -> Recipe:
    return Recipe(max_resolution=8.0, highpass=200.0, phase_flip=False, patch_size=32)


@pytest.fixture
def store(tmp_path: Path, small_recipe: Recipe) -> PatchStore:
    """Two files of 16 pairs of patches with signal and independent noise of equal power."""
    rng = np.random.default_rng(1)
    files = []
    for name in ("a", "b"):
        signal = blobs(rng, (128, 128))
        even, odd = (np.float32(signal + rng.standard_normal(signal.shape)) for _ in range(2))
        files.append(tmp_path / f"{name}.h5")
        write_patches(files[-1], *cut_pairs(even, odd, 32), name, small_recipe)
    return PatchStore(files)


@pytest.fixture
def write_table(tmp_path: Path) -> Callable[..., Path]:
    """Write micrographs of 2 Å per pixel and their RELION 3.1 table; returns the table."""

    def write(micrographs: dict[str, dict[str, NDArray[np.float32]]], *, ctf: bool = False) -> Path:
        (tmp_path / "micrographs").mkdir(exist_ok=True)
        for name, images in micrographs.items():
            for suffix, image in images.items():
                with mrcfile.new(tmp_path / "micrographs" / f"{name}_{suffix}.mrc", overwrite=True) as mrc:
                    mrc.set_data(image.astype(np.float32))
                    mrc.voxel_size = 2.0
        names = [f"micrographs/{name}_DW.mrc" for name in micrographs]
        table = tmp_path / "micrographs.star"
        table.write_text(star_table({"rlnMicrographName": names, **(CTF if ctf else {})}, pixel_size=2.0))
        return table

    return write


@pytest.fixture
def halves() -> Callable[..., dict[str, NDArray[np.float32]]]:
    """Make a micrograph's DW, EVN and ODD sums: a common signal, and independent noise of three times its std."""

    def make(seed: int, shape: tuple[int, int] = (384, 400)) -> dict[str, NDArray[np.float32]]:
        rng = np.random.default_rng(seed)
        signal = blobs(rng, shape, width=6.0)
        even, odd = (np.float32(10 + signal + 3 * rng.standard_normal(shape)) for _ in range(2))
        return {"DW": even + odd, "EVN": even, "ODD": odd}

    return make


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plots, which take longer than the steps of these tests."""
    for name in ("draw_curves", "draw_validation"):
        monkeypatch.setattr(f"n2n_deploy.train.run.{name}", lambda *_: None)
