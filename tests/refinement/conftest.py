"""Particle tables with given orientations, and half maps in files."""

from pathlib import Path

import mrcfile
import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

PIXEL_SIZE = 1.7


def random_euler(n: int, seed: int = 0) -> np.ndarray:
    return Rotation.random(n, rng=np.random.default_rng(seed)).as_euler("ZYZ", degrees=True)


def write_star(path: Path, euler: np.ndarray, names: list[str] | None = None, extra: dict | None = None) -> Path:
    columns = {"rlnImageName": names or [f"{i + 1:06d}@Extract/job007/mic.mrcs" for i in range(len(euler))]}
    columns |= dict(zip(("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"), euler.T, strict=True))
    columns |= dict.fromkeys(("rlnOriginXAngst", "rlnOriginYAngst"), np.zeros(len(euler)))
    columns |= {"rlnOpticsGroup": np.ones(len(euler), int)} | (extra or {})
    rows = "\n".join(" ".join(map(str, row)) for row in zip(*columns.values(), strict=True))
    path.write_text(
        "\n# version 30001\n\ndata_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n"
        "_rlnVoltage #3\n_rlnSphericalAberration #4\n_rlnImagePixelSize #5\n_rlnImageSize #6\n"
        "_rlnImageDimensionality #7\n"
        "1 og1 300 2.7 1.0 64 2\n\n# version 30001\n\ndata_particles\n\nloop_\n"
        + "".join(f"_{name} #{i + 1}\n" for i, name in enumerate(columns))
        + rows
        + "\n"
    )
    return path


def halves(shape: tuple[int, ...], noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return a smooth signal in white noise, twice."""
    rng = np.random.default_rng(seed)
    signal = gaussian_filter(rng.standard_normal(shape), 1.5, mode="wrap")
    signal *= 3 / signal.std()
    a, b = (signal + noise * rng.standard_normal(shape) for _ in range(2))
    return a.astype(np.float32), b.astype(np.float32)


def save(path: Path, data: np.ndarray, pixel_size: float | tuple[float, ...] = PIXEL_SIZE) -> Path:
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.float32))
        file.voxel_size = pixel_size
    return path


def star_columns(text: str, block: str) -> dict[str, np.ndarray]:
    """Read the loop of a STAR file's block as RELION prints it."""
    lines = text.split(f"data_{block}", 1)[1].split("data_", 1)[0].splitlines()
    names = [line.split()[0].removeprefix("_") for line in lines if line.startswith("_")]
    rows = np.array([line.split() for line in lines if len(line.split()) == len(names) and line[0] != "_"])
    return {name: rows[:, i].astype(float) for i, name in enumerate(names)}
