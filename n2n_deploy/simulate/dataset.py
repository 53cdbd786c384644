"""A simulated data set on disk: even and odd halves, their sum, the noiseless truth, and RELION's tables."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from n2n_deploy.core.errors import UsageError
from n2n_deploy.data import Atoms
from n2n_deploy.data.structures import PROTEASOME, pdb_code, structure
from n2n_deploy.device.host import HOST
from n2n_deploy.files.atomic import atomic_write, make_writable_folder
from n2n_deploy.imaging.ctf import CTFParameters, Optics
from n2n_deploy.io.mrc import write_mrc
from n2n_deploy.io.star_frames import star_text
from n2n_deploy.simulate.canvas import Canvas, margin_pixels
from n2n_deploy.simulate.conditions import Conditions
from n2n_deploy.simulate.detectors import DETECTORS
from n2n_deploy.simulate.exposure import expose
from n2n_deploy.simulate.proteins import draw_atoms
from n2n_deploy.simulate.specimen import Particles, default_number, in_frame, place, radius

SMALLEST_SIDE = 64


def simulate(
    out: Path | str,
    micrographs: int = 10,
    size: tuple[int, int] = (2048, 2048),
    pixel_size: float = 1.0,
    seed: int = 0,
    *,
    specimen: str = PROTEASOME,
    particles: int | None = None,
    dose: float = 40.0,
    voltage: float = 300.0,
    spherical_aberration: float = 2.7,
    amplitude_contrast: float = 0.1,
    defocus: tuple[float, float] = (8000.0, 25000.0),
    astigmatism: float = 500.0,
    phase_shift: float = 0.0,
    b_factor: float = 120.0,
    ice_gradient: float = 0.1,
    thickness: float = 300.0,
    detector: str = "K3",
    contrast: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Simulate micrographs of a protein in ice, with shot noise in each half, and the noiseless truth.

    Particles have random orientations and positions and do not overlap. Each half's pixels are Poisson-distributed
    around half the expected electrons, and DW is the sum of the halves. The grain of the ice belongs to the truth: the
    halves share it. Micrograph k depends on the seed, k and the
    other options, but not on the number of micrographs.

    Args:
        out: folder to write to: `micrographs.star`, `micrographs/mic_0001_{DW,EVN,ODD}.mrc`,
            `truth/mic_0001.mrc` (the expected electrons of DW) and `truth/particles.star` (positions in
            pixels of the micrograph, and RELION's Euler angles). Existing files of these names are replaced.
        micrographs: number of micrographs.
        size: (ny, nx) pixels.
        pixel_size: Å.
        seed: the same seed gives the same bytes.
        specimen: name of the structure, one of `n2n_deploy.simulate.NAMES`.
        particles: number with their centre on each micrograph; by default they cover three tenths of it.
        dose: electrons per Å² of DW.
        voltage: kV.
        spherical_aberration: mm.
        amplitude_contrast: fraction.
        defocus: Å, lowest and highest; drawn uniformly for each micrograph.
        astigmatism: Å, largest difference between the two defocus values.
        phase_shift: degrees, of a phase plate.
        b_factor: Å² of the envelope exp(−B s²/4).
        ice_gradient: largest relative difference in intensity between the thin and the thick side.
        thickness: Å of ice; it gives the image its grain.
        detector: its DQE lowers the signal; one of `n2n_deploy.simulate.detectors.DETECTORS`.
        contrast: what the protein scatters over what free atoms at rest would.
        progress: called with (micrographs finished, total).

    Returns:
        `out/micrographs.star`, a RELION 3.1 table with columns for the even and the odd half.

    Raises:
        UsageError: a number is out of range, or the particles do not fit.
        HostError: the folder cannot be written to.
    """
    _check(
        *(micrographs, size, pixel_size, seed, particles, dose, voltage, defocus, astigmatism, ice_gradient),
        *(thickness, detector, contrast),
    )
    atoms = structure(specimen)
    out = Path(out)
    make_writable_folder(out)
    label = f"simulated {specimen} (PDB {pdb_code(specimen)}), electrons per pixel"
    optics = Optics(pixel_size, voltage, spherical_aberration, amplitude_contrast)
    if particles is None:
        particles = default_number(size, pixel_size, atoms)
    images: list[tuple[object, ...]] = []
    poses: list[tuple[object, ...]] = []
    for index, stream in enumerate(np.random.SeedSequence(seed).spawn(micrographs), start=1):
        rng = np.random.default_rng(stream)
        ctf = _draw_ctf(rng, defocus, astigmatism, phase_shift)
        conditions = Conditions(
            *(optics, ctf, dose, thickness, b_factor, contrast),
            drift=0.0,
            drift_direction=0.0,
            detector=DETECTORS[detector],
            detector_pixel=pixel_size,
            energy_filter=True,
            ice_gradient=rng.uniform(0.0, ice_gradient),
            gradient_direction=rng.uniform(0.0, 360.0),
        )
        distance = 2 * radius(atoms) / pixel_size
        placed = place(size, margin_pixels(pixel_size), particles, distance, rng)
        names = _write_images(out, f"mic_{index:04d}", placed, atoms, size, conditions, label, rng)
        fit = (ctf.defocus_u, ctf.defocus_v, ctf.defocus_angle, ctf.phase_shift)
        images.append((*names, 1, *fit))
        inside = in_frame(placed.centres, size)
        poses.extend(
            (names[0], x, y, *euler, 0, 0, 1, *fit)
            for (y, x), euler in zip(
                placed.centres[inside], placed.rotations.as_euler("ZYZ", degrees=True)[inside], strict=True
            )
        )
        if progress is not None:
            progress(index, micrographs)
    group = ("simulated", 1, voltage, spherical_aberration, amplitude_contrast, pixel_size)
    tables = ("optics", _OPTICS_COLUMNS, [(*group, pixel_size)]), ("micrographs", _MICROGRAPH_COLUMNS, images)
    # RELION re-extracts particles only from tables with their box size.
    boxed = ("optics", _BOXED_OPTICS_COLUMNS, [(*group, pixel_size, 2, _box(atoms, pixel_size))])
    _write_star(out / "truth" / "particles.star", boxed, ("particles", _PARTICLE_COLUMNS, poses))
    return _write_star(out / "micrographs.star", *tables)


def _write_images(
    out: Path,
    stem: str,
    particles: Particles,
    atoms: Atoms,
    size: tuple[int, int],
    conditions: Conditions,
    label: str,
    rng: np.random.Generator,
) -> list[str]:
    """Expose and write one micrograph; return the names of DW, EVN and ODD relative to `out`."""
    pixel_size = conditions.optics.pixel_size
    with HOST.lane():
        canvas = Canvas.empty(size, pixel_size)
        draw_atoms(canvas, atoms, Particles(particles.centres + canvas.margin, particles.rotations))
        expected = expose(rng, canvas, conditions)
    even, odd = (rng.poisson(expected / 2).astype(np.float32) for _ in range(2))
    names = []
    for suffix, image in (("DW", even + odd), ("EVN", even), ("ODD", odd)):
        names.append(f"micrographs/{stem}_{suffix}.mrc")
        write_mrc(out / names[-1], image, label=label, pixel_size=pixel_size)
    write_mrc(out / "truth" / f"{stem}.mrc", expected, label=f"{label}, noiseless", pixel_size=pixel_size)
    return names


def _draw_ctf(
    rng: np.random.Generator, defocus: tuple[float, float], astigmatism: float, phase_shift: float
) -> CTFParameters:
    """Draw one micrograph's defocus, rounded as in the table, so that table and image agree exactly."""
    mean, half_difference = rng.uniform(*defocus), rng.uniform(0.0, astigmatism) / 2
    u, v, angle = (round(x, 2) for x in (mean + half_difference, mean - half_difference, rng.uniform(0.0, 180.0)))
    return CTFParameters(u, v, angle, phase_shift)


_FIT_COLUMNS = ("rlnOpticsGroup", "rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle", "rlnPhaseShift")
_MICROGRAPH_COLUMNS = ("rlnMicrographName", "rlnMicrographNameEven", "rlnMicrographNameOdd", *_FIT_COLUMNS)
_PARTICLE_COLUMNS = (
    *("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"),
    *("rlnOriginXAngst", "rlnOriginYAngst", *_FIT_COLUMNS),
)
_OPTICS_COLUMNS = (
    *("rlnOpticsGroupName", "rlnOpticsGroup", "rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"),
    *("rlnMicrographOriginalPixelSize", "rlnMicrographPixelSize"),
)
_BOXED_OPTICS_COLUMNS = (*_OPTICS_COLUMNS[:-1], "rlnImagePixelSize", "rlnImageDimensionality", "rlnImageSize")

_Table = tuple[str, Sequence[str], Sequence[Sequence[object]]]


def _box(atoms: Atoms, pixel_size: float) -> int:
    """Return the side, in pixels, of a box with room around a particle."""
    return 2 * round(1.5 * radius(atoms) / pixel_size)


def _write_star(path: Path, *tables: _Table) -> Path:
    """Write tables of (name, labels, rows) as RELION 3.1 does."""
    with atomic_write(path) as stream:
        stream.write(star_text(*tables, float_format="%.6f").encode())
    return path


def _check(
    micrographs: int,
    size: tuple[int, int],
    pixel_size: float,
    seed: int,
    particles: int | None,
    dose: float,
    voltage: float,
    defocus: tuple[float, float],
    astigmatism: float,
    ice_gradient: float,
    thickness: float,
    detector: str,
    contrast: float,
) -> None:
    """Raise UsageError, naming the option, where a number is out of range."""
    low, high = defocus
    for name, value, valid, expected in (
        ("number of micrographs", micrographs, micrographs >= 1, "at least 1"),
        ("size", f"{size[1]}x{size[0]}", min(size) >= SMALLEST_SIDE, f"at least {SMALLEST_SIDE} pixels a side"),
        ("pixel size", pixel_size, 0.1 <= pixel_size <= 20, "0.1 to 20 Å"),
        ("seed", seed, seed >= 0, "0 or more"),
        ("number of particles", particles, particles is None or particles >= 0, "0 or more"),
        ("dose", dose, 0 < dose < np.inf, "more than 0 electrons per Å²"),
        ("voltage", voltage, 10 <= voltage <= 3000, "10 to 3000 kV"),
        (
            "defocus range",
            defocus,
            -np.inf < low <= high < np.inf,
            "the lowest first, then the highest, in Å",
        ),
        ("astigmatism", astigmatism, 0 <= astigmatism < np.inf, "0 Å or more"),
        ("ice gradient", ice_gradient, 0 <= ice_gradient <= 1, "0 to 1"),
        ("thickness", thickness, 0 <= thickness < np.inf, "0 Å or more"),
        ("detector", detector, detector in DETECTORS, f"one of {', '.join(DETECTORS)}"),
        ("contrast", contrast, 0 <= contrast < np.inf, "0 or more"),
    ):
        if not valid:
            raise UsageError(f"simulate: the {name} is {value}, expected {expected}")
