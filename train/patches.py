"""Preparing patches: a table's micrographs, cut and normalised, in one HDF5 file each.

Files are written atomically, so a kill loses only the micrographs in progress, and existing files are reused.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray

from n2n_deploy.core.errors import DataError
from n2n_deploy.core.recipe import Recipe
from n2n_deploy.files.atomic import atomic_write, make_writable_folder, remove_stale_temporaries
from n2n_deploy.io.records import Micrograph
from n2n_deploy.train.exposures import Exposure, NoiseCurve, prepare_exposure
from n2n_deploy.train.pairs import prepare_pair
from n2n_deploy.train.store import STORE_FORMAT

_MOST_MISSING = 0.1

_NOISE = 2
"""Changes where noise is estimated differently: patches with another estimate are not reused."""


@dataclass
class Preparation:
    """The outcome for each micrograph: the file with its patches, or the reason why it was refused.

    Attributes:
        files: the files with patches.
        refused: micrograph → reason.
        reused: number of files that existed before.
        notes: what the user should know of the micrographs in use.
    """

    files: list[Path] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    reused: int = 0
    notes: list[str] = field(default_factory=list)


def prepare_patches(
    micrographs: Sequence[Micrograph],
    recipe: Recipe,
    folder: Path,
    *,
    overlap: float = 0.0,
    allow_denoised: bool = False,
    recorrupted: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Preparation:
    """Cut micrographs into patches in `folder`, continuing where an earlier call stopped.

    Args:
        micrographs: with even and odd halves, unless `recorrupted`.
        recipe: preprocessing and patch size.
        folder: of the store; created if missing.
        overlap: of neighbouring patches, as a fraction of their side.
        allow_denoised: take halves that this program denoised.
        recorrupted: cut full exposures, to be recorrupted; electron counts are thinned into halves.
        workers: micrographs prepared concurrently, in threads.
        progress: called with (micrographs finished, total).

    Returns:
        The files, in the order of the table, and the refusals.

    Raises:
        DataError: the folder holds patches of another recipe.
        HostError: the folder cannot be written to.
    """
    make_writable_folder(folder)
    remove_stale_temporaries(folder)
    _refuse_other_recipe(folder, recipe)
    files: dict[int, Path] = {}
    result = Preparation()

    def prepare(micrograph: Micrograph) -> tuple[Path, bool]:
        path = folder / f"{_fingerprint(micrograph, recipe, overlap, recorrupted)}.h5"
        if _complete(path):
            return path, True
        if recorrupted:
            exposure = prepare_exposure(micrograph, recipe, allow_denoised=allow_denoised)
            patches, corners, std = _cut(exposure.images, recipe.patch_size, overlap, exposure.missing)
            noise = PatchNoise.of(exposure, std)
        else:
            even, odd, missing = prepare_pair(micrograph, recipe, allow_denoised=allow_denoised)
            patches, corners, _ = _cut((even, odd), recipe.patch_size, overlap, missing)
            noise = None
        write_patches(path, patches, corners, micrograph.name, recipe, noise)
        return path, False

    queue = list(enumerate(micrographs))[::-1]
    running: dict[Future[tuple[Path, bool]], int] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            while queue or running:
                while queue and len(running) < workers:
                    index, micrograph = queue.pop()
                    running[pool.submit(prepare, micrograph)] = index
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    index = running.pop(future)
                    try:
                        files[index], reused = future.result()
                        result.reused += reused
                    except DataError as error:
                        result.refused[micrographs[index].name] = str(error)
                    if progress is not None:
                        progress(len(micrographs) - len(queue) - len(running), len(micrographs))
        except BaseException:
            queue.clear()
            raise
    result.files = [files[index] for index in sorted(files)]
    return result


def cut_pairs(
    even: NDArray[np.float32],
    odd: NDArray[np.float32],
    side: int,
    overlap: float = 0.0,
    missing: NDArray[np.bool_] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Cut two images into patches on one grid that covers them, and normalise each patch (S2.1).

    Args:
        even: (h, w).
        odd: (h, w).
        side: pixels.
        overlap: smallest overlap of neighbours, as a fraction of the side. The grid is evenly spaced and its first
            and last patches touch the edges.
        missing: (h, w), where there is no specimen; patches with more than a tenth of it are left out.

    Returns:
        The pairs (n, 2, side, side), mean 0 and standard deviation 1 each, and their corners (n, 2) as (y, x).

    Raises:
        DataError: the image is smaller than a patch, or no patch shows a specimen.
    """
    return _cut((even, odd), side, overlap, missing)[:2]


def _cut(
    images: Sequence[NDArray[np.float32]], side: int, overlap: float, missing: NDArray[np.bool_] | None
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """Patches (n, images, side, side), their corners (n, 2), and standard deviations (n, images) before they had 1."""
    shape = images[0].shape
    if min(shape) < side:
        raise DataError(
            f"the micrograph has {shape[1]}×{shape[0]} pixels at the recipe's resolution, fewer "
            f"than a patch of {side}; use a smaller --patch-size or a finer --max-resolution"
        )
    rows, columns = (
        np.linspace(0, length - side, math.ceil((length - side) / (side * (1 - overlap))) + 1).round().astype(np.int64)
        for length in shape
    )
    corners = np.stack(np.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
    pairs: NDArray[np.float32] = np.stack(
        [np.stack([half[y : y + side, x : x + side] for half in images]) for y, x in corners]
    )
    std = pairs.std(axis=(2, 3), dtype=np.float64, keepdims=True)
    signal = (std > 1e-3).all(axis=(1, 2, 3))  # the whole image has 1; a constant corner cannot be normalised
    if missing is not None and missing.any():
        signal &= np.array([missing[y : y + side, x : x + side].mean() <= _MOST_MISSING for y, x in corners])
    if not signal.any():
        raise DataError("no patch shows a specimen: each is constant, in a margin or in the dark; check the image")
    pairs, std = pairs[signal], std[signal]
    pairs -= pairs.mean(axis=(2, 3), dtype=np.float64, keepdims=True)
    pairs /= std
    return pairs, corners[signal], std[:, :, 0, 0]


@dataclass(frozen=True, slots=True, eq=False)
class PatchNoise:
    """What is stored of a full exposure's noise.

    Attributes:
        amplitude: as in `Exposure`.
        scales: (n,) factor for each patch, from the image's units to the patch's.
        curve: spectrum and noise model, to be drawn.
    """

    amplitude: NDArray[np.float32] | None
    scales: NDArray[np.float64]
    curve: NoiseCurve

    @classmethod
    def of(cls, exposure: Exposure, std: NDArray[np.float64]) -> "PatchNoise":
        """An exposure's, whose patches had standard deviations (n, images)."""
        return cls(exposure.amplitude, 1 / std[:, 0], exposure.curve)


def write_patches(
    path: Path,
    pairs: NDArray[np.float32],
    corners: NDArray[np.int64],
    name: str,
    recipe: Recipe,
    noise: PatchNoise | None = None,
) -> None:
    """Write one micrograph's pairs (n, 2, side, side), or exposures (n, 1, side, side), and their corners (n, 2).

    float16 halves disk space and reading time; its rounding is 3e-4 of the noise. Noise does not compress. Each pair
    is one chunk, so a random batch reads only its own bytes.
    """
    with atomic_write(path) as stream, h5py.File(stream, "w") as file:
        data = pairs.astype(np.float16)
        file.create_dataset("pairs", data=data, chunks=(1, *data.shape[1:]))
        file.create_dataset("corners", data=corners)
        if noise is not None:
            if noise.amplitude is not None:
                file.create_dataset("amplitude", data=noise.amplitude)
                file.create_dataset("scales", data=noise.scales.astype(np.float32))
            curve = noise.curve
            file.create_dataset("curve", data=np.stack([curve.frequency, curve.power, curve.noise]))
            if curve.pair is not None:
                rows = (curve.pair.frequency, curve.pair.covariance, curve.pair.error)
                file.create_dataset("pair", data=np.stack(rows))
            file["curve"].attrs.update(family=curve.family, pixel_size=curve.pixel_size)
        file.attrs["format"] = STORE_FORMAT
        file.attrs["recipe"] = recipe.model_dump_json()
        file.attrs["micrograph"] = name


def _complete(path: Path) -> bool:
    """Whether the file exists and can be opened; a damaged file is removed so that it is made again."""
    if not path.exists():
        return False
    try:
        with h5py.File(path, "r") as file:
            return bool(file["pairs"].shape[0] > 0)
    except (OSError, KeyError):
        path.unlink()
        return False


def _fingerprint(micrograph: Micrograph, recipe: Recipe, overlap: float, recorrupted: bool) -> str:
    """File name of a micrograph's patches: its own name and a hash of everything that the patches depend on."""
    facts: list[object] = [micrograph.name, asdict(micrograph.optics), recipe.model_dump(), overlap]
    if recorrupted:
        facts.append(_NOISE)
    needs_ctf = recipe.phase_flip or recorrupted
    facts.append(asdict(micrograph.ctf) if micrograph.ctf is not None and needs_ctf else None)
    for file in (micrograph.path, None) if recorrupted else (micrograph.even, micrograph.odd):
        with suppress(OSError):
            facts.append((str(file), file.stat().st_size, file.stat().st_mtime_ns) if file is not None else None)
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return f"{Path(micrograph.name).stem[:100]}-{digest}"


def _refuse_other_recipe(folder: Path, recipe: Recipe) -> None:
    """Raise DataError where the folder has patches of another recipe, which another run may be reading."""
    for path in folder.glob("*.h5"):
        with suppress(OSError, KeyError, ValueError), h5py.File(path, "r") as file:
            found = Recipe.model_validate_json(file.attrs["recipe"])
            if found != recipe:
                raise DataError(
                    f"{folder}: holds patches of another recipe ({found}), expected ({recipe}); "
                    "choose another folder with --patches, or delete this one"
                )
            return
